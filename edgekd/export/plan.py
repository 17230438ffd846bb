"""Which artifacts there are, and what has to be made before what. Derived from file names.

`onnx_<precision>.py` is a precision pass (ONNX to ONNX), `<target>_from_onnx.py` a lowering. A
new pass or target is one new file:

    onnx_<precision>.py    NEEDS: frozenset of {"training", "validation"} images
                           convert(source: Path, target: Path, given: Given) -> Made
    <target>_from_onnx.py  RUNTIME: str
                           lower(source: Path, folder: Path, precision: str) -> list[Path]
                           PRECISIONS: frozenset of those that it changes (default: all)
                           IS_BOUND = True where only the host that made it can run it

An underscore in the file's name is a dash in the precision's: `onnx_int8_aware.py` makes
`onnx-int8-aware`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekd.errors import RecipeError, did_you_mean

ONNX = "onnx"
EXACT = "fp32"
INT8 = "int8"  # every layer


@dataclass(frozen=True)
class Step:
    """One artifact to make: `target` in `precision`, out of the artifact `made_from`."""

    target: str
    precision: str

    @property
    def name(self) -> str:
        return f"{self.target}-{self.precision}"

    @property
    def made_from(self) -> str | None:
        if self.target != ONNX:
            return f"{ONNX}-{self.precision}"
        return None if self.precision == EXACT else f"{ONNX}-{EXACT}"


def precisions() -> list[str]:
    """fp32 and every precision pass."""
    stems = (path.stem for path in Path(__file__).parent.glob(f"{ONNX}_*.py"))
    found = (stem.removeprefix(f"{ONNX}_") for stem in stems if "_from_" not in stem)
    return [EXACT, *sorted(name.replace("_", "-") for name in found)]


def targets() -> list[str]:
    """ONNX and every lowering."""
    stems = (path.stem for path in Path(__file__).parent.glob("*_from_onnx.py"))
    return [ONNX, *sorted(stem.removesuffix("_from_onnx") for stem in stems)]


def available() -> list[str]:
    """The names of all artifacts that can be made."""
    return list(_steps())


def _steps() -> dict[str, Step]:
    """Every step by its name."""
    steps = [
        Step(target, precision)
        for target in targets()
        for precision in precisions()
        if target == ONNX or precision in _lowered(target)
    ]
    return {step.name: step for step in steps}


def _lowered(target: str) -> Iterable[str]:
    module = importlib.import_module(f"edgekd.export.{target}_from_onnx")
    return getattr(module, "PRECISIONS", None) or precisions()


def is_bound(step: Step) -> bool:
    """Whether only the host that makes this artifact can run it."""
    return step.target != ONNX and bool(getattr(module_of(step), "IS_BOUND", False))


def plan(asked: Sequence[str]) -> list[Step]:
    """The steps for the artifacts `asked` for and what they need, in an order that works.

    `onnx-fp32` is always among them. Raises RecipeError for an unknown name.
    """
    known = _steps()
    steps: dict[str, Step] = {}

    def add(name: str) -> None:
        if name not in known:
            raise RecipeError(f"export.make: there is no artifact '{name}'",
                              hint=did_you_mean(name, known))  # fmt: skip
        step = known[name]
        if step.made_from:
            add(step.made_from)
        steps.setdefault(name, step)

    add(f"{ONNX}-{EXACT}")
    for name in asked:
        add(name)
    return list(steps.values())


def module_of(step: Step) -> Any:
    """The module that makes `step` (not for onnx-fp32, which comes from torch)."""
    precision = step.precision.replace("-", "_")
    stem = f"{ONNX}_{precision}" if step.target == ONNX else f"{step.target}_from_onnx"
    return importlib.import_module(f"edgekd.export.{stem}")
