"""What a recipe may say. Reading one from disk, overrides and variants are in `recipe_load.py`.

Every level refuses unknown keys. Nothing here needs torch: names of losses, data sets and models
are resolved by whoever uses them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from edgekd.recipe_base import Factor, Key, Name, Names, PerChannel, Positive, Section
from edgekd.recipe_data import DataSpec, StageData
from edgekd.recipe_export import OperatingSpec
from edgekd.recipe_search import SearchSpec

SCHEMA_VERSION = 1


class TaskSpec(Section):
    """What is asked of an image."""

    name: str = "classification"
    primary: str | None = None  # the score that picks epochs and that the gate guards


class ModelSpec(Section):
    """A network by name, from the user's own file, or frozen in an ONNX file."""

    arch: str  # timm:NAME, torchvision:NAME, file:PATH.py:FUNCTION, onnx:PATH.onnx
    pretrained: bool | str = False  # true: the library's weights; or a .safetensors/.pth file
    args: dict[str, Any] = {}  # handed to the network's builder
    taps: dict[str, str] = {}  # tap name -> module path, where it cannot be found by itself
    seed: int | None = None  # initialisation; default: from the run's seed and the model's name
    # per channel, in [0, 1]; default: the weights' own, or ImageNet's
    mean: PerChannel | None = None
    std: PerChannel | None = None  # above 0

    @field_validator("std")
    @classmethod
    def _is_positive(cls, std: list[float] | None) -> list[float] | None:
        if std is not None and min(std) <= 0:
            raise ValueError("must be above 0")
        return std

    @field_validator("arch")
    @classmethod
    def _has_kind(cls, arch: str) -> str:
        kind = arch.partition(":")[0]
        if ":" not in arch or kind not in {"timm", "torchvision", "file", "onnx"}:
            raise ValueError(
                "must start with timm:, torchvision:, file: or onnx: (for example timm:resnet18)"
            )
        return arch


class Term(Section):
    """One entry of `losses:`; a loss that looks `from` teachers `to` a student."""

    loss: str | None = None  # default: the term's own name
    from_: Names = Field(default=[], alias="from")
    to: str
    weight: float = 1.0
    params: dict[str, Any] = {}
    rates: dict[Key, Factor] = {}  # multiply the learning rate of parts of its adapters
    stop_gradient: bool = True  # the sources' outputs are detached


class OptimizerSpec(Section):
    name: Literal["sgd", "adam", "adamw"] = "adam"
    lr: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9  # sgd only
    nesterov: bool = False
    scale: dict[Literal["heads", "adapters"], Factor] = {}  # multiplies lr
    clip: Annotated[float, Field(gt=0)] | None = None  # gradient norm, per model

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> OptimizerSpec:
        if self.nesterov and (self.name != "sgd" or self.momentum == 0):
            raise ValueError("nesterov needs sgd with momentum")
        return self


class ScheduleSpec(Section):
    name: Literal["constant", "cosine", "step", "onecycle"] = "constant"
    warmup: Annotated[float, Field(ge=0)] = 0.0  # epochs of linear warm-up
    every: Positive = 15  # step: epochs
    gamma: Annotated[float, Field(gt=0)] = 0.1  # step: factor
    floor: Annotated[float, Field(ge=0)] = 0.0  # cosine: last lr


class CacheSpec(Section):
    """Teachers' outputs are computed once for `views` augmented copies of every image."""

    views: Positive = 4  # epoch e sees copy (e - 1) mod views


class StageSpec(Section):
    """One training phase: models, terms and one optimizer."""

    train: Names = Field(min_length=1)
    frozen: Names = []
    losses: dict[Key, Term]
    data: StageData = StageData()
    optimizer: OptimizerSpec = OptimizerSpec()
    schedule: ScheduleSpec = ScheduleSpec()
    epochs: Positive = 1
    accumulate: Positive = 1
    cache: CacheSpec | None = None  # for terms that need a teacher's logits only
    quantize: Literal["int8"] | None = None  # the trained models compute as they will in int8
    select: Literal["best", "last"] = "best"  # which epoch's weights go on, by the primary score


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


class GateSpec(Section):
    """What a conversion may cost, in points (hundredths) of the primary score.

    A recipe may tighten the defaults, never loosen them.
    """

    max_drop: Annotated[float, Field(ge=0, le=0.5)] = 0.5  # point estimate of the loss
    max_drop_bound: Annotated[float, Field(ge=0, le=1.5)] = 1.5  # bound of its 95 % interval


class CalibrationSpec(Section):
    images: Annotated[int, Field(ge=8)] = 300
    seed: int = 0


class ControlSpec(Section):
    """How int8-aware and mixed choose which layers stay in float: on validation images."""

    # points of the primary score; the gate's own limit is for other images, so aim below it
    max_drop: Annotated[float, Field(ge=0, le=0.5)] = 0.25
    images: Annotated[int, Field(ge=8)] = 1000  # at most; drawn evenly, classes as they come
    seed: int = 0


class ExportSpec(Section):
    model: str = "student"
    reference: str | None = None  # exported beside it, to compare with (usually the teacher)
    make: list[str] = ["onnx-fp32"]
    # what is made besides where the gate refuses an int8 artifact
    if_refused: list[Literal["mixed", "int8-aware", "fp16"]] = ["mixed"]
    calibration: CalibrationSpec = CalibrationSpec()
    control: ControlSpec = ControlSpec()
    gate: GateSpec = GateSpec()
    thresholds: dict[str, OperatingSpec] = {}  # by class

    @model_serializer(mode="wrap")
    def _without_empty(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A recipe without operating points is written, and so hashed, as before there were any."""
        tree: dict[str, Any] = handler(self)
        if not self.thresholds:
            tree.pop("thresholds", None)
        return tree


class BenchSpec(Section):
    batch: list[Positive] = [1]
    warmup: Annotated[int, Field(ge=0)] = 50  # runs, and at least half a second
    repeats: Annotated[int, Field(ge=10)] = 200
    seconds: Annotated[float, Field(ge=0)] = 1.0  # at least this long
    threads: Annotated[int, Field(ge=0)] = 0


class PaperSpec(Section):
    """Which published row this recipe (or variant) stands for."""

    table: str
    method: str | None = None
    scenario: str | None = None


class Recipe(Section):
    """One experiment, complete in itself."""

    edgekd: Literal[1]
    name: Name
    description: str = ""
    paper: PaperSpec | None = None
    plugins: list[str] = []
    task: TaskSpec = TaskSpec()
    data: DataSpec
    models: dict[Key, ModelSpec] = Field(min_length=1)
    stages: dict[Key, StageSpec] = {}  # empty only for an imported ONNX model
    export: ExportSpec = ExportSpec()
    bench: BenchSpec = BenchSpec()
    hardware: HardwareSpec = HardwareSpec()
    seed: int = 1
    seeds: list[int] = []  # used by sweeps
    baseline: Key | None = None  # the variant (or `base`) that sweeps compare with
    search: SearchSpec | None = None
    variants: dict[Key, dict[str, Any]] = {}

    @model_validator(mode="after")
    def _names_resolve(self) -> Recipe:
        for place, name in self._model_references():
            if name not in self.models:
                raise ValueError(_unknown(place, "model", name, self.models))
        is_imported = self.models[self.export.model].arch.startswith("onnx:")
        if not self.stages:
            if not is_imported:
                raise ValueError("stages: this key is missing")
            return self
        if "base" in self.variants:
            raise ValueError("variants: `base` means the recipe itself; choose another name")
        known = {"base", *self.variants}
        if self.baseline is not None and self.baseline not in known:
            raise ValueError(_unknown("baseline", "variant", self.baseline, known))
        present_anywhere = {m for s in self.stages.values() for m in (*s.train, *s.frozen)}
        for place, name in self._model_references()[:2]:
            if place.startswith("export.") and name not in present_anywhere:
                raise ValueError(f"{place}: no stage trains or uses model '{name}'")
        if is_imported:
            raise ValueError(
                f"export.model: '{self.export.model}' is an ONNX file already; "
                "`edgekd import FILE.onnx` makes a bundle of it"
            )
        for stage_name, stage in self.stages.items():
            subset = stage.data.subset
            if subset is not None and subset not in self.data.subsets:
                place = f"stages.{stage_name}.data.subset"
                raise ValueError(_unknown(place, "subset", subset, self.data.subsets))
            both = set(stage.train) & set(stage.frozen)
            if both:
                raise ValueError(f"stages.{stage_name}: {sorted(both)} is both trained and frozen")
            present = [*stage.train, *stage.frozen]
            for term_name, term in stage.losses.items():
                for name in [*term.from_, term.to]:
                    if name not in present:
                        raise ValueError(
                            f"stages.{stage_name}.losses.{term_name}: model '{name}' is in "
                            f"neither `train` nor `frozen` of this stage"
                        )
            if stage.cache and not stage.frozen:
                raise ValueError(f"stages.{stage_name}.cache: the stage has no frozen teacher")
            untaught = set(stage.train) - {term.to for term in stage.losses.values()}
            if untaught:
                raise ValueError(f"stages.{stage_name}: no term teaches {sorted(untaught)}")
            for name in stage.train:
                if self.models[name].arch.startswith("onnx:"):
                    raise ValueError(
                        f"stages.{stage_name}.train: '{name}' is an ONNX file, "
                        "which can only be a frozen teacher"
                    )
        return self

    def subset_of(self, model: str) -> str | None:
        """The part of the data that a model is for: that of the last stage that trains it."""
        stages = [stage for stage in self.stages.values() if model in stage.train]
        return stages[-1].data.subset if stages else None

    def _model_references(self) -> list[tuple[str, str]]:
        found = [("export.model", self.export.model)]
        if self.export.reference:
            found.append(("export.reference", self.export.reference))
        for name, stage in self.stages.items():
            found += [(f"stages.{name}.train", model) for model in stage.train]
            found += [(f"stages.{name}.frozen", model) for model in stage.frozen]
        return found


def _unknown(place: str, kind: str, name: str, known: Any) -> str:
    from edgekd.errors import did_you_mean

    return f"{place}: there is no {kind} '{name}'; {did_you_mean(name, known)}"
