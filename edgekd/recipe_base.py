"""What every part of a recipe is made of: strict sections, names, numbers."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)

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
    """One level of a recipe: immutable, and unknown keys are an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    # keys that came after recipes had been hashed: one that is not used is not written either, so
    # that stages trained before it existed keep their names
    LATE: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        tree: dict[str, Any] = handler(self)
        for key in self.LATE:
            default = type(self).model_fields[key].get_default(call_default_factory=True)
            if getattr(self, key) == default:
                tree.pop(key, None)
        return tree
