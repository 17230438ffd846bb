"""Coordinate search: one key after the other, the others at the best values found so far.

Where the next trials are is a function of what the finished ones say, so that a search goes on
wherever it was interrupted, and several processes agree on it without a word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekd.recipe import Recipe
from edgekd.recipe_search import SearchSpec
from edgekd.sweep.space import Values, steps

Axes = Mapping[str, Sequence[object]]
Point = tuple[object, ...]  # a value of every key, in the keys' order


@dataclass(frozen=True)
class Outlook:
    """What a coordinate search has before it."""

    todo: list[Values]  # what may be tried now, in order
    left: int  # how many trials are not finished, of this key and of all after it
    best: Values  # where it stands


def axes_of(search: SearchSpec) -> dict[str, list[object]]:
    """The values of every key."""
    return {key: list(steps(span)) for key, span in search.space.items()}


def start_of(recipe: Recipe, axes: Axes) -> Values:
    """Where the search begins: the recipe's own values, the first of a list without it."""
    tree = recipe.model_dump(mode="json", by_alias=True)
    found: Values = {}
    for key, values in axes.items():
        here = tree
        for part in key.split("."):
            here = here[part]
        same = [value for value in values if _is_same(value, here)]
        found[key] = (same or values)[0]
    return found


def count(axes: Axes) -> int:
    """How many trials it makes: from the second key on one of the values has been tried before."""
    lengths = [len(values) for values in axes.values()]
    return sum(lengths) - (len(lengths) - 1)


def look(search: SearchSpec, recipe: Recipe, trials: Sequence[Any], *, higher: bool) -> Outlook:
    """The outlook after some trials of Optuna; of two alike one that did not fail counts."""
    axes = axes_of(search)
    scores: dict[Point, float | None] = {}
    begun = set()
    for trial in trials:
        place = point(axes, trial.params)
        if not trial.state.is_finished():
            begun.add(place)
        elif scores.get(place) is None:
            value = trial.value
            scores[place] = None if value is None else value if higher else -value
    return outlook(axes, start_of(recipe, axes), scores, begun)


def outlook(axes: Axes, start: Values, scores: Mapping[Point, float | None], open_: set[Point],
            ) -> Outlook:  # fmt: skip
    """Where to go from here.

    `scores` are those of the finished trials, more is better, None for one that failed; `open_` are
    begun. A value replaces the best so far only if it is better, so the order of the values does
    not matter but for ties. A key whose trials all failed stays where it was.
    """
    best = dict(start)
    keys = list(axes)
    for number, key in enumerate(keys):
        line = [{**best, key: value} for value in axes[key]]
        unfinished = [values for values in line if point(axes, values) not in scores]
        if unfinished:
            todo = [values for values in unfinished if point(axes, values) not in open_]
            later = sum(len(axes[other]) - 1 for other in keys[number + 1 :])
            return Outlook(todo, len(unfinished) + later, best)
        known = scores[point(axes, best)]
        for values in line:
            score = scores[point(axes, values)]
            if score is not None and (known is None or score > known):
                best, known = values, score
    return Outlook([], 0, best)


def point(axes: Axes, values: Values) -> Point:
    """Values as a key of a mapping; of 1, 1.0 and True the last is another."""
    return tuple((isinstance(values[key], bool), values[key]) for key in axes)


def _is_same(first: object, second: object) -> bool:
    return first == second and isinstance(first, bool) == isinstance(second, bool)
