"""A data source with transformed copies of the images of rare classes, as files would be."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgekd.data._randaugment import transformed
from edgekd.data._rebalance import SHARE, topped_up
from edgekd.data._wrapped import Wrapped
from edgekd.data.base import DataSource, Sample
from edgekd.errors import RecipeError

FORMAT = 1  # raise it when other copies are made


class Copied(Wrapped):
    """All images, then the copies that bring every class to half of the largest class's count.

    A copy is in the group of its original and is named after it (`ISIC_0000000+copy1`). For
    protocols that make copies before they split; elsewhere `balance: augment` makes them of
    training images only. Raises RecipeError for data with masks, which copies would not fit.
    """

    def __init__(self, inner: DataSource, *, seed: int) -> None:
        if inner.has_masks:
            raise RecipeError("copies of images cannot have masks: take data without masks",
                              hint="data.split=8-1-1")  # fmt: skip
        super().__init__(inner)
        self.seed = seed
        count = len(inner)
        shown = topped_up(np.arange(count), inner.targets(), share=SHARE, seed=seed)
        times = np.bincount(shown, minlength=count) - 1
        copies = np.repeat(np.arange(count), times)
        first = np.repeat(np.cumsum(times) - times, times)
        self.originals: npt.NDArray[np.int64] = np.concatenate([np.arange(count), copies])
        self._numbers = np.concatenate(
            [np.zeros(count, dtype=np.int64), np.arange(len(copies)) - first + 1]
        )

    def __len__(self) -> int:
        return len(self.originals)

    def __getitem__(self, index: int) -> Sample:
        original, copy = int(self.originals[index]), int(self._numbers[index])
        sample = self.inner[original]
        if not copy:
            return sample
        image = transformed(sample.image, self.seed, original, copy)
        return replace(sample, image=image, id=_named(sample.id, copy))

    def targets(self) -> npt.NDArray[np.int64]:
        """All targets (N,), a copy's as its original's."""
        return np.asarray(self.inner.targets()[self.originals])

    def labels(self) -> npt.NDArray[np.int8]:
        """Which classes each image shows (N, C)."""
        return np.asarray(self.inner.labels()[self.originals])

    def ids(self) -> Sequence[str]:
        """All ids, those of the copies last."""
        ids = self.inner.ids()
        pairs = zip(self.originals.tolist(), self._numbers.tolist(), strict=True)
        return [_named(ids[original], copy) for original, copy in pairs]

    def groups(self) -> Sequence[str]:
        """All groups, a copy's as its original's."""
        return self._column(self.inner.groups())

    def parts(self) -> Sequence[str] | None:
        """None: whoever makes copies before splitting splits anew."""
        return None

    def files(self) -> Sequence[Path] | None:
        """None: a copy has no file."""
        return None

    def attributes(self) -> dict[str, Sequence[str]]:
        """Facts per image, a copy's as its original's."""
        return {name: self._column(values) for name, values in self.inner.attributes().items()}

    def fingerprint(self) -> str:
        """Changes with the inner source's, and with the copies."""
        digest = hashlib.sha256(f"{FORMAT} {self.seed} {self.inner.fingerprint()}".encode())
        digest.update(self.originals.tobytes())
        return digest.hexdigest()

    def _column(self, values: Sequence[str]) -> list[str]:
        return [values[original] for original in self.originals.tolist()]


def _named(id: str, copy: int) -> str:
    return f"{id}+copy{copy}" if copy else id
