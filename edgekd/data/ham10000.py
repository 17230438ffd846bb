"""HAM10000, seven kinds of pigmented skin lesions, as unpacked from Kaggle or Dataverse.

    <root>/HAM10000_metadata.csv          lesion_id,image_id,dx,dx_type,age,sex,localization
    <root>/HAM10000_images_part_1/*.jpg   and _part_2, or all in HAM10000_images/
    <root>/HAM10000_segmentations_lesion_tschandl/<image_id>_segmentation.png   optional

Tschandl, Rosendahl, Kittler: Sci Data 5, 180161 (2018). Upper and lower case do not matter.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgekd.data._masks import check_size, image_size, read_binary
from edgekd.data.base import DataSource, Mask, Sample
from edgekd.errors import DataError
from edgekd.image import decode

METADATA = ("ham10000_metadata.csv", "ham10000_metadata")
IMAGES = ("ham10000_images_part_1", "ham10000_images_part_2", "ham10000_images")
MASKS = "ham10000_segmentations_lesion_tschandl"
COLUMNS = ("lesion_id", "image_id", "dx", "age", "sex", "localization")


KINDS = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")


class HAM10000(DataSource):
    """10,015 dermatoscopic images of 7,470 lesions; the group is the lesion.

    With `masks` the one class is the lesion, pixel by pixel, and the diagnoses are what is spread
    evenly over the parts. Raises DataError when the metadata, an image, a mask or a value is not as
    published.
    """

    classes: tuple[str, ...] = KINDS

    def __init__(self, *, root: Path, masks: bool = False) -> None:
        if not root.is_dir():
            raise DataError(f"{root}: no such folder", hint="data.root=FOLDER")
        self.root = root
        entries = {path.name.lower(): path for path in sorted(root.iterdir())}
        self._rows = self._read_metadata(entries)
        self._files = self._find_images(entries)
        self._masks = _inner(entries.get(MASKS))
        index = {name: number for number, name in enumerate(KINDS)}
        self._targets: npt.NDArray[np.int64] = np.array(
            [index[row["dx"]] for row in self._rows], dtype=np.int64
        )
        self.has_masks = masks
        if masks:
            self.classes = ("lesion",)
            self._check_masks()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        row = self._rows[index]
        return Sample(
            image=decode(self._files[index]),
            target=int(self._targets[index]),
            id=row["image_id"],
            group=row["lesion_id"],
        )

    def kinds(self) -> Sequence[str]:
        """The diagnoses, with masks too."""
        return KINDS

    def mask(self, index: int) -> Mask:
        """The lesion's mask (H, W), 0 or 1; its sides may be a multiple of the image's.

        Raises DataError when the masks were not downloaded or this one is missing or not a mask.
        """
        path = self._mask_file(index)
        # some of the files have a palette
        return check_size(read_binary(path), image_size(self._files[index]), path)

    def mask_files(self) -> Sequence[Path] | None:
        """The masks, where they are what is learned."""
        return [self._mask_file(i) for i in range(len(self))] if self.has_masks else None

    def _mask_file(self, index: int) -> Path:
        if self._masks is None:
            raise DataError(
                f"{self.root}: there is no folder HAM10000_segmentations_lesion_tschandl",
                hint="download 'ham10000-lesion-segmentations' (Kaggle: tschandl) into data.root",
            )
        return self._masks / f"{self._rows[index]['image_id']}_segmentation.png"

    def _check_masks(self) -> None:
        wanted = [self._mask_file(index) for index in range(len(self))]
        assert self._masks is not None
        present = {path.name for path in self._masks.iterdir()}
        missing = [path for path in wanted if path.name not in present]
        if missing:
            raise DataError(f"{missing[0]}: no such mask ({len(missing)} of {len(wanted)} images "
                            "have none)")  # fmt: skip

    def targets(self) -> npt.NDArray[np.int64]:
        """The diagnoses (N,)."""
        return np.asarray(self._targets.copy())

    def ids(self) -> Sequence[str]:
        """`ISIC_0024306`, ..."""
        return [row["image_id"] for row in self._rows]

    def groups(self) -> Sequence[str]:
        """The lesions: several images of one lesion must not fall into different parts."""
        return [row["lesion_id"] for row in self._rows]

    def files(self) -> Sequence[Path]:
        """The image files."""
        return self._files

    def attributes(self) -> dict[str, Sequence[str]]:
        """`age` in years ("" where unknown), `sex` and `localization` as published."""
        return {name: [row[name] for row in self._rows] for name in ("age", "sex", "localization")}

    def _read_metadata(self, entries: dict[str, Path]) -> list[dict[str, str]]:
        path = next((entries[name] for name in METADATA if name in entries), None)
        if path is None:
            raise DataError(
                f"{self.root}: no HAM10000_metadata.csv in this folder",
                hint="data.root=FOLDER is the folder that holds HAM10000_metadata.csv",
            )
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.DictReader(file)
                missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
                if missing:
                    raise DataError(
                        f"{path}: the header has no column {', '.join(missing)}; "
                        f"found {', '.join(reader.fieldnames or ()) or 'nothing'}"
                    )
                rows = [{key: row[key] or "" for key in COLUMNS} for row in reader]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{path}: cannot be read: {error}") from None
        if not rows:
            raise DataError(f"{path}: no rows below the header")
        seen: dict[str, int] = {}
        for line, row in enumerate(rows, 2):
            if row["dx"] not in KINDS:
                raise DataError(
                    f"{path}, row {line}: dx is '{row['dx']}', expected one of {', '.join(KINDS)}"
                )
            if not row["image_id"] or not row["lesion_id"]:
                raise DataError(f"{path}, row {line}: image_id or lesion_id is empty")
            if row["image_id"] in seen:
                raise DataError(
                    f"{path}: image {row['image_id']} is in row {seen[row['image_id']]} "
                    f"and again in row {line}"
                )
            seen[row["image_id"]] = line
        return rows

    def _find_images(self, entries: dict[str, Path]) -> list[Path]:
        folders = [entries[name] for name in IMAGES if name in entries]
        if not folders:
            raise DataError(
                f"{self.root}: neither HAM10000_images_part_1 nor HAM10000_images is here",
                hint="unpack the image archives into data.root",
            )
        found = {
            path.stem: path
            for folder in folders
            for path in folder.iterdir()
            if path.suffix.lower() == ".jpg"
        }
        missing = [row["image_id"] for row in self._rows if row["image_id"] not in found]
        if missing:
            raise DataError(
                f"{self.root}: {len(missing)} of {len(self._rows)} images of the metadata are "
                f"missing, the first is {missing[0]}.jpg (looked in "
                f"{', '.join(folder.name for folder in folders)})",
                hint="unpack both HAM10000_images_part_1 and HAM10000_images_part_2",
            )
        return [found[row["image_id"]] for row in self._rows]


def _inner(folder: Path | None) -> Path | None:
    """The folder of the masks; an archive that is unpacked into its own name makes it twice."""
    if folder is None or not folder.is_dir():
        return None
    inside = [entry for entry in folder.iterdir() if entry.name.lower() == MASKS]
    return inside[0] if inside and inside[0].is_dir() else folder
