"""APTOS 2019, fundus photographs with their grade of diabetic retinopathy, in two layouts.

    <root>/train.csv                             id_code,diagnosis       the competition's files
    <root>/train_images/<id_code>.png
    <root>/test.csv, test_images/                without labels, not used

    <root>/{train_1,valid,test}.csv              id_code,diagnosis       the mirror with a split
    <root>/{train,val,test}_images/{train,val,test}_images/<id_code>.png

Asia Pacific Tele-Ophthalmology Society: APTOS 2019 Blindness Detection, Kaggle (2019). Copies that
were resized to .jpg are read too, and so are images without the inner folder of the same name.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgekd.data.base import DataSource, Sample
from edgekd.errors import DataError
from edgekd.image import decode
from edgekd.log import say, warn
from edgekd.rundir import sha256

KAGGLE = (("train.csv", "train_images", None),)
MIRROR = (
    ("train_1.csv", "train_images", "train"),
    ("valid.csv", "val_images", "val"),
    ("test.csv", "test_images", "test"),
)
COLUMNS = ("id_code", "diagnosis")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})


@dataclass(frozen=True)
class _Item:
    id: str
    target: int
    path: Path
    part: str | None


class APTOS2019(DataSource):
    """3,662 labelled photographs, graded 0 (none) to 4 (proliferative), in the csv files' order.

    Nothing says whose eye it is, so the group is the image, and some images are there several
    times. `duplicates: group` puts files with the same bytes into one group, so that no split
    tears them apart; `drop` keeps the first of each such set, `keep` lets them be. Where the
    mirror's split has the same bytes in two parts, `split: official` is refused with `group`: take
    `data.params.duplicates=drop`, or `keep` to score as others did. Raises DataError that names
    file and row when a table is not as published.
    """

    classes = ("none", "mild", "moderate", "severe", "proliferative")

    def __init__(
        self, *, root: Path, duplicates: Literal["group", "keep", "drop"] = "group"
    ) -> None:
        if not root.is_dir():
            raise DataError(f"{root}: no such folder", hint="data.root=FOLDER")
        self.root = root
        items = _read_items(root, len(self.classes))
        groups = [item.id for item in items]
        if duplicates != "keep":
            first = _first_alike([item.path for item in items])
            groups = [items[index].id for index in first]
            if duplicates == "drop":
                _report(items, first)
                kept = [index for index, other in enumerate(first) if index == other]
                items, groups = [items[i] for i in kept], [groups[i] for i in kept]
        self._items, self._groups = items, groups
        self._targets: npt.NDArray[np.int64] = np.array([item.target for item in items], np.int64)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Sample:
        item = self._items[index]
        return Sample(
            image=decode(item.path), target=item.target, id=item.id, group=self._groups[index]
        )

    def targets(self) -> npt.NDArray[np.int64]:
        """The grades (N,)."""
        return np.asarray(self._targets.copy())

    def ids(self) -> Sequence[str]:
        """`000c1434d8d7`, ..."""
        return [item.id for item in self._items]

    def groups(self) -> Sequence[str]:
        """The id; with `duplicates: group`, that of the first image with the same bytes."""
        return list(self._groups)

    def parts(self) -> Sequence[str] | None:
        """The mirror's split; None for the competition's files."""
        parts = [item.part for item in self._items if item.part is not None]
        return parts or None

    def files(self) -> Sequence[Path]:
        """The image files."""
        return [item.path for item in self._items]


def _read_items(root: Path, grades: int) -> list[_Item]:
    names = [name for name in ("train.csv", "train_1.csv") if (root / name).is_file()]
    if len(names) != 1:
        found = "both train.csv and train_1.csv are" if names else "no train.csv, no train_1.csv"
        raise DataError(
            f"{root}: {found} here; expected either train.csv (Kaggle) or train_1.csv, valid.csv "
            "and test.csv (the mirror with a split)",
            hint="data.root=FOLDER is the folder that holds the csv file and train_images/",
        )
    items: list[_Item] = []
    seen: dict[str, str] = {}
    for name, folder, part in KAGGLE if names == ["train.csv"] else MIRROR:
        table = root / name
        rows = _read_table(table, grades)
        files = _find_images(root / folder, table, [id for id, _, _ in rows])
        for (id, target, line), path in zip(rows, files, strict=True):
            where = f"{table}, row {line}"
            if id in seen:
                raise DataError(
                    f"{where}: id_code {id} is already in {seen[id]}",
                    hint="an image has one label and is in one part: keep one of the two rows",
                )
            seen[id] = where
            items.append(_Item(id, target, path, part))
    return items


def _read_table(table: Path, grades: int) -> list[tuple[str, int, int]]:
    """Id, grade and row number of each row."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            header = list(reader.fieldnames or ())
            lines = [(reader.line_num, row) for row in reader]
    except FileNotFoundError:
        raise DataError(
            f"{table}: no such file",
            hint="the mirror has train_1.csv, valid.csv and test.csv, Kaggle's data train.csv",
        ) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table}: cannot be read: {error}", hint="download it anew") from None
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise DataError(
            f"{table}: the header has no column {', '.join(missing)}; "
            f"found {', '.join(header) or 'nothing'}",
            hint="expected id_code,diagnosis",
        )
    if not lines:
        raise DataError(f"{table}: no rows below the header", hint="download it anew")
    known = {str(grade): grade for grade in range(grades)}
    rows = []
    for line, row in lines:
        id, grade = ((row[name] or "").strip() for name in COLUMNS)
        if not id:
            raise DataError(f"{table}, row {line}: id_code is empty", hint="download it anew")
        if grade not in known:
            raise DataError(
                f"{table}, row {line}: diagnosis of {id} is '{grade}', "
                f"expected an integer from 0 to {grades - 1}",
                hint="download it anew",
            )
        rows.append((id, known[grade], line))
    return rows


def _find_images(folder: Path, table: Path, ids: Sequence[str]) -> list[Path]:
    inner = folder / folder.name
    if inner.is_dir():
        folder = inner
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder, {table.name} lists its images",
            hint=f"unpack {folder.name}.zip into data.root/{folder.name}",
        )
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES:
            continue
        if path.stem in found:
            raise DataError(
                f"{folder}: {found[path.stem].name} and {path.name} are both here; "
                "expected one file per id_code",
                hint="keep the originals and their resized copies in two folders",
            )
        found[path.stem] = path
    missing = [id for id in ids if id not in found]
    if missing:
        raise DataError(
            f"{folder}: {len(missing)} of {len(ids)} images of {table.name} are missing, the "
            f"first is {missing[0]}.png",
            hint=f"unpack the whole of {folder.name}.zip",
        )
    return [found[id] for id in ids]


def _first_alike(paths: Sequence[Path]) -> list[int]:
    """Of each file, the index of the first with the same bytes; equal sizes alone are hashed."""
    first = list(range(len(paths)))
    try:
        sizes: dict[int, list[int]] = defaultdict(list)
        for index, path in enumerate(paths):
            sizes[path.stat().st_size].append(index)
        for same in sizes.values():
            seen: dict[str, int] = {}
            for index in same if len(same) > 1 else ():
                first[index] = seen.setdefault(sha256(paths[index]), index)
    except OSError as error:
        raise DataError(f"{error.filename}: {error.strerror}", hint="copy the file anew") from None
    return first


def _report(items: Sequence[_Item], first: Sequence[int]) -> None:
    sets: dict[int, set[int]] = defaultdict(set)
    for item, index in zip(items, first, strict=True):
        sets[index].add(item.target)
    dropped = len(items) - len(sets)
    if dropped:
        say(f"aptos2019: {dropped} of {len(items)} images dropped, the same bytes came before")
    torn = sum(len(grades) > 1 for grades in sets.values())
    if torn:
        warn(f"aptos2019: {torn} sets of identical images have different grades; the first is kept")
