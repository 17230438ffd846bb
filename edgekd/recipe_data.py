"""What a recipe may say of its data. The rest of a recipe is in `recipe.py`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from edgekd.recipe_base import Fraction, Key, Positive, Section


class InputSpec(Section):
    """What the network sees. Pixels reach it as float32 in [0, 1]; it normalises them itself."""

    size: Annotated[int, Field(ge=8, le=4096)] = 224
    resize: Annotated[int, Field(ge=8, le=4096)] | None = None  # resized to this, then cropped to
    # `size` (centre crop when evaluating); default: `size`, no crop
    fit: Literal["stretch", "shorter"] = "stretch"  # to a square, or the shorter side

    @model_validator(mode="after")
    def _crop_fits(self) -> InputSpec:
        if self.resize is not None and self.resize < self.size:
            raise ValueError("resize must be at least size")
        return self


class SubsetSpec(Section):
    """A class-balanced part of the data: of each class at most so many images, drawn at random.

    It is drawn before the split, from all images in the order of the source.
    """

    counts: list[Annotated[int, Field(ge=0, strict=True)]]  # per class, in the classes' order
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42


class DataSpec(Section):
    """The data set, its split and how it is fed."""

    name: str
    root: str | None = None
    params: dict[str, Any] = {}  # the data source's own parameters
    split: str = "8-1-1"  # train-val-test ratio, `official`, `umkd_code`, or `csv:FILE`
    split_seed: int = 0
    subsets: dict[Key, SubsetSpec] = {}  # named parts of the data that stages may train on
    limit: Positive | None = None  # use only this many images (whole groups, all classes)
    input: InputSpec = InputSpec()
    batch: Positive = 32
    augment: list[str] = []
    workers: Annotated[int, Field(ge=0)] = 0
    prepared: str | None = None  # a folder of `edgekd data prepare`: the same pixels, read faster

    @field_validator("subsets")
    @classmethod
    def _all_is_taken(cls, subsets: dict[str, SubsetSpec]) -> dict[str, SubsetSpec]:
        if "all" in subsets:
            raise ValueError("`all` means all images; choose another name")
        return subsets


class StageData(Section):
    """What one stage feeds differently; unset keys follow `data`."""

    subset: Key | None = None  # one of `data.subsets`; its models are validated and tested on it
    batch: Positive | None = None
    augment: list[str] | None = None
    drop_last: bool = False
    fraction: Fraction | None = None  # only this part of the training images (whole groups)
    labelled: Fraction | None = None  # the label is hidden on the other training images
    # true: draw all classes equally often; mean: once, bring every class to the mean class count
    balance: Literal[False, True, "mean"] = False
