"""What the double's calls do when an engine is built: it is the ONNX file itself.

A function is named after the member that it stands for, `Class_member`. What is not here does not
work in the double, so that code which starts to use more of TensorRT must say here what that does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx

from tests.runtimes.trt.double import Misuse, Thing, new

MAGIC = b"double of an engine\n"


def fail(self: Thing, call: str) -> bool:
    """Whether this call shall fail; logs the reason, as TensorRT would."""
    if call not in self.world.fails:
        return False
    log(self, self.world.fails[call])
    return True


def log(self: Thing, text: str) -> None:
    logger = self.state["logger"]()
    if logger is None:
        raise Misuse(f"{self.kind} is used after its logger is gone")
    logger.log(self.world.classes["ILogger.Severity"].ERROR, text)


def Builder_create_network(self: Any, flags: int = 0) -> Any:
    world = self.world
    strong = world.classes["NetworkDefinitionCreationFlag"].STRONGLY_TYPED
    is_strong = bool(flags >> int(strong) & 1) or not world.is_old
    if flags & ~(1 << int(strong)):
        raise Misuse(f"flags {flags:#b}: only STRONGLY_TYPED is meant to be asked for")
    return new(world, "INetworkDefinition", self, is_strong=is_strong, inputs=[])


def Builder_create_builder_config(self: Any) -> Any:
    return new(self.world, "IBuilderConfig", self, profiles=[], limits={}, cleared=set(),
               cache=None)  # fmt: skip


def Builder_create_optimization_profile(self: Any) -> Any:
    return new(self.world, "IOptimizationProfile", self, shapes={})


def Builder_build_serialized_network(self: Any, network: Any, config: Any) -> Any:
    parser = network.state.get("parser", lambda: None)()
    if parser is None:
        raise Misuse("the parser owns the weights: it must live until the engine is built")
    if "model" not in network.state:
        raise Misuse("nothing was parsed into this network")
    if fail(self, "Builder.build_serialized_network"):
        return None
    shapes: dict[str, Any] = {}
    for profile in config.state["profiles"]:
        shapes.update(profile.state["shapes"])
    for tensor in network.state["inputs"]:
        if -1 in tensor.state["shape"] and tensor.state["name"] not in shapes:
            log(self, f"Network has dynamic input {tensor.state['name']}, no profile is defined")
            return None
    model = onnx.load_from_string(network.state["model"])
    builds_in = self.world.builds_in or (None if network.state["is_strong"] else "f32")
    verbosity = config.state.get("profiling_verbosity")
    flags = self.world.classes["BuilderFlag"]
    header = {
        "version": self.world.facts["version"], "shapes": shapes, "builds_in": builds_in,
        "is_detailed": verbosity == self.world.classes["ProfilingVerbosity"].DETAILED,
        "is_tf32": flags.TF32 not in config.state["cleared"],
        "limits": {pool.name: size for pool, size in config.state["limits"].items()},
    }  # fmt: skip
    if config.state["cache"] is not None:
        config.state["cache"].state["content"] += b"timed;"
    content = MAGIC + json.dumps(header).encode() + b"\n" + model.SerializeToString()
    return new(self.world, "IHostMemory", content=content)


def INetworkDefinition_num_inputs(self: Any) -> int:
    return len(self.state["inputs"])


def INetworkDefinition_get_input(self: Any, index: int) -> Any:
    return self.state["inputs"][index]


def OnnxParser_parse_from_file(self: Any, model: str) -> bool:
    network = self.state["network"]()
    try:
        content = Path(model).read_bytes()
        found = onnx.load_from_string(content)
        onnx.checker.check_model(found)
    except Exception as error:
        self.state["errors"] = [str(error).splitlines()[0]]
        return False
    if fail(self, "OnnxParser.parse_from_file"):
        self.state["errors"] = [self.world.fails["OnnxParser.parse_from_file"]]
        return False
    network.state["model"] = content
    weights = {tensor.name for tensor in found.graph.initializer}
    for value in found.graph.input:
        if value.name in weights:
            continue
        dims = [d.dim_value or -1 for d in value.type.tensor_type.shape.dim]
        tensor = new(self.world, "ITensor", owner=network, name=value.name,
                     shape=self.world.classes["Dims"](dims))  # fmt: skip
        network.state["inputs"].append(tensor)
    return True


def OnnxParser_num_errors(self: Any) -> int:
    return len(self.state.get("errors", []))


def OnnxParser_get_error(self: Any, index: int) -> Any:
    return new(self.world, "ParserError", owner=self, text=self.state["errors"][index])


def ParserError_desc(self: Any) -> str:
    return str(self.state["text"])


def IOptimizationProfile_set_shape(self: Any, input: str, min: Any, opt: Any, max: Any) -> None:
    if not all(a <= b <= c for a, b, c in zip(min, opt, max, strict=True)):
        raise ValueError("min, opt and max must not fall")
    self.state["shapes"][input] = [list(min), list(opt), list(max)]


def IBuilderConfig_add_optimization_profile(self: Any, profile: Any) -> int:
    self.state["profiles"].append(profile)
    return len(self.state["profiles"]) - 1


def IBuilderConfig_clear_flag(self: Any, flag: Any) -> None:
    self.state["cleared"].add(flag)


def IBuilderConfig_set_memory_pool_limit(self: Any, pool: Any, pool_size: int) -> None:
    self.state["limits"][pool] = pool_size


def IBuilderConfig_create_timing_cache(self: Any, serialized_timing_cache: bytes) -> Any:
    return new(self.world, "ITimingCache", content=bytes(serialized_timing_cache))


def IBuilderConfig_set_timing_cache(self: Any, cache: Any, ignore_mismatch: bool) -> bool:
    if ignore_mismatch:
        raise Misuse("a timing cache of another device gives kernels that were never timed here")
    version = f"of {self.world.facts['version']};".encode()
    if cache.state["content"] and not cache.state["content"].startswith(version):
        return False
    cache.state["content"] = cache.state["content"] or version
    self.state["cache"] = cache
    return True


def IBuilderConfig_get_timing_cache(self: Any) -> Any:
    return self.state["cache"]


def ITimingCache_serialize(self: Any) -> Any:
    return new(self.world, "IHostMemory", content=self.state["content"])
