"""TensorRT on the GPU, from 10.3 to 11.x, through its Python bindings and the CUDA runtime."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.errors import BundleError, EdgekdError, MissingOnHost
from edgekd.runtimes import _cuda
from edgekd.runtimes._tensorrt_built import (
    misfit,
    power_mode,
    read_facts,
    rebuild_command,
    why_not,
)
from edgekd.runtimes._tensorrt_layers import count_precisions, in_words, precision_of
from edgekd.runtimes._tensorrt_library import import_tensorrt, make_log, start, why
from edgekd.runtimes._tensorrt_queue import Port, Queue
from edgekd.runtimes.base import Arrays, Probe, RunOptions, Runtime

TYPES = {"FLOAT": "float32", "HALF": "float16", "INT8": "int8", "UINT8": "uint8", "BOOL": "bool",
         "INT32": "int32", "INT64": "int64"}  # fmt: skip
NAMES = ("", "cuda", "gpu")
NO_GRAPH, ZERO_COPY = "nograph", "mapped"  # switches of a device, after a plus sign


class TensorRT(Runtime):
    """One engine, one context, one stream; pictures come from the host and logits go back to it.

    `device` is cuda (default) or cuda:1, and may carry switches: `cuda+nograph` submits every
    layer anew where otherwise, with a fixed batch, one CUDA graph is launched; `cuda+mapped` lets
    the GPU read and write the host's memory instead of copying (worth a trial on a Jetson, where
    both are the same memory). Notes and the device's name say which were on. An engine runs only
    on the host that built it: see `why_not`.
    """

    suffixes = (".plan",)

    def __init__(self, path: Path, options: RunOptions = RunOptions()) -> None:  # noqa: B008
        super().__init__(path, options)
        self._trt: Any = None
        self._log: Any = None
        self._runtime: Any = None
        self._engine: Any = None
        self._context: Any = None
        self._queue: Any = None
        self._range = (1, 1)  # of pictures at once
        self._batch = 0  # what the context is set to
        self._close = contextlib.ExitStack()

    @classmethod
    def probe(cls) -> Probe:
        try:
            trt = import_tensorrt("runtime 'tensorrt'")
            count = _cuda.load().device_count()
            devices = tuple(f"cuda:{index}" for index in range(count))
            return Probe(True, version=str(trt.__version__), devices=devices)
        except EdgekdError as error:
            return Probe(False, reason=error.message)
        except Exception as error:  # a broken installation can raise anything
            return Probe(False, reason=f"{type(error).__name__}: {error}".splitlines()[0])

    @classmethod
    def why_not(cls, path: Path) -> str:
        return why_not(path)

    def __enter__(self) -> TensorRT:
        plan = self._read()
        built = read_facts(self.path)
        self._refuse(misfit(self.path, built))  # before anything is loaded
        self._trt = import_tensorrt("runtime 'tensorrt'")
        cuda = _cuda.load()
        index, switches = _device(self.options.device, cuda.device_count())
        self._refuse(misfit(self.path, built, self._trt, cuda, index))
        with contextlib.ExitStack() as stack:  # undone in reverse, also if the next step fails
            cuda.call("cudaSetDevice", index)
            self._queue = Queue(cuda, stack, index)
            stack.callback(self._drop)
            if ZERO_COPY in switches:
                self._queue.share_memory()
            self._load(plan)
            self._set_up()
            failed = ""
            if self.options.batch and NO_GRAPH not in switches:
                failed = self._queue.record(self._execute)
            self._close = stack.pop_all()
        self.facts.device = "+".join([f"CUDA:{index}", *switches])
        self.facts.notes += _notes(self._queue, failed, built)
        return self

    def run(self, inputs: Arrays) -> Arrays:
        for port in self._queue.ports:
            if port.is_input:
                self._accept(port, inputs[port.name])
        self._queue.run(self._execute)
        outputs = [port for port in self._queue.ports if not port.is_input]
        return {port.name: port.values.copy() for port in outputs}

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close.close()

    def _inspect(self) -> None:
        inspector = self._engine.create_engine_inspector()
        counts = count_precisions(
            str(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))
        )
        del inspector
        self.facts.precision = precision_of(counts)
        if len(counts) != 1 or not self.facts.precision:
            told = in_words(counts) or "TensorRT names none"
            self.facts.notes.append(f"convolutions and matrix products: {told}")

    def _read(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            raise BundleError(f"no such engine: {self.path}") from None
        except OSError as error:
            raise BundleError(f"{self.path} cannot be read: {error.strerror}") from None

    def _refuse(self, reason: str) -> None:
        if reason:
            raise MissingOnHost(reason, hint=f"build it here: {rebuild_command(self.path)}")

    def _load(self, plan: bytes) -> None:
        self._log = make_log(self._trt)
        self._runtime = start(self._trt.Runtime, self._log)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise BundleError(f"{self.path}: TensorRT {self._trt.__version__} cannot load it: "
                              f"{why(self._log)}",
                              hint=f"build it again: {rebuild_command(self.path)}")  # fmt: skip
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise MissingOnHost(f"{self.path}: no memory to run it in: {why(self._log)}",
                                hint="close what else takes the GPU's memory")  # fmt: skip

    def _drop(self) -> None:
        """The context before its engine, the engine before its runtime, the logger last."""
        self._queue = None
        self._context = None
        self._engine = None
        self._runtime = None
        self._log = None

    def _set_up(self) -> None:
        """Learn the shapes, take the memory for the widest batch and tell the context of it."""
        # by no shorter names: the frame of an error would keep engine and context past `_drop`
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        is_input = {
            name: self._engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT
            for name in names
        }
        shapes = {name: tuple(self._engine.get_tensor_shape(name)) for name in names}
        kinds = {name: self._kind(self._engine.get_tensor_dtype(name).name, name) for name in names}
        inputs = [name for name in names if is_input[name]]
        self._range = _batches(self._engine, inputs, shapes)
        self._check_batch(self.options.batch)
        self._batch = self.options.batch or self._range[1]
        for name in inputs:
            if not self._context.set_input_shape(name, (self._batch, *shapes[name][1:])):
                raise BundleError(f"{self.path}: '{name}' does not take {self._batch} pictures")
        for name in names:
            widest = tuple(self._context.get_tensor_shape(name))
            port = self._queue.add(name, is_input[name], kinds[name], widest)
            if not self._context.set_tensor_address(name, port.device):
                raise BundleError(f"{self.path}: TensorRT refuses the memory for '{name}'")
        told = {name: _open(shapes[name], self.options.batch) for name in names}
        self.facts.inputs = {name: told[name] for name in inputs}
        self.facts.outputs = {name: told[name] for name in names if not is_input[name]}
        self.facts.types = {name: kinds[name].name for name in inputs}

    def _kind(self, name: str, tensor: str) -> np.dtype[Any]:
        if name not in TYPES:
            raise BundleError(f"{self.path}: '{tensor}' is {name}, which numpy does not have")
        return np.dtype(TYPES[name])

    def _accept(self, port: Port, images: npt.NDArray[np.generic]) -> None:
        """Copy one input into page-locked memory; set the context to its batch."""
        if images.shape[1:] != port.shape[1:]:
            raise ValueError(f"{port.name}: got {images.shape}, expected (N, *{port.shape[1:]})")
        count = len(images)
        if count != self._batch:
            if self.options.batch:
                raise ValueError(f"{port.name}: got {count} pictures, loaded for {self._batch}")
            self._check_batch(count)
            self._context.set_input_shape(port.name, (count, *port.shape[1:]))
            for each in self._queue.ports:
                each.shape = tuple(self._context.get_tensor_shape(each.name))
            self._batch = count
        np.copyto(port.values, images, casting="same_kind")

    def _execute(self, stream: int) -> None:
        if not self._context.execute_async_v3(stream):
            raise RuntimeError(f"{self.path}: TensorRT could not run: {why(self._log)}")

    def _check_batch(self, count: int) -> None:
        least, most = self._range
        if count and not least <= count <= most:
            raise BundleError(f"{self.path}: the engine takes {least} to {most} pictures at once, "
                              f"asked was {count}", hint=f"--batch {most}")  # fmt: skip


def _notes(queue: Queue, failed: str, built: dict[str, Any]) -> list[str]:
    """The switches that a latency depends on, one line each."""
    copies = "read in place by the GPU" if queue.is_mapped else "copied, inside the timed run"
    graph = "on" if queue.has_graph else f"off{f' ({failed})' if failed else ''}"
    notes = [f"CUDA graph {graph}; host memory page-locked and {copies}"]
    now = power_mode()
    if built.get("power_mode") != now:
        notes.append(f"built in power mode {built.get('power_mode')}, runs in {now}: "
                     "other kernels may be faster")  # fmt: skip
    return notes


def _batches(engine: Any, inputs: list[str], shapes: dict[str, tuple[int, ...]]) -> tuple[int, int]:
    """How many pictures the engine was built for: least and most."""
    for name in inputs:
        if shapes[name][0] == -1:
            least, _, most = engine.get_tensor_profile_shape(name, 0)
            return int(least[0]), int(most[0])
    fixed = shapes[inputs[0]][0] if inputs else 1
    return fixed, fixed


def _open(shape: tuple[int, ...], batch: int) -> tuple[int, ...]:
    return (batch, *shape[1:]) if batch and shape[:1] == (-1,) else shape


def _device(wanted: str, count: int) -> tuple[int, list[str]]:
    """`cuda:1+nograph` to 1 and its switches."""
    name, *switches = wanted.lower().split("+")
    name, _, index = name.partition(":")
    is_known = name in NAMES and (index.isdecimal() or not index)
    if not is_known or int(index or 0) >= count or set(switches) - {NO_GRAPH, ZERO_COPY}:
        here = ", ".join(f"cuda:{i}" for i in range(count))
        raise MissingOnHost(f"TensorRT has no device '{wanted}' on this machine; it has: {here}, "
                            f"each also with +{NO_GRAPH} and +{ZERO_COPY}",
                            hint="edgekd doctor runtimes")  # fmt: skip
    return int(index or 0), sorted(set(switches))
