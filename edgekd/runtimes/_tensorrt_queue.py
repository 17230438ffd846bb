"""Memory, copies and the CUDA graph of one engine: what is queued on its stream for one run."""

from __future__ import annotations

import contextlib
import ctypes
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.errors import MissingOnHost
from edgekd.runtimes import _cuda

Execute = Callable[[int], None]  # queue the layers on a stream; RuntimeError if that fails


@dataclass
class Port:
    """An input or output, with memory for the widest batch."""

    name: str
    is_input: bool
    kind: np.dtype[Any]
    host: npt.NDArray[np.uint8]  # (bytes,), page-locked
    device: int  # address; that of `host` as the GPU sees it where memory is shared
    shape: tuple[int, ...]  # at the batch that is set now

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.kind.itemsize

    @property
    def values(self) -> npt.NDArray[Any]:
        """The host's memory as an array of `shape`, not a copy."""
        return self.host[: self.bytes].view(self.kind).reshape(self.shape)


class Queue:
    """One stream; everything that is taken here is given back by `stack`, in reverse."""

    def __init__(self, cuda: _cuda.Cuda, stack: contextlib.ExitStack, index: int) -> None:
        self._call = cuda.call
        self._stack = stack
        self._is_mapped = False
        self._graph = 0  # 0: none
        self.ports: list[Port] = []
        self._can_map = bool(cuda.attribute("cudaDevAttrCanMapHostMemory", index))
        self._stream = self._call("cudaStreamCreateWithFlags", _cuda.NON_BLOCKING)
        stack.callback(self._call, "cudaStreamDestroy", self._stream)

    def share_memory(self) -> None:
        """Let the GPU read and write the host's memory, from here on, in place of copies."""
        if not self._can_map:
            raise MissingOnHost("this GPU cannot read the host's memory",
                                hint="leave out '+mapped'")  # fmt: skip
        self._is_mapped = True

    @property
    def has_graph(self) -> bool:
        return bool(self._graph)

    @property
    def is_mapped(self) -> bool:
        return self._is_mapped

    def add(self, name: str, is_input: bool, kind: np.dtype[Any], shape: tuple[int, ...]) -> Port:
        """Take memory for one tensor of `shape`, its widest."""
        count = math.prod(shape) * kind.itemsize
        address = self._call("cudaHostAlloc", count, _cuda.MAPPED if self._is_mapped else 0)
        self._stack.callback(self._call, "cudaFreeHost", address)
        if self._is_mapped:
            device = self._call("cudaHostGetDevicePointer", address, 0)
        else:
            device = self._call("cudaMalloc", count)
            self._stack.callback(self._call, "cudaFree", device)
        host = np.ctypeslib.as_array((ctypes.c_uint8 * count).from_address(address))
        host[:] = 0
        self.ports.append(Port(name, is_input, kind, host, device, shape))
        return self.ports[-1]

    def run(self, execute: Execute) -> None:
        """Copy in, compute, copy out, and wait until all of it is done."""
        if self._graph:
            self._call("cudaGraphLaunch", self._graph, self._stream)
        else:
            self._submit(execute)
        self._call("cudaStreamSynchronize", self._stream)

    def record(self, execute: Execute) -> str:
        """Make one CUDA graph of a run, to be launched by the next ones; returns why not, or "".

        The run before it lets TensorRT settle what it defers. Not every layer can be captured
        (docs.nvidia.com/deeplearning/tensorrt, "CUDA Graphs").
        """
        self.run(execute)
        self._call("cudaStreamBeginCapture", self._stream, _cuda.THREAD_LOCAL)
        try:
            self._submit(execute)
            graph = self._call("cudaStreamEndCapture", self._stream)
        except RuntimeError as error:
            with contextlib.suppress(RuntimeError):  # the capture is over either way
                self._call("cudaGraphDestroy", self._call("cudaStreamEndCapture", self._stream))
            return str(error)
        try:
            self._graph = self._call("cudaGraphInstantiateWithFlags", graph, 0)
        finally:
            self._call("cudaGraphDestroy", graph)
        self._stack.callback(self._call, "cudaGraphExecDestroy", self._graph)
        return ""

    def _submit(self, execute: Execute) -> None:
        for port in self.ports if not self._is_mapped else []:
            if port.is_input:
                self._copy(port.device, port.host.ctypes.data, port.bytes, _cuda.TO_DEVICE)
        execute(self._stream)
        for port in self.ports if not self._is_mapped else []:
            if not port.is_input:
                self._copy(port.host.ctypes.data, port.device, port.bytes, _cuda.TO_HOST)

    def _copy(self, to: int, source: int, count: int, kind: int) -> None:
        self._call("cudaMemcpyAsync", to, source, count, kind, self._stream)
