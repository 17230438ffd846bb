"""What a recipe may ask of an export. The rest of a recipe is in `recipe.py`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from edgekd.recipe_base import Names, Section

Share = Annotated[float, Field(gt=0, lt=1)]


class OperatingSpec(Section):
    """At which probability a class is flagged: what that must reach on validation images."""

    sensitivity: Share | None = None  # of the class's images at least so many are flagged
    specificity: Share | None = None  # of the others at least so many are not

    @model_validator(mode="after")
    def _has_one_aim(self) -> OperatingSpec:
        if (self.sensitivity is None) == (self.specificity is None):
            raise ValueError("give either sensitivity or specificity")
        return self


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
    """Which models become bundles, and of what artifacts. A model may be an ensemble's name."""

    LATE: ClassVar[tuple[str, ...]] = ("thresholds", "also")

    model: str = "student"
    also: Names = []  # exported as `model` is, each to a bundle of its own
    reference: str | None = None  # exported beside it, to compare with (usually the teacher)
    make: list[str] = ["onnx-fp32"]
    # what is made besides where the gate refuses an int8 artifact
    if_refused: list[Literal["mixed", "int8-aware", "fp16"]] = ["mixed"]
    calibration: CalibrationSpec = CalibrationSpec()
    control: ControlSpec = ControlSpec()
    gate: GateSpec = GateSpec()
    thresholds: dict[str, OperatingSpec] = {}  # by class
