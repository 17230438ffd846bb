"""Scores of an exported model on test images, through the very runtime that is timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from edgekd.bundle import Manifest
from edgekd.data.base import DataSource
from edgekd.errors import BundleError, DataError, EdgekdError
from edgekd.image import starts_like_dicom
from edgekd.recipe_data import DataSpec, InputSpec
from edgekd.results import Predictions, Scores
from edgekd.runtimes.session import Session, logits_of

CHUNK = 256  # images in memory at once
MOST_KEPT_BYTES = 512 << 20  # decoded images are kept for the next artifact up to here


@dataclass
class TestImages:
    """Labelled images in the order of the manifest's classes; decoded on demand."""

    __test__ = False  # not a test, whatever its name says

    source: DataSource
    indices: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]  # (N, ...) as the task has them; classes are the manifest's
    input: InputSpec
    _kept: list[npt.NDArray[np.uint8]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.indices)

    def chunks(self) -> Iterator[npt.NDArray[np.uint8]]:
        """Cropped images uint8 (256 or fewer, S, S, 3). Raises DataError for an unreadable one."""
        from edgekd.data.read import read_squares

        may_keep = len(self) * self.input.size**2 * 3 <= MOST_KEPT_BYTES
        for number, start in enumerate(range(0, len(self), CHUNK)):
            if number < len(self._kept):
                yield self._kept[number]
                continue
            chunk = read_squares(self.source, self.indices[start : start + CHUNK], self.input)
            if may_keep:
                self._kept.append(chunk)
            yield chunk

    def dicom_files(self, most: int = 50) -> list[Path]:
        """The DICOM files among these images, at most so many, evenly taken."""
        files = self.source.files() or ()
        found = [files[index] for index in self.indices if files]
        step = max(1, -(-len(found) // most))
        return [path for path in found[::step] if starts_like_dicom(path)]


def find_images(data: Path | None, manifest: Manifest) -> TestImages:
    """The test images of a bundle in a folder.

    A folder with sub-folders named as the bundle's classes is taken whole, unless it is the very
    tree that the bundle was split from (at the recipe's own root, or with the same ids and labels):
    then only its test part is. Any other is read as the data set of the bundle's own recipe, and
    its test part drawn by the same split; None reads it from where the recipe says.

    Raises DataError if it is neither, or if what is drawn is not the test part that the bundle
    records; BundleError if the recipe names code outside edgekd, which a bundle never gets to run.
    """
    from edgekd.data.read import open_source, read_truth

    if data is not None and not data.is_dir():
        raise DataError(f"{data}: no such folder", hint="--data FOLDER")
    present = _class_folders(data, manifest) if data is not None else []
    if data is not None and present and not _is_own_tree(data, manifest):
        spec = DataSpec(name="folder", root=str(data), params={"classes": present},
                        input=manifest.input)  # fmt: skip
        source = open_source(spec)
        index = np.array([manifest.classes.index(name) for name in source.classes])
        return TestImages(source, np.arange(len(source)), index[source.targets()], manifest.input)
    spec = _own_spec(manifest, data)
    source = open_source(spec)
    if list(source.classes) != manifest.classes:
        raise DataError(f"the data has the classes {', '.join(source.classes)}, the bundle has "
                        f"{', '.join(manifest.classes)}")  # fmt: skip
    from edgekd.data.origin import check_same_split
    from edgekd.data.protocol import split_of

    split = split_of(source, spec, _own_subset(manifest))
    check_same_split(source, split, manifest.provenance)
    test = np.asarray(split.test, dtype=np.int64)
    from edgekd import plugins
    from edgekd.tasks.base import Task

    task: Any = plugins.load("tasks", manifest.task, Task)
    targets = read_truth(source, test, manifest.input, masks=task.wants_masks)
    return TestImages(source, test, targets, manifest.input)


def score(
    session: Session,
    images: TestImages,
    batch: int = 1,
    progress: Callable[[int], object] | None = None,
) -> tuple[Scores, Predictions]:
    """All scores of the bundle's task, with intervals, and the predictions they come from.

    `progress` is called with the number of images done since its last call. Raises DataError for
    images that are labelled for another task, BundleError for logits that are not finite.
    """
    if session.task is None:
        raise BundleError(f"{session.artifact.file} is in no bundle: it can be timed, not scored")
    parts = [logits_of(session, chunk, batch, progress) for chunk in images.chunks()]
    if not parts:
        raise DataError("there are no test images to score")
    ids, groups = images.source.ids(), images.source.groups()
    predictions = Predictions(
        ids=[ids[index] for index in images.indices],
        groups=[groups[index] for index in images.indices],
        targets=images.targets,
        logits=np.concatenate(parts),
    )
    if not np.isfinite(predictions.logits).all():
        raise BundleError(f"{session.artifact.name} gives outputs that are not finite",
                          hint="edgekd verify BUNDLE")  # fmt: skip
    return session.task.score(predictions), predictions


def _class_folders(data: Path, manifest: Manifest) -> list[str]:
    """The bundle's classes that are sub-folders; none if any sub-folder is something else."""
    found = {entry.name for entry in data.iterdir() if entry.is_dir() and entry.name[0] not in "._"}
    return (
        [name for name in manifest.classes if name in found] if found <= {*manifest.classes} else []
    )


def _is_own_tree(data: Path, manifest: Manifest) -> bool:
    """Whether class folders are the ones that the bundle was split from, training part and all."""
    from edgekd.data.origin import is_same_data
    from edgekd.data.read import open_source

    tree = manifest.recipe.get("data")
    if not isinstance(tree, dict) or tree.get("name") != "folder":
        return False
    root = _own_spec(manifest, None).root
    if root is not None and Path(root).expanduser().resolve() == data.resolve():
        return True
    try:
        source = open_source(_own_spec(manifest, data))
    except EdgekdError:
        return False
    return is_same_data(source, manifest.provenance)


def _own_subset(manifest: Manifest) -> str | None:
    """The part of the data that the bundle's student was trained and tested on."""
    from edgekd.recipe import Recipe

    if not manifest.recipe.get("data", {}).get("subsets"):
        return None
    try:
        recipe = Recipe.model_validate(manifest.recipe)
    except ValidationError as error:
        raise BundleError(f"the bundle's recipe: {error.errors()[0]['msg']}") from None
    return recipe.subset_of(recipe.export.model)


def _own_spec(manifest: Manifest, data: Path | None) -> DataSpec:
    tree: dict[str, Any] | None = manifest.recipe.get("data")
    hint = f"--data FOLDER with one sub-folder per class: {', '.join(manifest.classes)}"
    if not tree:
        raise DataError("the bundle's recipe names no data set", hint=hint)
    try:
        spec = DataSpec.model_validate(tree)
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        raise BundleError(f"the bundle's recipe: data.{key}: {problem['msg']}") from None
    from edgekd import plugins

    if ":" in spec.name or spec.name not in plugins.names("data"):
        raise BundleError(f"the bundle was made with the data source '{spec.name}', which is not "
                          "one of edgekd's own", hint=hint)  # fmt: skip
    return spec if data is None else spec.model_copy(update={"root": str(data)})
