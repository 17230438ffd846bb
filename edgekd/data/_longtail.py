"""Frequent and rare classes: head, medium and tail by the number of training images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekd.errors import RecipeError

GROUPS = ("head", "medium", "tail")


def groups_of(counts: Sequence[int], head: int = 100, tail: int = 20) -> tuple[str, ...]:
    """`head`, `medium` or `tail` for each class, by its number of training images.

    Head classes have `head` images or more, tail classes fewer than `tail`: many, medium and few
    shots of Liu et al., Large-Scale Long-Tailed Recognition in an Open World (OLTR), CVPR 2019,
    which says more than 100 and fewer than 20; here 100 itself is head. A group may stay empty.

    Raises RecipeError where a class could be in both.
    """
    if not 0 <= tail <= head:
        raise RecipeError(f"head is from {head} images on and tail below {tail}, expected tail to "
                          "be at most head and not negative")  # fmt: skip
    return tuple(
        "head" if count >= head else "tail" if count < tail else "medium" for count in counts
    )


def terciles(counts: Sequence[int]) -> tuple[str, ...]:
    """`head`, `medium` or `tail` for each class, a third of the classes each, by rank.

    For data in which no class is rare by number, or all are. Where the thirds cannot be equal, the
    more frequent ones are larger by one; of equally frequent classes the first ranks higher.
    """
    order = np.argsort(-np.asarray(counts, dtype=np.int64), kind="stable")
    found = np.empty(len(order), dtype="<U6")
    for name, members in zip(GROUPS, np.array_split(order, len(GROUPS)), strict=True):
        found[members] = name
    return tuple(str(name) for name in found)
