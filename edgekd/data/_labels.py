"""Several classes per image, or none: one number per image where one is needed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgekd.data.base import UNLABELLED, DataSource, Labels

NONE = "none"  # the kind of an image that shows no class


def rarest(labels: Labels) -> npt.NDArray[np.int64]:
    """The rarest of the classes that each image shows (N,), C where it shows none.

    By it images are told apart where one class each is asked for: so that the rarest are spread
    evenly. UNLABELLED where no class of the image is known. Of equally rare classes the first.
    """
    shown = labels == 1
    counts = shown.sum(axis=0)
    order = np.argsort(counts, kind="stable")
    kind = np.full(len(labels), labels.shape[1], dtype=np.int64)
    for index in order[::-1]:  # the rarest last: it decides
        kind[shown[:, index]] = index
    kind[(labels < 0).all(axis=1)] = UNLABELLED
    return kind


def kinds_of(classes: Sequence[str]) -> tuple[str, ...]:
    """The names of what `rarest` counts."""
    return (*classes, NONE)


def membership(source: DataSource) -> npt.NDArray[np.bool_]:
    """What each image shows (N, K), by `source.kinds()`: one of them, or with labels several."""
    targets = source.targets()
    kinds = np.arange(len(source.kinds()))
    table = targets[:, None] == kinds
    if source.has_labels:
        table[:, :-1] = source.labels() == 1
    return np.asarray(table)


def texts(source: DataSource) -> list[str]:
    """Each image's label in words that change when any part of it does; empty where unknown."""
    kinds, targets = source.kinds(), source.targets()
    if not source.has_labels:
        return ["" if target == UNLABELLED else kinds[target] for target in targets]
    found = []
    for row in source.labels():
        shown = [kinds[index] for index in np.flatnonzero(row == 1).tolist()]
        if (row < 0).all():
            found.append("")
            continue
        unknown = [f"?{kinds[index]}" for index in np.flatnonzero(row < 0).tolist()]
        found.append("+".join([*(shown or [NONE]), *unknown]))
    return found
