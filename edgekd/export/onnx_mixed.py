"""ONNX fp32 to a mixture: int8, but for the layers that are most sensitive to it.

Each layer of the int8 model is put back to float by itself, and ranked by how much nearer the
logits come to the fp32 model's. Then 1, 2, 4, 8 ... of the most sensitive stay in float, until
the validation images show no loss any more.

Float means fp32 here, not fp16: ONNX Runtime and OpenVINO on x86 gain nothing from fp16 layers
between int8 ones, and TensorRT reads either.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.errors import BundleError
from edgekd.export.gate import refusals
from edgekd.export.given import Given, Made
from edgekd.export.judge import Judge, logits_of_model
from edgekd.export.layers import float_layers, in_float, weighted_layers
from edgekd.export.quantize import finish, notes, quantize, read_float, save, spread
from edgekd.image import UInt8
from edgekd.recipe import GateSpec

NEEDS = frozenset({"training", "validation"})
RANKED_ON = 64  # calibration images
FEWER = 0.5  # of the decisions that full int8 changes may still change


def convert(source: Path, target: Path, given: Given) -> Made:
    """Quantize all but the most sensitive layers of `source` to `target`.

    Raises BundleError for a model that cannot be quantized or has fewer than two layers, DataError
    without validation images, MissingOnHost without NNCF.
    """
    fp32 = read_float(source)
    if len(weighted_layers(fp32)) < 2:
        raise BundleError(f"{source.name}: a model with fewer than two layers cannot be mixed",
                          hint="leave onnx-mixed out of export.make")  # fmt: skip
    squares = given.calibration()
    judge = Judge(fp32, given.validation(), given.task)
    whole = quantize(fp32, squares, artifact="onnx-mixed")
    finish(whole, fp32)
    given.say("  ranking layers by how much of the error each one makes")
    ranked = rank(whole, fp32, spread(squares, RANKED_ON))
    if len(ranked) < 2:
        raise BundleError(f"{source.name}: int8 reaches fewer than two of its layers, which leaves "
                          "nothing to mix", hint="leave onnx-mixed out of export.make")  # fmt: skip
    is_good = _Limits(judge, given, whole).is_met
    said = ""
    for count in _counts(len(ranked)):
        model = quantize(fp32, squares, artifact="onnx-mixed", ignored=ranked[:count])
        widened = finish(model, fp32)
        good, said = is_good(model)
        given.say(f"  {count} of {len(ranked)} layers in float: {said}")
        if good:
            break
    else:
        said += "; that is not yet what was aimed for"
    save(model, target)
    return Made([*notes(model, len(squares), widened), said], float_layers(model, fp32))


def rank(int8: Any, fp32: Any, squares: UInt8) -> list[str]:
    """Names of the quantized layers, that first whose return to float helps most.

    `squares` (N, S, S, 3); helping is a smaller mean squared distance of the logits to those of
    the fp32 model.
    """
    expected = logits_of_model(fp32, squares).astype(np.float64)
    left = set(float_layers(int8, fp32))
    errors = {}
    for layer in weighted_layers(fp32):
        if layer.name not in left:
            found = logits_of_model(in_float(int8, fp32, layer.name), squares)
            errors[layer.name] = float(((found - expected) ** 2).mean())
    return sorted(errors, key=errors.__getitem__)


class _Limits:
    """What validation images must show before a mixture is taken."""

    def __init__(self, judge: Judge, given: Given, whole: Any) -> None:
        self._judge = judge
        self._changed = FEWER * judge.changed(judge.predictions(whole))
        # the gate's own checks, with the smaller loss that control aims for
        self._limits = GateSpec(max_drop=given.spec.control.max_drop,
                                max_drop_bound=given.spec.gate.max_drop_bound)  # fmt: skip

    def is_met(self, model: Any) -> tuple[bool, str]:
        """Whether the gate would refuse nothing, and fewer decisions change than by full int8."""
        judge = self._judge
        said = judge.predictions(model)
        changed = judge.changed(said)
        refused = refusals(judge.task, judge.reference, said, self._limits)
        text = (
            f"{judge.task.primary} gets worse by {100 * judge.drop(said):.2f} points and "
            f"{100 * changed:.1f} % of decisions change on {len(judge)} validation images"
        )
        return not refused and changed <= self._changed, text


def _counts(layers: int) -> Iterator[int]:
    """1, 2, 4, ... below `layers`, and all but one at last."""
    count = 1
    while count < layers - 1:
        yield count
        count *= 2
    yield layers - 1
