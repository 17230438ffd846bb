"""What a mask says of one picture: areas and a label, in the picture's own size, and as PNG files.

Torch-free, Pillow and numpy only. A network answers for the square that it sees; here the way from
the picture to that square (image.py) is walked back, pixel by pixel, without inventing a border
that is smoother than the network's answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgekd.errors import DataError
from edgekd.image import SUFFIXES, UInt8, decode, resized_shape
from edgekd.recipe_data import InputSpec
from edgekd.rundir import replace_file

BACKGROUND = "background"  # the label of a binary answer that sees nothing
# told apart on skin, on grey and in print; classes beyond the eighth start over
COLOURS = ((0, 229, 255), (255, 176, 0), (255, 64, 160), (140, 255, 60),
           (150, 120, 255), (255, 255, 80), (255, 90, 40), (120, 220, 180))  # fmt: skip
TINT = 4  # a quarter of the colour over the picture
LINE = 300  # the contour is as many pixels wide as this goes into the shorter side


@dataclass(frozen=True)
class MaskAnswer:
    """One picture's mask and what follows from it; fields as of predict.Prediction."""

    mask: UInt8  # (H, W): 0 is background, else the class; the picture's own size
    label: str
    probability: float
    probabilities: dict[str, float]  # by class: the highest of any pixel that the network saw
    areas: dict[str, float]  # by foreground class: share of the picture's pixels
    pixels: dict[str, int]


def answer(
    probabilities: npt.NDArray[Any],
    decision: npt.NDArray[Any],
    classes: Sequence[str],
    shape: tuple[int, int],
    spec: InputSpec,
) -> MaskAnswer:
    """Read one network output: probabilities (K, S, S) and decisions (S, S) of a picture (H, W).

    With one class there is a background besides it; of several, the first is background.
    """
    mask = own_size(decision.astype(np.uint8), shape, spec)
    highest = probabilities.max(axis=(1, 2))
    names = list(classes)
    if len(names) == 1:
        names = [BACKGROUND, *names]
        highest = np.array([1.0 - probabilities.min(), highest[0]])
    # one by one: bincount would make eight bytes of every pixel
    counts = [int(np.count_nonzero(mask == value)) for value in range(len(names))]
    largest = 1 + int(np.argmax(counts[1:]))
    chosen = largest if counts[largest] else 0
    return MaskAnswer(
        mask=mask,
        label=names[chosen],
        probability=float(highest[chosen]),
        probabilities={name: float(highest[i]) for i, name in enumerate(names) if name in classes},
        areas={name: counts[i] / mask.size for i, name in enumerate(names) if i},
        pixels={name: counts[i] for i, name in enumerate(names) if i},
    )


def own_size(mask: UInt8, shape: tuple[int, int], spec: InputSpec) -> UInt8:
    """A mask (S, S) of what the network saw, in the size (H, W) of the picture.

    Each of the picture's pixels takes the class of the one in which its centre came to lie. What
    the centre crop cut off was not seen and is background.
    """
    tall, wide = resized_shape(shape, spec)
    size = mask.shape[0]
    rows = _places(shape[0], tall, size)
    columns = _places(shape[1], wide, size)
    seen_rows, seen_columns = (rows >= 0) & (rows < size), (columns >= 0) & (columns < size)
    out = np.zeros(shape, dtype=np.uint8)
    out[np.ix_(seen_rows, seen_columns)] = mask[np.ix_(rows[seen_rows], columns[seen_columns])]
    return out


def _places(own: int, resized: int, size: int) -> npt.NDArray[np.int64]:
    """Where the pixels of one axis are in the square; outside of 0..size-1 they were cut off.

    In whole numbers: the centre (2 i + 1) / 2 of a pixel must not fall on the other side of an
    edge by rounding.
    """
    centres = 2 * np.arange(own, dtype=np.int64) + 1
    return np.asarray(centres * resized // (2 * own) - (resized - size) // 2)


def overlay(picture: UInt8, mask: UInt8) -> UInt8:
    """The picture (H, W, 3) with a light tint where the mask (H, W) has a class, and its contour.

    Every class has its colour. The contour lies inside of the mask, so nothing beside it is hidden.
    """
    out: UInt8 = picture.copy()
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return out
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    within, drawn = mask[box], out[box]  # a small lesion in a large scan takes little work
    edge = _edge(within, max(1, round(min(mask.shape) / LINE)))
    for value in np.unique(within[within > 0]):
        colour = np.array(COLOURS[(int(value) - 1) % len(COLOURS)], dtype=np.uint16)
        inside = within == value
        tinted = drawn[inside].astype(np.uint16) * (TINT - 1) + colour
        drawn[inside] = (tinted // TINT).astype(np.uint8)
        drawn[inside & edge] = colour.astype(np.uint8)
    return out


def _edge(mask: UInt8, width: int) -> npt.NDArray[np.bool_]:
    """Foreground pixels at most `width` steps from another class, or from the array's edge."""
    inner = mask > 0
    for _ in range(width):
        framed = np.pad(inner, 1)
        alike = np.pad(mask, 1)
        kept = inner.copy()
        for down, right in ((0, 1), (2, 1), (1, 0), (1, 2)):
            there = (slice(down, down + mask.shape[0]), slice(right, right + mask.shape[1]))
            kept &= framed[there] & (alike[there] == mask)
        inner = kept
    return np.asarray((mask > 0) & ~inner)


@dataclass(frozen=True)
class MaskFiles:
    """Where one picture's mask and overlay were written."""

    mask: Path
    overlay: Path


class MaskFolder:
    """The folder that `predict --masks` writes into.

    Pictures of a folder keep their place below it: DIR/deeper/c.png becomes
    MASKS/deeper/c.mask.png and c.overlay.png. Where two pictures would get one name (a.png and
    a.jpg, or the same name from two folders) the later one gets a number: a-2.mask.png.
    """

    def __init__(self, folder: Path, inputs: Sequence[Path]) -> None:
        """Raises DataError for a file, and for a folder in which pictures are looked for.

        Masks there would be taken for pictures the next time.
        """
        if folder.exists() and not folder.is_dir():
            raise DataError(f"--masks {folder} is a file, expected a folder")
        self._roots = [given for given in inputs if given.is_dir()]
        place = folder.resolve()
        for root in self._roots:
            if place.is_relative_to(root.resolve()):
                raise DataError(f"--masks {folder} lies in {root}, where pictures are looked for: "
                                "the masks would be taken for some the next time",
                                hint="name a folder beside it")  # fmt: skip
        self._folder = folder
        self._given = {given.resolve() for given in inputs if given.is_file()}
        self._taken: set[str] = set()  # without regard to case: not all file systems have it
        self._files: dict[Path, MaskFiles] = {}

    def files(self, picture: Path) -> MaskFiles:
        """The two files of a picture; the same again for the same one."""
        found = self._files.get(picture)
        if found is None:
            found = self._files[picture] = self._free(picture)
        return found

    def _free(self, picture: Path) -> MaskFiles:
        root = next((root for root in self._roots if picture.is_relative_to(root)), None)
        within = picture.relative_to(root) if root else Path(picture.name)
        # the last part of a UID is no ending
        name = within.stem if within.suffix.lower() in SUFFIXES else within.name
        number = 1
        while True:
            base = self._folder / within.with_name(name if number == 1 else f"{name}-{number}")
            files = MaskFiles(base.with_name(f"{base.name}.mask.png"),
                              base.with_name(f"{base.name}.overlay.png"))  # fmt: skip
            is_input = {files.mask.resolve(), files.overlay.resolve()} & self._given
            if not is_input and str(base).casefold() not in self._taken:
                self._taken.add(str(base).casefold())
                return files
            number += 1

    def write(self, picture: Path, mask: UInt8, *, binary: bool) -> MaskFiles:
        """Write the mask (H, W) as 0 and 255 if `binary`, else as class numbers, and the overlay.

        The picture is decoded a second time, so that no picture is held while others are read.
        Raises DataError if it is not there any more, or not of the mask's size.
        """
        shown = decode(picture)
        if shown.shape[:2] != mask.shape:
            raise DataError(f"{picture}: changed while its mask was made")
        files = self.files(picture)
        _write_png(files.mask, mask * np.uint8(255) if binary else mask)
        _write_png(files.overlay, overlay(shown, mask))
        return files


def _write_png(path: Path, pixels: UInt8) -> None:
    with replace_file(path, "wb") as file:
        Image.fromarray(pixels).save(file, "PNG")
