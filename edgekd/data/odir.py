"""ODIR-5K, fundus photographs of both eyes of 3,500 patients, eight kinds of finding.

    <root>/ODIR-5K/Training Images/<ID>_{left,right}.jpg
    <root>/ODIR-5K/data.xlsx        ID, Patient Age, Patient Sex, Left-Fundus, Right-Fundus,
                                    Left-Diagnostic Keywords, Right-Diagnostic Keywords, N, ..., O
    <root>/full_df.csv              Kaggle: the same for 6,392 images, one row each, with filename
    <root>/preprocessed_images/     Kaggle: those images, cropped and smaller
    <root>/ODIR-5K/Testing Images/  without labels, not used

All of it may stand in the root too. The table's official name is
`ODIR-5K_Training_Annotations(Updated)_V2.xlsx`. Peking University, International Competition on
Ocular Disease Intelligent Recognition (2019), odir2019.grand-challenge.org.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgekd.data._labels import kinds_of, rarest
from edgekd.data._odir_keywords import (
    CLASSES,
    NO_FUNDUS,
    NORMAL,
    POOR,
    diseases_of,
    is_known,
    keywords_of,
)
from edgekd.data._table import MARKS, Row, Table, read_csv, read_xlsx
from edgekd.data.base import DataSource, Labels, Sample
from edgekd.errors import DataError
from edgekd.image import decode
from edgekd.log import say, warn

# where things may be, the first that is there
FOLDERS = ("", "ODIR-5K", "ODIR-5K/ODIR-5K")
TABLES = ("data.xlsx", "ODIR-5K_Training_Annotations(Updated)_V2.xlsx", "full_df.csv")
IMAGES = (
    "Training Images", "ODIR-5K_Training_Images/ODIR-5K_Training_Dataset",
    "ODIR-5K_Training_Images", "ODIR-5K_Training_Dataset", "preprocessed_images",
)  # fmt: skip
SIDES = ("Left", "Right")
FACTS = ("ID", "Patient Age", "Patient Sex")
COLUMNS = (*FACTS, *(f"{side}-{what}" for what in ("Fundus", "Diagnostic Keywords")
                     for side in SIDES), *CLASSES)  # fmt: skip
FILE = "filename"  # in tables with a row per image
MOST_KEYWORDS = 5  # of the unknown ones, in a warning


@dataclass(frozen=True)
class _Eye:
    file: str
    patient: str
    age: str
    sex: str
    keywords: tuple[str, ...]


class ODIR(DataSource):
    """Up to 7,000 photographs; the group is the patient.

    The table's marks are of the patient, so the labels of each eye come from its keywords, by the
    table in `_odir_keywords.py`. One that is not in it counts as O, with a warning that lists the
    most frequent. N is an eye with `normal fundus` and no disease. Another warning says for how
    many patients the keywords of both eyes and the marks disagree (of a patient with one healthy
    eye, N is 0).

    Keywords such as `lens dust` and `low image quality` say nothing about disease. An image with
    one of them is kept (`poor: keep`) with the labels that its other keywords give, unknown without
    any; or left out (`poor: drop`). Images that show no fundus are always left out.

    `table` and `images` name another file and folder than the first one found, relative to the
    root: Kaggle's download has two of each. Raises DataError that names the table and its row,
    MissingOnHost for an .xlsx table without openpyxl.
    """

    has_labels = True
    classes = CLASSES

    def __init__(
        self,
        *,
        root: Path,
        table: str | None = None,
        images: str | None = None,
        poor: Literal["keep", "drop"] = "keep",
    ) -> None:
        if not root.is_dir():
            raise DataError(f"{root}: no such folder", hint="data.root=FOLDER")
        self.root = root
        path = _find(root, TABLES, "table", table)
        self._images = _find(root, IMAGES, "images", images)
        hint = "data.params.table names the table with ID, ..., N, D, G, C, A, H, M, O"
        found = (
            read_xlsx(path, COLUMNS, "data 'odir'", hint)
            if path.suffix.lower() == ".xlsx"
            else read_csv(path, COLUMNS, hint)
        )
        every = _read_eyes(found)
        _report_unknown(path, every)
        _report_marks(found)
        self._eyes = _suitable(every, poor)
        _check_images(self._images, path, [eye.file for eye in self._eyes])
        self._labels = _labels(self._eyes)
        self._targets = rarest(self._labels)

    def __len__(self) -> int:
        return len(self._eyes)

    def __getitem__(self, index: int) -> Sample:
        eye = self._eyes[index]
        return Sample(
            image=decode(self._images / eye.file),
            target=int(self._targets[index]),
            id=Path(eye.file).stem,
            group=eye.patient,
        )

    def labels(self) -> Labels:
        """What each eye shows (N, 8): 1 or 0, -1 where its keywords say nothing."""
        return np.asarray(self._labels.copy())

    def targets(self) -> npt.NDArray[np.int64]:
        """The rarest class of each eye (N,)."""
        return np.asarray(self._targets.copy())

    def kinds(self) -> Sequence[str]:
        """The classes, and none."""
        return kinds_of(self.classes)

    def ids(self) -> Sequence[str]:
        """`0_left`, ..."""
        return [Path(eye.file).stem for eye in self._eyes]

    def groups(self) -> Sequence[str]:
        """The patients."""
        return [eye.patient for eye in self._eyes]

    def files(self) -> Sequence[Path]:
        """The image files."""
        return [self._images / eye.file for eye in self._eyes]

    def attributes(self) -> dict[str, Sequence[str]]:
        """`age` in years ("" where unknown) and `sex` as published."""
        return {"age": [eye.age for eye in self._eyes], "sex": [eye.sex for eye in self._eyes]}


def _find(root: Path, names: Sequence[str], key: str, wanted: str | None) -> Path:
    """The file or folder that the recipe names, or the first of those that are usual."""
    if wanted is not None:
        if not (root / wanted).exists():
            raise DataError(f"data.params.{key}: {root / wanted} is not there")
        return root / wanted
    places = [root / folder / name for name in names for folder in FOLDERS]
    for place in places:
        if place.exists():
            return place
    raise DataError(
        f"{root}: none of {', '.join(names)} is here",
        hint=f"data.root=FOLDER is the folder that holds ODIR-5K; or data.params.{key}=NAME",
    )


def _read_eyes(table: Table) -> list[_Eye]:
    """The images that the table lists: both of each row, or the one in the column filename."""
    eyes: dict[str, tuple[_Eye, str]] = {}
    patients: dict[str, Row] = {}
    for row in table.rows:
        _check_row(row)
        id, age, sex = (row.cells[name] for name in FACTS)
        first = patients.setdefault(id, row)
        other = next((name for name in COLUMNS if row.cells[name] != first.cells[name]), None)
        if other is not None:
            raise DataError(f"{row.where}: {other} of patient {id} is not what {first.where} says")
        names = {row.cells[f"{side}-Fundus"]: side for side in SIDES}
        only = row.cells.get(FILE)
        if only is not None and only not in names:
            raise DataError(f"{row.where}: {FILE} is '{only}', expected {' or '.join(names)}")
        for name, side in names.items():
            if only not in (None, name):
                continue
            if name in eyes:
                raise DataError(f"{row.where}: image {name} is already in {eyes[name][1]}",
                                hint="keep one of the two rows")  # fmt: skip
            keywords = tuple(keywords_of(row.cells[f"{side}-Diagnostic Keywords"]))
            eyes[name] = _Eye(name, id, age, sex, keywords), row.where
    return [eye for eye, _ in eyes.values()]


def _check_row(row: Row) -> None:
    for name in ("ID", *(f"{side}-Fundus" for side in SIDES)):
        text = row.cells[name]
        if not text or "/" in text or "\\" in text:
            raise DataError(f"{row.where}: {name} is '{text}', expected a name")
    for name in CLASSES:
        if row.cells[name] not in MARKS:
            raise DataError(f"{row.where}: {name} is '{row.cells[name]}', expected 0 or 1")


def _suitable(eyes: Sequence[_Eye], poor: str) -> list[_Eye]:
    """Those that show a fundus and, unless `poor` ones are kept, show it well."""
    shown = [eye for eye in eyes if NO_FUNDUS.isdisjoint(eye.keywords)]
    kept = [eye for eye in shown if poor == "keep" or POOR.isdisjoint(eye.keywords)]
    for count, what in (
        (len(eyes) - len(shown), "show no fundus"),
        (len(shown) - len(kept), "are poor"),
    ):
        if count:
            say(f"odir: {count} of {len(eyes)} images are left out, they {what}")
    if not kept:
        raise DataError("none of the images shows a fundus well", hint="data.params.poor=keep")
    return kept


def _labels(eyes: Sequence[_Eye]) -> Labels:
    labels = np.zeros((len(eyes), len(CLASSES)), dtype=np.int8)
    for index, eye in enumerate(eyes):
        found = _shown([eye.keywords])
        labels[index] = [name in found for name in CLASSES] if found else -1
    silent = int((labels < 0).all(axis=1).sum())
    if silent:
        say(f"odir: of {silent} images the keywords say nothing about disease: they have no labels")
    return labels


def _shown(eyes: Sequence[Sequence[str]]) -> set[str]:
    """The classes that some eyes show together; nothing if their keywords say nothing."""
    found = {name for keywords in eyes for name in diseases_of(list(keywords))}
    normal = any(NORMAL in keywords for keywords in eyes)
    return found or ({"N"} if normal else set())


def _check_images(folder: Path, table: Path, names: Sequence[str]) -> None:
    present = {path.name for path in folder.iterdir()}
    missing = [name for name in names if name not in present]
    if missing:
        raise DataError(
            f"{folder}: {len(missing)} of {len(names)} images of {table.name} are missing, the "
            f"first is {missing[0]}",
            hint="preprocessed_images are those of full_df.csv: data.params.table=full_df.csv",
        )


def _report_unknown(table: Path, eyes: Sequence[_Eye]) -> None:
    counts = Counter(word for eye in eyes for word in eye.keywords if not is_known(word))
    if counts:
        most = [f"'{word}' ({count})" for word, count in counts.most_common(MOST_KEYWORDS)]
        more = f" and {len(counts) - len(most)} more" if len(counts) > len(most) else ""
        warn(f"{table}: {len(counts)} keywords are not known and count as O: {', '.join(most)}"
             f"{more}")  # fmt: skip


def _report_marks(table: Table) -> None:
    compared, differing, first = 0, 0, ""
    for row, marks, found in _patients(table):
        compared += 1
        if marks != found:
            differing += 1
            first = first or (f"{row.cells['ID']} is marked {_list(marks)}, its keywords say "
                              f"{_list(found)}")  # fmt: skip
    if differing:
        warn(f"{table.path}: the marks of {differing} of {compared} patients disagree with the "
             f"keywords of their eyes; the first is {first}")  # fmt: skip


def _patients(table: Table) -> Iterator[tuple[Row, set[str], set[str]]]:
    """Of each patient of whom the keywords say anything: the marks, and what the keywords say."""
    seen: set[str] = set()
    for row in table.rows:
        if row.cells["ID"] in seen:
            continue
        seen.add(row.cells["ID"])
        eyes = [keywords_of(row.cells[f"{side}-Diagnostic Keywords"]) for side in SIDES]
        found = _shown(eyes)
        if found:
            yield row, {name for name in CLASSES if MARKS[row.cells[name]]}, found


def _list(names: set[str]) -> str:
    return "+".join(name for name in CLASSES if name in names) or "nothing"
