"""A machine that has TensorRT and a GPU, as far as edgekd can tell: two doubles in their places."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekd.runtimes import _cuda, _tensorrt_built
from tests.runtimes.trt import api
from tests.runtimes.trt.cuda_double import CudaDouble
from tests.runtimes.trt.double import World, make_tensorrt

_described: dict[str, Any] = {}


def described(version: str) -> dict[str, Any]:
    """What the real bindings of a version say, read once; skips where they are not here."""
    if version not in _described:
        _described[version] = api.describe(version)
    return _described[version]


@contextlib.contextmanager
def machine(version: str, tmp_path: Path, *, host: str = "orin-1", **gpu: Any) -> Iterator[World]:
    """Inside, `import tensorrt` finds the double of this version, and CUDA one device.

    At the end nothing may be left on the device, and nothing freed before what it made.
    """
    world = World(described(version), CudaDouble(**gpu))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tensorrt", make_tensorrt(world))
        patch.setattr(_cuda, "load", world.cuda.cuda)
        patch.setattr(_tensorrt_built, "ROOT", tmp_path)
        patch.setenv("EDGEKD_HOST", host)
        patch.setenv("EDGEKD_CACHE", str(tmp_path / "cache"))
        yield world
    gc.collect()
    assert not world.mistakes, world.mistakes
    assert not world.cuda.left(), world.cuda.left()
