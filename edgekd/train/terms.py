"""The terms of a stage by the recipe's names."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import nn

from edgekd.errors import EdgekdError, RecipeError
from edgekd.losses.base import Loss
from edgekd.plugins import check_arguments, load
from edgekd.recipe import StageSpec

TERM = "term_"  # before the names of terms, some of which nn.ModuleDict would refuse (`type`)


def build_terms(stage: StageSpec, where: str, folders: Sequence[Path], task: str) -> nn.ModuleDict:
    """Make the loss of every term of a stage.

    Raises RecipeError for an unknown loss, a parameter that it does not take, or a task that it
    is not for.
    """
    terms = nn.ModuleDict()
    for name, term in stage.losses.items():
        place = f"{where}.losses.{name}"
        cls = load("losses", term.loss or name, Loss, folders=folders)
        params = check_arguments(cls, term.params, f"{place}.params")
        if task not in cls.tasks:
            raise RecipeError(f"{place}: loss '{term.loss or name}' is not for task '{task}'")
        if cls.needs_teacher and not term.from_:
            raise RecipeError(f"{place}: this loss needs a teacher", hint="set its `from:`")
        if not cls.needs_teacher and term.from_:
            raise RecipeError(f"{place}: this loss takes no teacher", hint="remove its `from:`")
        try:
            loss = cls(**params)
        except ValueError as error:
            raise RecipeError(f"{place}.params: {error}") from None
        if "_modules" not in vars(loss):
            raise RecipeError(
                f"{place}: '{cls.__name__}.__init__' does not begin with super().__init__()"
            )
        terms[f"{TERM}{name}"] = loss
    return terms


@contextlib.contextmanager
def named(key: str, loss: nn.Module) -> Iterator[None]:
    """Say in which term an error of somebody's loss arose."""
    try:
        yield
    except (EdgekdError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        found = ": ".join([type(error).__name__, *str(error).splitlines()[:1]])
        raise RecipeError(
            f"term '{key}' ({type(loss).__name__}): {found}",
            hint="--debug shows where",
        ) from error
