"""A data source held in memory, for tests of what works on any source."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgekd.data.base import DataSource, Image, Sample


class Plain(DataSource):
    """Columns as given; images are drawn from the index unless given."""

    def __init__(
        self,
        targets: Sequence[int],
        *,
        ids: Sequence[str] | None = None,
        groups: Sequence[str] | None = None,
        parts: Sequence[str] | None = None,
        images: Sequence[Image] | None = None,
        classes: int | None = None,
    ) -> None:
        self._targets = np.array(targets, dtype=np.int64)
        self._ids = list(ids or [f"i{index}" for index in range(len(targets))])
        self._groups = self._ids if groups is None else list(groups)
        self._parts = parts
        self._images = images
        self.classes = tuple(f"c{index}" for index in range(classes or max(targets) + 1))

    def __len__(self) -> int:
        return len(self._targets)

    def __getitem__(self, index: int) -> Sample:
        if self._images is not None:
            image = self._images[index]
        else:
            random = np.random.default_rng(index)
            image = random.integers(0, 255, (12, 16, 3), dtype=np.uint8)
        return Sample(image, int(self._targets[index]), self._ids[index], self._groups[index])

    def targets(self) -> npt.NDArray[np.int64]:
        return np.asarray(self._targets)

    def ids(self) -> Sequence[str]:
        return self._ids

    def groups(self) -> Sequence[str]:
        return self._groups

    def parts(self) -> Sequence[str] | None:
        return self._parts
