"""One's own images with several labels each: a table with a column of 0 and 1 for each class.

    <root>/labels.csv        path,drusen,haemorrhage,scar[,group][,part]
                             img/1.png,1,0,,p7,train

An empty cell, or -1, says that nobody looked: whether the image shows the class is not known.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgekd.data._labels import NONE, kinds_of, rarest
from edgekd.data._table import MARKS, Row, Table, inside, read_csv
from edgekd.data.base import DataSource, Labels, Sample
from edgekd.errors import DataError, did_you_mean
from edgekd.image import decode, is_picture
from edgekd.log import say

GROUP, PART = "group", "part"  # what these columns are called unless the recipe says otherwise
VALUES = {**MARKS, "": -1, "-1": -1, "-1.0": -1}
PARTS = ("train", "val", "test")
EXPECTED = "expected 0, 1, or nothing (or -1) where it is not known"


class LabelsCsv(DataSource):
    """Images that a CSV file lists, with a column for each class; DICOM too.

    `csv` is looked up in the root, and so are its paths. `path`, `group` and `part` name those
    columns; the last two may be absent where the recipe does not name them. All other columns are
    classes, or those that `classes` names, in its order: then others mean nothing.

    A class without an image that shows it, or without one that does not, can be neither learned nor
    scored; where there are parts this is asked of the train part. It is refused, or with
    `rare: drop` left out. An image in the root that the table does not list is refused too, unless
    `unlisted: ignore`.

    Raises DataError that names the file, the row and the column.
    """

    has_labels = True

    def __init__(
        self,
        *,
        root: Path,
        csv: str = "labels.csv",
        classes: list[str] | None = None,
        path: str = "path",
        group: str | None = None,
        part: str | None = None,
        rare: Literal["error", "drop"] = "error",
        unlisted: Literal["error", "ignore"] = "error",
    ) -> None:
        if not root.is_dir():
            raise DataError(f"{root}: no such folder", hint="data.root=FOLDER")
        self.root = root
        table = read_csv(
            root / csv,
            [path, *(name for name in (group, part) if name is not None)],
            "data.params.csv names the table, data.params.path, group and part its columns",
        )
        groups = group or (GROUP if GROUP in table.columns else None)
        parts = part or (PART if PART in table.columns else None)
        others = [path, *(name for name in (groups, parts) if name is not None)]
        names = _class_columns(table, others, classes)
        self._ids = _read_ids(root, table, path)
        self._groups = [
            (row.cells[groups] if groups else "") or id
            for row, id in zip(table.rows, self._ids, strict=True)
        ]
        self._parts = None if parts is None else [_part(row, parts) for row in table.rows]
        labels = _read_labels(table, names)
        if unlisted == "error":
            _refuse_unlisted(root, table, self._ids)
        kept = self._learnable(table, names, labels, rare)
        self.classes = tuple(names[index] for index in kept)
        self.left_out = tuple(name for name in names if name not in self.classes)
        self._labels = labels[:, kept]
        self._targets = rarest(self._labels)

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> Sample:
        return Sample(
            image=decode(self._file(index)),
            target=int(self._targets[index]),
            id=self._ids[index],
            group=self._groups[index],
        )

    def labels(self) -> Labels:
        """Which classes each image shows (N, C): 1, 0, or -1 where that is not known."""
        return np.asarray(self._labels.copy())

    def targets(self) -> npt.NDArray[np.int64]:
        """The rarest class of each image (N,)."""
        return np.asarray(self._targets.copy())

    def kinds(self) -> Sequence[str]:
        """The classes, and none."""
        return kinds_of(self.classes)

    def ids(self) -> Sequence[str]:
        """Paths relative to the root."""
        return list(self._ids)

    def groups(self) -> Sequence[str]:
        """The column `group`, else the ids."""
        return list(self._groups)

    def parts(self) -> Sequence[str] | None:
        """The column `part`, if there is one."""
        return None if self._parts is None else list(self._parts)

    def files(self) -> Sequence[Path]:
        """The image files."""
        return [self._file(index) for index in range(len(self))]

    def _file(self, index: int) -> Path:
        assert self.root is not None
        return self.root / self._ids[index]

    def _learnable(
        self, table: Table, names: Sequence[str], labels: Labels, rare: str
    ) -> list[int]:
        """The columns with a 0 and a 1, also in the train part."""
        wheres = {"no image": np.ones(len(labels), dtype=np.bool_)}
        if self._parts is not None:
            wheres["no image of the train part"] = np.array(self._parts) == "train"
        kept, left = [], []
        for column, name in enumerate(names):
            problem = next(
                (
                    f"{nobody} {verb} '{name}'"
                    for nobody, mask in wheres.items()
                    for value, verb in ((1, "shows"), (0, "is without"))
                    if not (labels[mask, column] == value).any()
                ),
                None,
            )
            if problem is None:
                kept.append(column)
            elif rare == "drop":
                left.append(name)
            else:
                raise DataError(f"{table.path}: {problem}",
                                hint="data.params.rare=drop leaves such a class out")  # fmt: skip
        if left:
            say(f"labels_csv: {len(left)} of {len(names)} classes are left out, all images (of the "
                f"train part) show them or none does: {', '.join(left)}")  # fmt: skip
        if not kept:
            raise DataError(f"{table.path}: all classes are shown by every image or by none")
        return kept


def _class_columns(
    table: Table, others: Sequence[str], wanted: list[str] | None
) -> tuple[str, ...]:
    """The columns that are classes."""
    free = [name for name in table.columns if name not in others]
    names = tuple(free if wanted is None else wanted)
    if not names:
        raise DataError(f"{table.path}: no column is a class; found {', '.join(table.columns)}")
    if len(set(names)) != len(names):
        raise DataError(f"data.params.classes names a class twice: {', '.join(names)}")
    for name in names:
        if name not in free:
            raise DataError(f"{table.path}: the header has no class '{name}'",
                            hint=did_you_mean(name, free))  # fmt: skip
    spelt: dict[str, str] = {}
    for name in names:
        other = spelt.setdefault(name.casefold(), name)
        if other != name:
            raise DataError(f"{table.path}: classes '{other}' and '{name}' differ only in case")
    if NONE in spelt:
        raise DataError(
            f"{table.path}: '{spelt[NONE]}' is no class, it is what an image with 0 in all columns "
            "shows",
            hint=f"leave it out by data.params.classes, or call it other than '{NONE}'",
        )
    for name in free:  # a misspelt `group` must not pass for a table without groups
        close = difflib.get_close_matches(name.lower(), (GROUP, PART), n=1, cutoff=0.75)
        if name not in names and close and close[0] not in table.columns:
            raise DataError(
                f"{table.path}: the column '{name}' is no class",
                hint=f"rename it to '{close[0]}', or data.params.{close[0]}={name}",
            )
    return names


def _read_ids(root: Path, table: Table, column: str) -> list[str]:
    """The paths, all of files, none twice."""
    seen: dict[str, str] = {}
    missing: list[str] = []
    for row in table.rows:
        relative = inside(root, row.cells[column], row.where)
        id = relative.as_posix()
        if id in seen:
            raise DataError(f"{row.where}: {id} is already in {seen[id]}",
                            hint="keep one of the two rows")  # fmt: skip
        seen[id] = row.where
        if not (root / relative).is_file():
            missing.append(f"{row.where}: {root / relative}: no such file")
    if missing:
        raise DataError(
            f"{missing[0]} ({len(missing)} of {len(seen)} listed images are missing)",
            hint=f"the column {column} is relative to data.root",
        )
    return list(seen)


def _part(row: Row, column: str) -> str:
    part = row.cells[column]
    if part not in PARTS:
        raise DataError(f"{row.where}: {column} is '{part}', expected train, val or test")
    return part


def _read_labels(table: Table, names: Sequence[str]) -> Labels:
    labels = np.empty((len(table.rows), len(names)), dtype=np.int8)
    for index, row in enumerate(table.rows):
        for column, name in enumerate(names):
            text = row.cells[name]
            if text not in VALUES:
                raise DataError(
                    f"{row.where}, column {name}: '{text}', {EXPECTED}",
                    hint="if this column is no class, name those that are: data.params.classes",
                )
            labels[index, column] = VALUES[text]
    return labels


def _refuse_unlisted(root: Path, table: Table, ids: Sequence[str]) -> None:
    """Images without labels: forgotten, or the table is of another folder."""
    listed = set(ids)
    strangers: list[str] = []
    for where, below, names in os.walk(root, followlinks=True):
        below[:] = sorted(name for name in below if not name.startswith((".", "_")))
        for name in sorted(names):
            id = (Path(where) / name).relative_to(root).as_posix()
            if id not in listed and is_picture(Path(where) / name):
                strangers.append(id)
    if strangers:
        raise DataError(
            f"{table.path}: {len(strangers)} images in {root} are not listed, the first is "
            f"{strangers[0]}",
            hint="data.params.unlisted=ignore leaves them out",
        )
