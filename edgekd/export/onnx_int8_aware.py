"""ONNX fp32 to int8 under accuracy control: NNCF undoes layers until the score is back.

It starts from the same int8 model as `onnx_int8.py`. If the task's primary score on validation
images falls by more than `export.control.max_drop` points, the quantizers that move the model's
answers most are taken out again, one group after the other.
"""

from __future__ import annotations

from pathlib import Path

from edgekd.export.given import Given, Made
from edgekd.export.judge import Judge
from edgekd.export.layers import float_layers
from edgekd.export.quantize import finish, notes, quantize_with_control, read_float, save

NEEDS = frozenset({"training", "validation"})


def convert(source: Path, target: Path, given: Given) -> Made:
    """Quantize the model in `source` to `target`, as far as the primary score allows.

    Raises BundleError for a model that cannot be quantized, DataError without validation images,
    MissingOnHost without NNCF.
    """
    fp32 = read_float(source)
    squares = given.calibration()
    judge = Judge(fp32, given.validation(), given.task)
    limit = given.spec.control.max_drop
    model = quantize_with_control(
        fp32, squares, judge, artifact="onnx-int8-aware", max_drop=limit / 100
    )
    widened = finish(model, fp32)
    save(model, target)
    floats = float_layers(model, fp32)
    drop = 100 * judge.drop(judge.predictions(model))
    reached = "" if drop <= limit else f"; the limit of {limit:g} points was not reached"
    said = (
        f"accuracy control on {len(judge)} validation images: {given.task.primary} got worse by "
        f"{drop:.2f} points with {len(floats)} layers in float{reached}"
    )
    given.say(f"  {said}")
    return Made([*notes(model, len(squares), widened), said], floats)
