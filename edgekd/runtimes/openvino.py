"""OpenVINO on a processor, a graphics unit or an NPU."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from edgekd.errors import BundleError, MissingOnHost
from edgekd.runtimes._onnx_graph import read_graph
from edgekd.runtimes._telemetry import import_openvino
from edgekd.runtimes.base import Arrays, Probe, RunOptions, Runtime

# What the layers that are not int8 run in. Without a hint OpenVINO runs fp32 models in bfloat16
# on processors that have it: faster, but not the model whose accuracy was proven.
FLOAT = {"fp32": "f32", "int8": "f32", "int8-aware": "f32", "mixed": "f32", "fp16": "f16",
         "bf16": "bf16"}  # fmt: skip
QUANTIZED = {"int8", "int8-aware", "mixed"}
SHORT = {"float32": "f32", "float16": "f16", "bfloat16": "bf16", "f32": "f32", "f16": "f16",
         "bf16": "bf16", "i8": "i8", "u8": "i8", "int8": "i8", "uint8": "i8"}  # fmt: skip
ARITHMETIC = {"convolution", "groupconvolution", "deconvolution", "fullyconnected", "matmul",
              "gemm"}  # fmt: skip


class OpenVino(Runtime):
    """One compiled model and one inference request, tuned for latency.

    `device` is CPU (default), GPU, GPU.1, NPU or AUTO. Precision follows `options.precision`, see
    FLOAT; any other word there leaves OpenVINO its own choice. An fp16 .onnx runs in f32: with
    f16 for a hint OpenVINO drops the file's casts, and what was kept in fp32 because fp16 would
    overflow does overflow. In an fp16 .xml of ours those operators are marked, and it heeds that.
    """

    suffixes = (".xml", ".onnx")

    def __init__(self, path: Path, options: RunOptions = RunOptions()) -> None:  # noqa: B008
        super().__init__(path, options)
        self._compiled: Any = None
        self._request: Any = None
        self._tensor: Any = None
        self._names: list[str] = []

    @classmethod
    def probe(cls) -> Probe:
        try:
            openvino = import_openvino()
            devices = tuple(openvino.Core().available_devices)
            version = str(openvino.__version__).split("-")[0]
            return Probe(True, version=version, devices=devices)
        except Exception as error:  # a broken installation can raise anything
            return Probe(False, reason=(str(error).splitlines() or [type(error).__name__])[0])

    def __enter__(self) -> OpenVino:
        self._check_file()
        openvino = import_openvino()
        core = openvino.Core()
        device = _device(core, self.options.device)
        try:
            model = core.read_model(str(self.path))
            self._fix_batch(model)
            compiled = core.compile_model(model, device, self._settings(core, device))
        except RuntimeError as error:  # OpenVINO's only error
            raise BundleError(f"{self.path}: OpenVINO cannot load it: {_last_line(error)}",
                              hint="copy or export the file again") from error  # fmt: skip
        self._compiled, self._tensor = compiled, openvino.Tensor
        self._request = compiled.create_infer_request()
        self._names = [_name(port) for port in compiled.outputs]
        self.facts.inputs = {_name(port): _shape(port) for port in compiled.inputs}
        self.facts.types = {_name(p): p.get_element_type().to_dtype().name for p in compiled.inputs}
        self.facts.outputs = {_name(port): _shape(port) for port in compiled.outputs}
        chosen = _property(compiled, "EXECUTION_DEVICES") or [device]
        self.facts.device = ",".join(chosen)
        self.facts.threads = int(_property(compiled, "INFERENCE_NUM_THREADS") or 0)
        return self

    def run(self, inputs: Arrays) -> Arrays:
        # the inputs are not copied first; the outputs are, since the next run overwrites them.
        # `infer(inputs)` does the same, with 40 us more of Python on a model of 500 us
        request = self._request
        for name, values in inputs.items():
            # OpenVINO shares no read-only memory; it does not write to it either
            own = np.require(values, requirements=("C", "W"))
            request.set_tensor(name, self._tensor(own, shared_memory=True))
        request.infer()
        return {
            name: request.get_output_tensor(index).data.copy()
            for index, name in enumerate(self._names)
        }

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._request = self._compiled = None

    def _check_file(self) -> None:
        """Turn away what is no model at all: OpenVINO's frontends would each write to stderr."""
        if self.path.suffix == ".onnx":
            read_graph(self.path)
            return
        try:
            with self.path.open("rb") as file:
                start = file.read(4096)
        except FileNotFoundError:
            raise BundleError(f"no such model file: {self.path}") from None
        except OSError as error:
            raise BundleError(f"{self.path} cannot be read: {error.strerror}") from None
        if b"<net" not in start:
            raise BundleError(f"{self.path} is not an OpenVINO model, or it is truncated",
                              hint="copy or export the file again")  # fmt: skip

    def _fix_batch(self, model: Any) -> None:
        """Make the batch static: a dynamic one costs up to 13 % of a small model's speed."""
        batch = self.options.batch
        shapes = {}
        for port in model.inputs:
            shape = port.get_partial_shape()
            if not batch or shape.rank.is_dynamic or len(shape) != 4:
                continue
            if shape[0].is_static and shape[0].get_length() != batch:
                raise BundleError(f"{self.path}: input '{_name(port)}' has a fixed batch of "
                                  f"{shape[0].get_length()}, asked was {batch}",
                                  hint=f"--batch {shape[0].get_length()}")  # fmt: skip
            shape[0] = batch
            shapes[port] = shape
        if shapes:
            model.reshape(shapes)

    def _settings(self, core: Any, device: str) -> dict[str, Any]:
        wanted: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
        if self.options.threads:
            wanted["INFERENCE_NUM_THREADS"] = self.options.threads
        if self.options.precision in FLOAT:
            is_unmarked = self.options.precision == "fp16" and self.path.suffix == ".onnx"
            wanted["INFERENCE_PRECISION_HINT"] = (
                "f32" if is_unmarked else FLOAT[self.options.precision]
            )
        if device.startswith("AUTO"):
            # AUTO hands the rest on to the device it chooses, which may not know it
            del wanted["NUM_STREAMS"]
            return wanted
        known = set(core.get_property(device, "SUPPORTED_PROPERTIES"))
        return {key: value for key, value in wanted.items() if key in known}

    def _inspect(self) -> None:
        """Read what runs from the compiled graph; the hint alone is only a wish."""
        compiled = self._compiled
        facts, asked = self.facts, self.options.precision
        hint = _property(compiled, "INFERENCE_PRECISION_HINT")
        name = hint.get_type_name() if hasattr(hint, "get_type_name") else str(hint or "")
        rest = SHORT.get(name, name)
        counts = _arithmetic(compiled)
        facts.precision = counts.most_common(1)[0][0] if counts else rest
        total, whole, half = counts.total(), counts["i8"], counts["f16"]
        if asked in QUANTIZED and whole < total:
            facts.notes.append(f"OpenVINO runs {whole} of {total} convolutions and matrix products "
                               "in int8, the rest in float")  # fmt: skip
        if asked in FLOAT and rest and rest != FLOAT[asked]:
            facts.notes.append(f"asked for {FLOAT[asked]} arithmetic, {facts.device} uses {rest}")
        elif asked == "fp16" and half < total:
            facts.notes.append(f"OpenVINO runs {half} of {total} convolutions and matrix products "
                               f"in f16, {total - half} in {_others(counts, 'f16')}")  # fmt: skip
        elif asked in QUANTIZED:
            facts.notes.append(f"layers that are not int8 run in {rest}")


def _arithmetic(compiled: Any) -> Counter[str]:
    """In which precision the convolutions and matrix products run; empty where not told."""
    found: Counter[str] = Counter()
    try:
        operations = compiled.get_runtime_model().get_ops()
    except RuntimeError:  # not every device has an execution graph
        return found
    for operation in operations:
        facts = operation.get_rt_info()
        if "layerType" not in facts or "runtimePrecision" not in facts:
            continue
        kind = str(facts["layerType"].value).lower().replace("_", "")
        if kind in ARITHMETIC:
            precision = str(facts["runtimePrecision"].value).lower()
            found[SHORT.get(precision, precision)] += 1
    return found


def _others(counts: Counter[str], known: str) -> str:
    return " and ".join(sorted(name for name in counts if name != known))


def _device(core: Any, wanted: str) -> str:
    device = (wanted or "CPU").upper()
    available = list(core.available_devices)
    if device.partition(":")[0] == "AUTO" or any(
        device in (name, name.partition(".")[0]) for name in available
    ):
        return device
    raise MissingOnHost(f"OpenVINO has no device '{wanted}' on this machine; it has: "
                        f"{', '.join(available) or 'none'}",
                        hint="edgekd doctor runtimes")  # fmt: skip


def _property(compiled: Any, name: str) -> Any:
    try:
        return compiled.get_property(name)
    except RuntimeError:  # not every device has every property
        return None


def _name(port: Any) -> str:
    names = sorted(port.get_names())
    return str(names[0] if names else port.get_node().get_friendly_name())


def _shape(port: Any) -> tuple[int, ...]:
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:
        return ()
    return tuple(dim.get_length() if dim.is_static else -1 for dim in shape)


def _last_line(error: Exception) -> str:
    """OpenVINO's messages begin with the places in its source; the cause stands last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
