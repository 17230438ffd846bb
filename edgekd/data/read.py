"""From a recipe's `data:` to images: find the source, keep resized images in memory."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd import plugins
from edgekd.data._masks import checked_mask
from edgekd.data.base import UNKNOWN_PIXEL, DataSource, Image, Mask
from edgekd.data.prepared import HINT, PreparedImages, open_prepared
from edgekd.data.protocol import as_asked
from edgekd.errors import DataError, RecipeError
from edgekd.image import center_crop, resize, resize_to, resized_shape, to_square
from edgekd.log import warn
from edgekd.recipe_data import DataSpec, InputSpec

MOST_BYTES = 2 << 30


def open_source(spec: DataSpec, plugin_folders: Sequence[Path] = ()) -> DataSource:
    """Find the data source that the recipe names and open it.

    A source that reads files has a constructor parameter `root`; it is given `data.root`. What the
    recipe asks for besides (no hair, copies of images) is done to its images as they are read.
    Raises RecipeError for an unknown name or parameter, DataError for a root that is not there.
    """
    cls = plugins.load("data", spec.name, DataSource, folders=plugin_folders)  # type: ignore[type-abstract]
    arguments: dict[str, Any] = dict(spec.params)
    if "root" in arguments:
        raise RecipeError("data.params.root: write it as data.root")
    root = inspect.signature(cls).parameters.get("root")
    if root is None:
        if spec.root is not None:
            raise RecipeError(
                f"data.root: '{spec.name}' reads no files, got '{spec.root}'",
                hint="leave data.root out",
            )
    elif spec.root is not None:
        folder = Path(spec.root).expanduser()
        if not folder.exists():
            raise DataError(f"data.root: no such file or folder: {folder}", hint="data.root=FOLDER")
        arguments["root"] = folder
    elif root.default is inspect.Parameter.empty:
        raise DataError(
            f"data.root: '{spec.name}' needs the folder of its files", hint="data.root=FOLDER"
        )
    return as_asked(cls(**plugins.check_arguments(cls, arguments, "data.params")), spec)


class ImageStore:
    """Images by index, resized to `spec.resize` but not cropped: uint8 (R, R', 3).

    Images that are in the `prepared` copy come from there, and the system keeps in memory what it
    has room for. Of the others, what has been decoded is kept while it fits into `budget` bytes (by
    default 2 GiB, at most a quarter of the free memory); the rest is decoded again each time. A
    pickled store starts empty, so worker processes that are forked after `fill()` share what it
    kept.
    """

    def __init__(
        self,
        source: DataSource,
        spec: InputSpec,
        indices: Iterable[int] | None = None,
        *,
        budget: int | None = None,
        prepared: PreparedImages | None = None,
    ) -> None:
        self.source = source
        self.spec = spec
        self.indices = list(range(len(source)) if indices is None else map(int, indices))
        self.budget = _free_bytes() if budget is None else budget
        self.prepared = prepared
        self._kept: dict[int, Image] = {}
        self._masks: dict[int, Mask] = {}
        self._used = 0

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Image:
        """The image at `index` of the source. Raises DataError that names an unreadable file.

        It may be shared: do not write into it.
        """
        index = int(index)
        if self.prepared is not None and index in self.prepared:
            return self.prepared[index]
        found = self._kept.get(index)
        if found is None:
            found = np.ascontiguousarray(resize(self.source[index].image, self.spec))
            if self._used + found.nbytes <= self.budget:
                found.flags.writeable = False
                self._kept[index] = found
                self._used += found.nbytes
        return found

    def mask(self, index: int) -> Mask:
        """The mask that belongs to `self[index]`, resized as it is: uint8 (R, R')."""
        index = int(index)
        found = self._masks.get(index)
        if found is None:
            height, width = self[index].shape[:2]
            mask = checked_mask(self.source, index)
            found = np.ascontiguousarray(resize_to(mask, height, width))
            if self._used + found.nbytes <= self.budget:
                found.flags.writeable = False
                self._masks[index] = found
                self._used += found.nbytes
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {}, "_masks": {}, "_used": 0}

    def fill(self, progress: Callable[[], object] | None = None) -> None:
        """Decode every image that is not prepared once now; `progress` is called after each.

        Masks too, where there are any. Stops early, without harm, where the budget is used up.
        """
        for index in self.indices:
            is_prepared = self.prepared is not None and index in self.prepared
            if not is_prepared and self._used + self[index].nbytes > self.budget:
                return
            if self.source.has_masks and self._used + self.mask(index).nbytes > self.budget:
                return
            if progress is not None:
                progress()


def open_store(source: DataSource, spec: DataSpec, indices: Iterable[int]) -> ImageStore:
    """The images that a recipe trains and scores with, from its prepared copy if it names one.

    `indices` are those that will be used; a warning says how many of them are not in the copy.
    Raises DataError for a copy that is not there, damaged or not of this data and input size.
    """
    if spec.prepared is None:
        return ImageStore(source, spec.input)
    try:
        prepared = open_prepared(Path(spec.prepared).expanduser(), source, spec)
    except DataError as error:
        raise DataError(f"data.prepared: {error.message}", hint=error.hint) from None
    missing = sum(int(index) not in prepared for index in indices)
    if missing:
        warn(f"{spec.prepared}: {missing} images are not in the copy, they are decoded: {HINT}")
    return ImageStore(source, spec.input, prepared=prepared)


def read_squares(
    source: DataSource,
    indices: Sequence[int] | npt.NDArray[np.int64],
    spec: InputSpec,
    progress: Callable[[], object] | None = None,
) -> npt.NDArray[np.uint8]:
    """The images as the network sees them when evaluated: uint8 (N, size, size, 3).

    `progress` is called after each image. Raises DataError that names an unreadable file.
    """
    squares = np.empty((len(indices), spec.size, spec.size, 3), dtype=np.uint8)
    for place, index in enumerate(indices):
        squares[place] = to_square(source[int(index)].image, spec)
        if progress is not None:
            progress()
    return squares


def read_truth(
    source: DataSource,
    indices: Sequence[int] | npt.NDArray[np.int64],
    spec: InputSpec,
    *,
    masks: bool,
) -> npt.NDArray[Any]:
    """What a network's answers are held against: targets (N,), or labels (N, C) of int8.

    With `masks` they are (N, size, size) of int8, seen as the network sees the images; -1 where a
    pixel's class is unknown. Raises DataError that names an unreadable file, or a mask with a value
    of no class.
    """
    if not masks:
        return (source.labels() if source.has_labels else source.targets())[indices]
    truth = np.empty((len(indices), spec.size, spec.size), dtype=np.int8)
    for place, index in enumerate(indices):
        mask = checked_mask(source, int(index))
        # by the image's own sides: those of a larger mask round to others
        shown = mask if spec.fit == "stretch" else source[int(index)].image
        mask = resize_to(mask, *resized_shape((shown.shape[0], shown.shape[1]), spec))
        truth[place] = labels_of(center_crop(mask, spec.size))
    return truth


def labels_of(mask: Mask) -> npt.NDArray[np.int8]:
    """A mask's classes with -1 for pixels that are unknown."""
    # in a type that holds both: into uint8 NumPy would wrap the -1, or refuse it
    return np.where(mask == UNKNOWN_PIXEL, np.int16(-1), mask).astype(np.int8)


def _free_bytes() -> int:
    import psutil

    return min(MOST_BYTES, int(psutil.virtual_memory().available) // 4)
