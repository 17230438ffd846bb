"""ONNX Runtime, on the processor or through one of its execution providers."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from edgekd.errors import BundleError, MissingOnHost
from edgekd.plugins import missing_package
from edgekd.runtimes._onnx_graph import OnnxGraph, read_graph
from edgekd.runtimes.base import Arrays, Probe, RunOptions, Runtime

SUFFIX = "ExecutionProvider"
CPU, CUDA = f"CPU{SUFFIX}", f"CUDA{SUFFIX}"
ALIASES = {"": "cpu", "gpu": "cuda"}
ERRORS_ONLY = 3  # ONNX Runtime's log level
INT8_OPS = {"QLinearConv", "QLinearMatMul", "QGemm", "ConvInteger", "MatMulInteger",
            "MatMulIntegerToFloat", "DynamicQuantizeMatMul"}  # fmt: skip
FLOAT_OPS = {"Conv", "FusedConv", "NhwcFusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul",
             "FusedMatMul"}  # fmt: skip


class OnnxRuntime(Runtime):
    """One session on one provider: cpu (default), cuda, cuda:1, tensorrt, openvino, ...

    fp32 runs as f32 on the processor and on CUDA, where TF32 is switched off. Other providers
    choose for themselves and do not say what they ran.
    """

    suffixes = (".onnx",)

    def __init__(self, path: Path, options: RunOptions = RunOptions()) -> None:  # noqa: B008
        super().__init__(path, options)
        self._session: Any = None
        self._provider = ""

    @classmethod
    def probe(cls) -> Probe:
        try:
            import onnxruntime

            devices = tuple(_short(name) for name in onnxruntime.get_available_providers())
            return Probe(True, version=onnxruntime.__version__, devices=devices)
        except Exception as error:  # a broken installation can raise anything
            return Probe(False, reason=f"{type(error).__name__}: {error}".splitlines()[0])

    def __enter__(self) -> OnnxRuntime:
        graph = read_graph(self.path)
        ort = _import()
        provider, index = _provider(ort, self.options.device)
        settings = self._settings(ort, graph)
        before = _threads_now()
        try:
            self._session = ort.InferenceSession(str(self.path), settings,
                                                 providers=_choices(provider, index))  # fmt: skip
        except Exception as error:
            raise BundleError(f"{self.path}: ONNX Runtime {ort.__version__} cannot load it: "
                              f"{_one_line(error)}") from error  # fmt: skip
        self.facts.threads = self.options.threads or _threads_now() - before + 1
        self._provider = provider
        first = self._session.get_providers()[0]
        if first != provider:  # ONNX Runtime falls back to the processor without an error
            raise MissingOnHost(f"ONNX Runtime could not start its provider '{_short(provider)}' "
                                f"and would have used '{_short(first)}'",
                                hint="edgekd doctor runtimes")  # fmt: skip
        self.facts.device = self._device(provider, index)
        self.facts.inputs = {i.name: _shape(i.shape) for i in self._session.get_inputs()}
        self.facts.types = {i.name: _numpy_type(i.type) for i in self._session.get_inputs()}
        self.facts.outputs = {o.name: _shape(o.shape) for o in self._session.get_outputs()}
        return self

    def run(self, inputs: Arrays) -> Arrays:
        values = self._session.run(None, inputs)
        return dict(zip(self.facts.outputs, values, strict=True))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._session = None

    def _settings(self, ort: Any, graph: OnnxGraph) -> Any:
        """One stream of work: operators one after another, threads inside each."""
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = self.options.threads
        settings.inter_op_num_threads = 1
        settings.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        settings.log_severity_level = ERRORS_ONLY
        for name, dims in graph.inputs.items():
            if len(dims) != 4 or not self.options.batch:
                continue
            if isinstance(dims[0], str):
                settings.add_free_dimension_override_by_name(dims[0], self.options.batch)
            elif dims[0] != self.options.batch:
                raise BundleError(f"{self.path}: input '{name}' has a fixed batch of {dims[0]}, "
                                  f"asked was {self.options.batch}",
                                  hint=f"--batch {dims[0]}")  # fmt: skip
        return settings

    def _device(self, provider: str, index: str) -> str:
        return _short(provider).upper() + (f":{index}" if index else "")

    def _inspect(self) -> None:
        graph = read_graph(self.path)
        has_half = any(graph.half_ops[name] for name in FLOAT_OPS)
        asked = "i8" if graph.is_quantized else "f16" if has_half else "f32"
        if asked == "f32" and self._provider in (CPU, CUDA):
            self.facts.precision = asked
        elif self._provider == CPU:
            self._say_precision(self._optimized(graph), asked)
        else:  # it compiles the graph out of sight
            self.facts.notes.append(f"the provider '{_short(self._provider)}' does not say in what "
                                    f"precision it ran; the file asks for {asked}")  # fmt: skip

    def _optimized(self, graph: OnnxGraph) -> OnnxGraph:
        """The graph as ONNX Runtime rewrites it, from a second session that is thrown away."""
        ort = _import()
        settings = self._settings(ort, graph)
        with tempfile.TemporaryDirectory(prefix="edgekd-") as scratch:
            path = Path(scratch) / "optimized.onnx"
            settings.optimized_model_filepath = str(path)
            ort.InferenceSession(str(self.path), settings, providers=[CPU])
            return read_graph(path)

    def _say_precision(self, graph: OnnxGraph, asked: str) -> None:
        """By the rewritten graph: where a kernel is missing, it has casts to f32 and back."""
        whole = sum(graph.ops[name] for name in INT8_OPS)
        half = sum(graph.half_ops[name] for name in FLOAT_OPS)
        real = sum(graph.ops[name] for name in FLOAT_OPS)
        full = real - half
        self.facts.precision = "i8" if whole and whole >= real else "f16" if half > full else "f32"
        if graph.is_quantized and real:
            self.facts.notes.append(
                f"ONNX Runtime runs {whole} of {whole + real} convolutions and matrix products "
                f"in int8, {real} in float"
            )
        elif asked == "f16" and full:
            self.facts.notes.append(
                f"ONNX Runtime runs {full} of {real} convolutions and matrix products in float32"
            )


def _import() -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise missing_package(error.name or "onnxruntime", "runtime 'onnxruntime'") from None
    return onnxruntime


def _provider(ort: Any, device: str) -> tuple[str, str]:
    """The provider's full name and the device's index ("" for the first)."""
    name, _, index = device.lower().partition(":")
    name = ALIASES.get(name, name)
    available = ort.get_available_providers()
    for provider in available:
        if _short(provider) == name and (index.isdecimal() or not index):
            return str(provider), index
    known = ", ".join(_short(provider) for provider in available)
    raise MissingOnHost(f"ONNX Runtime has no device '{device}' on this machine; it has: {known}",
                        hint="edgekd doctor runtimes")  # fmt: skip


def _choices(provider: str, index: str) -> list[Any]:
    """Providers and their options, the wanted one first; the processor takes what it cannot."""
    if provider == CPU:
        return [CPU]
    options = {"device_id": index} if index else {}
    if provider == CUDA:
        options["use_tf32"] = "0"  # on by default: its products have 10 bits of mantissa, not 23
    return [(provider, options), CPU]


def _short(provider: str) -> str:
    return provider.removesuffix(SUFFIX).lower()


def _shape(dims: list[Any]) -> tuple[int, ...]:
    return tuple(dim if isinstance(dim, int) else -1 for dim in dims)


def _numpy_type(name: str) -> str:
    """`tensor(float)` to `float32`."""
    inner = name.removeprefix("tensor(").removesuffix(")")
    inner = {"float": "float32", "double": "float64", "string": "object"}.get(inner, inner)
    try:
        return str(np.dtype(inner).name)
    except TypeError:  # a sequence, a map, bfloat16
        return inner


def _one_line(error: Exception) -> str:
    """`[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : text` to `text`."""
    text = " ".join(str(error).split())
    return text.rpartition(" : ")[2] if text.startswith("[ONNXRuntimeError]") else text


def _threads_now() -> int:
    """How many threads this process has; their growth is the size of a session's pool."""
    import psutil

    return int(psutil.Process().num_threads())
