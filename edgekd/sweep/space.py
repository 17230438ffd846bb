"""The space of a search and what it looks for, checked before anything is tried."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

from edgekd import recipe_load
from edgekd.errors import RecipeError, did_you_mean
from edgekd.plugins import load
from edgekd.recipe import Recipe
from edgekd.recipe_search import Range, SearchSpec
from edgekd.tasks.base import Task

Values = dict[str, Any]  # recipe key -> value


def check_space(recipe: Recipe, search: SearchSpec, where: str) -> None:
    """Raises RecipeError for a key that the recipe does not have, or a value that it cannot take.

    A loss's parameter must stand in the recipe before it can be searched: only the loss itself
    knows its defaults.
    """
    tree = recipe.model_dump(mode="json", by_alias=True)
    for key in search.space:
        _check_key(tree, key, f"{where}: search.space: {key}")
    apply(recipe, search.settings, f"{where}: search.settings")
    for key, span in search.space.items():
        for value in ends(span):
            apply(recipe, {key: value}, f"{where}: search.space")
        between = inside(span)
        if between is not None:
            try:
                apply(recipe, {key: between}, f"{where}: search.space")
            except RecipeError as error:
                raise RecipeError(
                    error.message, hint="add `integer: true` to the range, or list `values`"
                ) from None


def objective(recipe: Recipe) -> tuple[str, str]:
    """The score that is searched for and its direction."""
    assert recipe.search is not None
    cls = load("tasks", recipe.task.name, Task)  # type: ignore[type-abstract]
    name = recipe.search.score or recipe.task.primary or cls.default_primary
    known = cls(classes=("a", "b")).metrics()
    if name not in known:
        raise RecipeError(f"search.score: '{name}' is not a score of task '{recipe.task.name}'",
                          hint=did_you_mean(name, known))  # fmt: skip
    return name, known[name].direction


def apply(recipe: Recipe, values: Mapping[str, Any], where: str) -> Recipe:
    """The recipe with some keys set. Raises RecipeError that names the key."""
    tree = recipe.model_dump(mode="json", by_alias=True)
    for key, value in values.items():
        recipe_load.set_key(tree, key, value, where)
    return recipe_load.validate(tree, where)


def ends(span: Range) -> list[Any]:
    """The values of a list, or the two ends of a range."""
    if span.values is not None:
        return list(span.values)
    return [_number(span, span.low), _number(span, span.high)]


def inside(span: Range) -> float | None:
    """A value between the ends of a range of real numbers."""
    if span.values is not None or span.integer or span.low is None or span.high is None:
        return None
    return span.low + (span.step or 0.381966 * (span.high - span.low))


def combinations(search: SearchSpec) -> Iterator[Values]:
    """Every point of a grid, the last key changing fastest."""
    axes = [list(steps(span)) for span in search.space.values()]
    for point in itertools.product(*axes):
        yield dict(zip(search.space, point, strict=True))


def steps(span: Range) -> Iterator[Any]:
    """The values of a list, or of a range with a `step`."""
    if span.values is not None:
        yield from span.values
        return
    assert span.low is not None
    assert span.high is not None
    assert span.step is not None
    for index in range(math.floor((span.high - span.low) / span.step + 1e-9) + 1):
        yield _number(span, span.low + index * span.step)


def _number(span: Range, value: float | None) -> float | int:
    assert value is not None
    return round(value) if span.integer else value


def _check_key(tree: Any, key: str, where: str) -> None:
    here = tree
    parts = key.split(".")
    for depth, part in enumerate(parts):
        if not isinstance(here, dict) or part not in here:
            known = here if isinstance(here, dict) else {}
            place = ".".join(parts[:depth]) or "the recipe"
            raise RecipeError(
                f"{where}: {place} has no key '{part}'",
                hint="write the parameter into the recipe first; " + did_you_mean(part, known)
                if "params" in parts[:depth]
                else did_you_mean(part, known),
            )
        here = here[part]
    if isinstance(here, (dict, list)):
        raise RecipeError(f"{where}: a search sets single values, this is a {type(here).__name__}")
