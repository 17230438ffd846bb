"""What a recipe may say. Reading one from disk, overrides and variants are in `recipe_load.py`.

Every level refuses unknown keys. Nothing here needs torch: names of losses, data sets and models
are resolved by whoever uses them.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from edgekd.recipe_base import Key, Name, Names, Positive, Section
from edgekd.recipe_check import check_names
from edgekd.recipe_data import DataSpec
from edgekd.recipe_export import (
    CalibrationSpec,
    ControlSpec,
    ExportSpec,
    GateSpec,
    OperatingSpec,
)
from edgekd.recipe_model import ModelSpec, NeckSpec
from edgekd.recipe_search import SearchSpec
from edgekd.recipe_stage import OptimizerSpec, ScheduleSpec, StageSpec, Term

__all__ = [
    "CalibrationSpec", "ControlSpec", "DataSpec", "ExportSpec", "GateSpec", "HardwareSpec",
    "ModelSpec", "NeckSpec", "OptimizerSpec", "Recipe", "ScheduleSpec", "StageSpec", "TaskSpec",
    "Term",
]  # fmt: skip

SCHEMA_VERSION = 1


class ShotSpec(Section):
    """Which classes have many (head), some (medium) and few (tail) training images."""

    head: Positive = 100  # from so many images on
    tail: Positive = 20  # below so many

    @model_validator(mode="after")
    def _are_apart(self) -> ShotSpec:
        if self.tail > self.head:
            raise ValueError("tail must not be above head")
        return self


class TaskSpec(Section):
    """What is asked of an image."""

    LATE: ClassVar[tuple[str, ...]] = ("thresholds", "shots")

    name: str = "classification"
    primary: str | None = None  # the score that picks epochs and that the gate guards
    # from which probability on a class (a pixel) is there, chosen on validation images: the best
    # F1, or a sensitivity or specificity; default: from 0.5 on
    thresholds: Literal["f1"] | OperatingSpec | None = None
    shots: ShotSpec | Literal["terciles"] = ShotSpec()  # or a third of the classes each


class HardwareSpec(Section):
    """Where and how to compute. Only precision and layout can change a stage's numbers."""

    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: int | str = 1
    nodes: Positive = 1
    strategy: str = "auto"
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    channels_last: bool = True
    compile: bool = False  # torch.compile of the networks in training
    threads: Annotated[int, Field(ge=0)] = 0
    checkpoint_every_s: Annotated[float, Field(gt=0)] = 60.0  # besides the end of each epoch


class BenchSpec(Section):
    batch: list[Positive] = [1]
    warmup: Annotated[int, Field(ge=0)] = 50  # runs, and at least half a second
    repeats: Annotated[int, Field(ge=10)] = 200
    seconds: Annotated[float, Field(ge=0)] = 1.0  # at least this long
    threads: Annotated[int, Field(ge=0)] = 0


class PaperSpec(Section):
    """Which published row this recipe (or variant) stands for."""

    LATE: ClassVar[tuple[str, ...]] = ("also", "members")

    table: str
    method: str | None = None
    scenario: str | None = None
    also: Names = []  # other tables that print other scores of the same runs
    members: dict[str, str] = {}  # where a method has a row for each model: the paper's name: ours


class AnalysisSpec(Section):
    """What is looked at besides scores, once everything is trained."""

    cka: list[tuple[str, str]] = []  # pairs of models whose layers are compared
    images: Annotated[int, Field(ge=4)] = 512
    batch: Annotated[int, Field(ge=4)] = 64
    part: Literal["train", "val", "test"] = "test"


class Recipe(Section):
    """One experiment, complete in itself."""

    LATE: ClassVar[tuple[str, ...]] = ("ensembles", "analysis")

    edgekd: Literal[1]
    name: Name
    description: str = ""
    paper: PaperSpec | None = None
    plugins: list[str] = []
    task: TaskSpec = TaskSpec()
    data: DataSpec
    models: dict[Key, ModelSpec] = Field(min_length=1)
    ensembles: dict[Key, list[str]] = {}  # models that answer together
    stages: dict[Key, StageSpec] = {}  # empty only for an imported ONNX model
    export: ExportSpec = ExportSpec()
    analysis: AnalysisSpec | None = None
    bench: BenchSpec = BenchSpec()
    hardware: HardwareSpec = HardwareSpec()
    seed: int = 1
    seeds: list[int] = []  # used by sweeps
    baseline: Key | None = None  # the variant (or `base`) that sweeps compare with
    search: SearchSpec | None = None
    variants: dict[Key, dict[str, Any]] = {}

    @model_validator(mode="after")
    def _names_resolve(self) -> Recipe:
        check_names(self)
        if self.data.split_seed == "seed":
            data = self.data.model_copy(update={"split_seed": self.seed})
            return self.model_copy(update={"data": data})
        return self

    def members(self, name: str) -> list[str]:
        """The models of an ensemble; a model is its own."""
        return self.ensembles.get(name, [name])

    def deployed(self) -> list[str]:
        """The models and ensembles that become bundles, the main one first."""
        return [self.export.model, *self.export.also]

    def subset_of(self, name: str) -> str | None:
        """The part of the data that a model is for: that of the last stage that trains it.

        The members of an ensemble are for the same part.
        """
        model = self.members(name)[0]
        stages = [stage for stage in self.stages.values() if model in stage.train]
        return stages[-1].data.subset if stages else None
