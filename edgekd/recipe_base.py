"""What every part of a recipe is made of: strict sections, names, numbers."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Key = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]  # no dot: overrides use it
PerChannel = Annotated[list[float], Field(min_length=3, max_length=3)]
Positive = Annotated[int, Field(gt=0)]
Factor = Annotated[float, Field(ge=0, allow_inf_nan=False)]  # 0 freezes
Fraction = Annotated[float, Field(gt=0, le=1)]
Names = Annotated[  # one name may stand without a list
    list[str],
    BeforeValidator(
        lambda value: [value] if isinstance(value, str) else value,
        json_schema_input_type=str | list[str],
    ),
]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
