"""What a split must not be: empty, without a class to train on, with a patient in two parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgekd.data._labels import membership
from edgekd.data.base import DataSource
from edgekd.errors import DataError

if TYPE_CHECKING:
    from edgekd.data.splits import Split


def check_split(source: DataSource, split: Split) -> None:
    """Raise DataError for the first thing that `split_problems` finds."""
    refuse(split_problems(source, split))


def refuse(problems: Sequence[str]) -> None:
    """Raise DataError for the first of some problems."""
    for problem in problems:
        raise DataError(problem, hint="edgekd data check RECIPE shows the whole data set")


def split_problems(source: DataSource, split: Split) -> list[str]:
    """What must not be: an empty part, a class without training images, a group in two parts."""
    return [*empty_problems(source, split), *crossing_problems(source, split)]


def empty_problems(source: DataSource, split: Split) -> list[str]:
    """An empty part, a class without training images."""
    problems = [f"the {part} part is empty" for part, part_of in split.items() if not len(part_of)]
    table = membership(source)
    kinds = source.classes if source.has_labels else source.kinds()
    counts = {part: table[indices].sum(axis=0) for part, indices in split.items()}
    for index, name in enumerate(kinds):
        elsewhere = {part: int(counts[part][index]) for part in ("val", "test")}
        if counts["train"][index] == 0:
            seen = " and ".join(f"{n} in {part}" for part, n in elsewhere.items() if n)
            problems.append(
                f"class '{name}' has no training image" + (f", but {seen}" if seen else "")
            )
    return problems


def crossing_problems(source: DataSource, split: Split) -> list[str]:
    """A group in two parts."""
    groups = np.asarray(source.groups())
    home: dict[str, str] = {}
    crossing: dict[str, str] = {}
    for part, indices in split.items():
        for group in np.unique(groups[indices]):
            if home.setdefault(group, part) != part:
                crossing.setdefault(str(group), f"{home[group]} and {part}")
    if not crossing:
        return []
    first, where = next(iter(crossing.items()))
    return [
        f"{len(crossing)} groups (patients, lesions) are in more than one part; the first is "
        f"'{first}', in {where}"
    ]
