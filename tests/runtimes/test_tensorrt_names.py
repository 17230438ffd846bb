"""Every name of TensorRT and CUDA that edgekd uses, held against NVIDIA's own bindings and header.

The signatures of calls on objects are held by the double, which is made of the same bindings.
"""

from __future__ import annotations

import ast
import re
import sysconfig
from ctypes import c_int, c_size_t, c_uint, c_ulonglong
from pathlib import Path

import pytest

from edgekd.errors import MissingOnHost
from edgekd.runtimes import _cuda
from tests.runtimes.trt import api
from tests.runtimes.trt.here import described, machine

PACKAGE = api.REPOSITORY / "edgekd"
FILES = [
    PACKAGE / "export/tensorrt_from_onnx.py",
    *sorted((PACKAGE / "runtimes").glob("*tensorrt*.py")),
]
OWN = {"__version__"}
HEADER = Path(sysconfig.get_path("purelib")) / "nvidia/cu13/include/cuda_runtime_api.h"


def chains(path: Path) -> set[tuple[str, ...]]:
    """`trt.A.B` as (A, B), also where it is `self._trt.A.B` or `getattr(trt.A, "B", None)`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        chain: list[str] = []
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "getattr":
            chain, node = [ast.literal_eval(node.args[1])], node.args[0]
        while isinstance(node, ast.Attribute):
            chain.insert(0, node.attr)
            if ast.unparse(node.value) in ("trt", "job.trt", "self._trt", "tensorrt"):
                found.add(tuple(chain))
            node = node.value
    return found


def test_the_files_are_found() -> None:
    assert [path.name for path in FILES] == [
        "tensorrt_from_onnx.py", "_tensorrt_built.py", "_tensorrt_layers.py",
        "_tensorrt_library.py", "_tensorrt_queue.py", "tensorrt.py",
    ]  # fmt: skip
    used = set().union(*(chains(path) for path in FILES))
    assert ("BuilderFlag", "TF32") in used
    assert ("NetworkDefinitionCreationFlag", "STRONGLY_TYPED") in used
    assert len(used) >= 18


@pytest.mark.parametrize("version", api.VERSIONS)
def test_every_name_is_in_the_real_bindings(version: str) -> None:
    classes = described(version)["classes"]
    for path in FILES:
        for name, *rest in chains(path):
            if name in OWN:
                continue
            assert name in classes, f"{path.name}: tensorrt.{name}"
            for member in rest[:1]:
                known = {*classes[name]["members"], *classes[name]["methods"]}
                assert member in known, f"{path.name}: tensorrt.{name}.{member}"


def test_the_versions_are_the_oldest_and_one_of_11() -> None:
    assert described("cu12")["version"] == "10.3.0"
    assert described("cu13")["version"].startswith("11.")


def test_nothing_is_named_that_11_no_longer_has() -> None:
    old, new = (described(version)["classes"] for version in api.VERSIONS)
    gone = set()
    for name, facts in old.items():
        for kind in ("members", "methods", "properties"):
            gone |= set(facts[kind]) - set(new.get(name, {}).get(kind, ()))
    assert {"FP16", "INT8", "int8_calibrator", "set_calibration_profile"} <= gone
    kept = {name for facts in new.values() for kind in ("members", "methods", "properties")
            for name in facts[kind]}  # fmt: skip
    gone -= kept - {"FP16", "INT8"}  # those two live on as types of data
    gone -= {"precision"}  # of a layer; facts and options of our own have one too
    for path in FILES:
        used = {node.attr for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, ast.Attribute)}  # fmt: skip
        assert not used & gone, f"{path.name}: {used & gone}"


@pytest.mark.parametrize("version", api.VERSIONS)
def test_our_logger_is_one_that_the_real_bindings_take(version: str) -> None:
    """Its class derives from theirs; what they would write to stderr ends up in it."""
    code = """
import tensorrt_bindings as trt
from edgekd.errors import MissingOnHost
from edgekd.runtimes._tensorrt_library import make_log, start, why
log = make_log(trt)
log.log(trt.ILogger.Severity.INFO, "chatter")
log.log(trt.ILogger.Severity.WARNING, "a\\nwarning")
log.log(trt.ILogger.Severity.ERROR, "the cause")
print(log.lines, why(log))
for factory in (trt.Builder, trt.Runtime):
    try:
        start(factory, log)
    except MissingOnHost as error:
        print(error.message)
print(tuple(trt.Dims((1, 3, 16, 16))), trt.DataType.FLOAT.name, int(trt.BuilderFlag.TF32))
"""
    assert api.run_with(version, code).splitlines() == [
        "[('WARNING', 'a warning'), ('ERROR', 'the cause')] the cause",
        "TensorRT cannot start: the cause",
        "TensorRT cannot start: the cause",
        "(1, 3, 16, 16) FLOAT 6",
    ]


@pytest.mark.parametrize("version", api.VERSIONS)
class TestDouble:
    """The double refuses what the real bindings would refuse."""

    def test_unknown_names_and_wrong_arguments(self, version: str, tmp_path: Path) -> None:
        with machine(version, tmp_path):
            import tensorrt as trt

            from edgekd.runtimes._tensorrt_library import make_log

            log = make_log(trt)
            builder = trt.Builder(log)
            config = builder.create_builder_config()
            with pytest.raises(AttributeError):
                trt.Builder(log).build_engine(None, None)
            with pytest.raises(AttributeError):
                config.max_workspace_size = 1 << 30
            with pytest.raises(TypeError, match="incompatible function arguments"):
                config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE)
            with pytest.raises(TypeError, match="incompatible function arguments"):
                config.clear_flag(6)
            with pytest.raises(TypeError, match="incompatible function arguments"):
                builder.create_network(flags=0, strongly_typed=True)
            with pytest.raises(TypeError):
                config.profiling_verbosity = 2
            with pytest.raises(TypeError, match="No constructor"):
                trt.IBuilderConfig()
            has_flag = hasattr(trt.BuilderFlag, "FP16")
            assert has_flag == (version == "cu12")
            del config, builder

    def test_the_order_of_calls_and_lifetimes(self, version: str, tmp_path: Path) -> None:
        from tests.runtimes.trt.double import Misuse
        from tests.tiny_onnx import write_classifier

        source = write_classifier(tmp_path / "model.onnx")
        with machine(version, tmp_path) as world:
            import tensorrt as trt

            from edgekd.runtimes._tensorrt_library import make_log

            log = make_log(trt)
            builder = trt.Builder(log)
            network = builder.create_network(0)
            config = builder.create_builder_config()
            with pytest.raises(Misuse, match="parser owns the weights"):
                builder.build_serialized_network(network, config)
            parser = trt.OnnxParser(network, log)
            assert parser.parse_from_file(str(source))
            assert builder.build_serialized_network(network, config) is None  # no profile
            assert "dynamic input" in log.lines[-1][1]
            del builder
            (mistake,) = world.mistakes
            assert mistake == "Builder was freed before INetworkDefinition, IBuilderConfig"
            with pytest.raises(Misuse, match="after its Builder is gone"):
                config.clear_flag(trt.BuilderFlag.TF32)
            world.mistakes.clear()
            del parser, config, network

    def test_an_output_is_not_there_before_the_stream_was_waited_for(
        self, version: str, tmp_path: Path
    ) -> None:
        with machine(version, tmp_path) as world:
            cuda = _cuda.load()
            stream = cuda.call("cudaStreamCreateWithFlags", _cuda.NON_BLOCKING)
            host, device = cuda.call("cudaHostAlloc", 4, 0), cuda.call("cudaMalloc", 4)
            cuda.call("cudaMemcpyAsync", host, device, 4, _cuda.TO_HOST, stream)
            world.cuda.memory[device][:] = 7
            assert bytes(world.cuda.kept[host][0]) == b"\xcd" * 4
            cuda.call("cudaStreamSynchronize", stream)
            assert bytes(world.cuda.kept[host][0]) == b"\x07" * 4
            with pytest.raises(AssertionError, match="no memory at"):
                world.cuda.at(host, 4)
            for name, handle in (("cudaFree", device), ("cudaFreeHost", host),
                                 ("cudaStreamDestroy", stream)):  # fmt: skip
                cuda.call(name, handle)


class TestCuda:
    # ctypes has one type for size_t and unsigned long long where both have 8 bytes
    C_TYPES = {c_int: "int", c_uint: "unsigned int", c_ulonglong: "size_t", c_size_t: "size_t"}

    def test_the_calls_are_those_of_the_header(self) -> None:
        """Names, order and kinds of arguments, as NVIDIA declares them for C."""
        if not HEADER.is_file():
            pytest.skip(f"no {HEADER.name} of CUDA 13 in this environment")
        text = HEADER.read_text(encoding="utf-8", errors="replace")
        for name, (gives, takes) in _cuda.CALLS.items():
            found = re.search(rf"cudaError_t CUDARTAPI {name}\((.*?)\);", text)
            assert found, name
            declared = [part.strip() for part in found.group(1).split(",") if part != "void"]
            inputs = [self.told(kind) for kind in takes]
            results = [self.told(kind) + " *" for kind in gives]
            wanted = [*inputs, *results] if name in _cuda.LAST else [*results, *inputs]
            assert [self.kind_of(part) for part in declared] == wanted, name
        struct = HEADER.with_name("driver_types.h").read_text(encoding="utf-8", errors="replace")
        assert re.search(r"struct \S+ cudaDeviceProp\s*\{\s*char\s+name\[256\];", struct)

    def told(self, kind: object) -> str:
        return kind if isinstance(kind, str) else self.C_TYPES.get(kind, "pointer")  # type: ignore[call-overload,no-any-return]

    def kind_of(self, declared: str) -> str:
        """`void **devPtr` to `pointer *`: what ctypes has to know of it."""
        declared = re.sub(r"__dv\(.*?\)|\bconst\b|\benum\b", "", declared).strip()
        declared = declared.replace("unsigned long long", "size_t")
        handles = r"cuda(Stream|Graph|GraphExec)_t"
        if re.match(rf"({handles})\s*\*|void\s*\*\*", declared):
            return "pointer *"
        if re.match(rf"({handles})\b|void\s*\*", declared):
            return "pointer"
        kind, star, _ = re.match(r"([A-Za-z_ ]+?)\s*(\*?)\s*(\w+)$", declared).groups()  # type: ignore[union-attr]
        return f"{kind} *" if star else str(kind)

    def test_the_calls_and_numbers_are_those_of_the_package(self) -> None:
        runtime = pytest.importorskip("cuda.bindings.runtime")
        for name in _cuda.CALLS:
            assert callable(getattr(runtime, name)), name
        for name, number in _cuda.ATTRIBUTES.items():
            assert int(getattr(runtime.cudaDeviceAttr, name)) == number
        assert int(runtime.cudaMemcpyKind.cudaMemcpyHostToDevice) == _cuda.TO_DEVICE
        assert int(runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost) == _cuda.TO_HOST
        modes = runtime.cudaStreamCaptureMode
        assert int(modes.cudaStreamCaptureModeThreadLocal) == _cuda.THREAD_LOCAL
        assert runtime.cudaStreamNonBlocking == _cuda.NON_BLOCKING
        assert runtime.cudaHostAllocMapped == _cuda.MAPPED
        known = {one.name for one in runtime.cudaError_t}
        assert known >= _cuda.LACKING

    @pytest.mark.parametrize("way", ["package", "library"])
    def test_the_real_runtime_without_a_gpu_is_exit_4(self, way: str) -> None:
        if way == "package":
            pytest.importorskip("cuda.bindings.runtime")
            cuda = _cuda.from_package()
        else:
            found = _cuda._installed()
            if not found:
                pytest.skip("no libcudart in this environment")
            cuda = _cuda.from_library(found[0])
        runtime = cuda.call("cudaRuntimeGetVersion")
        assert 12000 <= runtime < 14000
        if Path("/dev/nvidia0").exists() or Path("/dev/nvmap").exists():
            pytest.skip("this machine has a GPU")
        with pytest.raises(MissingOnHost, match=r"cudaGetDeviceCount: cudaError\w+ \(\d+\)$"):
            cuda.device_count()

    def test_what_was_tried_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_cuda, "LIBRARIES", ("libnothing.so.1",))

        def absent() -> None:
            raise ImportError("No module named 'cuda'")

        monkeypatch.setattr(_cuda, "from_package", absent)
        with pytest.raises(
            MissingOnHost, match=r"No module named 'cuda'; libnothing\.so\.1"
        ) as caught:
            _cuda.load()
        assert "edgekd[tensorrt]" in str(caught.value.hint)

    def test_errors_have_cudas_names(self, tmp_path: Path) -> None:
        with machine("cu12", tmp_path) as world:
            cuda = _cuda.load()
            world.cuda.fails["cudaMalloc"] = 2
            with pytest.raises(MissingOnHost, match=r"cudaMalloc: cudaErrorMemoryAllocation \(2\)"):
                cuda.call("cudaMalloc", 4)
            world.cuda.fails["cudaFree"] = 1
            with pytest.raises(RuntimeError, match="cudaErrorInvalidValue"):
                cuda.call("cudaFree", 0)
            assert cuda.versions() == ("12.6", "12.6")
