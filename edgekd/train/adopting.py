"""Adapters that one stage has trained and a term of a later stage takes over."""

from __future__ import annotations

from collections.abc import Mapping

from safetensors.torch import load_file
from torch import Tensor

from edgekd.errors import RecipeError, did_you_mean
from edgekd.recipe import Recipe
from edgekd.rundir import RunDir
from edgekd.train.distiller import Distiller

State = dict[str, Tensor]


def adopt(distiller: Distiller, kept: Mapping[str, State]) -> None:
    """Give every term that asks for it the adapters of an earlier term, by STAGE.TERM.

    Raises RecipeError that names a term which asks for what is not there.
    """
    for key, term in distiller.adopting().items():
        wanted = str(term.adopts)
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
