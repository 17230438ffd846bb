"""ONNX to a TensorRT engine, on the machine that will run it, from TensorRT 10.3 to 11.x.

The network is strongly typed: TensorRT computes every layer in the types that the ONNX file gives
it, and the flags that let it choose, which 11 has no more, are never touched. int8 is what stands
between QuantizeLinear and DequantizeLinear, fp16 what has fp16 types
(docs.nvidia.com/deeplearning/tensorrt, "Strongly Typed Networks", "Explicit Quantization").
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekd.errors import BundleError, MissingOnHost
from edgekd.host import host_name
from edgekd.results import dump_json
from edgekd.rundir import replace_file, sha256, write_text
from edgekd.runtimes import _cuda
from edgekd.runtimes._tensorrt_built import facts_file, facts_here
from edgekd.runtimes._tensorrt_layers import check_precision, count_precisions
from edgekd.runtimes._tensorrt_library import import_tensorrt, make_log, start, why

RUNTIME = "tensorrt"
IS_BOUND = True  # to the host that built it
# One profile, so that the kernels that the gate judges are those that run at every batch size:
# chosen for one picture, usable up to as many as the gate and the bench take at once.
BATCHES = (1, 1, 32)  # least, best, most
WORKSPACE = 1 << 30  # bytes at most; convolutional networks ask for less
CACHE = "EDGEKD_CACHE"  # an environment variable: the folder for what can be made again


@dataclass(frozen=True)
class _Job:
    """What one build needs."""

    trt: Any
    cuda: _cuda.Cuda
    log: Any
    source: Path
    precision: str
    facts: dict[str, Any]


def lower(source: Path, folder: Path, precision: str) -> list[Path]:
    """Build `folder`/tensorrt/<host>/model.<precision>.plan and, beside it, how it was built.

    Takes minutes on a small device. Returns the engine first. Raises MissingOnHost without
    TensorRT or a GPU; BundleError if TensorRT cannot read or build `source`, and if an engine
    that was asked for in int8 or fp16 computes none of it in that.
    """
    trt = import_tensorrt(f"tensorrt-{precision}")
    cuda = _cuda.load()
    facts = facts_here(trt, cuda)
    target = folder / RUNTIME / host_name() / f"model.{precision}.plan"
    log = make_log(trt)
    begin = time.perf_counter()
    plan, settings = _build(_Job(trt, cuda, log, source, precision, facts))
    seconds = round(time.perf_counter() - begin, 1)
    counts = count_precisions(_inspect(trt, log, plan, source))
    check_precision(counts, precision, f"{source.name} as a TensorRT engine")
    with replace_file(target, "wb") as file:
        file.write(plan)
    said = {"precisions": dict(sorted(counts.items())), "source_sha256": sha256(source),
            "build_s": seconds, "warnings": [text for level, text in log.lines][:20]}  # fmt: skip
    write_text(facts_file(target), dump_json({**facts, **settings, **said}))
    return [target, facts_file(target)]


def _build(job: _Job) -> tuple[bytes, dict[str, Any]]:
    """The serialized engine, and the settings it was built with.

    What makes an object must outlive it, and the parser, which owns the weights, the build
    (docs.nvidia.com/deeplearning/tensorrt, "Object Lifetimes"). So each of the four steps holds one
    object, by a name of its own, and whatever fails, the last one made goes first.
    """
    builder = start(job.trt.Builder, job.log)
    return _with_network(job, builder)


def _with_network(job: _Job, builder: Any) -> tuple[bytes, dict[str, Any]]:
    network = builder.create_network(_strongly_typed(job.trt))
    return _with_parser(job, builder, network)


def _with_parser(job: _Job, builder: Any, network: Any) -> tuple[bytes, dict[str, Any]]:
    trt, source = job.trt, job.source
    parser = trt.OnnxParser(network, job.log)
    if not parser.parse_from_file(str(source)):
        errors = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        raise BundleError(f"TensorRT {trt.__version__} cannot read {source}: "
                          f"{' '.join((errors or [why(job.log)])[0].split())}",
                          hint=f"edgekd lint {source}")  # fmt: skip
    return _with_config(job, builder, network)


def _with_config(job: _Job, builder: Any, network: Any) -> tuple[bytes, dict[str, Any]]:
    trt, facts = job.trt, job.facts
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # else the inspector is mute
    if job.precision == "fp32":  # on by default: its products have 10 bits of mantissa, not 23
        config.clear_flag(trt.BuilderFlag.TF32)
    batches = _open_batch(trt, builder, network, config)
    limits = _limit_memory(trt, job.cuda, config, is_integrated=facts["is_integrated"])
    cache = _timing_cache(facts)
    has_cache = _use_cache(config, cache)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BundleError(f"TensorRT {trt.__version__} cannot build {job.source}: {why(job.log)}",
                          hint="close what else takes memory, and try again")  # fmt: skip
    _keep_cache(config, cache)
    settings = {"batch": batches, "is_tf32_allowed": job.precision != "fp32", **limits,
                "had_timing_cache": has_cache}  # fmt: skip
    return bytes(plan), settings


def _strongly_typed(trt: Any) -> int:
    """The network's flags. This one's number differs between 10 and 11, which needs it no more."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _open_batch(trt: Any, builder: Any, network: Any, config: Any) -> list[int] | None:
    """Say how many pictures may come at once, where the file leaves it open; None where not."""
    profile = None
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape = tuple(tensor.shape)
        if shape[0] != -1:
            continue
        if -1 in shape[1:]:
            raise BundleError(f"input '{tensor.name}' has the shape {shape}; a TensorRT engine "
                              "takes an open batch and nothing else open")  # fmt: skip
        profile = profile or builder.create_optimization_profile()
        profile.set_shape(tensor.name, *(trt.Dims((count, *shape[1:])) for count in BATCHES))
    if profile is None:
        return None
    if config.add_optimization_profile(profile) < 0:
        raise BundleError(f"TensorRT does not take batches of {BATCHES[0]} to {BATCHES[-1]}")
    return list(BATCHES)


def _limit_memory(
    trt: Any, cuda: _cuda.Cuda, config: Any, *, is_integrated: bool
) -> dict[str, int | None]:
    """Cap what the builder may take; returns the caps in MiB.

    On a Jetson CPU and GPU share one memory, and by default TensorRT tries kernels that need 75 %
    of all of it, taken or not: then the system ends the build, or something else. What is free is
    asked of the system there, because CUDA counts the file cache as taken.
    """
    import psutil

    free = int(psutil.virtual_memory().available) if is_integrated else cuda.free_memory()
    workspace, dram = min(WORKSPACE, free // 4), free // 2
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
    if is_integrated:
        config.set_memory_pool_limit(trt.MemoryPoolType.TACTIC_DRAM, dram)
    return {
        "workspace_mb": workspace >> 20,
        "tactic_dram_mb": dram >> 20 if is_integrated else None,
    }


def _timing_cache(facts: dict[str, Any]) -> Path | None:
    """Where the times of kernels are kept, by all they depend on; None where nothing can be."""
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # no home
        return None
    parts = (facts["tensorrt"], facts["gpu"], facts["compute_capability"],
             f"mode-{facts['power_mode'] or 'none'}")  # fmt: skip
    name = re.sub(r"[^A-Za-z0-9.]+", "-", "-".join(parts))
    return Path(os.environ.get(CACHE) or Path(home) / "edgekd") / "tensorrt" / f"{name}.cache"


def _use_cache(config: Any, path: Path | None) -> bool:
    """Start from what was timed before; False if there is nothing, or TensorRT does not take it."""
    try:
        before = path.read_bytes() if path else b""
    except OSError:
        before = b""
    for content in (before, b""):
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
            return bool(content)
    return False


def _keep_cache(config: Any, path: Path | None) -> None:
    cache = config.get_timing_cache()
    if cache is None or path is None:
        return
    try:
        with replace_file(path, "wb") as file:
            file.write(bytes(cache.serialize()))
    except OSError:  # a full or read-only disk: the next build times everything again
        pass


def _inspect(trt: Any, log: Any, plan: bytes, source: Path) -> str:
    """What TensorRT says of the layers of a finished engine, in JSON."""
    runtime = start(trt.Runtime, log)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise MissingOnHost(f"TensorRT cannot load the engine it has built of {source}: "
                            f"{why(log)}", hint="close what else takes memory")  # fmt: skip
    inspector = engine.create_engine_inspector()
    text = str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    del inspector, engine  # before the runtime they came from
    return text
