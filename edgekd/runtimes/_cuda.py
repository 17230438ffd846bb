"""The CUDA runtime, as far as one blocking inference needs it: no torch, no pycuda.

Through NVIDIA's package `cuda.bindings` where that is installed and fits the driver, else through
libcudart with ctypes. Both are called by the names and in the order of arguments of the CUDA
Runtime API (docs.nvidia.com/cuda/cuda-runtime-api), of which nothing is used that CUDA 12 and 13
do not share. Every return code is checked.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from collections.abc import Callable, Iterator
from ctypes import c_int, c_size_t, c_uint, c_ulonglong, c_void_p
from pathlib import Path
from typing import Any

from edgekd.errors import MissingOnHost

ATTRIBUTE, KIND, MODE = "cudaDeviceAttr", "cudaMemcpyKind", "cudaStreamCaptureMode"
# name: what it gives back, what it takes; an enum by its name
CALLS: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    "cudaRuntimeGetVersion": ((c_int,), ()),
    "cudaDriverGetVersion": ((c_int,), ()),
    "cudaGetDeviceCount": ((c_int,), ()),
    "cudaSetDevice": ((), (c_int,)),
    "cudaDeviceGetAttribute": ((c_int,), (ATTRIBUTE, c_int)),
    "cudaMemGetInfo": ((c_size_t, c_size_t), ()),
    "cudaMalloc": ((c_void_p,), (c_size_t,)),
    "cudaFree": ((), (c_void_p,)),
    "cudaHostAlloc": ((c_void_p,), (c_size_t, c_uint)),
    "cudaFreeHost": ((), (c_void_p,)),
    "cudaHostGetDevicePointer": ((c_void_p,), (c_void_p, c_uint)),
    "cudaMemcpyAsync": ((), (c_void_p, c_void_p, c_size_t, KIND, c_void_p)),
    "cudaStreamCreateWithFlags": ((c_void_p,), (c_uint,)),
    "cudaStreamSynchronize": ((), (c_void_p,)),
    "cudaStreamDestroy": ((), (c_void_p,)),
    "cudaStreamBeginCapture": ((), (c_void_p, MODE)),
    "cudaStreamEndCapture": ((c_void_p,), (c_void_p,)),
    "cudaGraphInstantiateWithFlags": ((c_void_p,), (c_void_p, c_ulonglong)),
    "cudaGraphDestroy": ((), (c_void_p,)),
    "cudaGraphLaunch": ((), (c_void_p, c_void_p)),
    "cudaGraphExecDestroy": ((), (c_void_p,)),
}
# values of enums and flags, which keep their numbers between versions
ATTRIBUTES = {"cudaDevAttrIntegrated": 18, "cudaDevAttrCanMapHostMemory": 19,
              "cudaDevAttrComputeCapabilityMajor": 75,
              "cudaDevAttrComputeCapabilityMinor": 76}  # fmt: skip
TO_DEVICE, TO_HOST = 1, 2  # cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost
THREAD_LOCAL = 1  # cudaStreamCaptureModeThreadLocal
NON_BLOCKING, MAPPED = 1, 2  # cudaStreamNonBlocking, cudaHostAllocMapped
LACKING = {"cudaErrorMemoryAllocation", "cudaErrorNoDevice", "cudaErrorInsufficientDriver",
           "cudaErrorInvalidDevice", "cudaErrorInitializationError", "cudaErrorNotSupported",
           "cudaErrorSystemDriverMismatch", "cudaErrorStubLibrary"}  # fmt: skip
LAST = {"cudaStreamEndCapture"}  # in C its result stands last; those of all others come first
LIBRARIES = ("libcudart.so.13", "libcudart.so.12", "libcudart.so")

Invoke = Callable[..., tuple[int, tuple[int, ...]]]


class Cuda:
    """The calls by name, and the facts of a device. Raises MissingOnHost for what is not here."""

    def __init__(self, invoke: Invoke, name_of: Callable[[int], str],
                 device_name: Callable[[int], tuple[int, str]]) -> None:  # fmt: skip
        self._invoke = invoke
        self._name_of = name_of
        self._device_name = device_name

    def call(self, name: str, *arguments: int) -> int:
        """Call one of CALLS; returns its first result, 0 where it has none.

        Raises MissingOnHost where a device, its driver or its memory does not suffice, and
        RuntimeError with CUDA's own name for any other error.
        """
        return (*self._all(name, *arguments), 0)[0]

    def device_count(self) -> int:
        return self.call("cudaGetDeviceCount")

    def device_name(self, index: int) -> str:
        """As the driver spells it, e.g. `Orin`."""
        code, name = self._device_name(index)
        self._check("cudaGetDeviceProperties", code)
        return name

    def attribute(self, name: str, index: int) -> int:
        return self.call("cudaDeviceGetAttribute", ATTRIBUTES[name], index)

    def compute_capability(self, index: int) -> str:
        """E.g. `8.7`, that of Orin."""
        major, minor = (
            self.attribute(f"cudaDevAttrComputeCapability{part}", index)
            for part in ("Major", "Minor")
        )
        return f"{major}.{minor}"

    def free_memory(self) -> int:
        """Bytes of the current device's memory that nobody has taken."""
        return self._all("cudaMemGetInfo")[0]

    def versions(self) -> tuple[str, str]:
        """CUDA's version in this library, and the newest one that the driver can do."""
        both = (self.call("cudaRuntimeGetVersion"), self.call("cudaDriverGetVersion"))
        runtime, driver = (f"{number // 1000}.{number % 1000 // 10}" for number in both)
        return runtime, driver

    def _all(self, name: str, *arguments: int) -> tuple[int, ...]:
        code, results = self._invoke(name, *arguments)
        self._check(name, code)
        return results

    def _check(self, name: str, code: int) -> None:
        if not code:
            return
        error = self._name_of(code)
        if error in LACKING:
            raise MissingOnHost(f"{name}: {error} ({code})", hint="edgekd doctor")
        raise RuntimeError(f"{name}: {error} ({code})")


def load() -> Cuda:
    """The first CUDA runtime that finds a device. MissingOnHost says what was tried."""
    tried = []
    for place, opened in _candidates():
        try:
            cuda = opened()
            if cuda.device_count():
                return cuda
            tried.append(f"{place} finds no device")
        except (ImportError, AttributeError, OSError) as error:  # not there, or half of it
            tried.append(f"{place}: {str(error).splitlines()[0]}")
        except (MissingOnHost, RuntimeError) as error:
            tried.append(f"{place}: {error}")
    raise MissingOnHost(f"no CUDA device can be used: {'; '.join(dict.fromkeys(tried))}",
                        hint="on a Jetson: sudo apt install nvidia-jetpack; elsewhere: "
                             "pip install 'edgekd[tensorrt]'")  # fmt: skip


def from_package() -> Cuda:
    """Through `cuda.bindings.runtime`, which gives (error, results...). ImportError without it."""
    from cuda.bindings import runtime

    def invoke(name: str, *arguments: int) -> tuple[int, tuple[int, ...]]:
        takes = CALLS[name][1]
        given = [getattr(runtime, kind)(value) if isinstance(kind, str) else value
                 for kind, value in zip(takes, arguments, strict=True)]  # fmt: skip
        code, *results = getattr(runtime, name)(*given)
        return int(code), () if int(code) else tuple(int(value) for value in results)

    def name_of(code: int) -> str:
        try:
            return str(runtime.cudaError_t(code).name)
        except ValueError:
            return "unknown error"

    def device_name(index: int) -> tuple[int, str]:
        code, facts = runtime.cudaGetDeviceProperties(index)
        return int(code), "" if int(code) else facts.name.partition(b"\0")[0].decode()

    return Cuda(invoke, name_of, device_name)


def from_library(path: str) -> Cuda:
    """Through libcudart. OSError where it cannot be loaded, AttributeError if it lacks a call."""
    library = ctypes.CDLL(path)
    for name, (gives, takes) in CALLS.items():
        function = getattr(library, name)
        plain = [c_int if isinstance(kind, str) else kind for kind in takes]
        pointers = [ctypes.POINTER(kind) for kind in gives]
        function.argtypes = [*plain, *pointers] if name in LAST else [*pointers, *plain]
        function.restype = c_int
    library.cudaGetErrorName.argtypes = [c_int]
    library.cudaGetErrorName.restype = ctypes.c_char_p
    library.cudaGetDeviceProperties.argtypes = [c_void_p, c_int]
    library.cudaGetDeviceProperties.restype = c_int

    def invoke(name: str, *arguments: int) -> tuple[int, tuple[int, ...]]:
        results = [kind() for kind in CALLS[name][0]]
        places = [ctypes.byref(result) for result in results]
        given = [*arguments, *places] if name in LAST else [*places, *arguments]
        code = getattr(library, name)(*given)
        return int(code), tuple(int(result.value or 0) for result in results)

    def name_of(code: int) -> str:
        return str((library.cudaGetErrorName(code) or b"unknown error").decode())

    def device_name(index: int) -> tuple[int, str]:
        # struct cudaDeviceProp begins with `char name[256]` in every version; about 1 KiB in all
        properties = ctypes.create_string_buffer(16384)
        code = library.cudaGetDeviceProperties(properties, index)
        return int(code), properties.raw[:256].partition(b"\0")[0].decode(errors="replace")

    return Cuda(invoke, name_of, device_name)


def _candidates() -> Iterator[tuple[str, Callable[[], Cuda]]]:
    yield "cuda.bindings", from_package
    for path in [*LIBRARIES, *_installed()]:
        yield path, functools.partial(from_library, path)


def _installed() -> list[str]:
    """libcudart where the loader does not look: CUDA's own folder, NVIDIA's wheels."""
    folders = [Path("/usr/local/cuda/lib64")]
    try:
        spec = importlib.util.find_spec("nvidia")
    except (ImportError, ValueError):
        spec = None
    for place in (spec.submodule_search_locations or []) if spec else []:
        folders += [Path(place) / "cu13" / "lib", Path(place) / "cuda_runtime" / "lib"]
    found = (folder / name for folder in folders for name in LIBRARIES)
    return [str(path) for path in found if path.is_file()]
