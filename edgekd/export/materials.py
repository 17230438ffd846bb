"""What an export takes from a run folder besides weights: images, labels, stored predictions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from edgekd import plugins
from edgekd.data.base import DataSource
from edgekd.data.calibration import choose
from edgekd.errors import CheckpointError, DataError
from edgekd.export.given import Given, Say, Validation
from edgekd.image import UInt8
from edgekd.recipe import Recipe
from edgekd.results import Predictions
from edgekd.rundir import RunDir
from edgekd.tasks.base import Task

if TYPE_CHECKING:
    from edgekd.data.splits import Split

HINT = "edgekd distill RECIPE"
Ints = npt.NDArray[np.int64]
Part = Literal["val", "test"]


@dataclass
class Materials:
    """The data of one run, opened at first use.

    Without `is_run` (a bundle away from the run that made it) `run` is only where the bundle
    lies: nothing is read from it.
    """

    run: RunDir
    recipe: Recipe
    say: Say
    is_run: bool = True

    @cached_property
    def source(self) -> DataSource:
        from edgekd.data.read import open_source

        return open_source(self.recipe.data, [Path(name) for name in self.recipe.plugins])

    @cached_property
    def split(self) -> Split:
        """The run's own split; where there is none, the same follows from the recipe."""
        from edgekd.data.protocol import split_of
        from edgekd.data.splits import read_split

        if self.is_run and self.run.split.is_file():
            return read_split(self.run.split, self.source)
        subset = self.recipe.subset_of(self.recipe.export.model)
        return split_of(self.source, self.recipe.data, subset)

    def caveats(self) -> list[str]:
        """What must be said beside every figure (see `protocol.caveats`)."""
        from edgekd.data.protocol import LEAKING, caveats, splits_of

        spec = self.recipe.data
        if spec.split not in LEAKING and not spec.remove_hair and not self.source.caveats():
            return []  # a split need not be drawn again to say nothing
        return caveats(self.recipe, splits_of(self.source, spec), self.source)

    def task(self, model: str | None = None) -> Task:
        """The recipe's task, with the thresholds of a model (by default the exported one)."""
        thresholds = self._thresholds.get(model or self.recipe.export.model, ())
        learned = self._task.learned.model_copy(update={"thresholds": tuple(thresholds)})
        return self._task.taught(learned)

    @cached_property
    def _task(self) -> Task:
        folders = [Path(folder) for folder in self.recipe.plugins]
        spec = self.recipe.task
        cls = plugins.load("tasks", spec.name, Task, folders=folders)  # type: ignore[type-abstract]
        task = cls(classes=self.source.classes, primary=spec.primary)
        if not task.wants_labels:  # the split need not be drawn to know the classes
            return task
        from edgekd.data._learned import learned_of

        return task.taught(learned_of(self.recipe, self.source, self.split.train))

    @cached_property
    def _thresholds(self) -> dict[str, list[float]]:
        """By model, where the recipe asks for them. Raises CheckpointError where they are gone."""
        if not self.is_run or self.recipe.task.thresholds is None:
            return {}
        path = self.run.thresholds
        try:
            found: dict[str, list[float]] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}", hint=HINT) from None
        return found

    def given(self, model: str | None = None) -> Given:
        """What precision passes get of this run's data; images are read once for all of them."""
        return Given(lambda: self.calibration, lambda: self.validation, self.task(model),
                     self.recipe.export, self.say)  # fmt: skip

    @cached_property
    def calibration(self) -> UInt8:
        """Training images, spread over classes and groups, (N, S, S, 3)."""
        spec = self.recipe.export.calibration
        strata = self.task().strata(self.source.targets())
        chosen = choose(strata, self.source.groups(), self.split.train, spec.images, seed=spec.seed)
        self.say(f"calibrating on {len(chosen)} training images")
        return self._squares(chosen)

    @cached_property
    def validation(self) -> Validation:
        """Labelled validation images, evenly drawn where there are more than a pass needs."""
        spec, targets = self.recipe.export.control, self.source.targets()
        labelled = self.task().labelled(targets[self.split.val])
        chosen = self.split.val[labelled]
        if not len(chosen):
            raise DataError("the validation part has no labelled images to choose layers by",
                            hint="a data.split with a val part, or only fp32, fp16 and int8"
                            )  # fmt: skip
        if len(chosen) > spec.images:
            random = np.random.default_rng(spec.seed)
            chosen = np.sort(random.choice(chosen, size=spec.images, replace=False))
        ids, groups = self.source.ids(), self.source.groups()
        nothing = np.zeros((len(chosen), 0), np.float32)
        truth = Predictions([ids[i] for i in chosen], [groups[i] for i in chosen],
                            self._truth(chosen), nothing)  # fmt: skip
        self.say(f"choosing layers on {len(chosen)} validation images")
        return Validation(self._squares(chosen), truth)

    @cached_property
    def test_squares(self) -> UInt8:
        """All test images (N, S, S, 3)."""
        return self._squares(self.split.test)

    def squares_of(self, part: Part) -> UInt8:
        """All images of one part (N, S, S, 3)."""
        return self.test_squares if part == "test" else self._squares(getattr(self.split, part))

    def predictions(self, model: str, part: Part = "test") -> Predictions:
        """What the PyTorch model said about the images of one part, in the order of the split.

        Raises CheckpointError if there is no such file, DataError if it is about other images.
        """
        path = self.run.predictions(model, part)
        if not path.is_file():
            raise CheckpointError(f"{self.run.root} has no {part} predictions of '{model}'",
                                  hint=HINT)  # fmt: skip
        found = Predictions.load(path)
        ids = self.source.ids()
        wanted = [ids[index] for index in getattr(self.split, part)]
        if found.ids == wanted:
            return found
        place = {name: row for row, name in enumerate(found.ids)}
        if set(place) != set(wanted):
            raise DataError(f"{path}: its images are not those of the {part} part",
                            hint=f"{HINT} --fresh")  # fmt: skip
        rows = [place[name] for name in wanted]
        return Predictions(wanted, [found.groups[row] for row in rows], found.targets[rows],
                           found.logits[rows])  # fmt: skip

    def from_logits(self, logits: npt.NDArray[np.float32], part: Part = "test") -> Predictions:
        """Predictions of any model on `squares_of(part)`."""
        ids, groups, rows = self.source.ids(), self.source.groups(), getattr(self.split, part)
        return Predictions([ids[i] for i in rows], [groups[i] for i in rows],
                           self._truth(rows), logits)  # fmt: skip

    def _truth(self, indices: Ints) -> npt.NDArray[Any]:
        """Targets, labels, or masks of some images."""
        from edgekd.data.read import read_truth

        masks = self.task().wants_masks
        return read_truth(self.source, indices, self.recipe.data.input, masks=masks)

    def _squares(self, indices: Ints) -> UInt8:
        from edgekd.data.read import read_squares

        return read_squares(self.source, indices, self.recipe.data.input)
