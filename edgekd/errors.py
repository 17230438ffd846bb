"""Everything that edgekd tells a user is wrong, as one small tree.

    EdgekdError                 exit 2   usage
    |-- RecipeError             exit 2   a key, a value or a name in a recipe
    |-- DataError               exit 2   a data set, an image, a split
    |-- CheckpointError         exit 2   weights that do not fit or cannot be read
    |-- BundleError             exit 2   a bundle or model file that is damaged or not ours
    |-- TrainingDiverged        exit 2   a loss term became NaN or infinite
    |-- GateFailed              exit 3   a conversion lost accuracy, or it could not be shown
    `-- MissingOnHost           exit 4   a package, device or resource this machine lacks

A message names the thing, what was found and what was expected; the hint is a thing to do,
where possible a command to type. Anything else that escapes is a bug and exits with 1.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EdgekdError(Exception):
    """A problem that the user can mend; shown without a traceback."""

    exit_code = 2

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class RecipeError(EdgekdError):
    """The recipe, or an override of it, cannot be run."""


class DataError(EdgekdError):
    """The data set on disk is not what its loader expects."""


class CheckpointError(EdgekdError):
    """A weights file is missing, unreadable or of another architecture."""


class BundleError(EdgekdError):
    """A bundle or a model file is incomplete, altered or not one of ours."""


class TrainingDiverged(EdgekdError):
    """A loss term became NaN or infinite."""


class GateFailed(EdgekdError):
    """An artifact was refused, or the evidence does not suffice to pass it."""

    exit_code = 3


class MissingOnHost(EdgekdError):
    """This machine lacks a package, a device or a resource that was asked for."""

    exit_code = 4


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `did you mean 'x'?` for the closest known name, else the list of known names."""
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return "known: " + (", ".join(names) if names else "none")
