"""What a data source is: it lists and decodes, nothing else (splits, resizing and loading are
other files). Torch-free, so that the device scores with the very same images."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgekd.data._digests import digests_of
from edgekd.errors import DataError

Image = npt.NDArray[np.uint8]  # (H, W, 3), RGB
Mask = npt.NDArray[np.uint8]  # (H, W), a class per pixel
Labels = npt.NDArray[np.int8]  # (N, C)
UNLABELLED = -1
UNKNOWN_PIXEL = 255  # in a mask


@dataclass(frozen=True)
class Sample:
    """One decoded image."""

    image: Image
    target: int  # class index; UNLABELLED where the source has no label
    id: str  # unique in the source
    group: str  # patient, lesion or slide; the id itself where nothing is known


class DataSource(ABC):
    """A data set in the layout in which it is downloaded.

    Keyword-only constructor arguments are the keys of the recipe's `data.params`.
    """

    classes: tuple[str, ...]  # in index order; for grading in order of severity
    left_out: tuple[str, ...] = ()  # classes that it knows of, and leaves out for want of images
    root: Path | None = None
    has_masks = False  # a class per pixel, besides one target per image
    has_labels = False  # several classes or none per image, besides one target per image

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """Decode one image. Raises DataError that names the file."""

    @abstractmethod
    def targets(self) -> npt.NDArray[np.int64]:
        """All targets (N,) without decoding an image.

        Where there are masks or labels they count `kinds`: images of each are spread evenly.
        """

    @abstractmethod
    def ids(self) -> Sequence[str]:
        """All ids, in order."""

    @abstractmethod
    def groups(self) -> Sequence[str]:
        """All groups, in order."""

    def kinds(self) -> Sequence[str]:
        """The names of what `targets` counts."""
        return self.classes

    def labels(self) -> Labels:
        """Which classes each image shows (N, C): 1, 0, or -1 where that is not known.

        Raises DataError for data with one class per image.
        """
        raise DataError(f"{type(self).__name__} has one class per image, no labels")

    def mask(self, index: int) -> Mask:
        """The class of every pixel of one image (H, W), 255 where unknown.

        With one class 1 stands for it and 0 for background; else the classes' own numbers. The
        sides may be a multiple of the image's. Raises DataError that names the file, also for data
        without masks.
        """
        raise DataError(f"{type(self).__name__} has no masks")

    def mask_files(self) -> Sequence[Path] | None:
        """The mask file of each sample, if each has one."""
        return None

    def parts(self) -> Sequence[str] | None:
        """The split that comes with the data (`train`, `val`, `test` per image), if any."""
        return None

    def files(self) -> Sequence[Path] | None:
        """The image file of each sample, if each has one of its own."""
        return None

    def attributes(self) -> dict[str, Sequence[str]]:
        """Facts per image for subgroup scores (age, sex, site), if the data has them."""
        return {}

    def caveats(self) -> list[str]:
        """What must be said beside every figure of this data; of most nothing."""
        return []

    def fingerprint(self) -> str:
        """A hash that changes when any label, group or image file changes.

        Files enter with their bytes, so that a copy of a data set is the same data set: on
        another machine nothing is trained anew. Raises DataError for a file that is not readable.
        """
        digest = hashlib.sha256(repr(self.classes).encode())
        digest.update(self.targets().tobytes())
        if self.has_labels:
            digest.update(self.labels().tobytes())
        for column in (self.ids(), self.groups(), self.parts() or ()):
            digest.update("\0".join(column).encode())
        digest.update(b"".join(digests_of([*(self.files() or ()), *(self.mask_files() or ())])))
        return digest.hexdigest()
