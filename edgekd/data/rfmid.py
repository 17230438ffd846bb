"""RFMiD, fundus photographs that show any of 45 diseases or none, in two layouts.

    <root>/Training_Set/Training_Set/RFMiD_Training_Labels.csv           Kaggle, Grand Challenge
    <root>/Training_Set/Training_Set/Training/<ID>.png
    <root>/Evaluation_Set/Evaluation_Set/...   RFMiD_Validation_Labels.csv, Validation/
    <root>/Test_Set/Test_Set/...               RFMiD_Testing_Labels.csv, Test/

    <root>/1. Original Images/{a. Training Set,b. Validation Set,c. Testing Set}/<ID>.png     IEEE
    <root>/2. Groundtruths/{a. RFMiD_Training_Labels.csv,b. ...,c. ...}

Columns: ID, Disease_Risk, then one of 0 and 1 for each disease. The inner folder of the same name
may be absent, and upper and lower case do not matter. Pachade et al.: Data 6(2), 14 (2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgekd.data._labels import kinds_of, rarest
from edgekd.data._table import MARKS, Table, read_csv
from edgekd.data.base import DataSource, Labels, Sample
from edgekd.errors import DataError, RecipeError, did_you_mean
from edgekd.image import decode
from edgekd.log import say, warn

# part, folder and images of the challenge, table; images of IEEE DataPort and what its names begin
# with
SETS = (
    ("train", "Training_Set", "Training", "RFMiD_Training_Labels.csv", "Training Set", "a. "),
    ("val", "Evaluation_Set", "Validation", "RFMiD_Validation_Labels.csv", "Validation Set", "b. "),
    ("test", "Test_Set", "Test", "RFMiD_Testing_Labels.csv", "Testing Set", "c. "),
)
IMAGES, TRUTHS = "1. Original Images", "2. Groundtruths"  # of IEEE DataPort
SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})  # resized copies are often JPEG
ID, RISK, OTHER = "ID", "Disease_Risk", "OTHER"
ANEW = "download it anew"


class RFMiD(DataSource):
    """3,200 photographs (1,920 train, 640 val, 640 test), several diseases each or none.

    A disease is rare if fewer than `minimum` training images show it, or if no image of some part
    does: it could not be learned or not be scored. `rare: drop` leaves it out (an image that shows
    nothing else then shows none), `group` makes all that are no class of their own the class OTHER,
    `keep` keeps it. `classes` names the diseases to learn, in their order; a rare one among them is
    refused, unless kept.

    Disease_Risk is no class: 0 says that an image is normal, which is a row of zeros. Where the two
    contradict each other the diseases count, and a warning says how often. Nothing says whose eye
    it is, so the group is the image. Numbers restart in each part, so the id is `train/12`. Images
    that no table lists are left out. `root` may also be the folder above.

    Raises DataError that names file, row and column when a table is not as published.
    """

    has_labels = True

    def __init__(
        self,
        *,
        root: Path,
        minimum: int = 1,
        rare: Literal["keep", "drop", "group"] = "drop",
        classes: list[str] | None = None,
    ) -> None:
        if minimum < 1:
            raise RecipeError(f"data.params.minimum: {minimum}, expected 1 or more")
        if not root.is_dir():
            raise DataError(f"{root}: no such folder", hint="data.root=FOLDER")
        self.root = root
        self._ids: list[str] = []
        self._files: list[Path] = []
        self._parts: list[str] = []
        diseases: tuple[str, ...] = ()
        found: list[Labels] = []
        for part, path, images in _places(root):
            table = read_csv(path, (ID, RISK), ANEW)
            diseases = diseases or tuple(c for c in table.columns if c not in (ID, RISK))
            ids, labels = _read_labels(table, diseases)
            self._files += _find_images(images, path, ids)
            self._ids += [f"{part}/{id}" for id in ids]
            self._parts += [part] * len(ids)
            found.append(labels)
        self.classes, self._labels = _choose(
            diseases, np.concatenate(found), np.array(self._parts), classes, minimum, rare
        )
        self._targets = rarest(self._labels)
        self.left_out = tuple(name for name in diseases if name not in self.classes)

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> Sample:
        id = self._ids[index]
        return Sample(decode(self._files[index]), int(self._targets[index]), id, id)

    def labels(self) -> Labels:
        """Which diseases each image shows (N, C): 1 or 0."""
        return np.asarray(self._labels.copy())

    def targets(self) -> npt.NDArray[np.int64]:
        """The rarest disease of each image (N,)."""
        return np.asarray(self._targets.copy())

    def kinds(self) -> Sequence[str]:
        """The diseases, and none."""
        return kinds_of(self.classes)

    def ids(self) -> Sequence[str]:
        """`train/1`, ..."""
        return list(self._ids)

    def groups(self) -> Sequence[str]:
        """The ids."""
        return list(self._ids)

    def parts(self) -> Sequence[str]:
        """The published sets."""
        return list(self._parts)

    def files(self) -> Sequence[Path]:
        """The image files."""
        return list(self._files)


def _places(root: Path) -> list[tuple[str, Path, Path]]:
    """Part, table and folder of the images, three times."""
    inside = [entry for entry in root.iterdir() if entry.is_dir() and entry.name[0] not in "._"]
    for base in [root, *sorted(inside)]:
        if _named(base, "Training_Set") is not None:
            return [_of_challenge(base, *names[:4]) for names in SETS]
        if _named(base, IMAGES) is not None:
            return [_of_ieee(base, names[0], names[3], names[4], names[5]) for names in SETS]
    raise DataError(
        f"{root}: neither Training_Set nor '{IMAGES}' is here",
        hint="data.root=FOLDER is the folder that holds Training_Set, Evaluation_Set and Test_Set",
    )


def _of_challenge(
    base: Path, part: str, folder: str, images: str, table: str
) -> tuple[str, Path, Path]:
    outer = _need(base, folder)
    inner = _named(outer, folder) or outer
    return part, _need(inner, table), _need(inner, images)


def _of_ieee(base: Path, part: str, table: str, images: str, start: str) -> tuple[str, Path, Path]:
    truths, folders = _need(base, TRUTHS), _need(base, IMAGES)
    return part, _need(truths, start + table), _need(folders, start + images)


def _named(folder: Path, name: str) -> Path | None:
    entries = folder.iterdir() if folder.is_dir() else ()
    return next((entry for entry in entries if entry.name.lower() == name.lower()), None)


def _need(folder: Path, name: str) -> Path:
    found = _named(folder, name)
    if found is None:
        raise DataError(f"{folder}: no '{name}' here", hint="unpack all three sets into data.root")
    return found


def _read_labels(table: Table, diseases: Sequence[str]) -> tuple[list[str], Labels]:
    """Numbers of the images and what they show (N, C)."""
    strangers = set(diseases).symmetric_difference(table.columns) - {ID, RISK}
    if strangers:
        name = min(strangers)
        has = "has a column" if name in table.columns else "has no column"
        raise DataError(f"{table.path}: {has} {name}, unlike the training table", hint=ANEW)
    labels = np.zeros((len(table.rows), len(diseases)), dtype=np.int8)
    seen: dict[str, str] = {}
    healthy: list[str] = []  # by their risk, but with a disease
    ill: list[str] = []  # by their risk, but without
    for index, row in enumerate(table.rows):
        id = row.cells[ID]
        if not id:
            raise DataError(f"{row.where}: {ID} is empty", hint=ANEW)
        if id in seen:
            raise DataError(f"{row.where}: {ID} {id} is already in {seen[id]}", hint=ANEW)
        seen[id] = row.where
        for column in (*diseases, RISK):
            if row.cells[column] not in MARKS:
                raise DataError(f"{row.where}: {column} of image {id} is '{row.cells[column]}', "
                                "expected 0 or 1", hint=ANEW)  # fmt: skip
        labels[index] = [MARKS[row.cells[name]] for name in diseases]
        if MARKS[row.cells[RISK]] != labels[index].any():
            (healthy if labels[index].any() else ill).append(id)
    if healthy:
        warn(f"{table.path}: {len(healthy)} of {len(seen)} images have {RISK} 0 and a disease, the "
             f"first is {healthy[0]}; the disease counts")  # fmt: skip
    if ill:
        warn(f"{table.path}: {len(ill)} of {len(seen)} images have {RISK} 1 and no disease, the "
             f"first is {ill[0]}; they show none of the classes")  # fmt: skip
    return list(seen), labels


def _find_images(folder: Path, table: Path, ids: Sequence[str]) -> list[Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES and found.setdefault(path.stem, path) != path:
            raise DataError(
                f"{folder}: {found[path.stem].name} and {path.name} are both here",
                hint="keep the originals and their resized copies in two folders",
            )
    missing = [id for id in ids if id not in found]
    if missing:
        raise DataError(
            f"{folder}: {len(missing)} of {len(ids)} images of {table.name} are missing, the first "
            f"is {missing[0]}.png",
            hint="unpack the whole archive",
        )
    return [found[id] for id in ids]


def _choose(
    diseases: Sequence[str],
    labels: Labels,
    parts: npt.NDArray[np.str_],
    wanted: list[str] | None,
    minimum: int,
    rare: str,
) -> tuple[tuple[str, ...], Labels]:
    """The classes and their columns."""
    if wanted is not None:
        _check_names(diseases, wanted)
    counts = np.stack([labels[parts == names[0]].sum(axis=0) for names in SETS])  # (3, C)
    too_few: npt.NDArray[np.bool_] = np.zeros(len(diseases), dtype=np.bool_)
    if rare != "keep":
        too_few |= (counts[0] < minimum) | (counts.min(axis=0) == 0)
    kept = [diseases.index(name) for name in wanted or diseases]
    for index in kept:
        if wanted is not None and too_few[index]:
            train, val, test = counts[:, index]
            raise DataError(
                f"data.params.classes: {diseases[index]} is rare, {train} train, {val} val and "
                f"{test} test images show it (expected {minimum}, 1 and 1)",
                hint="leave it out, or data.params.rare=keep",
            )
    kept = [index for index in kept if not too_few[index]]
    names = [diseases[index] for index in kept]
    chosen = labels[:, kept]
    left = [index for index in range(len(diseases)) if index not in kept]
    if rare == "group" and left:
        shown: npt.NDArray[np.bool_] = (labels[:, left] == 1).any(axis=1)
        few = [int(shown[parts == part].sum()) for part in ("train", "val", "test")]
        if few[0] >= minimum and min(few) > 0:
            names, left = [*names, OTHER], []
            chosen = np.column_stack([chosen, shown.astype(np.int8)])
    if not names:
        raise DataError(f"all {len(diseases)} diseases are rare", hint="data.params.rare=keep")
    if left and wanted is None:
        say(f"rfmid: {len(left)} of {len(diseases)} diseases are rare and left out: "
            f"{', '.join(diseases[index] for index in left)}")  # fmt: skip
    return tuple(names), chosen


def _check_names(diseases: Sequence[str], wanted: list[str]) -> None:
    if len(set(wanted)) != len(wanted):
        raise DataError(f"data.params.classes names a class twice: {', '.join(wanted)}")
    if not wanted:
        raise DataError("data.params.classes: no class is named")
    for name in wanted:
        if name not in diseases:
            raise DataError(f"data.params.classes: there is no disease '{name}'",
                            hint=did_you_mean(name, diseases))  # fmt: skip
