"""Histopathologic Cancer Detection (Kaggle): patches of lymph node sections, tumour or none.

    <root>/train_labels.csv                  id,label    1 is tumour
    <root>/train/<id>.tif                    96 x 96
    <root>/test/, sample_submission.csv      without labels, not used

A patch is positive if its central 32 x 32 pixels hold tumour; what surrounds them does not count.
The images are those of PatchCamelyon without its repetitions: Veeling et al., MICCAI 2018.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgekd.data.base import DataSource, Sample
from edgekd.errors import DataError
from edgekd.image import decode
from edgekd.log import warn

FOLDER = "histopathologic-cancer-detection"  # what the archive is called
TABLE, IMAGES, SUFFIX = "train_labels.csv", "train", ".tif"
ID, LABEL, GROUP = ("id",), ("label",), ("group", "wsi")  # a column, by any of these names
ANEW = f"unpack the whole of {FOLDER}.zip"


class Histopathologic(DataSource):
    """220,025 labelled patches, 130,908 normal and 89,117 tumor, in the order of the table.

    The download does not say which patches share a slide or a patient, so the group is the image
    and every split leaves patches of one slide on both sides: scores are then better than on new
    slides. `groups` names a CSV file (looked up in the root) with the columns id and group (or wsi,
    as in the lists that others have reconstructed); splits then keep slides whole. Images it does
    not list are groups of their own, said aloud. `root` may be the folder above
    `histopathologic-cancer-detection`. Raises DataError that names file and row when a table is
    not as published or an image is missing.
    """

    classes = ("normal", "tumor")

    def __init__(self, *, root: Path, groups: str | None = None) -> None:
        if not root.is_dir():
            raise DataError(f"{root}: no such folder", hint="data.root=FOLDER")
        if not (root / TABLE).is_file() and (root / FOLDER / TABLE).is_file():
            root = root / FOLDER
        self.root = root
        table = root / TABLE
        if not table.is_file():
            raise DataError(
                f"{root}: no {TABLE} here",
                hint=f"data.root=FOLDER is the folder that holds {TABLE} and {IMAGES}/",
            )
        labels = _read_table(table, LABEL, ANEW)
        for id, (line, label) in labels.items():
            if label not in ("0", "1"):
                raise DataError(
                    f"{table}, row {line}: label of {id} is '{label}', expected 0 or 1", hint=ANEW
                )
        self._ids = list(labels)
        self._targets: npt.NDArray[np.int64] = np.array(
            [int(label) for _, label in labels.values()], dtype=np.int64
        )
        self._images = root / IMAGES
        _check_images(self._images, self._ids)
        self._groups = self._ids if groups is None else _read_groups(root / groups, self._ids)

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> Sample:
        return Sample(
            image=decode(self._file(index)),
            target=int(self._targets[index]),
            id=self._ids[index],
            group=self._groups[index],
        )

    def targets(self) -> npt.NDArray[np.int64]:
        """0 normal, 1 tumor (N,)."""
        return np.asarray(self._targets.copy())

    def ids(self) -> Sequence[str]:
        """`f38a6374c348f90b587e046aac6079959adf3835`, ..."""
        return list(self._ids)

    def groups(self) -> Sequence[str]:
        """The slides of `groups`, else the ids."""
        return list(self._groups)

    def files(self) -> Sequence[Path]:
        """The image files."""
        return [self._file(index) for index in range(len(self))]

    def _file(self, index: int) -> Path:
        return self._images / f"{self._ids[index]}{SUFFIX}"


def _check_images(folder: Path, ids: Sequence[str]) -> None:
    """One look at the folder's names: to ask for 220,025 files one by one takes far longer."""
    try:
        with os.scandir(folder) as entries:
            names = {entry.name for entry in entries}
    except OSError:
        raise DataError(f"{folder}: no such folder, {TABLE} lists its images", hint=ANEW) from None
    missing = [id for id in ids if f"{id}{SUFFIX}" not in names]
    if missing:
        raise DataError(
            f"{folder}: {len(missing)} of {len(ids)} images of {TABLE} are missing, the first is "
            f"{missing[0]}{SUFFIX}",
            hint=ANEW,
        )


def _read_groups(table: Path, ids: Sequence[str]) -> list[str]:
    hint = "data.params.groups: a CSV file with the columns id and group, one row per image"
    rows = _read_table(table, GROUP, hint)
    for id, (line, group) in rows.items():
        if not group:
            raise DataError(f"{table}, row {line}: group of {id} is empty", hint=hint)
    unknown = sum(id not in rows for id in ids)
    if unknown == len(ids):
        raise DataError(f"{table}: lists none of the {len(ids)} images of {TABLE}", hint=hint)
    if unknown:
        warn(f"{table}: {unknown} of {len(ids)} images have no group; each is one of its own")
    return [rows[id][1] if id in rows else id for id in ids]


def _read_table(table: Path, value: Sequence[str], hint: str) -> dict[str, tuple[int, str]]:
    """From each id to its row number and the value beside it, in order."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            lines = [(reader.line_num, row) for row in reader if row]
    except FileNotFoundError:
        raise DataError(f"{table}: no such file", hint=hint) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table}: cannot be read: {error}", hint=hint) from None
    columns = []
    for names in (ID, value):
        found = [header.index(name) for name in names if name in header]
        if not found:
            raise DataError(
                f"{table}: the header has no column {' or '.join(names)}; "
                f"found {', '.join(header) or 'nothing'}",
                hint=hint,
            )
        columns.append(found[0])
    if not lines:
        raise DataError(f"{table}: no rows below the header", hint=hint)
    rows: dict[str, tuple[int, str]] = {}
    for line, row in lines:
        id, text = (row[place].strip() if place < len(row) else "" for place in columns)
        if not id:
            raise DataError(f"{table}, row {line}: id is empty", hint=hint)
        if id in rows:
            raise DataError(
                f"{table}, row {line}: id {id} is already in row {rows[id][0]}",
                hint="keep one of the two rows",
            )
        rows[id] = (line, text)
    return rows
