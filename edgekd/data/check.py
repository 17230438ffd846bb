"""Look at a data set before hours are spent on it: counts, broken files, leaks, duplicates."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgekd.data._check_masks import MaskReport, check_masks
from edgekd.data._labels import membership, texts
from edgekd.data._split_problems import split_problems
from edgekd.data.base import DataSource
from edgekd.data.splits import Split
from edgekd.errors import DataError
from edgekd.image import starts_like_dicom
from edgekd.log import progress

Indices = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]
Thumbs = npt.NDArray[np.float32]  # (N, THUMB * THUMB), mean 0

# Of 500 copies of HAM10000 images at two thirds of the size and JPEG quality 70, all but a few
# lie within these three; pictures of different lesions do not.
HASH_DISTANCE = 6  # of 64 bits: what still counts as a candidate
THUMB = 32  # candidates are compared as grey pictures of this side
THUMB_DIFFERENCE = 2.5  # mean absolute difference, in grey levels
THUMB_SHARE = 0.13  # root mean square of the difference over that of the picture itself
BLOCK = 1024  # rows of the distance table held at once


@dataclass(frozen=True)
class Pair:
    """Two images in different parts that look the same."""

    first: str
    first_part: str
    second: str
    second_part: str
    difference: float  # mean absolute difference of the thumbnails, in grey levels


@dataclass(frozen=True)
class CheckReport:
    """What `check` found. `problems` make the verdict; `notes` are to be looked at."""

    images: int
    classes: list[str]
    counts: dict[str, dict[str, int]]  # part -> class -> images
    groups: dict[str, int]  # part -> groups
    unused: int  # images in no part
    sizes: dict[str, int]  # "600x450" -> images, the most frequent first
    modes: dict[str, int]  # as stored in the files: RGB, L, P, ...
    broken: list[str]  # one message per unreadable image, naming its file
    duplicates: list[list[str]]  # ids of images that are equal, byte for byte or pixel for pixel
    blank: list[str]  # ids of images that are one colour all over
    near: list[Pair]
    masks: MaskReport | None = None
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """`ok` or `problems`."""
        return "problems" if self.problems else "ok"

    def as_json(self) -> dict[str, Any]:
        """Plain data, with the verdict."""
        return {"verdict": self.verdict, **asdict(self)}


def check(source: DataSource, split: Split, *, near: bool = True) -> CheckReport:
    """Decode every image once and report; nothing is raised for what the data has wrong.

    `split` may come from `protocol.splits_of`, which judges nothing: its faults are reported too.
    `near` looks for images that were resized or recompressed into another part.
    """
    parts = np.full(len(source), "", dtype="<U5")
    for part, indices in split.items():
        parts[indices] = part
    seen = _read_all(source)
    duplicates = _duplicates(seen.digests)
    pairs = _near_pairs(source, parts, seen) if near else []
    ids = source.ids()
    problems = split_problems(source, split)
    if seen.broken:
        problems.append(f"{len(seen.broken)} images cannot be read; the first: {seen.broken[0]}")
    notes: list[str] = []
    across = [same for same in duplicates if len({parts[i] for i in same} - {""}) > 1]
    if across:
        problems.append(f"{len(across)} sets of equal images reach across parts; the first: "
                        f"{_named(across[0], ids, parts)}")  # fmt: skip
    labels = texts(source)
    torn = [same for same in duplicates if len({labels[i] for i in same}) > 1]
    if torn:
        problems.append(f"{len(torn)} sets of equal images have different labels; the first: "
                        f"{_named(torn[0], ids, parts)}")  # fmt: skip
    if len(duplicates) > len(across):
        notes.append(f"{len(duplicates) - len(across)} sets of equal images inside one part")
    if pairs:
        first = pairs[0]
        notes.append(
            f"{len(pairs)} pairs of nearly equal images reach across parts; the first: "
            f"{first.first} ({first.first_part}), {first.second} ({first.second_part})"
        )
    blank = [ids[index] for index in seen.blank]
    if blank:
        notes.append(f"{len(blank)} images are blank (one colour all over); the first: {blank[0]}")
    unused = int((parts == "").sum())
    if unused:
        notes.append(f"{unused} images are in no part")
    if len(seen.modes) > 1:
        notes.append("images of several modes: " + ", ".join(seen.modes))
    masks = check_masks(source, seen.shapes, parts) if source.has_masks else None
    if masks is not None:
        problems += masks.problems
        notes += masks.notes
    groups, table = np.asarray(source.groups()), membership(source)
    if len(np.unique(groups)) == len(source):
        notes.append("no groups: images of one patient may be in two parts")
    return CheckReport(
        images=len(source),
        classes=list(source.kinds()),
        counts={
            part: {
                name: int(count)
                for name, count in zip(source.kinds(), table[indices].sum(axis=0), strict=True)
            }
            for part, indices in split.items()
        },
        groups={part: len(np.unique(groups[indices])) for part, indices in split.items()},
        unused=unused,
        sizes=dict(Counter(f"{w}x{h}" for h, w in seen.shapes.values()).most_common()),
        modes=dict(Counter(seen.modes).most_common()),
        broken=seen.broken,
        duplicates=[[ids[i] for i in same] for same in duplicates],
        blank=blank,
        near=pairs,
        masks=masks,
        problems=problems,
        notes=notes,
    )


@dataclass
class _Seen:
    """What one pass over the images leaves behind; `readable` indexes hashes and thumbs."""

    digests: dict[int, str]
    readable: list[int]
    hashes: UInt64
    thumbs: Thumbs
    shapes: dict[int, tuple[int, int]]  # (H, W)
    modes: Counter[str]
    broken: list[str]
    blank: list[int]


def _read_all(source: DataSource) -> _Seen:
    files = source.files()
    digests: dict[int, str] = {}
    readable: list[int] = []
    hashes = np.zeros(len(source), dtype=np.uint64)
    thumbs = np.zeros((len(source), THUMB * THUMB), dtype=np.float32)
    shapes: dict[int, tuple[int, int]] = {}
    modes: Counter[str] = Counter()
    broken: list[str] = []
    blank: list[int] = []
    with progress() as bar:
        task = bar.add_task("reading images", total=len(source), note="")
        for index in range(len(source)):
            try:
                image = source[index].image
            except DataError as error:
                broken.append(error.message)
                bar.update(task, advance=1, note=f"{len(broken)} broken")
                continue
            digests[index] = _digest(image, files[index] if files else None)
            shapes[index] = image.shape[0], image.shape[1]
            modes[_mode(files[index]) if files else "RGB"] += 1
            grey = Image.fromarray(image).convert("L")
            darkest, brightest = grey.getextrema()
            if darkest == brightest:
                blank.append(index)
            hashes[len(readable)] = _difference_hash(grey)
            small = np.asarray(grey.resize((THUMB, THUMB), Image.Resampling.BOX), dtype=np.float32)
            thumbs[len(readable)] = (small - small.mean()).reshape(-1)
            readable.append(index)
            bar.update(task, advance=1)
    count = len(readable)
    return _Seen(digests, readable, hashes[:count], thumbs[:count], shapes, modes, broken, blank)


def _digest(image: npt.NDArray[np.uint8], file: Path | None) -> str:
    # a DICOM file that was exported twice has other UIDs and dates the second time
    if file is not None and not starts_like_dicom(file):
        return hashlib.sha256(file.read_bytes()).hexdigest()
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()


def _mode(file: Path) -> str:
    if starts_like_dicom(file):
        return "DICOM"
    with Image.open(file) as picture:
        return str(picture.mode)


def _difference_hash(grey: Image.Image) -> int:
    """64 bits: is each of 8 x 8 cells darker than its right neighbour?"""
    cells = np.asarray(grey.resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    return int.from_bytes(np.packbits(cells[:, :-1] < cells[:, 1:]).tobytes(), "big")


def _duplicates(digests: dict[int, str]) -> list[list[int]]:
    same: dict[str, list[int]] = defaultdict(list)
    for index, digest in digests.items():
        same[digest].append(index)
    return [indices for indices in same.values() if len(indices) > 1]


def _near_pairs(source: DataSource, parts: npt.NDArray[np.str_], seen: _Seen) -> list[Pair]:
    """Pairs across parts that are alike but not equal, the most alike first."""
    ids = source.ids()
    readable = np.array(seen.readable, dtype=np.int64)
    place = parts[readable]
    found: list[Pair] = []
    for first_part, second_part in (("train", "val"), ("train", "test"), ("val", "test")):
        rows, columns = np.flatnonzero(place == first_part), np.flatnonzero(place == second_part)
        for a, b in _close(seen.hashes, rows, columns):
            gap = seen.thumbs[a] - seen.thumbs[b]  # (M, THUMB * THUMB)
            difference = np.abs(gap).mean(axis=1)
            share = _rms(gap) / np.maximum(_rms(seen.thumbs[a]), 1e-6)
            alike = (difference <= THUMB_DIFFERENCE) & (share <= THUMB_SHARE)
            for place_a, place_b, value in zip(a[alike], b[alike], difference[alike], strict=True):
                first, second = int(readable[place_a]), int(readable[place_b])
                if seen.digests[first] != seen.digests[second]:
                    pair = Pair(ids[first], first_part, ids[second], second_part, float(value))
                    found.append(pair)
    return sorted(found, key=lambda pair: pair.difference)


def _close(hashes: UInt64, rows: Indices, columns: Indices) -> Iterator[tuple[Indices, Indices]]:
    """Positions whose hashes differ in at most HASH_DISTANCE bits, in blocks of pairs."""
    count = _bit_counter()
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        distance = count(hashes[block, None] ^ hashes[None, columns])
        row, column = np.nonzero(distance <= HASH_DISTANCE)
        for piece in range(0, len(row), BLOCK * 8):  # flat pictures may all be candidates
            chosen = slice(piece, piece + BLOCK * 8)
            yield block[row[chosen]], columns[column[chosen]]


def _rms(values: Thumbs) -> Thumbs:
    return np.asarray(np.sqrt(np.square(values).mean(axis=1)))


def _bit_counter() -> Callable[[UInt64], npt.NDArray[np.integer[Any]]]:
    if hasattr(np, "bitwise_count"):  # numpy 2
        return np.bitwise_count
    table = np.array([bin(number).count("1") for number in range(1 << 16)], dtype=np.uint8)

    def count(words: UInt64) -> npt.NDArray[np.integer[Any]]:
        halves = np.ascontiguousarray(words).view(np.uint16).reshape(*words.shape, 4)
        return np.asarray(table[halves].sum(axis=-1))

    return count


def _named(indices: list[int], ids: Any, parts: npt.NDArray[np.str_]) -> str:
    return ", ".join(f"{ids[index]} ({parts[index] or 'unused'})" for index in indices[:4])
