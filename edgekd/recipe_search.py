"""A recipe's `search:`: which values to try, and what counts as better."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from edgekd.recipe_base import Positive, Section


class Range(Section):
    """The values of one key: either a list of them, or numbers from `low` to `high`."""

    values: list[bool | int | float | str] | None = Field(default=None, min_length=1)
    low: float | None = None
    high: float | None = None
    log: bool = False  # even steps of the logarithm
    step: float | None = Field(default=None, gt=0)  # grid, coordinate: needed, or `values`
    integer: bool = False

    @model_validator(mode="after")
    def _is_one_kind(self) -> Range:
        if self.values is not None:
            if any(part is not None for part in (self.low, self.high, self.step)) or self.log:
                raise ValueError("give either `values` or `low` and `high`")
            if len(set(map(repr, self.values))) < len(self.values):
                raise ValueError("`values` holds a value twice")
            return self
        if self.low is None or self.high is None:
            raise ValueError("needs `values: [...]`, or `low:` and `high:`")
        if self.low >= self.high:
            raise ValueError(f"low {self.low:g} is not below high {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError("a logarithmic range starts above 0")
        if self.log and self.step is not None:
            raise ValueError("a logarithmic range has no step; list `values` instead")
        parts = [self.low, self.high, *([] if self.step is None else [self.step])]
        if self.integer and not all(part.is_integer() for part in parts):
            raise ValueError("an integer range has whole ends and a whole step")
        return self


class SearchSpec(Section):
    """Look for the best values of some keys, judged on validation images only."""

    space: dict[str, Range] = Field(min_length=1)  # recipe key -> values
    # coordinate: one key after the other in their order, the others at the best values so far
    method: Literal["tpe", "random", "grid", "coordinate"] = "tpe"
    trials: Positive = 20  # tpe and random; the others try what there is to try
    seed: int = 0  # of the sampler
    score: str | None = None  # default: the task's primary score
    model: str | None = None  # default: export.model
    settings: dict[str, Any] = {}  # recipe keys set for the trials only, e.g. fewer epochs

    @property
    def is_finite(self) -> bool:
        """Is every key tried at a list of values?"""
        return self.method in ("grid", "coordinate")

    @model_validator(mode="after")
    def _is_finite_where_it_must_be(self) -> SearchSpec:
        both = sorted(set(self.space) & set(self.settings))
        if both:
            raise ValueError(f"{both[0]} is in `space` and in `settings`")
        for key, span in self.space.items():
            if self.is_finite and span.values is None and span.step is None:
                what = "a grid" if self.method == "grid" else "a coordinate search"
                raise ValueError(f"space.{key}: {what} needs `values`, or a `step`")
        return self
