"""MedMNIST v2 files (`retinamnist.npz`, `dermamnist_64.npz`, ...), single-label and 2-D.

Yang et al.: Sci Data 10, 41 (2023). Each file holds {train,val,test}_{images,labels}.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgekd.data._digests import digests_of
from edgekd.data.base import DataSource, Sample
from edgekd.errors import DataError, did_you_mean

PARTS = ("train", "val", "test")
ORGANS = (
    "bladder", "femur-left", "femur-right", "heart", "kidney-left", "kidney-right", "liver",
    "lung-left", "lung-right", "pancreas", "spleen",
)  # fmt: skip
NAMES = {
    "bloodmnist": (
        "basophil", "eosinophil", "erythroblast", "immature granulocyte", "lymphocyte", "monocyte",
        "neutrophil", "platelet",
    ),
    "breastmnist": ("malignant", "normal or benign"),
    "dermamnist": ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"),
    "octmnist": ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
    "organamnist": ORGANS,
    "organcmnist": ORGANS,
    "organsmnist": ORGANS,
    "pathmnist": (
        "adipose", "background", "debris", "lymphocytes", "mucus", "smooth muscle",
        "normal colon mucosa", "cancer-associated stroma", "colorectal adenocarcinoma epithelium",
    ),
    "pneumoniamnist": ("normal", "pneumonia"),
}  # fmt: skip


class MedMNIST(DataSource):
    """One MedMNIST file with its official split; greyscale images get three equal channels.

    `root` is the file, or a folder in which `flag` (`retinamnist`) names it. All images are in
    memory from the start. Raises DataError for a file of another form.
    """

    def __init__(self, *, root: Path, flag: str | None = None) -> None:
        self.root = root
        self.path = _find(root, flag)
        labels, images, parts = [], [], []
        for part, (pictures, marks) in _read(self.path).items():
            images.append(pictures)
            labels.append(marks)
            parts += [part] * len(marks)
        self._images = images
        self._starts = np.cumsum([0, *(len(block) for block in images)])
        self._targets: npt.NDArray[np.int64] = np.concatenate(labels)
        self._parts = parts
        self._ids = [
            f"{part}-{number:06d}"
            for part, block in zip(PARTS, images, strict=True)
            for number in range(len(block))
        ]
        count = int(self._targets.max()) + 1
        names = NAMES.get(self.path.stem.partition("_")[0], ())
        self.classes = names if len(names) == count else tuple(map(str, range(count)))

    def __len__(self) -> int:
        return len(self._targets)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        block = int(np.searchsorted(self._starts, index, side="right")) - 1
        image = self._images[block][index - self._starts[block]]
        if image.ndim == 2:
            image = np.repeat(image[:, :, None], 3, axis=2)
        name = self._ids[index]
        return Sample(image=image, target=int(self._targets[index]), id=name, group=name)

    def targets(self) -> npt.NDArray[np.int64]:
        """The labels (N,): train, then val, then test."""
        return np.asarray(self._targets.copy())

    def ids(self) -> Sequence[str]:
        """`train-000000`, ..."""
        return self._ids

    def groups(self) -> Sequence[str]:
        """The ids: MedMNIST does not say which images share a patient."""
        return self._ids

    def parts(self) -> Sequence[str]:
        """The official split."""
        return self._parts

    def fingerprint(self) -> str:
        """As for every source, with the one file."""
        whole = super().fingerprint().encode() + digests_of([self.path])[0]
        return hashlib.sha256(whole).hexdigest()


def _find(root: Path, flag: str | None) -> Path:
    if root.is_file():
        if flag is not None and root.stem != flag:
            raise DataError(
                f"data.root is the file {root.name}, but data.params.flag is '{flag}'",
                hint="leave one of them out",
            )
        return root
    if not root.is_dir():
        raise DataError(f"{root}: no such file or folder", hint="data.root=FILE.npz")
    found = {path.stem: path for path in sorted(root.glob("*.npz"))}
    if flag is None:
        if len(found) != 1:
            raise DataError(
                f"{root}: {len(found)} .npz files, expected one or data.params.flag",
                hint=f"data.params.flag=NAME; known: {', '.join(found) or 'none'}",
            )
        return next(iter(found.values()))
    if flag not in found:
        raise DataError(f"{root}: there is no {flag}.npz", hint=did_you_mean(flag, found))
    return found[flag]


def _read(path: Path) -> dict[str, tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]]:
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    try:
        # numpy leaves a file open that it cannot read, so it does not open it
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            for part in PARTS:
                for kind in ("images", "labels"):
                    arrays[f"{part}_{kind}"] = file[f"{part}_{kind}"]
    except KeyError as error:
        raise DataError(f"{path}: not a MedMNIST file: {error.args[0]}") from None
    except (OSError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: cannot be read as a MedMNIST .npz file: {error}") from None
    return {
        part: (
            _images(path, part, arrays[f"{part}_images"]),
            _labels(path, part, arrays[f"{part}_labels"], len(arrays[f"{part}_images"])),
        )
        for part in PARTS
    }


def _images(path: Path, part: str, images: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    flat = images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)
    if not flat or images.dtype != np.uint8:
        raise DataError(
            f"{path}: {part}_images is {images.dtype} {images.shape}, expected uint8 (N, H, W) or "
            f"(N, H, W, 3); 3-D sets cannot be used"
        )
    return images.astype(np.uint8, copy=False)


def _labels(
    path: Path, part: str, labels: npt.NDArray[np.generic], images: int
) -> npt.NDArray[np.int64]:
    if labels.ndim == 2 and labels.shape[1] > 1:
        raise DataError(
            f"{path}: {part}_labels has {labels.shape[1]} labels per image (a multi-label set); "
            f"only one class per image can be used"
        )
    if labels.size != images or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"{path}: {part}_labels is {labels.dtype} {labels.shape} for {images} images"
        )
    marks = labels.reshape(-1).astype(np.int64)
    if marks.size and marks.min() < 0:
        raise DataError(f"{path}: {part}_labels has the negative label {marks.min()}")
    return marks
