"""ONNX to a TensorRT engine, built by a double that is made of the real bindings."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import onnx
import pytest

from edgekd.errors import BundleError, MissingOnHost
from edgekd.export import artifacts
from edgekd.export.half import to_half
from edgekd.export.tensorrt_from_onnx import BATCHES, lower
from tests.runtimes.trt import api
from tests.runtimes.trt.behaviour import MAGIC
from tests.runtimes.trt.here import machine
from tests.tiny_onnx import write_classifier, write_identity, write_int8_classifier


@pytest.fixture(params=api.VERSIONS)
def world(request, tmp_path):
    with machine(request.param, tmp_path) as found:
        yield found


@pytest.fixture
def sources(tmp_path):
    """The same network as fp32, int8 and fp16."""
    write_classifier(tmp_path / "model.fp32.onnx")
    write_int8_classifier(tmp_path / "model.int8.onnx")
    onnx.save(to_half(onnx.load(tmp_path / "model.fp32.onnx"), ()), tmp_path / "model.fp16.onnx")
    return tmp_path


def build(sources: Path, precision: str):
    """The engine's header (the double's own) and the facts kept beside it."""
    engine, facts = lower(sources / f"model.{precision}.onnx", sources, precision)
    assert engine == sources / "tensorrt" / "orin-1" / f"model.{precision}.plan"
    assert facts == engine.with_suffix(".json")
    header = engine.read_bytes().removeprefix(MAGIC).partition(b"\n")[0]
    return json.loads(header), json.loads(facts.read_text())


@pytest.mark.parametrize(("precision", "ran"), [("fp32", "f32"), ("fp16", "f16"), ("int8", "i8")])
def test_the_precision_is_that_of_the_file(world, sources, precision, ran):
    _, facts = build(sources, precision)
    assert facts["precisions"] == {ran: 2}


def test_how_it_was_built_is_kept(world, sources):
    header, facts = build(sources, "int8")
    seconds = facts.pop("build_s")
    assert seconds >= 0
    assert len(facts.pop("source_sha256")) == 64
    assert 0 < facts.pop("workspace_mb") <= 1024
    assert facts.pop("tactic_dram_mb") > 0
    assert facts == {
        "host": "orin-1", "gpu": "Orin", "compute_capability": "8.7", "cuda": "12.6",
        "driver": "CUDA 12.6", "tensorrt": world.facts["version"], "is_integrated": True,
        "power_mode": None, "batch": [1, 1, 32], "is_tf32_allowed": True, "precisions": {"i8": 2},
        "had_timing_cache": False, "warnings": [],
    }  # fmt: skip
    assert header["shapes"] == {"input": [[1, 3, 16, 16], [1, 3, 16, 16], [32, 3, 16, 16]]}
    assert header["is_detailed"]


def test_fp32_is_not_tf32(world, sources):
    header, facts = build(sources, "fp32")
    assert not header["is_tf32"]
    assert not facts["is_tf32_allowed"]


def test_what_the_gate_takes_at_once_the_engine_takes():
    assert BATCHES[-1] >= artifacts.BATCH


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_an_engine_that_became_float_is_an_error_and_leaves_nothing(world, sources, precision):
    world.builds_in = "f32"
    with pytest.raises(BundleError, match=f"asked for in {precision}.*without one.*2 in f32"):
        build(sources, precision)
    assert not (sources / "tensorrt").exists()


def test_memory_is_capped_only_where_it_is_shared(sources, tmp_path):
    with machine("cu12", tmp_path, is_integrated=False) as world:
        header, facts = build(sources, "fp32")
    assert header["limits"] == {"WORKSPACE": 1 << 30}
    assert facts["tactic_dram_mb"] is None
    assert "cudaMemGetInfo" in world.cuda.calls
    with machine("cu12", tmp_path) as world:
        header, facts = build(sources, "fp32")
    assert sorted(header["limits"]) == ["TACTIC_DRAM", "WORKSPACE"]
    assert "cudaMemGetInfo" not in world.cuda.calls  # it counts the file cache as taken


class TestTimingCache:
    def caches(self, tmp_path):
        return sorted(path.name for path in (tmp_path / "cache" / "tensorrt").iterdir())

    def test_the_second_build_starts_from_it(self, world, sources, tmp_path):
        assert not build(sources, "fp32")[1]["had_timing_cache"]
        assert build(sources, "int8")[1]["had_timing_cache"]
        version = world.facts["version"]
        assert self.caches(tmp_path) == [f"{version}-Orin-8.7-mode-none.cache"]
        (path,) = (tmp_path / "cache" / "tensorrt").iterdir()
        assert path.read_bytes().endswith(b"timed;timed;")

    def test_another_power_mode_has_its_own(self, world, sources, tmp_path):
        build(sources, "fp32")
        status = tmp_path / "var/lib/nvpmodel/status"
        status.parent.mkdir(parents=True)
        status.write_text("pmode:0002\n")
        _, facts = build(sources, "fp32")
        assert facts["power_mode"] == "2"
        assert not facts["had_timing_cache"]
        assert len(self.caches(tmp_path)) == 2

    def test_one_that_tensorrt_does_not_take_is_replaced(self, world, sources, tmp_path):
        build(sources, "fp32")
        (path,) = (tmp_path / "cache" / "tensorrt").iterdir()
        path.write_bytes(b"of another machine")
        assert not build(sources, "fp32")[1]["had_timing_cache"]
        assert path.read_bytes().endswith(b"timed;")

    def test_where_none_can_be_kept_the_engine_is_built_all_the_same(
        self, world, sources, tmp_path, monkeypatch
    ):
        (tmp_path / "file").touch()
        monkeypatch.setenv("EDGEKD_CACHE", str(tmp_path / "file"))
        assert not build(sources, "fp32")[1]["had_timing_cache"]


class TestFailures:
    def test_a_file_that_cannot_be_parsed(self, world, sources):
        (sources / "model.fp32.onnx").write_bytes(b"hello")
        with pytest.raises(BundleError, match=r"cannot read .*model\.fp32\.onnx") as caught:
            build(sources, "fp32")
        assert "\n" not in caught.value.message
        assert caught.value.hint.startswith("edgekd lint")

    def test_an_open_height_is_refused(self, world, tmp_path):
        source = write_identity(tmp_path / "model.fp32.onnx", ["N", 3, "H", 16])
        with pytest.raises(BundleError, match="an open batch and nothing else open"):
            lower(source, tmp_path, "fp32")

    def test_a_fixed_batch_needs_no_profile(self, world, tmp_path):
        source = write_identity(tmp_path / "model.fp32.onnx", [4, 3, 16, 16])
        _, facts = lower(source, tmp_path, "fp32")
        assert json.loads(facts.read_text())["batch"] is None

    def test_a_build_that_fails_says_what_tensorrt_logged(self, world, sources):
        world.fails["Builder.build_serialized_network"] = "Could not find any implementation"
        with pytest.raises(BundleError, match=r"cannot build .*Could not find any implementation"):
            build(sources, "fp32")

    def test_a_gpu_that_does_not_start_is_exit_4(self, world, sources):
        world.fails["Builder"] = "CUDA initialization failure with error: 35"
        with pytest.raises(MissingOnHost, match="cannot start: CUDA initialization") as caught:
            build(sources, "fp32")
        assert caught.value.exit_code == 4

    @pytest.mark.parametrize("version", ["10.2.0", "8.6.2", "12.0.0.1"])
    def test_a_version_we_do_not_know_is_exit_4(self, world, sources, version, monkeypatch):
        monkeypatch.setattr(sys.modules["tensorrt"], "__version__", version)
        with pytest.raises(MissingOnHost, match=f"10.3 to 11.x, here is {version}"):
            build(sources, "fp32")


@pytest.mark.parametrize(
    ("machine_name", "hint"), [("aarch64", "JetPack"), ("x86_64", r"edgekd\[tensorrt\]")]
)
def test_without_tensorrt_it_says_how_to_get_it(tmp_path, monkeypatch, machine_name, hint):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr("platform.machine", lambda: machine_name)
    with pytest.raises(MissingOnHost, match="tensorrt-int8 needs the package") as caught:
        lower(tmp_path / "model.int8.onnx", tmp_path, "int8")
    assert caught.value.exit_code == 4
    assert __import__("re").search(hint, caught.value.hint)
