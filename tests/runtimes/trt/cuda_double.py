"""A CUDA runtime in the processor's memory: what is queued runs only when it is waited for.

So an output that is read before its stream was synchronised is garbage, as it may be on a GPU.
Memory of the device has addresses that the host cannot read. Only what `_cuda.CALLS` lists exists.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.runtimes import _cuda

GARBAGE = 0xCD
DEVICE_BASE = 0x7F00_0000_0000_0000  # no address of a process on x86 or ARM
FREE = 8 << 30
ERRORS = {2: "cudaErrorMemoryAllocation", 100: "cudaErrorNoDevice", 101: "cudaErrorInvalidDevice",
          400: "cudaErrorInvalidResourceHandle", 901: "cudaErrorStreamCaptureInvalidated",
          1: "cudaErrorInvalidValue"}  # fmt: skip

Work = Callable[[], None]


@dataclass
class CudaDouble:
    """One device. `calls` is the record; `problems` are mistakes that CUDA would not name."""

    name: str = "Orin"
    capability: tuple[int, int] = (8, 7)
    is_integrated: bool = True
    devices: int = 1
    fails: dict[str, int] = field(default_factory=dict)  # call -> error code
    calls: list[str] = field(default_factory=list)
    memory: dict[int, npt.NDArray[np.uint8]] = field(default_factory=dict)
    kept: dict[int, Any] = field(default_factory=dict)  # the host's own buffers
    streams: dict[int, list[Work]] = field(default_factory=dict)
    capturing: dict[int, list[Work]] = field(default_factory=dict)
    graphs: dict[int, list[Work]] = field(default_factory=dict)
    executables: dict[int, list[Work]] = field(default_factory=dict)
    _next: int = 0

    def cuda(self) -> _cuda.Cuda:
        return _cuda.Cuda(self.invoke, lambda code: ERRORS[code], lambda _: (0, self.name))

    def left(self) -> list[str]:
        """What was taken and never given back."""
        kinds = ("memory", "kept", "streams", "graphs", "executables")
        return [f"{kind}: {len(getattr(self, kind))}" for kind in kinds if getattr(self, kind)]

    def invoke(self, name: str, *arguments: int) -> tuple[int, tuple[int, ...]]:
        gives, takes = _cuda.CALLS[name]
        assert len(arguments) == len(takes), f"{name} takes {len(takes)} arguments"
        assert all(isinstance(value, int) for value in arguments), f"{name}{arguments}"
        self.calls.append(name)
        if name in self.fails:
            return self.fails[name], ()
        results = getattr(self, name)(*arguments)
        if isinstance(results, Failed):
            return results.code, ()
        results = () if results is None else results if isinstance(results, tuple) else (results,)
        assert len(results) == len(gives), name
        return 0, results

    def queue(self, stream: int, work: Work) -> None:
        """Put work onto a stream, or into the graph that is being captured from it."""
        assert stream in self.streams, "work on a stream that was not created, or is destroyed"
        self.capturing.get(stream, self.streams[stream]).append(work)

    def at(self, address: int, count: int) -> npt.NDArray[np.uint8]:
        """Memory that the device can reach."""
        found = self.memory.get(address)
        assert found is not None, f"no memory at {address:#x}, or it was freed"
        assert count <= len(found), f"{count} bytes of {len(found)}"
        return found[:count]

    def handle(self) -> int:
        self._next += 4096
        return DEVICE_BASE + self._next

    # the calls

    def cudaRuntimeGetVersion(self) -> int:
        return 12060

    def cudaDriverGetVersion(self) -> int:
        return 12060

    def cudaGetDeviceCount(self) -> int:
        return self.devices

    def cudaSetDevice(self, index: int) -> Any:
        return None if index < self.devices else Failed(101)

    def cudaDeviceGetAttribute(self, attribute: int, index: int) -> int:
        wanted = {number: key for key, number in _cuda.ATTRIBUTES.items()}[attribute]
        return {"cudaDevAttrIntegrated": int(self.is_integrated), "cudaDevAttrCanMapHostMemory": 1,
                "cudaDevAttrComputeCapabilityMajor": self.capability[0],
                "cudaDevAttrComputeCapabilityMinor": self.capability[1]}[wanted]  # fmt: skip

    def cudaMemGetInfo(self) -> tuple[int, int]:
        return FREE, 2 * FREE

    def cudaMalloc(self, count: int) -> int:
        address = self.handle()
        self.memory[address] = np.full(count, GARBAGE, dtype=np.uint8)
        return address

    def cudaFree(self, address: int) -> None:
        assert address in self.memory, "freed twice, or never taken"
        assert not any(self.streams.values()), "freed while work is queued"
        del self.memory[address]

    def cudaHostAlloc(self, count: int, flags: int) -> int:
        buffer = (ctypes.c_uint8 * count)()
        address = ctypes.addressof(buffer)
        self.kept[address] = (buffer, flags)
        np.ctypeslib.as_array(buffer)[:] = GARBAGE
        return address

    def cudaFreeHost(self, address: int) -> None:
        buffer, _ = self.kept.pop(address)
        for known in [key for key, view in self.memory.items()
                      if view.ctypes.data == ctypes.addressof(buffer)]:  # fmt: skip
            del self.memory[known]

    def cudaHostGetDevicePointer(self, address: int, flags: int) -> Any:
        buffer, asked = self.kept[address]
        if not asked & _cuda.MAPPED or flags:
            return Failed(1)
        device = self.handle()
        self.memory[device] = np.ctypeslib.as_array(buffer)
        return device

    def cudaMemcpyAsync(self, to: int, source: int, count: int, kind: int, stream: int) -> None:
        host, device = (source, to) if kind == _cuda.TO_DEVICE else (to, source)
        assert host in self.kept, "an asynchronous copy needs page-locked memory of the host"

        def copy() -> None:
            ours = np.ctypeslib.as_array(self.kept[host][0])[:count]
            theirs = self.at(device, count)
            if kind == _cuda.TO_DEVICE:
                theirs[:] = ours
            else:
                ours[:] = theirs

        self.queue(stream, copy)

    def cudaStreamCreateWithFlags(self, flags: int) -> int:
        stream = self.handle()
        self.streams[stream] = []
        return stream

    def cudaStreamSynchronize(self, stream: int) -> Any:
        if stream in self.capturing:
            return Failed(901)
        work, self.streams[stream] = self.streams[stream], []
        for step in work:
            step()
        return None

    def cudaStreamDestroy(self, stream: int) -> None:
        assert not self.streams.pop(stream), "destroyed with work that nobody waited for"

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> None:
        assert not self.streams[stream], "a capture begins on a stream with nothing queued"
        self.capturing[stream] = []

    def cudaStreamEndCapture(self, stream: int) -> int:
        graph = self.handle()
        self.graphs[graph] = self.capturing.pop(stream)
        return graph

    def cudaGraphInstantiateWithFlags(self, graph: int, flags: int) -> int:
        executable = self.handle()
        self.executables[executable] = list(self.graphs[graph])
        return executable

    def cudaGraphDestroy(self, graph: int) -> None:
        del self.graphs[graph]

    def cudaGraphLaunch(self, executable: int, stream: int) -> None:
        for step in self.executables[executable]:
            self.queue(stream, step)

    def cudaGraphExecDestroy(self, executable: int) -> None:
        del self.executables[executable]


@dataclass(frozen=True)
class Failed:
    """An error code instead of results."""

    code: int
