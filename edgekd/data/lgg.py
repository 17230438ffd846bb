"""LGG: MRI slices of lower-grade gliomas with the tumour's mask, as unpacked from Kaggle.

    <root>/kaggle_3m/TCGA_<site>_<patient>_<date>/<folder>_<slice>.tif        256x256, 3 channels
    <root>/kaggle_3m/TCGA_<site>_<patient>_<date>/<folder>_<slice>_mask.tif   0 or 255
    <root>/kaggle_3m/data.csv                                                 facts of 110 patients

The channels are the sequences before contrast, FLAIR and after contrast; where one is missing the
publishers put FLAIR in its place. Buda, Saha, Mazurowski: Comput Biol Med 109, 218 (2019).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgekd.data._masks import check_size, classes_shown, image_size, read_binary
from edgekd.data.base import DataSource, Mask, Sample
from edgekd.errors import DataError
from edgekd.image import decode
from edgekd.log import warn

FOLDER = re.compile(r"TCGA_[A-Z0-9]{2}_[A-Z0-9]{4}_\d{8}")
SLICE = re.compile(r"(.+)_(\d+)\.tif")
FACTS = ("gender", "age_at_initial_pathologic", "race")
LEAK = (
    "data.params.group: slice: slices of one patient are in several parts, and neighbours look "
    "alike: scores are higher than they would be of new patients, and their intervals too narrow"
)


class LGG(DataSource):
    """3,929 slices of 110 patients, 1,373 of them with tumour; the group is the patient.

    With `group: slice` each slice is a group of its own, so that a split tears patients apart; it
    is there to repeat what was published, as KDML (arXiv 2212.02931), which seems to have split so.
    The archive holds the tree twice (`kaggle_3m`, and again below `lgg-mri-segmentation`): one is
    read. Patients of `data.csv` without a folder are passed over. Raises DataError for a folder
    that holds no slices, a slice without its mask, a mask without its slice.
    """

    classes = ("tumour",)
    has_masks = True

    def __init__(self, *, root: Path, group: Literal["patient", "slice"] = "patient") -> None:
        self.root = _tree(root)
        self._by_slice = group == "slice"
        folders = _folders(self.root)
        self._files: list[Path] = []
        self._masks: list[Path] = []
        for folder in folders:
            files, masks = _slices(folder)
            self._files += files
            self._masks += masks
        self._facts = self._read_facts({_patient(folder.name) for folder in folders})

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Sample:
        path = self._files[index]
        return Sample(decode(path), int(self._targets[index]), path.stem, self._group(path.stem))

    def mask(self, index: int) -> Mask:
        """1 for tumour, 0 elsewhere (256, 256)."""
        path = self._masks[index]
        return check_size(read_binary(path), image_size(self._files[index]), path)

    @cached_property
    def _targets(self) -> npt.NDArray[np.int64]:
        return classes_shown(len(self), self.mask, 1)[:, 0].astype(np.int64)

    def targets(self) -> npt.NDArray[np.int64]:
        """Whether a slice shows tumour (N,); all masks are read for it once."""
        return np.asarray(self._targets.copy())

    def kinds(self) -> Sequence[str]:
        """`without tumour`, `with tumour`."""
        return ("without tumour", "with tumour")

    def ids(self) -> Sequence[str]:
        """`TCGA_CS_4941_19960909_1`, ..."""
        return [path.stem for path in self._files]

    def groups(self) -> Sequence[str]:
        """The patients, `TCGA_CS_4941`: slices of one must not fall into different parts.

        With `group: slice` the slices themselves.
        """
        return [self._group(path.stem) for path in self._files]

    def caveats(self) -> list[str]:
        """What must be said beside every figure where slices are split one by one."""
        return [LEAK] if self._by_slice else []

    def files(self) -> Sequence[Path]:
        """The slices, in anatomical order of each patient."""
        return self._files

    def mask_files(self) -> Sequence[Path]:
        """The masks, in the order of the slices."""
        return self._masks

    def attributes(self) -> dict[str, Sequence[str]]:
        """`gender`, `age_at_initial_pathologic` and `race` as coded in data.csv, "" if unknown."""
        return {
            name: [self._facts.get(_patient(path.stem), {}).get(name, "") for path in self._files]
            for name in FACTS
        }

    def _group(self, id: str) -> str:
        return id if self._by_slice else _patient(id)

    def _read_facts(self, present: set[str]) -> dict[str, dict[str, str]]:
        assert self.root is not None
        path = self.root / "data.csv"
        if not path.is_file():
            return {}
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                rows = {row.get("Patient") or "": row for row in csv.DictReader(file)}
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{path}: cannot be read: {error}") from None
        rows.pop("", None)
        absent = sorted(set(rows) - present)
        if absent:
            warn(f"{path}: {len(absent)} of {len(rows)} patients have no folder, the first is "
                 f"{absent[0]}")  # fmt: skip
        return rows


def _tree(root: Path) -> Path:
    """The folder that holds the patients' folders: the root, or the first tree in it."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder", hint="data.root=FOLDER")
    for inside in ("kaggle_3m", "lgg-mri-segmentation/kaggle_3m", "."):
        folder = root / inside
        if folder.is_dir() and _folders(folder):
            return folder
    raise DataError(f"{root}: neither kaggle_3m nor folders named as TCGA_CS_4941_19960909",
                    hint="data.root=FOLDER is the one that holds kaggle_3m")  # fmt: skip


def _folders(tree: Path) -> list[Path]:
    return sorted(p for p in tree.iterdir() if FOLDER.fullmatch(p.name) and p.is_dir())


def _slices(folder: Path) -> tuple[list[Path], list[Path]]:
    """Slices and their masks, by number: the names are not padded with zeros."""
    numbered: dict[int, Path] = {}
    masks: dict[str, Path] = {}
    for path in folder.iterdir():
        if path.suffix != ".tif" or path.name.startswith("."):
            continue
        if path.stem.endswith("_mask"):
            masks[path.stem.removesuffix("_mask")] = path
            continue
        found = SLICE.fullmatch(path.name)
        if found is None or _patient(found[1]) != _patient(folder.name):  # groups go by the name
            raise DataError(f"{path}: expected {folder.name}_NUMBER.tif")
        twin = numbered.setdefault(int(found[2]), path)
        if twin is not path:
            names = sorted((twin.name, path.name))
            raise DataError(f"{folder}: {names[0]} and {names[1]} are both slice {int(found[2])}")
    files = [numbered[number] for number in sorted(numbered)]
    if not files:
        raise DataError(f"{folder}: no slices (.tif) in this folder")
    lonely = [path for path in files if path.stem not in masks]
    if lonely:
        raise DataError(f"{lonely[0]}: there is no {lonely[0].stem}_mask.tif beside it "
                        f"({len(lonely)} slices of {folder.name} have none)")  # fmt: skip
    left = sorted(set(masks) - {path.stem for path in files})
    if left:
        raise DataError(f"{masks[left[0]]}: there is no slice {left[0]}.tif beside it")
    return files, [masks[path.stem] for path in files]


def _patient(name: str) -> str:
    return "_".join(name.split("_")[:3])
