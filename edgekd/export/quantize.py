"""Post-training quantization by NNCF, brought into the one form that three runtimes read.

Signed symmetric int8, zero points 0, activations per tensor, weights per channel.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.errors import BundleError, EdgekdError
from edgekd.export.half import lift_constants, name_nodes
from edgekd.export.judge import Judge, logits_of_model
from edgekd.export.lint import CONTROL_FLOW, check_qdq
from edgekd.export.normalization import normalization_nodes
from edgekd.export.signed import make_signed
from edgekd.image import Float32, UInt8, to_input
from edgekd.nncf_settings import advanced, import_nncf, preset
from edgekd.quiet import quiet
from edgekd.rundir import replace_file

RANKED_ON = 100  # images, those that quantization moved most, by which layers are ranked


def read_float(source: Path) -> Any:
    """The fp32 model to quantize. Raises BundleError for one that cannot be.

    NNCF would fail on them somewhere inside, or quantize twice.
    """
    import onnx

    model = onnx.load(source)
    for node in model.graph.node:
        where = f"{source.name}: '{node.name or node.op_type}'"
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            raise BundleError(f"{where}: the model is quantized already",
                              hint="start from the float model")  # fmt: skip
        if node.op_type in CONTROL_FLOW:
            raise BundleError(f"{where} is a {node.op_type}: what it runs cannot be calibrated",
                              hint="export it by tracing one path")  # fmt: skip
        if node.domain not in ("", "ai.onnx"):
            raise BundleError(f"{where} is {node.domain}:{node.op_type}, not standard ONNX",
                              hint="export it without that runtime's own operators")  # fmt: skip
    lift_constants(model.graph)  # weights may stand in nodes, too
    name_nodes(model)
    problems = [p for p in check_qdq(source) if p.rule == "not-finite"]
    if problems:
        raise BundleError(f"{source.name}: {problems[0]}", hint=problems[0].hint)
    return model


def spread(squares: UInt8, count: int) -> UInt8:
    """At most `count` of calibration images, evenly: they come in the order of the data, which may
    be that of the classes."""
    return squares[:: math.ceil(len(squares) / count)]


def _dataset(nncf: Any, model: Any, squares: UInt8) -> Any:
    """Calibration images (N, S, S, 3) in the given order, as NNCF wants them."""
    name = model.graph.input[0].name
    return nncf.Dataset(range(len(squares)), lambda i: {name: to_input(squares[i][None])})


def _settings(nncf: Any, model: Any, squares: UInt8, ignored: Sequence[str] = ()) -> dict[str, Any]:
    """What every int8 pass asks of NNCF. The nodes `ignored` stay in float."""
    names = [*(node.name for node in normalization_nodes(model)), *ignored]
    return {
        "subset_size": len(squares),
        "preset": preset(nncf),
        "fast_bias_correction": True,  # the slow one fails on ResNet
        "ignored_scope": nncf.IgnoredScope(names=names, validate=False),
    }


def quantize(model: Any, squares: UInt8, *, artifact: str, ignored: Sequence[str] = ()) -> Any:
    """Quantize an fp32 onnx.ModelProto with ranges seen on `squares` (N, S, S, 3).

    Deterministic: the images are used once each, in the given order. The result may hold unsigned
    quantizers still: `save` makes them signed. Raises MissingOnHost without NNCF.
    """
    check_calibrated(logits_of_model(model, squares))
    with quiet():
        nncf = import_nncf(artifact)
        with _told(artifact):
            return nncf.quantize(
                model,
                _dataset(nncf, model, squares),
                advanced_parameters=advanced(),
                **_settings(nncf, model, squares, ignored),
            )


def check_calibrated(logits: Float32) -> None:
    """Raise BundleError if the fp32 model's own answers on calibration images are not finite."""
    bad = int((~np.isfinite(logits).reshape(len(logits), -1).all(axis=1)).sum())
    if bad:
        raise BundleError(f"the fp32 model gives logits that are not finite for {bad} of "
                          f"{len(logits)} training images",
                          hint="export it from a sound checkpoint")  # fmt: skip


@contextlib.contextmanager
def _told(artifact: str) -> Iterator[None]:
    """What NNCF raises, whatever it is, as one line."""
    try:
        yield
    except (EdgekdError, OSError, MemoryError):
        raise
    except Exception as error:
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise BundleError(f"{artifact}: NNCF cannot quantize this network: {first}",
                          hint=f"leave {artifact} out of export.make") from error  # fmt: skip


def quantize_with_control(
    model: Any, squares: UInt8, judge: Judge, *, artifact: str, max_drop: float
) -> Any:
    """As `quantize`, then layers go back to float until the judge's score has fallen by at most
    `max_drop` (in the score's own unit), or all have.
    """
    with quiet():
        nncf = import_nncf(artifact)
        from nncf.quantization.advanced_parameters import AdvancedAccuracyRestorerParameters

        with _told(artifact):
            return nncf.quantize_with_accuracy_control(
                model,
                _dataset(nncf, model, squares),
                nncf.Dataset(range(len(judge))),
                judge.for_nncf,
                max_drop=max_drop,
                drop_type=nncf.DropType.ABSOLUTE,  # a relative one would mean nothing for a loss
                advanced_quantization_parameters=advanced(),
                advanced_accuracy_restorer_parameters=AdvancedAccuracyRestorerParameters(
                    ranking_subset_size=min(RANKED_ON, len(judge) - 1),
                    num_ranking_workers=1,  # threads of ONNX Runtime already fill the processor
                ),
                **_settings(nncf, model, squares),
            )


def finish(model: Any, fp32: Any) -> int:
    """Make what NNCF returned signed and ours, in place; returns how many quantizers were not.

    Raises BundleError where it has no legal form.
    """
    if model.graph.input[0].name != fp32.graph.input[0].name:
        raise BundleError("quantization renamed the input")
    del model.metadata_props[:]
    model.metadata_props.extend(fp32.metadata_props)
    return make_signed(model)


def save(model: Any, target: Path) -> None:
    """Write a finished model, the same bytes for the same model; nothing is left if it is illegal.

    Raises BundleError if not every runtime reads it.
    """
    import onnx

    onnx.checker.check_model(model, full_check=True)
    with replace_file(target, "wb") as file:
        file.write(model.SerializeToString(deterministic=True))
    keep_legal(target)


def keep_legal(target: Path) -> None:
    """Remove a file that not every runtime reads, and raise BundleError with the first reason."""
    problems = check_qdq(target)
    if problems:
        target.unlink()
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise BundleError(
            f"{target.name} would not be legal for every runtime: {problems[0]}{more}",
            hint=problems[0].hint,
        )


def notes(model: Any, images: int, widened: int) -> list[str]:
    """What the manifest says of a quantized model."""
    operators = [node.op_type for node in model.graph.node]
    activations = operators.count("QuantizeLinear")
    weights = operators.count("DequantizeLinear") - activations
    return [
        f"int8 by NNCF {importlib.metadata.version('nncf')}: {activations} activation and "
        f"{weights} weight quantizers, ranges from {images} training images",
        f"{widened} unsigned quantizers made signed for TensorRT (one bit coarser)",
    ]
