"""In what precision an engine computes, by TensorRT's own account of it.

The engine inspector lists the layers as they were built, if the engine was built with detailed
profiling verbosity (docs.nvidia.com/deeplearning/tensorrt, "Engine Inspector"). Two ways of writing
them are known, and both are read: layers by type with long format names ("Thirty-two wide channel
vectorized row major Int8 format"), and fused kernels with short ones ("Half"). The name of a
kernel, where it says what it multiplies, counts more than the types of the tensors.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from edgekd.errors import BundleError

# What no arithmetic is, whatever layer's name it carries: "Reformatting CopyNode for ... to conv1"
NO_ARITHMETIC = re.compile(
    r"reformat|constant|shuffle|noop|pointwise|caskpooling|pooling|reduce|softmax|slice|concat"
    r"|resize|shape|gather|scale|elementwise|unary|signal|wait|cast|copy|quantize", re.IGNORECASE,
)  # fmt: skip
ARITHMETIC = re.compile(r"conv|gemm|matrix|matmul|fully|dense|einsum|fprop|_mm", re.IGNORECASE)
BY_NAME = ("kgen", "fusion", "myelin", "foreignnode")  # types that tell nothing
KERNELS = (
    ("i8", re.compile(r"[isu]8[isu]8|imma|int8", re.IGNORECASE)),
    ("tf32", re.compile(r"tf32", re.IGNORECASE)),
    ("bf16", re.compile(r"bf16", re.IGNORECASE)),
    ("f16", re.compile(r"(?<!b)f16f16|hmma|(?<![a-z])h\d{3,}|hgemm|fp16", re.IGNORECASE)),
    ("f32", re.compile(r"f32f32|scudnn|sgemm", re.IGNORECASE)),
)
TYPES = (
    ("i8", re.compile(r"int8", re.IGNORECASE)),
    ("bf16", re.compile(r"bfloat16|bf16", re.IGNORECASE)),
    ("f16", re.compile(r"half|fp16|float16", re.IGNORECASE)),
    ("f32", re.compile(r"float|fp32", re.IGNORECASE)),
)
WANTED = {"fp16": "f16", "int8": "i8", "int8-aware": "i8", "mixed": "i8"}


def count_precisions(text: str) -> Counter[str]:
    """How many convolutions and matrix products run in i8, f16, bf16, tf32, f32, or "" (untold).

    `text` is what the inspector says of the engine in JSON. Raises BundleError where that is no
    JSON, or has no layers.
    """
    try:
        # some versions put raw control characters between the names of fused layers
        found = json.loads(text, strict=False)
        layers = found["Layers"] if isinstance(found, dict) else found
        if not isinstance(layers, list):
            raise TypeError("layers are a list")
    except (ValueError, KeyError, TypeError):
        raise BundleError("TensorRT's engine inspector says nothing that can be read",
                          hint="report this, with the version of TensorRT") from None  # fmt: skip
    return Counter(_precision(layer) for layer in layers if _is_arithmetic(layer))


def precision_of(counts: Counter[str]) -> str:
    """What most of the arithmetic runs in, as in Facts.precision; "" where that is not known."""
    whole, known = counts["i8"], sum(n for name, n in counts.items() if name != "i8")
    if whole and whole >= known:
        return "i8"
    rest = Counter({name: n for name, n in counts.items() if name != "i8"})
    return rest.most_common(1)[0][0] if rest else ""


def check_precision(counts: Counter[str], asked: str, engine: str) -> None:
    """Raise BundleError if an engine asked for in int8 or fp16 does not compute in it at all."""
    wanted = WANTED.get(asked)
    if wanted is None or counts[wanted]:
        return
    raise BundleError(
        f"{engine} was asked for in {asked}, and TensorRT built it without one convolution or "
        f"matrix product in {wanted}: {in_words(counts) or 'the inspector shows none at all'}",
        hint="deploy the fp32 or fp16 engine, and report this network",
    )


def in_words(counts: Counter[str]) -> str:
    """`18 in i8, 3 in f32`, the most frequent first."""
    return ", ".join(f"{n} in {name or 'a precision not told'}" for name, n in counts.most_common())


def _is_arithmetic(layer: Any) -> bool:
    if not isinstance(layer, dict):  # an engine without detailed verbosity lists bare names
        return False
    kind = f"{layer.get('LayerType', '')} {layer.get('ParameterType', '')}"
    names = [kind, str(layer.get("TacticName", ""))]
    if any(word in kind.lower() for word in BY_NAME):
        names.append(str(layer.get("Name", "")))
    is_none = NO_ARITHMETIC.search(kind) and not ARITHMETIC.search(kind)
    return not is_none and any(ARITHMETIC.search(name) for name in names)


def _precision(layer: dict[str, Any]) -> str:
    kernel = str(layer.get("TacticName", ""))
    for name, pattern in KERNELS:
        if pattern.search(kernel):
            return name
    types = [str(tensor.get("Format/Datatype", "")) for tensor in _tensors(layer)]
    for name, pattern in TYPES:  # the narrowest operand is what is multiplied
        if any(pattern.search(text) for text in types):
            return name
    return ""


def _tensors(layer: dict[str, Any]) -> Iterable[dict[str, Any]]:
    inputs = layer.get("Inputs")
    return [tensor for tensor in inputs if isinstance(tensor, dict)] if inputs else []
