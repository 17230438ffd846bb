"""What the double's calls do when an engine is run: ONNX Runtime does, on the stream's turn.

A function is named after the member that it stands for, as in `behaviour`.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from tests.runtimes.trt.behaviour import MAGIC, fail, log
from tests.runtimes.trt.double import Misuse, new

TYPES = {"tensor(float)": "FLOAT", "tensor(float16)": "HALF", "tensor(int64)": "INT64"}
# how the inspector spells a type: of a layer by name (10.3), of a fused kernel (11)
SPELLED = {"f32": ("Row major linear FP32 format", "Float"),
           "f16": ("Channel major FP16 format where channel % 8 == 0", "Half"),
           "i8": ("Thirty-two wide channel vectorized row major Int8 format.", "Int8")}  # fmt: skip
ARITHMETIC = {"Conv": "CaskConvolution", "Gemm": "CaskGemmMatrixMultiply",
              "MatMul": "CaskGemmMatrixMultiply"}  # fmt: skip


def Runtime_deserialize_cuda_engine(self: Any, serialized_engine: bytes) -> Any:
    content = bytes(serialized_engine)
    if not content.startswith(MAGIC):
        log(self, "Magic tag does not match")
        return None
    header_line, _, model = content.removeprefix(MAGIC).partition(b"\n")
    header = json.loads(header_line)
    if header["version"] != self.world.facts["version"]:
        log(self, "The engine plan file is not compatible with this version of TensorRT")
        return None
    if fail(self, "Runtime.deserialize_cuda_engine"):
        return None
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    inputs = {value.name: value for value in session.get_inputs()}
    outputs = {value.name: value for value in session.get_outputs()}
    return new(self.world, "ICudaEngine", self, header=header, model=model, session=session,
               inputs=inputs, outputs=outputs, names=[*inputs, *outputs],
               logger=self.state["logger"])  # fmt: skip


def ICudaEngine_num_io_tensors(self: Any) -> int:
    return len(self.state["names"])


def ICudaEngine_get_tensor_name(self: Any, index: int) -> str:
    return str(self.state["names"][index])


def ICudaEngine_get_tensor_mode(self: Any, name: str) -> Any:
    modes = self.world.classes["TensorIOMode"]
    return modes.INPUT if name in self.state["inputs"] else modes.OUTPUT


def ICudaEngine_get_tensor_shape(self: Any, name: str) -> Any:
    value = {**self.state["inputs"], **self.state["outputs"]}[name]
    return self.world.classes["Dims"](d if isinstance(d, int) else -1 for d in value.shape)


def ICudaEngine_get_tensor_dtype(self: Any, name: str) -> Any:
    value = {**self.state["inputs"], **self.state["outputs"]}[name]
    return self.world.classes["DataType"][TYPES[value.type]]


def ICudaEngine_get_tensor_profile_shape(self: Any, name: str, profile_index: int) -> list[Any]:
    assert profile_index == 0
    return [self.world.classes["Dims"](shape) for shape in self.state["header"]["shapes"][name]]


def ICudaEngine_create_execution_context(self: Any) -> Any:
    if fail(self, "ICudaEngine.create_execution_context"):
        return None
    return new(self.world, "IExecutionContext", self, engine=self.state, shapes={}, addresses={})


def ICudaEngine_create_engine_inspector(self: Any) -> Any:
    return new(self.world, "EngineInspector", self, engine=self.state)


def IExecutionContext_set_input_shape(self: Any, name: str, shape: Any) -> bool:
    bounds = self.state["engine"]["header"]["shapes"].get(name)
    if bounds and not all(a <= b <= c for a, b, c in zip(bounds[0], shape, bounds[2], strict=True)):
        return False
    self.state["shapes"][name] = tuple(shape)
    return True


def IExecutionContext_get_tensor_shape(self: Any, name: str) -> Any:
    engine = self.state["engine"]
    value = {**engine["inputs"], **engine["outputs"]}[name]
    if set(self.state["shapes"]) != set(engine["inputs"]):
        raise Misuse("the shape of an output is known when all inputs have theirs")
    batch = next(iter(self.state["shapes"].values()))[0]
    return self.world.classes["Dims"](d if isinstance(d, int) else batch for d in value.shape)


def IExecutionContext_set_tensor_address(self: Any, name: str, memory: int) -> bool:
    self.state["addresses"][name] = memory
    return memory in self.world.cuda.memory


def IExecutionContext_execute_async_v3(self: Any, stream_handle: int) -> bool:
    engine, world = self.state["engine"], self.world
    missing = set(engine["names"]) - set(self.state["addresses"])
    if missing:
        raise Misuse(f"executed before these had an address: {sorted(missing)}")
    cuda, addresses = world.cuda, dict(self.state["addresses"])
    shapes = {name: tuple(self.get_tensor_shape(name)) for name in engine["names"]}
    if fail(engine_of(self), "IExecutionContext.execute_async_v3"):
        return False
    if stream_handle in cuda.capturing and not world.captures:
        log(engine_of(self), "operation not permitted when stream is capturing")
        return False

    def compute() -> None:
        given = {}
        for name, value in engine["inputs"].items():
            kind = np.dtype(np.float16 if value.type == "tensor(float16)" else np.float32)
            count = int(np.prod(shapes[name])) * kind.itemsize
            given[name] = cuda.at(addresses[name], count).view(kind).reshape(shapes[name]).copy()
        for name, found in zip(engine["outputs"], engine["session"].run(None, given), strict=True):
            flat = np.ascontiguousarray(found).reshape(-1).view(np.uint8)
            cuda.at(addresses[name], flat.size)[:] = flat

    cuda.queue(stream_handle, compute)
    return True


def engine_of(context: Any) -> Any:
    """Something with the logger of the engine that a context belongs to."""
    context.state.setdefault("logger", context.state["engine"]["logger"])
    return context


def EngineInspector_get_engine_information(self: Any, format: Any) -> str:
    assert format == self.world.classes["LayerInformationFormat"].JSON
    header = self.state["engine"]["header"]
    model = onnx.load_from_string(self.state["engine"]["model"])
    layers = [node for node in model.graph.node if node.op_type in ARITHMETIC]
    if not header["is_detailed"]:
        return json.dumps({"Layers": [node.name or node.output[0] for node in layers]})
    types = _types(model)
    spelling = 0 if self.world.is_old else 1
    found = [{"Name": "Reformatting CopyNode for Input Tensor 0 to Conv", "LayerType": "Reformat",
              "Inputs": [{"Format/Datatype": SPELLED["f16"][spelling]}]}]  # fmt: skip
    for node in layers:
        kind = header["builds_in"] or types.get(node.input[0], "f32")
        layer = {"Name": f"{node.output[0]}\x1e[fused]", "LayerType": ARITHMETIC[node.op_type],
                 "Inputs": [{"Format/Datatype": SPELLED[kind][spelling]}]}  # fmt: skip
        if spelling:
            layer |= {"LayerType": "kgen", "Name": f"__myl_{node.op_type}Relu_0"}
        found.append(layer)
    # as TensorRT does, with control characters that strict JSON does not have
    return json.dumps({"Layers": found}).replace("\\u001e", "\x1e")


def _types(model: Any) -> dict[str, str]:
    """In what a layer that reads this value multiplies: by its quantizer, else by its own type."""
    found = {v.name: "f16" for v in model.graph.initializer if v.data_type == TensorProto.FLOAT16}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear":
            found[node.output[0]] = "i8"
        elif node.op_type == "Cast":
            to = next(helper.get_attribute_value(a) for a in node.attribute
                      if a.name == "to")  # fmt: skip
            found[node.output[0]] = "f16" if to == TensorProto.FLOAT16 else "f32"
        elif node.op_type not in ("QuantizeLinear", "Constant"):
            kinds = {found.get(name, "f32") for name in node.input}
            found.update(dict.fromkeys(node.output, "f16" if "f16" in kinds else "f32"))
    return found
