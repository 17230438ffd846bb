"""ISIC 2019, eight kinds of skin lesions, as unpacked from the challenge's archive or from Kaggle.

    <root>/ISIC_2019_Training_GroundTruth.csv   image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK   0.0 or 1.0
    <root>/ISIC_2019_Training_Metadata.csv      image,age_approx,anatom_site_general,lesion_id,sex
    <root>/ISIC_2019_Training_Input/*.jpg       in Kaggle's archive inside a second such folder

Some images are named `..._downsampled`; where a table or a file leaves this ending out, the same
image is meant. International Skin Imaging Collaboration: Skin Lesion Analysis Towards Melanoma
Detection (2019). Upper and lower case of file names do not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from edgekd.data._table import MARKS, Row, read_csv
from edgekd.data.base import DataSource, Sample
from edgekd.errors import DataError
from edgekd.image import decode

TRUTH = "ISIC_2019_Training_GroundTruth.csv"
METADATA = "ISIC_2019_Training_Metadata.csv"
IMAGES = "ISIC_2019_Training_Input"
SMALLER = "_downsampled"
KINDS = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC")
UNKNOWN = "UNK"
FACTS = {"age": "age_approx", "sex": "sex", "localization": "anatom_site_general"}

T = TypeVar("T")


class ISIC2019(DataSource):
    """25,331 dermatoscopic images; the group is the lesion, the image where no lesion is named.

    The column UNK is empty in the published training part, so there are eight classes. Images that
    it marks are refused, left out (`unknown: drop`) or a ninth class (`unknown: keep`). Raises
    DataError that names the file and its row when a table is not as published, or when images and
    rows do not match.
    """

    classes: tuple[str, ...] = KINDS

    def __init__(
        self, *, root: Path, unknown: Literal["refuse", "drop", "keep"] = "refuse"
    ) -> None:
        if not root.is_dir():
            raise DataError(f"{root}: no such folder", hint="data.root=FOLDER")
        self.root = root
        rows = _read(root, TRUTH, ("image", *KINDS))
        targets = np.array([_target(row) for row in rows.values()], np.int64)
        files = _find_images(root, rows)
        marked = np.flatnonzero(targets == len(KINDS))
        if len(marked) and unknown == "refuse":
            where = list(rows.values())[marked[0]].where
            raise DataError(
                f"{where}: {len(marked)} images are {UNKNOWN}, this is the first",
                hint="data.params.unknown=drop leaves them out, data.params.unknown=keep makes "
                "them a ninth class",
            )
        if len(marked) and unknown == "keep":
            self.classes = (*KINDS, UNKNOWN)
        kept = np.flatnonzero(targets < len(self.classes))
        self._targets: npt.NDArray[np.int64] = targets[kept]
        names = list(rows)
        self._ids = [names[index] for index in kept]
        self._files = [files[index] for index in kept]
        self._facts = _find_facts(root, self._ids)

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> Sample:
        return Sample(
            image=decode(self._files[index]),
            target=int(self._targets[index]),
            id=self._ids[index],
            group=self._facts[index]["lesion_id"] or self._ids[index],
        )

    def targets(self) -> npt.NDArray[np.int64]:
        """The diagnoses (N,)."""
        return np.asarray(self._targets.copy())

    def ids(self) -> Sequence[str]:
        """`ISIC_0000000`, `ISIC_0000029_downsampled`, ..."""
        return list(self._ids)

    def groups(self) -> Sequence[str]:
        """The lesions: several images of one lesion must not fall into different parts."""
        return [facts["lesion_id"] or id for facts, id in zip(self._facts, self._ids, strict=True)]

    def files(self) -> Sequence[Path]:
        """The image files."""
        return list(self._files)

    def attributes(self) -> dict[str, Sequence[str]]:
        """`age` in years, `sex` and `localization`; "" where unknown."""
        return {name: [row[column] for row in self._facts] for name, column in FACTS.items()}


def _entry(folder: Path, name: str) -> Path:
    """A file or folder by its name in any case. Raises DataError where there is none."""
    for path in sorted(folder.iterdir()):
        if path.name.lower() == name.lower():
            return path
    raise DataError(
        f"{folder}: no {name} in this folder", hint=f"data.root=FOLDER is the one that holds {name}"
    )


def _read(root: Path, name: str, columns: Sequence[str]) -> dict[str, Row]:
    """The rows of a table by their image, in order."""
    found: dict[str, Row] = {}
    for row in read_csv(_entry(root, name), columns, hint="download it anew").rows:
        image = row.cells["image"]
        if not image:
            raise DataError(f"{row.where}: image is empty")
        if image in found:
            raise DataError(f"{row.where}: image {image} is there already: {found[image].where}")
        found[image] = row
    return found


def _target(row: Row) -> int:
    """The place of the one 1 among the classes' columns, UNK's last."""
    names = (*KINDS, UNKNOWN)
    texts = [row.cells.get(name, "0") for name in names]  # copies without the column UNK exist
    for name, text in zip(names, texts, strict=True):
        if text not in MARKS:
            raise DataError(
                f"{row.where}: {name} of {row.cells['image']} is '{text}', expected 0.0 or 1.0"
            )
    marked = [place for place, text in enumerate(texts) if MARKS[text]]
    if len(marked) != 1:
        found = ", ".join(names[place] for place in marked) or "all are 0"
        raise DataError(
            f"{row.where}: {row.cells['image']} has {len(marked)} classes ({found}), expected one"
        )
    return marked[0]


def _find_images(root: Path, rows: dict[str, Row]) -> list[Path]:
    """The image file of every row, and no other."""
    folder = _entry(root, IMAGES)
    inner = [path for path in folder.iterdir() if path.name.lower() == IMAGES.lower()]
    folder = inner[0] if inner else folder
    found = {
        path.stem: path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() == ".jpg" and not path.name.startswith(".")
    }
    files: dict[Path, Row] = {}
    lost: list[Row] = []
    for row, path in zip(rows.values(), _of_names(rows, found), strict=True):
        if path is None:
            lost.append(row)
        elif files.setdefault(path, row) is not row:
            raise DataError(f"{row.where}: {path} is the image of {files[path].where} too")
    if lost:
        raise DataError(
            f"{lost[0].where}: there is no {lost[0].cells['image']}.jpg in {folder} "
            f"({len(lost)} of {len(rows)} images are missing)",
            hint=f"unpack the whole of {IMAGES}.zip",
        )
    extra = sorted({*found.values()} - {*files})
    if extra:
        raise DataError(
            f"{extra[0]}: no row of {TRUTH} names this image ({len(extra)} of {len(found)} images "
            "have none)",
            hint="download the table anew, or move these images out of the folder",
        )
    return list(files)


def _find_facts(root: Path, names: Sequence[str]) -> list[dict[str, str]]:
    """The row of the metadata of every image; there may be rows of others."""
    rows = _read(root, METADATA, ("image", "lesion_id", *FACTS.values()))
    facts = [row.cells for row in _of_names(names, rows) if row is not None]
    if len(facts) < len(names):
        lost = [name for name, row in zip(names, _of_names(names, rows), strict=True) if not row]
        raise DataError(
            f"{root / METADATA}: no row for image {lost[0]} ({len(lost)} of {len(names)} images "
            "have none)",
            hint="without it nothing says which images show the same lesion: download it anew",
        )
    return facts


def _of_names(names: Iterable[str], found: Mapping[str, T]) -> list[T | None]:
    """What belongs to each name, if need be with or without the ending of smaller copies."""
    plain = {name.removesuffix(SMALLER): value for name, value in found.items()}
    return [found.get(name, plain.get(name.removesuffix(SMALLER))) for name in names]
