"""Which images of a stage's classes are drawn: class by class, or those of some classes only."""

from __future__ import annotations

from itertools import cycle, islice

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def class_aware(table: Bools, generator: np.random.Generator) -> Indices:
    """One class after the other draws its next image: rows of `table`, as many as it has (M,).

    `table` (M, C) says which classes each image shows; every class has an image. The classes are
    in a random order, which stays; a class whose images are used up starts over in another order.
    So all classes draw equally often (give or take one), and an image of several classes may be
    drawn for each of them. As the samplers of OLTR (CVPR 2019) and of DB loss (ECCV 2020) do it,
    whose epochs are longer: as many images as the largest class has, times the classes (by a
    quarter, with three images at a time). Here an epoch costs what it costs without.
    """
    images = [_endless(np.flatnonzero(column), generator) for column in table.T]
    order = cycle(generator.permutation(len(images)))
    return np.array([next(images[c]) for c in islice(order, len(table))], dtype=np.int64)


def _endless(members: Indices, generator: np.random.Generator):  # type: ignore[no-untyped-def]
    while True:
        yield from generator.permutation(members)


def having(
    shown: npt.NDArray[np.int8], indices: Indices, negatives: float | None, seed: int
) -> Indices:
    """Those of `indices` that show one of some classes, and others as `negatives` says, sorted.

    `shown` (N, K) are the labels of these classes. `negatives` is how many of the others are drawn
    for one that shows any; None draws none, or as many where a class would have no image without
    it (all that are left then show it).
    """
    own = shown[indices] == 1
    shows_any = own.any(axis=1)
    kept = indices[shows_any]
    if negatives is None:
        negatives = 1.0 if own[shows_any].all(axis=0).any() else 0.0
    others = indices[~shows_any]
    count = min(len(others), round(negatives * len(kept)))
    drawn = np.random.default_rng(seed).choice(others, size=count, replace=False)
    return np.asarray(np.sort(np.concatenate([kept, drawn])))
