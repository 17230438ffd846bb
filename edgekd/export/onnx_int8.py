"""ONNX fp32 to ONNX int8 by NNCF's post-training quantization: one Q/DQ file for all runtimes.

Signed symmetric int8, zero points 0, activations per tensor, weights per channel: the form that
ONNX Runtime, OpenVINO and TensorRT all read.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from edgekd.errors import BundleError, MissingOnHost
from edgekd.export.lint import check_qdq
from edgekd.export.quiet import quiet
from edgekd.export.signed import make_signed
from edgekd.image import UInt8, to_input
from edgekd.plugins import missing_package
from edgekd.rundir import replace_file

USES_CALIBRATION = True  # `squares` are needed (a pass that only casts does without)
NORMALIZATION = frozenset({"Sub", "Div", "Mul", "Add"})


def convert(source: Path, target: Path, squares: UInt8) -> list[str]:
    """Quantize the model in `source` to `target`, with ranges seen on `squares` (N, S, S, 3).

    Deterministic: the images are used once each, in the given order. Returns notes for the
    manifest. Raises BundleError if the result would not be legal, MissingOnHost without NNCF.
    """
    import onnx

    fp32 = onnx.load(source)
    model = _quantize(fp32, squares)
    if model.graph.input[0].name != fp32.graph.input[0].name:
        raise BundleError(f"{source}: quantization renamed the input")
    widened = make_signed(model)
    del model.metadata_props[:]
    model.metadata_props.extend(fp32.metadata_props)
    onnx.checker.check_model(model, full_check=True)
    with replace_file(target, "wb") as file:
        file.write(model.SerializeToString(deterministic=True))
    problems = check_qdq(target)
    if problems:
        target.unlink()
        raise BundleError("NNCF made a model that not every runtime reads:\n"
                          + "\n".join(f"  {problem}" for problem in problems[:5]))  # fmt: skip
    operators = [node.op_type for node in model.graph.node]
    activations = operators.count("QuantizeLinear")
    weights = operators.count("DequantizeLinear") - activations
    return [
        f"int8 by NNCF {_version()}: {activations} activation and {weights} weight quantizers, "
        f"ranges from {len(squares)} training images",
        f"{widened} unsigned quantizers made signed for TensorRT (one bit coarser)",
    ]


def _quantize(model: Any, squares: UInt8) -> Any:
    """Post-training quantization with fast bias correction, its talk sent to stderr."""
    name = model.graph.input[0].name
    with quiet():
        try:
            import nncf
            from nncf.quantization.advanced_parameters import (
                AdvancedQuantizationParameters,
                OverflowFix,
                QuantizationParameters,
            )
            from nncf.quantization.range_estimator import RangeEstimatorParametersSet
        except ModuleNotFoundError as error:
            missing: MissingOnHost | Any = missing_package(error.name or "nncf", "onnx-int8")
            raise missing from None
        for handler in nncf.common.logging.logger.nncf_logger.handlers:
            if type(handler) is logging.StreamHandler:
                handler.stream = sys.stderr  # not the stdout of when NNCF was imported
        return nncf.quantize(
            model,
            nncf.Dataset(range(len(squares)), lambda i: {name: to_input(squares[i][None])}),
            subset_size=len(squares),
            preset=nncf.QuantizationPreset.PERFORMANCE,  # symmetric: no zero points
            fast_bias_correction=True,  # the slow one fails on ResNet
            ignored_scope=nncf.IgnoredScope(names=_normalization(model), validate=False),
            advanced_parameters=AdvancedQuantizationParameters(
                # FIRST_LAYER would halve the first layer's range for CPUs without VNNI
                overflow_fix=OverflowFix.DISABLE,
                # else uint8 per channel before depthwise convolutions, which TensorRT refuses
                activations_quantization_params=QuantizationParameters(per_channel=False),
                # NNCF's default is the mean over images of their extremes, which clips every
                # second image somewhere. One HAM10000 model (ShuffleNetV2 x0.5, 64 px): logits
                # 27 % off (rms) and 5.5-6 % of decisions changed, against 6 % and 3-3.5 % with
                # the true extremes; balanced accuracy lost 3 points against -1 to 1, plain
                # accuracy moved within noise
                activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
            ),
        )


def _normalization(model: Any) -> list[str]:
    """Names of the nodes that subtract the mean and divide by the deviation.

    They stay in float, so that the first quantizer stands behind them: pixels in [0, 1] would
    leave the negative half of a symmetric int8 unused, normalised ones fill both.
    """
    consumers: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for value in node.input:
            consumers.setdefault(value, []).append(node)
    names: list[str] = []
    value = model.graph.input[0].name
    while len(consumers.get(value, [])) == 1:
        node = consumers[value][0]
        if node.op_type not in NORMALIZATION:
            break
        names.append(node.name)
        value = node.output[0]
    return names


def _version() -> str:
    import importlib.metadata

    return importlib.metadata.version("nncf")
