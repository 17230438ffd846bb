"""Adapters that one stage has trained and a term of a later stage takes over."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file, save
from torch import Tensor, nn

from edgekd.errors import RecipeError, did_you_mean
from edgekd.losses.base import Loss
from edgekd.recipe import Recipe
from edgekd.rundir import RunDir, replace_file
from edgekd.train.checkpoint import plain_state
from edgekd.train.distiller import Distiller
from edgekd.train.terms import TERM

State = dict[str, Tensor]


def kept_terms(distiller: Distiller) -> dict[str, nn.Module]:
    """The terms whose adapters a later stage may take over."""
    terms = {key: distiller.terms[f"{TERM}{key}"] for key in distiller.specs}
    return {key: term for key, term in terms.items() if getattr(term, "is_kept", False)}


def keep_adapters(distiller: Distiller, folder: Path) -> None:
    """Write the adapters of terms that a later stage may take over, `term.<name>.safetensors`."""
    for name, term in kept_terms(distiller).items():
        with replace_file(folder / f"term.{name}.safetensors", "wb") as file:
            file.write(save(plain_state(term)))


def adopt(distiller: Distiller, kept: Mapping[str, State]) -> None:
    """Give every term that asks for it the adapters of an earlier term, by STAGE.TERM.

    Raises RecipeError that names a term which asks for what is not there.
    """
    for key in distiller.specs:
        term = distiller.terms[f"{TERM}{key}"]
        if not isinstance(term, Loss) or term.adopts is None:
            continue
        wanted = term.adopts
        if wanted not in kept:
            raise RecipeError(
                f"{distiller.where}.losses.{key}: '{wanted}' is no term of an earlier stage that "
                "keeps its adapters",
                hint=did_you_mean(wanted, kept) if kept else "there is none",
            )
        term.adopt(kept[wanted])


def kept_by(recipe: Recipe, run: RunDir, stage: str) -> dict[str, State]:
    """What the stages before `stage` have kept, by STAGE.TERM."""
    found: dict[str, State] = {}
    for name, spec in recipe.stages.items():
        if name == stage:
            break
        for term in spec.losses:
            path = run.stage(name) / f"term.{term}.safetensors"
            if path.is_file():
                found[f"{name}.{term}"] = load_file(path)
    return found
