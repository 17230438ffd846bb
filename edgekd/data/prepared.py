"""A copy of a data set with every image resized once: what training reads fast.

    <folder>/pixels.bin       uint8 RGB, one image after another
             index.npy        (N, 4): index in the source, offset, height, width
             prepared.json    what it was made from; written last
             hair.csv         where hair was removed: how much of each image it was

The images are what `image.resize` gives, bit for bit, so training is the same with a copy and
without. A copy belongs to one state of one data set: files enter by size and time of change. Since
the code that decodes (a plug-in's, Pillow's) decides about pixels too, a few images are decoded
again and compared whenever a copy is opened. `prepare.py` writes it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from edgekd.data._hair import REMOVED, hairless
from edgekd.data.base import DataSource, Image
from edgekd.errors import DataError
from edgekd.image import resize
from edgekd.recipe_base import Section
from edgekd.recipe_data import DataSpec, InputSpec
from edgekd.recipe_load import digest
from edgekd.rundir import sha256

FORMAT = 1  # raise it when the files or their meaning change
PIXELS, INDEX, RECORD = "pixels.bin", "index.npy", "prepared.json"
HAIR = "hair.csv"
HINT = "edgekd data prepare RECIPE"
REPLAYED = 3  # images that are decoded again when a copy is opened

Indices = npt.NDArray[np.int64]


class Facts(Section):
    """What `prepared.json` says."""

    LATE: ClassVar[tuple[str, ...]] = ("changed",)

    format: int = FORMAT
    data: str  # the recipe's data.name
    root: str | None
    params: str  # a hash of data.params
    fingerprint: str  # of the source
    ids: str  # a hash
    side: int
    fit: str
    changed: str = ""  # what was done to the pixels besides resizing
    images: int
    bytes: int  # of pixels.bin
    index_sha256: str
    pixels_sha256: str


class PreparedImages:
    """The images of a copy by their index in the source, mapped from the disk.

    A pickled one opens the files again. Raises DataError if the folder holds no whole copy.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.facts = read_facts(path)
        self.index = _read_index(path, self.facts)
        self._rows = np.full(int(self.index[:, 0].max()) + 1, -1, dtype=np.int64)
        self._rows[self.index[:, 0]] = np.arange(len(self.index))
        # a plain array over the map: slices of np.memmap itself are slow
        self._pixels: npt.NDArray[np.uint8] = np.memmap(path / PIXELS, np.uint8, "r").view(
            np.ndarray
        )

    def __len__(self) -> int:
        return len(self.index)

    def __contains__(self, index: int) -> bool:
        return 0 <= index < len(self._rows) and bool(self._rows[index] >= 0)

    def __getitem__(self, index: int) -> Image:
        """The resized image uint8 (H, W, 3), not writeable. Raises KeyError if it is not here."""
        if index not in self:
            raise KeyError(index)
        _, offset, height, width = self.index[self._rows[index]].tolist()
        return self._pixels[offset : offset + height * width * 3].reshape(height, width, 3)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.path, self.facts)

    def verify(self) -> None:
        """Read all pixels once. Raises DataError if they are not those that were written."""
        if sha256(self.path / PIXELS) != self.facts.pixels_sha256:
            raise DataError(f"{self.path}: {PIXELS} is not what was written", hint=HINT)


def _reopen(path: Path, facts: Facts) -> PreparedImages:
    """For worker processes. Raises DataError if the folder holds another copy by now."""
    copy = PreparedImages(path)
    if copy.facts != facts:
        raise DataError(f"{path}: replaced by another copy while it was in use")
    return copy


def open_prepared(path: Path, source: DataSource, spec: DataSpec) -> PreparedImages:
    """Open the copy of `source` in `path` for reading.

    Raises DataError if there is none, if it is damaged (by its files' sizes; `verify` reads them),
    or if it was made from another state of the data or for another input size.
    """
    copy = PreparedImages(path)
    facts = copy.facts
    check_changed(path, facts, source)
    if (facts.side, facts.fit) != (side_of(spec.input), spec.input.fit):
        raise stale(path, f"its images have the size {facts.side} ({facts.fit}), the recipe asks "
                           f"for {side_of(spec.input)} ({spec.input.fit})")  # fmt: skip
    if (facts.data, facts.params) != (spec.name, digest(spec.params)):
        raise stale(path, f"made from '{facts.data}' with other data.params or another data.name")
    if facts.ids != hash_of_ids(source):
        raise stale(path, "the data set has other images now")
    if facts.fingerprint != source.fingerprint():
        raise stale(path, "an image file or a label has changed since")
    chosen = np.linspace(0, len(copy) - 1, min(REPLAYED, len(copy))).astype(np.int64)
    for index in copy.index[chosen, 0].tolist():
        if not np.array_equal(copy[index], read_resized(source, index, spec.input)):
            raise stale(path, f"'{source.ids()[index]}' is decoded to other pixels now (another "
                               "Pillow, or another data source)")  # fmt: skip
    return copy


def changed(source: DataSource) -> str:
    """What is done to a source's pixels before anything is resized."""
    return "" if hairless(source) is None else REMOVED


def check_changed(path: Path, facts: Facts, source: DataSource) -> None:
    """Raise DataError for a copy whose images were changed otherwise than the source's."""
    there, wanted = facts.changed, changed(source)
    if there != wanted:
        raise DataError(
            f"{path} is a copy of {_told(there)}, the recipe asks for {_told(wanted)}",
            hint=f"data.remove_hair={'true' if there else 'false'}, or --out FOLDER for a second "
            "copy",
        )


def _told(change: str) -> str:
    return f"images with {change}" if change else "images as they are"


def read_resized(source: DataSource, index: int, spec: InputSpec) -> Image:
    """One image as it stands in a copy. Raises DataError that names what cannot be used."""
    image = np.ascontiguousarray(resize(source[index].image, spec))
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise DataError(f"'{source.ids()[index]}' is {image.dtype} {image.shape}, expected uint8 "
                        "(H, W, 3)")  # fmt: skip
    return image


def read_facts(path: Path) -> Facts:
    """What a copy says it is. Raises DataError where there is none."""
    if not path.is_dir():
        raise DataError(f"{path}: no such folder, expected a prepared copy", hint=HINT)
    try:
        tree = json.loads((path / RECORD).read_text(encoding="utf-8"))
        if tree["format"] != FORMAT:
            raise stale(path, f"it has format {tree['format']}, this edgekd reads {FORMAT}")
        return Facts.model_validate(tree)
    except FileNotFoundError:
        raise DataError(f"{path}: not a prepared copy: no {RECORD}", hint=HINT) from None
    except (OSError, ValueError, TypeError, KeyError, ValidationError):
        raise DataError(f"{path}: {RECORD} is damaged", hint=HINT) from None


def _read_index(path: Path, facts: Facts) -> Indices:
    for name in (INDEX, PIXELS):
        if not (path / name).is_file():
            raise DataError(f"{path}: {name} is missing", hint=HINT)
    size = (path / PIXELS).stat().st_size
    if size != facts.bytes:
        raise DataError(f"{path}: {PIXELS} has {size} bytes, expected {facts.bytes}", hint=HINT)
    if sha256(path / INDEX) != facts.index_sha256:
        raise DataError(f"{path}: {INDEX} is not what was written", hint=HINT)
    with (path / INDEX).open("rb") as file:
        index: Indices = np.load(file, allow_pickle=False)
    return index


def stale(path: Path, reason: str) -> DataError:
    """The error for a copy that is whole but not of this data."""
    return DataError(f"{path} is an old copy: {reason}", hint=HINT)


def side_of(spec: InputSpec) -> int:
    """What `image.resize` makes of the shorter side, or of both."""
    return spec.resize or spec.size


def hash_of_ids(source: DataSource) -> str:
    """Changes when an image comes, goes or is renamed."""
    text = "\0".join(source.ids())
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
