"""What a task learns from the labels of the training images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekd.data._labels import membership
from edgekd.data._longtail import groups_of, terciles
from edgekd.data.base import DataSource
from edgekd.data.splits import Indices
from edgekd.errors import RecipeError, did_you_mean
from edgekd.recipe import Recipe
from edgekd.results import SHOTS, Learned


def learned_of(recipe: Recipe, source: DataSource, train: Indices) -> Learned:
    """Counts, head, medium and tail, and the recipe's class groups.

    Nothing where images are of one class each. Raises RecipeError for a group that names a class
    which the data does not have, or that is empty.
    """
    if not source.has_labels:
        return Learned()
    counts = membership(source)[train][:, : len(source.classes)].sum(axis=0)
    spec = recipe.task.shots
    shots = terciles(counts) if spec == "terciles" else groups_of(counts, spec.head, spec.tail)
    return Learned(
        counts=tuple(int(count) for count in counts),
        shots=tuple(shots),
        groups={
            name: _columns(name, group, source, shots)
            for name, group in recipe.data.class_groups.items()
        },
    )


def _columns(
    name: str, group: Sequence[str], source: DataSource, shots: Sequence[str]
) -> tuple[int, ...]:
    place = f"data.class_groups.{name}"
    if group in SHOTS:
        found = tuple(int(c) for c in np.flatnonzero(np.asarray(shots) == group))
        if not found:
            raise RecipeError(f"{place}: no class has so many training images",
                              hint="task.shots.head=..., .tail=..., or task.shots=terciles"
                              )  # fmt: skip
        return found
    for label in group:
        if label not in source.classes and label not in source.left_out:
            raise RecipeError(f"{place}: there is no class '{label}'",
                              hint=did_you_mean(label, source.classes))  # fmt: skip
    found = tuple(c for c, label in enumerate(source.classes) if label in group)
    if not found:
        raise RecipeError(f"{place}: the data has none of these classes")
    return found
