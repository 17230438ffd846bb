"""PatchCamelyon: patches of lymph node sections, tumour or none, with the official split.

    <root>/camelyonpatch_level_2_split_{train,valid,test}_x.h5         x (N, 96, 96, 3) uint8
    <root>/camelyonpatch_level_2_split_{train,valid,test}_y.h5         y (N, 1, 1, 1), 1 is tumour
    <root>/camelyonpatch_level_2_split_{train,valid,test}_meta.csv     ...,wsi    optional

    <root>/pcam/                                                torchvision's folder, the same files
    <root>/pcam/{training,validation,test}_split.h5             a mirror on Kaggle: its images
    <root>/Labels/Labels/camelyonpatch_level_2_split_*_y.h5     and its labels

A patch is positive if its central 32 x 32 pixels hold tumour. Veeling et al.: Rotation equivariant
CNNs for digital pathology, MICCAI 2018; slides of CAMELYON16.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.data._digests import digests_of
from edgekd.data.base import DataSource, Image, Sample
from edgekd.errors import DataError
from edgekd.log import warn
from edgekd.plugins import missing_package

PARTS = {"train": "train", "valid": "val", "test": "test"}  # theirs and ours
MIRROR = {"train": "training_split", "valid": "validation_split", "test": "test_split"}
PLACES = ("", "pcam", "Labels/Labels")  # below the root
TEST_SLIDE = "camelyon16_test_"
ANEW = "download it anew: https://github.com/basveeling/pcam"


class PCam(DataSource):
    """262,144 patches to train, 32,768 to validate and 32,768 to test, half of them tumor.

    The group is the slide that the meta files name, and the id without them: splits by a ratio then
    leave patches of one slide on both sides. One patch is read at a time, by each process from
    files that it opens itself. Raises DataError for a file that is missing, packed, damaged or of
    another form, MissingOnHost without h5py.
    """

    classes = ("normal", "tumor")

    def __init__(self, *, root: Path) -> None:
        if not root.is_dir():
            raise DataError(f"{root}: no such folder", hint="data.root=FOLDER")
        self.root = root
        self._image_files = [
            _find(root, f"{_name(part)}_x.h5", f"{MIRROR[part]}.h5") for part in PARTS
        ]
        labels = [_find(root, f"{_name(part)}_y.h5") for part in PARTS]
        metas = _find_metas(root)
        self._other_files = [*labels, *metas]
        targets, self._groups, self._ids, self._parts = [], [], [], []
        for number, part in enumerate(PARTS.values()):
            marks = _read_labels(labels[number], self._image_files[number])
            ids = [f"{part}-{index:06d}" for index in range(len(marks))]
            targets.append(marks)
            self._ids += ids
            self._groups += _read_slides(metas[number], len(marks)) if metas else ids
            self._parts += [part] * len(marks)
        self._starts = np.cumsum([0, *(len(marks) for marks in targets)])
        self._targets: npt.NDArray[np.int64] = np.concatenate(targets)
        if metas:
            self._warn_of_exchanged_files()
        self._handles: tuple[int, dict[int, Any]] = (os.getpid(), {})

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return Sample(
            image=self._image(index),
            target=int(self._targets[index]),
            id=self._ids[index],
            group=self._groups[index],
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handles": (0, {})}  # no process has the number 0

    def targets(self) -> npt.NDArray[np.int64]:
        """0 normal, 1 tumor (N,): train, then val, then test."""
        return np.asarray(self._targets.copy())

    def ids(self) -> Sequence[str]:
        """`train-000000`, ..."""
        return list(self._ids)

    def groups(self) -> Sequence[str]:
        """`camelyon16_train_normal_033`, ...; the ids where there are no meta files."""
        return list(self._groups)

    def parts(self) -> Sequence[str]:
        """The official split, which has no slide in two parts."""
        return list(self._parts)

    def fingerprint(self) -> str:
        """As for every source, with the files that hold all images and labels."""
        whole = super().fingerprint().encode()
        whole += b"".join(digests_of([*self._image_files, *self._other_files]))
        return hashlib.sha256(whole).hexdigest()

    def _image(self, index: int) -> Image:
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        path = self._image_files[number]
        process, images = self._handles
        if process != os.getpid():  # forked: what the parent has open is not ours to read from
            process, images = os.getpid(), {}
            self._handles = process, images
        if number not in images:
            images[number] = _open(path)["x"]
        place = index - int(self._starts[number])
        try:
            return np.asarray(images[number][place])
        except Exception as error:  # a damaged block: HDF5 raises several kinds
            raise DataError(
                f"{path}: image {place} cannot be read: {_first_line(error)}", hint=ANEW
            ) from None

    def _warn_of_exchanged_files(self) -> None:
        # whoever sorts the downloads by the published checksums gives valid and test each other's
        # names, because the table of checksums has exchanged the two
        groups, parts = np.array(self._groups), np.array(self._parts)
        is_test_slide = np.char.startswith(groups, TEST_SLIDE)
        if is_test_slide.any() and not is_test_slide[parts == "test"].any():
            warn(
                f"{self.root}: the test slides of CAMELYON16 are not in the test files; valid and "
                "test have each other's names?"
            )


def _name(part: str) -> str:
    return f"camelyonpatch_level_2_split_{part}"


def _places(root: Path, *names: str) -> list[Path]:
    return [root / place / name for name in names for place in PLACES]


def _find(root: Path, *names: str) -> Path:
    for path in _places(root, *names):
        if path.is_file():
            return path
    for path in _places(root, *(f"{name}.gz" for name in names)):
        if path.is_file():
            raise DataError(
                f"{path}: still packed, expected {path.stem}", hint="gunzip -k *.gz unpacks it"
            )
    raise DataError(
        f"{root}: no {names[0]} here", hint="data.root=FOLDER is the folder that holds the h5 files"
    )


def _find_metas(root: Path) -> list[Path]:
    """The three meta files, or none of them."""
    wanted = {part: _places(root, f"{_name(part)}_meta.csv") for part in PARTS}
    found = {
        part: next((path for path in paths if path.is_file()), None)
        for part, paths in wanted.items()
    }
    present = [path for path in found.values() if path is not None]
    if 0 < len(present) < len(PARTS):
        missing = next(part for part, path in found.items() if path is None)
        raise DataError(
            f"{root}: {present[0].name} is here and {_name(missing)}_meta.csv is not; "
            "expected the slides of all parts or of none",
            hint=ANEW,
        )
    return present


def _read_labels(path: Path, images: Path) -> npt.NDArray[np.int64]:
    """The labels of one part (N,), held against the form of its images."""
    with _open(images) as file:
        shape, kind = _form(images, file, "x")
    if kind != np.uint8 or len(shape) != 4 or shape[3] != 3:
        raise DataError(f"{images}: x is {kind} {shape}, expected uint8 (N, 96, 96, 3)", hint=ANEW)
    with _open(path) as file:
        found, kind = _form(path, file, "y")
        if not np.issubdtype(kind, np.integer) or found != (shape[0], *([1] * (len(found) - 1))):
            raise DataError(
                f"{path}: y is {kind} {found}, expected one integer for each of {shape[0]} images "
                f"of {images.name}",
                hint=ANEW,
            )
        try:
            marks = np.asarray(file["y"][()]).reshape(-1).astype(np.int64)
        except Exception as error:  # a damaged block: HDF5 raises several kinds
            raise DataError(f"{path}: cannot be read: {_first_line(error)}", hint=ANEW) from None
    wrong = np.flatnonzero((marks < 0) | (marks > 1))
    if len(wrong):
        raise DataError(
            f"{path}: label {wrong[0]} is {marks[wrong[0]]}, expected 0 or 1", hint=ANEW
        )
    return marks


def _form(path: Path, file: Any, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    if name not in file or not hasattr(file[name], "shape"):
        raise DataError(
            f"{path}: no data set '{name}'; found {', '.join(file) or 'nothing'}", hint=ANEW
        )
    return tuple(file[name].shape), file[name].dtype


def _open(path: Path) -> Any:
    try:
        import h5py
    except ModuleNotFoundError:
        raise missing_package("h5py", "data 'pcam'") from None
    try:
        return h5py.File(path, "r", locking="best-effort")  # some network disks have no locks
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read as an HDF5 file: {_first_line(error)}",
            hint="unpack or download it anew: it may be cut short",
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _read_slides(path: Path, images: int) -> list[str]:
    """The slide of each image of a part; the rows are in the order of the images."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            lines = [(reader.line_num, row) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read: {error}", hint=ANEW) from None
    if "wsi" not in header:
        raise DataError(
            f"{path}: the header has no column wsi; found {', '.join(filter(None, header)) or '-'}",
            hint=ANEW,
        )
    if len(lines) != images:
        raise DataError(f"{path}: {len(lines)} rows for {images} images", hint=ANEW)
    place = header.index("wsi")
    slides = []
    for line, row in lines:
        slide = row[place].strip() if place < len(row) else ""
        if not slide:
            raise DataError(f"{path}, row {line}: wsi is empty", hint=ANEW)
        slides.append(slide)
    return slides
