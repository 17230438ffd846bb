"""What an import asks of its data and its classes, before anything is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekd import plugins
from edgekd.errors import DataError, EdgekdError
from edgekd.export.materials import Materials
from edgekd.export.plan import EXACT, ONNX, Step, module_of
from edgekd.tasks.base import Task

if TYPE_CHECKING:
    from edgekd.export.adopt import Wanted

NAME_DATA = "name some: data.name=folder data.root=IMAGES (a folder per class)"


def check_calibration(steps: list[Step], materials: Materials | None) -> None:
    needy = [step.name for step in steps if _is_calibrated(step)]
    if needy and materials is None:
        raise DataError(f"{needy[0]} needs training images, and no data is named",
                        hint=NAME_DATA)  # fmt: skip


def task_of(wanted: Wanted, materials: Materials | None) -> Task:
    """The task with its classes, from the data or from what was given."""
    if materials is None:
        if not wanted.classes:
            raise EdgekdError("the classes are not known: name them, or data that has them",
                              hint="--classes benign,malignant")  # fmt: skip
        spec = wanted.recipe.task
        cls = plugins.load("tasks", spec.name, Task)  # type: ignore[type-abstract]
        return cls(classes=wanted.classes, primary=spec.primary)
    task = materials.task()
    if wanted.classes is not None and tuple(wanted.classes) != tuple(task.classes):
        is_order = sorted(wanted.classes) == sorted(task.classes)
        hint = "leave out --classes if the data's order is that of the model's outputs"
        if wanted.recipe.data.name == "folder":
            hint = f"data.params.classes=[{','.join(wanted.classes)}]" if is_order else hint
        raise DataError(
            f"--classes says {', '.join(wanted.classes)}; the data has "
            f"{'another order: ' if is_order else ''}{', '.join(task.classes)}",
            hint=hint,
        )
    return task


def _is_calibrated(step: Step) -> bool:
    is_pass = step.target == ONNX and step.precision != EXACT
    return is_pass and bool(module_of(step).NEEDS)
