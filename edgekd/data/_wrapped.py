"""A data source around another: all as in the inner one, until a subclass says otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgekd.data.base import DataSource, Labels, Mask, Sample


class Wrapped(DataSource):
    """The images, targets and facts of `inner`."""

    def __init__(self, inner: DataSource) -> None:
        self.inner = inner
        self.classes = inner.classes
        self.root = inner.root
        self.has_masks = inner.has_masks
        self.has_labels = inner.has_labels

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> Sample:
        return self.inner[index]

    def targets(self) -> npt.NDArray[np.int64]:
        """All targets (N,)."""
        return self.inner.targets()

    def ids(self) -> Sequence[str]:
        """All ids, in order."""
        return self.inner.ids()

    def groups(self) -> Sequence[str]:
        """All groups, in order."""
        return self.inner.groups()

    def kinds(self) -> Sequence[str]:
        """The names of what `targets` counts."""
        return self.inner.kinds()

    def labels(self) -> Labels:
        """Which classes each image shows (N, C)."""
        return self.inner.labels()

    def mask(self, index: int) -> Mask:
        """The class of every pixel of one image (H, W)."""
        return self.inner.mask(index)

    def mask_files(self) -> Sequence[Path] | None:
        """The mask file of each sample, if each has one."""
        return self.inner.mask_files()

    def parts(self) -> Sequence[str] | None:
        """The split that comes with the data, if any."""
        return self.inner.parts()

    def files(self) -> Sequence[Path] | None:
        """The image file of each sample, if each has one of its own."""
        return self.inner.files()

    def attributes(self) -> dict[str, Sequence[str]]:
        """Facts per image for subgroup scores."""
        return self.inner.attributes()

    def caveats(self) -> list[str]:
        """What must be said beside every figure of this data."""
        return self.inner.caveats()

    def fingerprint(self) -> str:
        """That of the inner source: what a subclass changes must enter its own."""
        return self.inner.fingerprint()


def chain(source: DataSource) -> Iterator[DataSource]:
    """A source, the one that it wraps, and so on to the one that reads files."""
    yield source
    while isinstance(source, Wrapped):
        source = source.inner
        yield source
