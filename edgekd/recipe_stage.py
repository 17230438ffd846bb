"""What a recipe may say of a training stage. The rest of a recipe is in `recipe.py`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from edgekd.recipe_base import Factor, Key, Names, Positive, Section
from edgekd.recipe_data import StageData


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
    LATE: ClassVar[tuple[str, ...]] = ("patience", "score", "milestones", "warmup_from")

    name: Literal["constant", "cosine", "step", "onecycle", "plateau"] = "constant"
    warmup: Annotated[float, Field(ge=0)] = 0.0  # epochs of linear warm-up
    warmup_from: Annotated[float, Field(ge=0, lt=1)] = 0.0  # of the rate, where warm-up begins
    every: Positive = 15  # step: epochs
    milestones: list[Positive] = []  # step: after these epochs, in place of `every`
    gamma: Annotated[float, Field(gt=0)] = 0.1  # step, plateau: factor
    floor: Annotated[float, Field(ge=0)] = 0.0  # cosine: last lr; plateau: lowest
    patience: Annotated[int, Field(ge=0)] = 5  # plateau: epochs without improvement that are borne
    score: str | None = None  # plateau: of validation images; default: nll, or the primary score


class CacheSpec(Section):
    """Teachers' outputs are computed once for `views` augmented copies of every image."""

    views: Positive = 4  # epoch e sees copy (e - 1) mod views


class StopSpec(Section):
    """A stage ends when no trained model's validation score has improved for so many epochs."""

    patience: Positive
    score: str | None = None  # default: the task's primary score


class StageSpec(Section):
    """One training phase: models, terms and one optimizer."""

    LATE: ClassVar[tuple[str, ...]] = ("update", "stop")

    train: Names  # none: only adapters of terms learn, that a later stage takes over
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
    # joint: one step on the sum of all terms; alternate: the trained models one after the other, in
    # their order, each with what the others say after their own step (deep mutual learning)
    update: Literal["joint", "alternate"] = "joint"
    stop: StopSpec | None = None  # end before `epochs` where nothing gets better
