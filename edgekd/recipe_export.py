"""What a recipe may ask of an export besides artifacts. The rest of `export` is in `recipe.py`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from edgekd.recipe_base import Section

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
