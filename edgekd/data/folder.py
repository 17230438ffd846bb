"""A plain tree of images, one folder per class, with or without a split or a CSV of labels.

    <root>/<class>/*.png                        split by a ratio
    <root>/{train,val,test}/<class>/*.png       split: official
    <root>/... and csv: labels.csv              path,label[,group][,part]

Folders below a class folder (`<class>/<patient>/*.png`) can be groups; deeper ones (a visit) belong
to the patient.
"""

from __future__ import annotations

import csv
import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgekd.data._table import inside
from edgekd.data.base import DataSource, Sample
from edgekd.errors import DataError, did_you_mean
from edgekd.image import decode, is_picture

PARTS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
COLUMNS = ("path", "label", "group", "part")


@dataclass(frozen=True)
class _Item:
    path: Path
    id: str  # relative to the root, with forward slashes
    label: str
    group: str
    part: str | None = None


class Folder(DataSource):
    """Images in class folders, or listed in a CSV file; DICOM too, with or without an ending.

    `csv` names a file with the columns path, label and optionally group and part; it is looked up
    in the root, and so are its paths. `classes` fixes the order (for grading: by severity);
    otherwise it is alphabetical, numbers by value. `group: folder` says that a folder below a
    class folder is one patient, with all below it; `group: image` that it means nothing.

    Raises DataError that names the folder, or the CSV file and its row.
    """

    def __init__(
        self,
        *,
        root: Path,
        csv: str | None = None,
        classes: list[str] | None = None,
        group: Literal["image", "folder"] | None = None,
    ) -> None:
        if not root.is_dir():
            raise DataError(f"{root}: no such folder", hint="data.root=FOLDER")
        self.root = root
        if classes is not None and len(set(classes)) != len(classes):
            raise DataError(f"data.params.classes names a class twice: {', '.join(classes)}")
        if csv is None:
            items = _walk(root, classes, group)
        elif group is None:
            items = _listed(root, root / csv, classes)
        else:
            raise DataError("data.params.group: with `csv`, groups are its column `group`")
        self.classes = tuple(classes or sorted({item.label for item in items}, key=_by_number))
        self._items = items
        index = {name: number for number, name in enumerate(self.classes)}
        self._targets: npt.NDArray[np.int64] = np.array(
            [index[item.label] for item in items], dtype=np.int64
        )
        self._check_classes()

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Sample:
        item = self._items[index]
        return Sample(
            image=decode(item.path), target=int(self._targets[index]), id=item.id, group=item.group
        )

    def targets(self) -> npt.NDArray[np.int64]:
        """Class indices (N,)."""
        return np.asarray(self._targets.copy())

    def ids(self) -> Sequence[str]:
        """Paths relative to the root."""
        return [item.id for item in self._items]

    def groups(self) -> Sequence[str]:
        """The CSV's `group`, or with `group: folder` the one below the class, else the id."""
        return [item.group for item in self._items]

    def parts(self) -> Sequence[str] | None:
        """The CSV's `part`, or the folders `train`, `val`, `test`; None without either."""
        parts = [item.part for item in self._items]
        return None if None in parts else [part for part in parts if part is not None]

    def files(self) -> Sequence[Path]:
        """The image files."""
        return [item.path for item in self._items]

    def _check_classes(self) -> None:
        spelt: dict[str, str] = {}
        for name in self.classes:
            other = spelt.setdefault(name.casefold(), name)
            if other != name:
                raise DataError(f"{self.root}: classes '{other}' and '{name}' differ only in case")
        counts = np.bincount(self._targets, minlength=len(self.classes))
        for name, count in zip(self.classes, counts, strict=True):
            if count == 0:
                raise DataError(f"{self.root}: class '{name}' has no images")
        parts = self.parts()
        if parts is None or "train" not in parts:
            return
        seen = {item.label for item in self._items if item.part == "train"}
        for item in self._items:
            if item.label not in seen:
                raise DataError(
                    f"{self.root}: class '{item.label}' is in the {item.part} part "
                    f"({item.id}) but has no training image"
                )


def _by_number(name: str) -> tuple[int, int, str]:
    return (0, int(name), name) if name.isdecimal() else (1, 0, name)


def _folders(path: Path) -> list[Path]:
    return sorted(
        entry
        for entry in path.iterdir()
        if entry.is_dir() and not entry.name.startswith((".", "_"))
    )


def _walk(root: Path, wanted: list[str] | None, group: str | None) -> list[_Item]:
    top = _folders(root)
    names = [folder.name.lower() for folder in top]
    if "train" in names or "training" in names:
        strangers = [folder.name for folder in top if folder.name.lower() not in PARTS]
        if strangers:
            raise DataError(
                f"{root}: found '{strangers[0]}' beside 'train'; expected only train, val and test"
            )
        places: list[tuple[Path, str | None]] = [
            (folder, PARTS[part.name.lower()]) for part in top for folder in _folders(part)
        ]
    else:
        places = [(folder, None) for folder in top]
    items: list[_Item] = []
    for folder, part in places:
        if wanted is not None and folder.name not in wanted:
            raise DataError(
                f"{folder}: '{folder.name}' is not in data.params.classes",
                hint=did_you_mean(folder.name, wanted),
            )
        found = _images(root, folder, part, group)
        if not found:
            raise DataError(f"{folder}: class '{folder.name}' has no images here")
        items += found
    if not items:
        raise DataError(
            f"{root}: no images in class folders", hint="expected data.root/<class>/<image>.png"
        )
    return items


def _images(root: Path, folder: Path, part: str | None, group: str | None) -> list[_Item]:
    items = []
    for where, below, names in os.walk(folder, followlinks=True):
        below.sort()
        inner = Path(where).relative_to(folder).as_posix()
        for name in sorted(names):
            path = Path(where) / name
            if not is_picture(path):
                continue
            if inner != "." and group is None:
                raise DataError(
                    f"{path} lies below a class folder: is '{inner.split('/')[0]}' a patient?",
                    hint="data.params.group=folder if it is, data.params.group=image if not",
                )
            id = path.relative_to(root).as_posix()
            # the same folder name is the same patient in every class and part; what lies deeper
            # (a visit, a series) is still that patient
            owner = inner.split("/")[0] if group == "folder" and inner != "." else id
            items.append(_Item(path, id, folder.name, owner, part))
    return items


def _listed(root: Path, table: Path, wanted: list[str] | None) -> list[_Item]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            header = list(reader.fieldnames or ())
            rows = list(reader)
    except FileNotFoundError:
        raise DataError(
            f"{table}: no such file (data.params.csv is relative to data.root)"
        ) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table}: cannot be read: {error}") from None
    _check_header(table, header)
    if not rows:
        raise DataError(f"{table}: no images are listed")
    items: list[_Item] = []
    seen: dict[str, int] = {}
    for line, row in enumerate(rows, 2):
        item = _item(root, f"{table}, row {line}", row, "part" in header, wanted)
        if item.id in seen:
            raise DataError(f"{table}: {item.id} is in row {seen[item.id]} and again in row {line}")
        seen[item.id] = line
        items.append(item)
    return items


def _check_header(table: Path, header: list[str]) -> None:
    """A misspelt `group` must not pass for a table without groups."""
    missing = [name for name in ("path", "label") if name not in header]
    if missing:
        semicolons = any(";" in name for name in header)
        raise DataError(
            f"{table}: the header has no column {', '.join(missing)}; "
            f"found {', '.join(header) or 'nothing'}",
            hint="separate columns by commas" if semicolons else f"known: {', '.join(COLUMNS)}",
        )
    for name in header:
        close = difflib.get_close_matches((name or "").strip().lower(), COLUMNS, n=1, cutoff=0.75)
        if close and name not in COLUMNS and close[0] not in header:
            raise DataError(f"{table}: unknown column '{name}'", hint=f"did you mean '{close[0]}'?")


def _item(
    root: Path, where: str, row: dict[str, str], has_part: bool, wanted: list[str] | None
) -> _Item:
    relative = inside(root, row["path"] or "", where)
    path = root / relative
    if not path.is_file():
        raise DataError(
            f"{where}: {path}: no such file", hint="the column path is relative to data.root"
        )
    label = (row["label"] or "").strip()
    if not label or (wanted is not None and label not in wanted):
        raise DataError(
            f"{where}: unknown class '{label}'",
            hint=did_you_mean(label, wanted) if wanted else None,
        )
    part = (row["part"] or "").strip() if has_part else None
    if part is not None and part not in ("train", "val", "test"):
        raise DataError(f"{where}: part is '{part}', expected train, val or test")
    id = relative.as_posix()
    return _Item(path, id, label, (row.get("group") or "").strip() or id, part)
