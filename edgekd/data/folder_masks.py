"""One's own images with a mask each: two folders of equal names, or masks beside their images.

    <root>/images/a.png    <root>/masks/a.png                    split by a ratio
    <root>/{train,val,test}/images/a.png, .../masks/a.png        split: official
    <root>/images/train/a.png, <root>/masks/train/a.png          split: official
    <root>/a.png, <root>/a_mask.png                              images: ., masks: ., suffix: _mask

Endings may differ: what must agree is the path below the two folders, without the ending.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgekd.data._masks import check_size, classes_shown, image_size, read_binary, read_classes
from edgekd.data._pairs import find_pairs, read_groups
from edgekd.data.base import DataSource, Mask, Sample
from edgekd.errors import DataError, did_you_mean
from edgekd.image import decode

MOST_CLASSES = 127  # truth is kept in signed bytes


class FolderMasks(DataSource):
    """Images and masks in folders; DICOM images too.

    One class is what is not 0 in a mask that holds 0 and one other value; `classes: [polyp]` names
    it, and `threshold` says from which grey value on it is meant. Several classes, of which the
    first is the background, are the values 0, 1, 2... in the order of `classes`, or those of
    `values` ({tissue: 0, tumour: 128}); 255 is unknown. `suffix` is what the name of a mask has
    more than its image's. The group is the row of the CSV `groups`, or with `group: folder` the
    folder below `images`.

    Raises DataError that names the first file that has no partner, and counts the others.
    """

    has_masks = True

    def __init__(
        self,
        *,
        root: Path,
        images: str = "images",
        masks: str = "masks",
        suffix: str = "",
        classes: list[str] | None = None,
        values: dict[str, int] | None = None,
        threshold: int | None = None,
        groups: str | None = None,
        group: Literal["image", "folder"] | None = None,
    ) -> None:
        if not root.is_dir():
            raise DataError(f"{root}: no such folder", hint="data.root=FOLDER")
        self.root = root
        self.classes = _class_names(classes, values)
        self._values = {(values or {}).get(name, i): i for i, name in enumerate(self.classes)}
        self._threshold = threshold
        if threshold is not None and (len(self.classes) > 1 or not 0 < threshold < 256):
            raise DataError(f"data.params.threshold: {threshold}, expected 1 to 255 and one class")
        if groups is not None and group is not None:
            raise DataError("data.params.group: with `groups`, that table says it")
        self._pairs = find_pairs(root, images, masks, suffix)
        inside = next((p for p in self._pairs if p.folder), None)
        if inside is not None and inside.folder and groups is None and group is None:
            raise DataError(
                f"{inside.image} lies in a folder: is '{inside.folder.split('/')[0]}' a patient?",
                hint="data.params.group=folder if it is, data.params.group=image if not",
            )
        self._groups = [
            pair.folder.split("/")[0] if group == "folder" and pair.folder else pair.id
            for pair in self._pairs
        ]
        if groups is not None:
            self._groups = read_groups(root / groups, self.ids())
        self.parts()  # refuses images outside of the parts' folders

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Sample:
        pair = self._pairs[index]
        kind = int(self._spread[1][index])
        return Sample(decode(pair.image), kind, pair.id, self._groups[index])

    def mask(self, index: int) -> Mask:
        """The class of every pixel (H, W), 255 where unknown.

        Raises DataError that names the file: unreadable, values of no class, or of another shape
        than its image.
        """
        pair = self._pairs[index]
        if len(self.classes) == 1:
            found = read_binary(pair.mask, self._threshold)
        else:
            found = read_classes(pair.mask, self._values)
        return check_size(found, image_size(pair.image), pair.mask)

    def targets(self) -> npt.NDArray[np.int64]:
        """The kind of each image (N,); all masks are read for it once."""
        return np.asarray(self._spread[1].copy())

    def kinds(self) -> Sequence[str]:
        """`without polyp` and `with polyp`; of several classes, the rarest that an image shows."""
        return self._spread[0]

    def ids(self) -> Sequence[str]:
        """Paths below the folder of the images, without their endings."""
        return [pair.id for pair in self._pairs]

    def groups(self) -> Sequence[str]:
        """Those of the table, or the folders, else the ids."""
        return list(self._groups)

    def parts(self) -> Sequence[str] | None:
        """The folders `train`, `val`, `test`; None without. Raises DataError for a mixture."""
        parts = [pair.part for pair in self._pairs if pair.part is not None]
        if parts and len(parts) < len(self._pairs):
            stray = next(pair.image for pair in self._pairs if pair.part is None)
            raise DataError(f"{stray}: is in no part, others are in 'train', 'val' or 'test'")
        return parts or None

    def files(self) -> Sequence[Path]:
        """The image files."""
        return [pair.image for pair in self._pairs]

    def mask_files(self) -> Sequence[Path]:
        """The masks, in the order of the images."""
        return [pair.mask for pair in self._pairs]

    def fingerprint(self) -> str:
        """A hash of the files and of how masks are read."""
        facts = (sorted(self._values.items()), self._threshold)
        return hashlib.sha256(f"{super().fingerprint()}{facts}".encode()).hexdigest()

    @cached_property
    def _spread(self) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
        """Kinds and the one of each image."""
        shown = classes_shown(len(self), self.mask, len(self.classes))
        counts = shown.sum(axis=0)
        for name, count in zip(self.classes, counts, strict=True):
            if count == 0:
                raise DataError(
                    f"{self.root}: no mask shows '{name}'",
                    hint="data.params.values={CLASS: VALUE, ...} if masks hold other values than "
                    f"0 to {len(self.classes) - 1}" if len(self.classes) > 1 else None,
                )  # fmt: skip
        if len(self.classes) == 1:
            kinds = np.array([f"without {self.classes[0]}", f"with {self.classes[0]}"])
            found = shown[:, 0].astype(np.int64)
        else:
            kinds = np.array(self.classes)
            found = np.argmin(np.where(shown, counts, len(self) + 1), axis=1)
        present, found = np.unique(found, return_inverse=True)
        train = [i for i, pair in enumerate(self._pairs) if pair.part in (None, "train")]
        if train and len(np.unique(found[train])) < len(present):
            # the given parts are what they are: nothing is to be spread, and a few empty masks in
            # the test part are no class that training never saw
            return ("images",), np.zeros(len(self), dtype=np.int64)
        return tuple(str(name) for name in kinds[present]), found.astype(np.int64)


def _class_names(classes: list[str] | None, values: dict[str, int] | None) -> tuple[str, ...]:
    names = tuple(classes or values or ("foreground",))
    if len(set(names)) != len(names):
        raise DataError(f"data.params.classes names a class twice: {', '.join(names)}")
    if len(names) > MOST_CLASSES:
        raise DataError(f"data.params.classes: {len(names)} classes, at most {MOST_CLASSES}")
    if values is None:
        return names
    if len(names) == 1:
        raise DataError("data.params.values: one class is what is not 0",
                        hint="name the background too: {background: 0, lesion: 1}")  # fmt: skip
    for name in [*names, *values]:
        if name not in values or name not in names:
            others = values if name in names else names
            raise DataError(
                f"data.params.values: '{name}' is in only one of classes and values",
                hint=did_you_mean(name, others),
            )
    if len(set(values.values())) != len(values) or not all(0 <= v < 256 for v in values.values()):
        raise DataError("data.params.values: expected a value of its own, 0 to 255, for each class")
    return names
