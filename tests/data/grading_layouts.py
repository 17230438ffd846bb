"""Imitations of the layouts in which SICAPv2 and APTOS 2019 are downloaded, with tiny pictures.

The colour of a picture tells its class, the noise on it makes every file another one.
"""

from __future__ import annotations

import csv
import hashlib
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from openpyxl import Workbook
from PIL import Image

SICAP_HEADER = ("image_name", "NC", "G3", "G4", "G5", "G4C")
SICAP_MARKS = {
    "NC": (1, 0, 0, 0, 0),
    "G3": (0, 1, 0, 0, 0),
    "G4": (0, 0, 1, 0, 0),
    "G5": (0, 0, 0, 1, 0),
    "G4+G4C": (0, 0, 1, 0, 1),
    "G4C": (0, 0, 0, 0, 1),
}
SICAP_CLASSES = ("NC", "G3", "G4", "G5")
COLOURS = ((200, 60, 60), (60, 200, 60), (60, 60, 200), (190, 190, 50), (50, 190, 190))

Row = tuple[object, ...]


def draw(path: Path, target: int, number: int, size: int) -> None:
    """A noisy picture in the colour of its class."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng([target, number]).integers(-45, 46, (size, size, 3))
    Image.fromarray((np.array(COLOURS[target]) + noise).astype(np.uint8)).save(path)


def copy_image(root: Path, first: str, second: str) -> None:
    """Give one .png below `root` the bytes of another; both by name without ending."""
    paths = {path.stem: path for path in root.rglob("*.png")}
    shutil.copyfile(paths[first], paths[second])


def write_xlsx(path: Path, rows: Iterable[Sequence[object]], header: Sequence[object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    for row in (header, *rows):
        sheet.append(list(row))
    book.save(path)


def write_csv(path: Path, rows: Iterable[Sequence[object]], header: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def sicap_name(slide: int, number: int) -> str:
    """Like `16B0001851_Block_Region_1_0_1_xini_7827_yini_59786`."""
    row, column = divmod(number, 8)
    return (
        f"16B00{slide:05d}_Block_Region_1_{row}_{column}"
        f"_xini_{512 * column + 7}_yini_{512 * row + 59}"
    )


def make_sicapv2(
    root: Path,
    *,
    counts_per_class: Sequence[int] = (20, 20, 20, 20),
    slides: int = 10,
    size: int = 16,
) -> Path:
    """So many listed images of NC, G3, G4, G5, dealt over the slides; every fifth slide is test.

    The other slides make the four folds. Of the G4 images a third is marked G4 alone, a third also
    G4C and a third only G4C. Each slide has one image more that no table lists.
    """
    tables: dict[str, list[Row]] = {}
    number = 0
    for target, count in enumerate(counts_per_class):
        for index in range(count):
            slide = index % slides
            name = sicap_name(slide, number)
            kind = ("G4", "G4+G4C", "G4C")[index % 3] if target == 2 else SICAP_CLASSES[target]
            row = (f"{name}.jpg", *SICAP_MARKS[kind])
            draw(root / "images" / f"{name}.jpg", target, number, size)
            _mask(root / "masks" / f"{name}.png", target, size)
            number += 1
            if slide % 5 == 4:
                tables.setdefault("Test/Test", []).append(row)
                continue
            tables.setdefault("Test/Train", []).append(row)
            mine = (slide - slide // 5) % 4 + 1
            for fold in (1, 2, 3, 4):
                part = "Test" if fold == mine else "Train"
                tables.setdefault(f"Validation/Val{fold}/{part}", []).append(row)
    for place, rows in tables.items():
        order = np.random.default_rng(len(rows)).permutation(len(rows))  # not by class, not by name
        shuffled = [rows[index] for index in order]
        write_xlsx(root / "partition" / f"{place}.xlsx", shuffled, SICAP_HEADER)
    for slide in range(slides):
        name = sicap_name(slide, number + slide)
        draw(root / "images" / f"{name}.jpg", 0, number + slide, size)
        _mask(root / "masks" / f"{name}.png", 0, size)
    write_xlsx(
        root / "wsi_labels.xlsx",
        [(f"16B00{slide:05d}", slide % 10, 3, 4) for slide in range(slides)],
        ("slide_id", "patient_id", "Gleason_primary", "Gleason_secondary"),
    )
    (root / "readme.txt").write_text("SICAPv2\n", encoding="utf-8")
    return root


def aptos_id(number: int) -> str:
    """Like `000c1434d8d7`."""
    return hashlib.sha256(str(number).encode()).hexdigest()[:12]


def make_aptos2019(
    root: Path,
    *,
    counts_per_class: Sequence[int] = (20, 10, 15, 10, 10),
    size: int = 16,
    layout: Literal["kaggle", "mirror"] = "kaggle",
    suffix: str = ".png",
    inner: bool = True,
) -> Path:
    """So many images of the grades 0 to 4; in the mirror 3/5 of each are train, 1/5 val, 1/5 test.

    `inner` is the mirror's second folder of the same name (`train_images/train_images`).
    """
    tables: dict[tuple[str, str], list[Row]] = {}
    number = 0
    for target, count in enumerate(counts_per_class):
        for index in range(count):
            place = ("train.csv", "train_images")
            if layout == "mirror":
                names = [("train_1.csv", "train_images")] * 3
                names += [("valid.csv", "val_images"), ("test.csv", "test_images")]
                place = names[index % 5]
            folder = root / place[1]
            if layout == "mirror" and inner:
                folder /= place[1]
            draw(folder / f"{aptos_id(number)}{suffix}", target, number, size)
            tables.setdefault(place, []).append((aptos_id(number), target))
            number += 1
    for (name, _), rows in tables.items():
        write_csv(root / name, sorted(rows, key=lambda row: str(row[0])), ("id_code", "diagnosis"))
    if layout == "kaggle":
        unlabelled = [aptos_id(number + index) for index in range(3)]
        write_csv(root / "test.csv", [(id,) for id in unlabelled], ("id_code",))
        write_csv(
            root / "sample_submission.csv", [(id, 0) for id in unlabelled], ("id_code", "diagnosis")
        )
        for index, id in enumerate(unlabelled):
            draw(root / "test_images" / f"{id}{suffix}", 0, number + index, size)
    return root


def _mask(path: Path, target: int, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size, size), target, dtype=np.uint8)).save(path)
