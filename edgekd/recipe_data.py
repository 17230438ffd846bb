"""What a recipe may say of its data. The rest of a recipe is in `recipe.py`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

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


ClassGroup = list[str] | Literal["head", "medium", "tail"]


class SubsetSpec(Section):
    """A class-balanced part of the data: of each class at most so many images, drawn at random.

    It is drawn before the split, from all images in the order of the source.
    """

    counts: list[Annotated[int, Field(ge=0, strict=True)]]  # per class, in the classes' order
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42


class DataSpec(Section):
    """The data set, its split and how it is fed."""

    LATE: ClassVar[tuple[str, ...]] = ("class_groups", "test_seed", "remove_hair")

    name: str
    root: str | None = None
    params: dict[str, Any] = {}  # the data source's own parameters
    # train-val-test ratio, `4-fold` (or another number), `official`, `csv:FILE`, or a paper's own:
    # `umkd_code`, `dspkd_paper`
    split: str = "8-1-1"
    split_seed: int | Literal["seed"] = 0  # `seed`: the recipe's own, another split for each seed
    test_seed: int | None = None  # draws the test part, so that split_seed only draws train and val
    # classes by name, or those with many, some and few training images; models may know one group
    class_groups: dict[Key, ClassGroup] = {}
    subsets: dict[Key, SubsetSpec] = {}  # named parts of the data that stages may train on
    limit: Positive | None = None  # use only this many images (whole groups, all classes)
    remove_hair: bool = False  # from photographs of skin, before anything else sees them
    input: InputSpec = InputSpec()
    batch: Positive = 32
    augment: list[str] = []
    workers: Annotated[int, Field(ge=0)] = 0
    prepared: str | None = None  # a folder of `edgekd data prepare`: the same pixels, read faster

    @property
    def drawn_by(self) -> int:
        """The seed of the split, once the recipe's own has taken the place of `seed`."""
        return self.split_seed if isinstance(self.split_seed, int) else 0

    @field_validator("subsets")
    @classmethod
    def _all_is_taken(cls, subsets: dict[str, SubsetSpec]) -> dict[str, SubsetSpec]:
        if "all" in subsets:
            raise ValueError("`all` means all images; choose another name")
        return subsets


class StageData(Section):
    """What one stage feeds differently; unset keys follow `data`."""

    LATE: ClassVar[tuple[str, ...]] = ("having", "negatives", "views")

    subset: Key | None = None  # one of `data.subsets`; its models are validated and tested on it
    batch: Positive | None = None
    augment: list[str] | None = None
    drop_last: bool = False
    fraction: Fraction | None = None  # only this part of the training images (whole groups)
    labelled: Fraction | None = None  # the label is hidden on the other training images
    # true: draw all classes equally often; mean: once, bring every class to the mean class count;
    # class_aware: one class after the other draws its next image, of as many as there are;
    # augment: once, bring rare classes to half of the largest one's count, with changed copies
    balance: Literal[False, True, "mean", "class_aware", "augment"] = False
    having: Key | None = None  # only images that show a class of this class group
    # and so many of the others, as a multiple of those; by default none, or as many where a class
    # of the group would have no image without it
    negatives: Annotated[float, Field(ge=0)] | None = None
    # each image four times in a batch: as it is (augmented), and turned by 90, 180, 270 degrees
    views: Literal["rotations"] | None = None
