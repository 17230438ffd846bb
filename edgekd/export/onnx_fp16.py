"""ONNX fp32 to ONNX fp16: one typed file for ONNX Runtime, OpenVINO and TensorRT.

fp16 rounds to 11 bits, which networks bear, but ends at 65504, and beyond that everything silently
becomes infinite: a segmentation network turns black, a classifier random. Nodes where that can
happen stay in fp32, between casts that every runtime reads, TensorRT's strongly typed
networks included. What can happen is decided by operator and measured on training images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.errors import BundleError
from edgekd.export.given import Given, Made
from edgekd.export.half import LARGEST, to_half, types_of
from edgekd.export.layers import WEIGHTED, weighted_layers
from edgekd.export.magnitudes import BATCH, magnitudes
from edgekd.export.normalization import normalization_nodes
from edgekd.export.quantize import keep_legal, read_float, spread
from edgekd.export.tidy import write
from edgekd.image import Float32, UInt8, to_input
from edgekd.plugins import missing_package
from edgekd.quiet import quiet

NEEDS = frozenset({"training"})
IMAGES = 64  # maxima hardly grow with more; the margin below is for those that were not seen

# Two bits for images that were not seen, two for what a kernel adds up inside before it divides
# or transforms back (the window of a pooling, Winograd's transform of a convolution's input).
MARGIN = 1 / 16
SAFE = MARGIN * LARGEST
TINIEST = float(np.finfo(np.float16).tiny)  # below 6.1e-5 fp16 loses bit after bit
ALMOST_ALL = 0.99  # of the weights that are not 0

# Thousands of terms: an fp16 sum overflows, or stops growing once a term is below half its last
# bit; whether a kernel adds up in something wider is the runtime's own choice. It costs nothing:
# the ten of mobilenetv3_small_100 (128 px) take 0.83 ms in OpenVINO's f16 either way.
SUMS = frozenset({
    "ReduceMean", "ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum",
    "ReduceLogSumExp", "ReduceProd", "GlobalAveragePool", "GlobalLpPool", "LpPool", "CumSum",
    "Einsum",
})  # fmt: skip
# exp(x) is infinite from x = 11.1 on, x ** 2 from 256 on; 1 / x and log(x) of small x, too
STEEP = frozenset({
    "Softmax", "LogSoftmax", "Exp", "Log", "Softplus", "Mish", "Pow", "Sqrt", "Reciprocal",
})  # fmt: skip
# They sum squares over a map, and divide by the root of a variance plus an epsilon (1e-5) that is
# less than the smallest normal number of fp16
NORMALIZERS = frozenset({
    "BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization",
    "RMSNormalization", "MeanVarianceNormalization", "LpNormalization", "LRN",
})  # fmt: skip
# From 2048 on fp16 has no odd numbers: sizes, indices and sampling positions would be off
POSITIONS = frozenset({
    "Cast", "Range", "Floor", "Ceil", "Round", "Mod", "TopK", "OneHot", "NonMaxSuppression",
    "RoiAlign", "GridSample", "AffineGrid",
})  # fmt: skip
GUARDED = SUMS | STEEP | NORMALIZERS | POSITIONS
WINDOW = 16  # elements of an AveragePool that fp16 may add up: 4 x 4


def convert(source: Path, target: Path, given: Given) -> Made:
    """Write the model in `source` to `target` with fp16 weights and arithmetic where it is safe.

    The largest values inside are measured on up to IMAGES training images. Raises BundleError for
    a model that is no plain float model or gives logits in fp16 that are not finite (nothing is
    left at `target`), MissingOnHost without ONNX Runtime.
    """
    with quiet():
        try:
            import onnxruntime  # noqa: F401
        except ModuleNotFoundError as error:
            raise missing_package(error.name or "onnxruntime", "onnx-fp16") from None
    fp32 = read_float(source)
    squares = given.calibration()
    squares = spread(squares, IMAGES)
    by_rule = guarded(fp32)
    largest = magnitudes(fp32, squares)
    check_finite(fp32, largest)
    measured = out_of_range(fp32, largest) - by_rule
    half = to_half(fp32, by_rule | measured)
    check_half(half, squares)
    write(half, target)
    keep_legal(target)
    layers = [layer.name for layer in weighted_layers(fp32) if layer.name in measured]
    if layers:
        given.say(f"  fp16 cannot hold what {len(layers)} layers compute: they stay in fp32")
    return Made(notes(fp32, by_rule, measured, len(squares)), layers)


def guarded(model: Any) -> set[str]:
    """Names of the nodes that stay in fp32 whatever the images are."""
    return {node.name for node in normalization_nodes(model)} | {
        node.name for node in model.graph.node if _is_guarded(node, model)
    }


def _is_guarded(node: Any, model: Any) -> bool:
    if node.op_type in GUARDED:
        return True
    if node.op_type == "AveragePool":
        window = next(list(a.ints) for a in node.attribute if a.name == "kernel_shape")
        return bool(math.prod(window) > WINDOW)
    if node.op_type == "Mul":  # a square, as in a normalisation that is written out
        return bool(node.input[0] == node.input[1])
    if node.op_type == "Div":  # by a norm or a sum, which may be near 0
        return node.input[1] not in {tensor.name for tensor in model.graph.initializer}
    return False


def out_of_range(model: Any, largest: Mapping[str, float]) -> set[str]:
    """Names of the nodes that read or write what fp16 cannot hold.

    `largest` is what `magnitudes` measured. A tensor may reach a part of fp16's range, MARGIN,
    and must not lie wholly below its normal numbers; of a weight the values themselves count.
    """
    from onnx import TensorProto, numpy_helper

    too_large = {name for name, value in largest.items() if not value <= SAFE}  # NaN, too
    too_small = {name for name, value in largest.items() if 0 < value < TINIEST}
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            size = np.abs(numpy_helper.to_array(tensor))
            if size.max(initial=0) > LARGEST:
                too_large.add(tensor.name)
            if size.any() and np.mean(size[size > 0] < TINIEST) >= ALMOST_ALL:
                too_small.add(tensor.name)
    return {
        node.name
        for node in model.graph.node
        if too_large.intersection([*node.input, *node.output])
        or too_small.intersection([*_factors(node), *node.output])
    }


def _factors(node: Any) -> list[str]:
    """The inputs of a node whose smallness matters: not a bias, which is added to larger values."""
    return list(node.input[:2] if node.op_type in WEIGHTED else node.input)


def check_finite(model: Any, largest: Mapping[str, float]) -> None:
    """Raise BundleError if the fp32 model itself gives logits of NaN or infinity."""
    if not all(math.isfinite(largest[value.name]) for value in model.graph.output):
        raise BundleError("the fp32 model gives logits that are not finite",
                          hint="the training diverged: export from a sound checkpoint")  # fmt: skip


def check_half(model: Any, squares: UInt8) -> None:
    """Run an fp16 model on images (N, S, S, 3). Raises BundleError for NaN or infinite logits."""
    logits = _logits(model, squares)
    bad = int((~np.isfinite(logits)).reshape(len(logits), -1).any(axis=1).sum())
    if bad:
        raise BundleError(
            f"in fp16 the logits of {bad} of {len(logits)} training images are not finite",
            hint="leave onnx-fp16 and openvino-fp16 out of export.make; int8 has a scale for each "
            "tensor and does not overflow",
        )


def _logits(model: Any, squares: UInt8) -> Float32:
    """Logits (N, ...) of images (N, S, S, 3), in ONNX Runtime as `stored_in_half` has them."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        stored_in_half(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    name = model.graph.input[0].name
    parts = [session.run(None, {name: to_input(squares[start : start + BATCH])})[0]
             for start in range(0, len(squares), BATCH)]  # fmt: skip
    return np.concatenate(parts)


def stored_in_half(model: Any) -> Any:
    """An fp32 model that rounds to fp16 and back whatever the fp16 onnx.ModelProto stores in fp16.

    Where ONNX Runtime has no fp16 kernels (on x86) it computes in fp32 and drops its own casts
    between two layers, so that what overflows elsewhere does not there. Casts in a file are kept.
    """
    from onnx import ModelProto, TensorProto, helper, numpy_helper

    rounded = ModelProto()
    rounded.CopyFrom(model)
    graph, types, nodes = rounded.graph, types_of(model), []
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for node in graph.node:
        if node.op_type == "Cast":
            to = next(attribute for attribute in node.attribute if attribute.name == "to")
            to.i = TensorProto.FLOAT if to.i == TensorProto.FLOAT16 else to.i
        nodes.append(node)
        for index, name in enumerate(node.output):
            if types.get(name) == TensorProto.FLOAT16:
                exact, half = f"edgekd.exact.{name}", f"edgekd.half.{name}"
                node.output[index] = exact
                nodes.append(helper.make_node("Cast", [exact], [half], to=TensorProto.FLOAT16))
                nodes.append(helper.make_node("Cast", [half], [name], to=TensorProto.FLOAT))
    nodes = list(nodes)
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    return rounded


def notes(model: Any, by_rule: set[str], measured: set[str], images: int) -> list[str]:
    """What the manifest says of the conversion of an fp32 onnx.ModelProto."""
    total = len(model.graph.node)
    said = [
        f"fp16 in {total - len(by_rule) - len(measured)} of {total} operators; normalisation, "
        f"sums over many elements, exponentials and positions stay in fp32 ({len(by_rule)})"
    ]
    if measured:
        said.append(
            f"{len(measured)} operators more in fp32: on {images} training images their values "
            f"lay outside {TINIEST:.1e} to {SAFE:.0f}, or their weights outside fp16"
        )
    return said
