"""SICAPv2, patches of prostate biopsies with their Gleason grade, as downloaded from Mendeley.

    <root>/images/<slide>_Block_Region_<r>_<i>_<j>_xini_<x>_yini_<y>.jpg     512 x 512
    <root>/partition/Test/{Train,Test}.xlsx                     image_name,NC,G3,G4,G5,G4C
    <root>/partition/Validation/Val{1..4}/{Train,Test}.xlsx     the same columns
    <root>/wsi_labels.xlsx                                      slide_id,patient_id,...
    <root>/masks/                                               not used

Silva-Rodriguez et al.: Comput. Methods Programs Biomed. 195, 105637 (2020); Mendeley Data, doi
10.17632/9xxm58dvs3. Images that no table lists have no label and are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.data._table import read_sheet
from edgekd.data.base import DataSource, Sample
from edgekd.errors import DataError
from edgekd.image import decode
from edgekd.log import warn

FOLDER = "SICAPv2"  # the archive's own folder
CRIBRIFORM = "G4C"
SUFFIXES = frozenset({".jpg", ".jpeg"})
FOLDS = (1, 2, 3, 4)
NEEDED_BY, UNPACK = "data 'sicapv2'", "unpack the folder partition too"


@dataclass(frozen=True)
class _Row:
    id: str  # the image's name without ending
    target: int
    line: int  # in the sheet, from 1


class SICAPv2(DataSource):
    """12,081 labelled patches of 155 slides in the order of the test partition's tables.

    The group is the patient that `wsi_labels.xlsx` names for every slide; where it does not, the
    slide. G4C, the cribriform pattern, counts as G4. Without `fold` the parts are
    train and test; `fold` (1 to 4) takes val from that cross-validation fold, which must hold the
    very images of the train part; labels are always those of `partition/Test`. `root` may also be
    the folder above `SICAPv2`. Raises DataError that names a table and its row when it is not as
    published, MissingOnHost without openpyxl.
    """

    classes = ("NC", "G3", "G4", "G5")

    def __init__(self, *, root: Path, fold: int | None = None) -> None:
        if fold is not None and fold not in FOLDS:
            raise DataError(
                f"data.params.fold: SICAPv2 has the folds 1 to 4, got {fold}",
                hint="data.params.fold=1, or leave it out: the parts are then train and test",
            )
        if not root.is_dir():
            raise DataError(f"{root}: no such folder", hint="data.root=FOLDER")
        if not (root / "partition").is_dir() and (root / FOLDER / "partition").is_dir():
            root = root / FOLDER
        for name in ("partition", "images"):
            if not (root / name).is_dir():
                raise DataError(
                    f"{root}: no folder '{name}' here",
                    hint="data.root=FOLDER is the folder that holds images/ and partition/",
                )
        self.root = root
        tables = [root / "partition" / "Test" / name for name in ("Train.xlsx", "Test.xlsx")]
        train, test = (_read_table(table, self.classes) for table in tables)
        _refuse_overlap(tables, train, test)
        rows = [*train, *test]
        self._ids = [row.id for row in rows]
        self._targets: npt.NDArray[np.int64] = np.array([row.target for row in rows], np.int64)
        part = dict.fromkeys((row.id for row in train), "train")
        if fold is not None:
            part.update(_read_fold(root, fold, part, self.classes))
        self._parts = [*part.values(), *("test" for _ in test)]
        self._files = _find_images(root / "images", self._ids)
        slides = {_slide(id) for id in self._ids}
        self._patients = _read_patients(root / "wsi_labels.xlsx", slides)

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> Sample:
        return Sample(
            image=decode(self._files[index]),
            target=int(self._targets[index]),
            id=self._ids[index],
            group=self._group(self._ids[index]),
        )

    def targets(self) -> npt.NDArray[np.int64]:
        """The grades (N,)."""
        return np.asarray(self._targets.copy())

    def ids(self) -> Sequence[str]:
        """`16B0001851_Block_Region_1_0_1_xini_7827_yini_59786`, ..."""
        return list(self._ids)

    def groups(self) -> Sequence[str]:
        """The patients, or the slides: the part of the name before `_Block`."""
        return [self._group(id) for id in self._ids]

    def _group(self, id: str) -> str:
        return self._patients.get(_slide(id), _slide(id))

    def parts(self) -> Sequence[str]:
        """train and test of the test partition; with `fold`, its Test.xlsx is val."""
        return list(self._parts)

    def files(self) -> Sequence[Path]:
        """The image files."""
        return list(self._files)


def _slide(id: str) -> str:
    return id.partition("_Block")[0]


def _read_patients(path: Path, slides: set[str]) -> dict[str, str]:
    """The patient of each slide; nothing unless the table names one for all of them."""
    lines = read_sheet(path, NEEDED_BY, UNPACK) if path.is_file() else []
    header = [str(cell or "").strip() for cell in lines[0][1]] if lines else []
    found = {}
    for _, cells in lines[1:]:
        row = dict(zip_longest(header, cells))
        slide, patient = row.get("slide_id"), row.get("patient_id")
        if slide is not None and patient is not None:
            found[str(slide).strip()] = f"patient {str(patient).strip()}"
    missing = len(slides - found.keys())
    if found and missing:
        warn(f"{path}: {missing} of {len(slides)} slides have no patient; slides are the groups")
    return {} if missing else found


def _find_images(folder: Path, ids: Sequence[str]) -> list[Path]:
    found = {path.stem: path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES}
    missing = [id for id in ids if id not in found]
    if missing:
        raise DataError(
            f"{folder}: {len(missing)} of {len(ids)} listed images are missing, the first is "
            f"{missing[0]}.jpg",
            hint="unpack the whole archive of doi 10.17632/9xxm58dvs3 into data.root",
        )
    return [found[id] for id in ids]


def _refuse_overlap(tables: Sequence[Path], train: Iterable[_Row], test: Iterable[_Row]) -> None:
    lines = {row.id: row.line for row in train}
    for row in test:
        if row.id in lines:
            raise DataError(
                f"{tables[1]}, row {row.line}: image {row.id} is also in {tables[0]}, row "
                f"{lines[row.id]}; expected it in one of the two",
                hint="download the tables anew: train and test must share no image",
            )


def _read_fold(
    root: Path, fold: int, train: Iterable[str], classes: Sequence[str]
) -> dict[str, str]:
    """`train` or `val` of each image of the train part, by the two tables of a fold."""
    folder = root / "partition" / "Validation" / f"Val{fold}"
    tables = [folder / name for name in ("Train.xlsx", "Test.xlsx")]
    ours, theirs = (_read_table(table, classes) for table in tables)
    _refuse_overlap(tables, ours, theirs)
    expected = set(train)
    for table, rows in zip(tables, (ours, theirs), strict=True):
        for row in rows:
            if row.id not in expected:
                raise DataError(
                    f"{table}, row {row.line}: image {row.id} is not in partition/Test/Train.xlsx",
                    hint="a fold divides the train part: take both folders from one download",
                )
    parts = {row.id: "train" for row in ours} | {row.id: "val" for row in theirs}
    missing = [id for id in train if id not in parts]
    if missing:
        raise DataError(
            f"{folder}: {len(missing)} of {len(expected)} images of partition/Test/Train.xlsx are "
            f"in neither Train.xlsx nor Test.xlsx, the first is {missing[0]}",
            hint="a fold divides the train part: take both folders from one download",
        )
    return parts


def _read_table(path: Path, classes: Sequence[str]) -> list[_Row]:
    lines = read_sheet(path, NEEDED_BY, UNPACK)
    header = [str(cell or "").strip() for cell in lines[0][1]] if lines else []
    # G4C may be missing: an image that has nothing else then has no grade, and is refused
    missing = [name for name in ("image_name", *classes) if name not in header]
    if missing:
        raise DataError(
            f"{path}: the header has no column {', '.join(missing)}; "
            f"found {', '.join(filter(None, header)) or 'nothing'}",
            hint="expected image_name, NC, G3, G4, G5, G4C in the first sheet's first row",
        )
    rows: list[_Row] = []
    seen: dict[str, int] = {}
    for line, cells in lines[1:]:
        row = _read_row(f"{path}, row {line}", line, dict(zip_longest(header, cells)), classes)
        if row.id in seen:
            raise DataError(
                f"{path}: image {row.id} is in row {seen[row.id]} and again in row {line}",
                hint="keep one of the two rows",
            )
        seen[row.id] = line
        rows.append(row)
    if not rows:
        raise DataError(f"{path}: no rows below the header", hint="download the table anew")
    return rows


def _read_row(where: str, line: int, cells: dict[str, Any], classes: Sequence[str]) -> _Row:
    name = str(cells.get("image_name") or "").strip()
    id = name[: name.rindex(".")] if Path(name).suffix.lower() in SUFFIXES else name
    if not _slide(id) or "_Block" not in id:
        raise DataError(
            f"{where}: image_name is '{name}', expected <slide>_Block_Region_...",
            hint="the slide is read from the name: use the names as published",
        )
    marked = []
    for column in (*classes, CRIBRIFORM):
        value = cells.get(column, 0 if column == CRIBRIFORM else None)
        if value not in (0, 1):
            found = "empty" if value is None else repr(value)
            raise DataError(f"{where}: {column} is {found}, expected 0 or 1", hint=f"image {name}")
        if value == 1:
            marked.append(column)
    grades = sorted({"G4" if column == CRIBRIFORM else column for column in marked})
    if len(grades) != 1:
        raise DataError(
            f"{where}: image {id} has {' and '.join(marked) if marked else 'no grade'}, "
            f"expected one of {', '.join(classes)}",
            hint="one of the columns is 1 and the others 0; G4 and G4C together are G4",
        )
    return _Row(id, classes.index(grades[0]), line)
