"""Several classes per image, held in memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekd.data._labels import kinds_of, rarest
from edgekd.data.base import Labels
from tests.data.plain import Plain


class Labelled(Plain):
    """A row of 1 and 0 for each image."""

    has_labels = True

    def __init__(self, labels: Labels, *, groups: Sequence[str] | None = None) -> None:
        super().__init__(rarest(labels).tolist(), groups=groups, classes=labels.shape[1])
        self._labels = labels

    def labels(self) -> Labels:
        return self._labels

    def kinds(self) -> Sequence[str]:
        return kinds_of(self.classes)


def drawn(rows: int = 400, seed: int = 0, shares: Sequence[float] = (0.4, 0.2, 0.05)) -> Labels:
    random = np.random.default_rng(seed)
    return (random.random((rows, len(shares))) < np.asarray(shares)).astype(np.int8)
