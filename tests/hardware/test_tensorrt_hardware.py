"""TensorRT itself, on a real GPU: what the doubles of tests/runtimes/trt cannot show.

    python -m pytest -m tensorrt -rA          (docs/guides/tensorrt.md says what it needs)

Nobody has run this yet. What fails first will teach us most: the inspector's own words of every
engine are printed, because how it spells layers is known from documentation only.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from edgekd.bundle import INPUT_NAME, OUTPUT_NAME
from edgekd.errors import MissingOnHost
from edgekd.runtimes import _cuda, _tensorrt_layers
from edgekd.runtimes.base import RunOptions
from edgekd.runtimes.tensorrt import TensorRT

PROBE = TensorRT.probe()
pytestmark = [
    pytest.mark.tensorrt,
    pytest.mark.skipif(not PROBE.available, reason=f"no TensorRT here: {PROBE.reason}"),
]
RAN = {"fp32": "f32", "fp16": "f16", "int8": "i8"}
# of the largest logit: an fp32 engine is the same model, the others round, and gates judge them
TOLERANCE = {"fp32": 1e-4, "fp16": 1e-2, "int8": 0.1}
BUNDLE = "EDGEKD_TEST_BUNDLE"  # an environment variable: a real bundle, for the whole way


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, 3, 16, 16), dtype=np.float32)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Engines of one small network; the ONNX files lie in their bundle folder."""
    onnx = pytest.importorskip("onnx")
    from edgekd.export.half import to_half
    from edgekd.export.tensorrt_from_onnx import lower
    from tests.tiny_onnx import write_classifier, write_int8_classifier

    folder = tmp_path_factory.mktemp("bundle")
    write_classifier(folder / "model.fp32.onnx")
    write_int8_classifier(folder / "model.int8.onnx")
    onnx.save(to_half(onnx.load(folder / "model.fp32.onnx"), ()), folder / "model.fp16.onnx")
    found = {}
    said: list[str] = []
    count = _tensorrt_layers.count_precisions

    def listen(text: str) -> object:
        said.append(text)
        return count(text)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgekd.export.tensorrt_from_onnx.count_precisions", listen)
        for precision in RAN:
            try:
                found[precision] = lower(folder / f"model.{precision}.onnx", folder, precision)[0]
            finally:
                print(f"{precision}: {said[-1] if said else 'TensorRT built nothing'}")
    return found


def run(engine: Path, batch: np.ndarray, device: str = "", fixed: bool = True) -> np.ndarray:
    options = RunOptions(device=device, batch=len(batch) if fixed else 0)
    with TensorRT(engine, options) as runtime:
        runtime.run({INPUT_NAME: np.zeros_like(batch)})  # nothing of it may be left over
        return runtime.run({INPUT_NAME: batch})[OUTPUT_NAME]


@pytest.mark.parametrize("precision", RAN)
@pytest.mark.parametrize("count", [1, 5, 32])
def test_it_computes_the_file(built: dict[str, Path], precision: str, count: int) -> None:
    from edgekd.runtimes.onnxruntime import OnnxRuntime

    engine = built[precision]
    with OnnxRuntime(engine.parents[2] / f"model.{precision}.onnx") as runtime:
        wanted = runtime.run({INPUT_NAME: images(count)})[OUTPUT_NAME]
    limit = TOLERANCE[precision] * np.abs(wanted).max()
    for fixed in (True, False):
        assert np.abs(run(engine, images(count), fixed=fixed) - wanted).max() <= limit


@pytest.mark.parametrize("precision", RAN)
def test_it_says_what_it_computes_in(built: dict[str, Path], precision: str) -> None:
    with TensorRT(built[precision], RunOptions(batch=1, precision=precision)) as runtime:
        assert runtime.inspect().precision == RAN[precision], runtime.facts.notes


@pytest.mark.parametrize("device", ["cuda+nograph", "cuda+mapped", "cuda+mapped+nograph"])
def test_the_switches_change_no_logit(built: dict[str, Path], device: str) -> None:
    plain = run(built["fp32"], images(2))
    np.testing.assert_array_equal(run(built["fp32"], images(2), device), plain)


def test_a_graph_is_really_made(built: dict[str, Path]) -> None:
    with TensorRT(built["fp32"], RunOptions(batch=1)) as runtime:
        assert runtime.facts.notes[0].startswith("CUDA graph on;")


def test_the_contract_of_all_runtimes(built: dict[str, Path], tmp_path: Path) -> None:
    from tests.runtimes import test_contract as contract

    for suffix in (".plan", ".json"):
        source = built["fp32"].with_suffix(suffix)
        shutil.copy(source, tmp_path / f"fp32{suffix}")
    for test in (
        contract.test_logits_for_images,
        contract.test_what_arithmetic_runs_is_told_when_asked,
        contract.test_outputs_own_their_memory,
        contract.test_inputs_are_left_alone,
        contract.test_the_batch_is_open_without_a_fixed_one,
        contract.test_nothing_is_written_beside_the_model,
    ):
        test("tensorrt", ".plan", tmp_path)


def test_memory_comes_back(built: dict[str, Path]) -> None:
    cuda = _cuda.load()
    run(built["fp32"], images(1))  # libraries and kernels stay once they are loaded
    before = cuda.free_memory()
    for _ in range(20):
        run(built["fp32"], images(1))
    assert before - cuda.free_memory() < 32 << 20


def test_the_timing_cache_is_taken_again(built: dict[str, Path], tmp_path: Path) -> None:
    from edgekd.export.tensorrt_from_onnx import lower

    source = built["fp32"].parents[2] / "model.fp32.onnx"
    facts = json.loads(lower(source, tmp_path, "fp32")[1].read_text())
    assert facts["had_timing_cache"]


def test_an_engine_of_another_version_is_not_loaded(built: dict[str, Path], tmp_path: Path) -> None:
    for suffix in (".plan", ".json"):
        shutil.copy(built["fp32"].with_suffix(suffix), tmp_path / f"model.fp32{suffix}")
    facts = json.loads((tmp_path / "model.fp32.json").read_text())
    (tmp_path / "model.fp32.json").write_text(json.dumps({**facts, "tensorrt": "10.2.0"}))
    with pytest.raises(MissingOnHost, match=r"TensorRT 10\.2\.0\), this is"):
        TensorRT(tmp_path / "model.fp32.plan").__enter__()


@pytest.mark.skipif(BUNDLE not in os.environ, reason=f"{BUNDLE} names no bundle")
@pytest.mark.timeout(3600)
def test_the_whole_way_with_a_real_bundle(tmp_path: Path) -> None:
    from edgekd.bench.run import bench
    from edgekd.errors import GateFailed
    from edgekd.export.extend import extend
    from edgekd.verify import verify

    bundle = tmp_path / "bundle"
    shutil.copytree(os.environ[BUNDLE], bundle)
    has = {path.name.removeprefix("model.").removesuffix(".onnx") for path in bundle.glob("*.onnx")}
    names = [f"tensorrt-{precision}" for precision in RAN if precision in has]
    try:
        extend(bundle, make=names, reason=None, say=print)
    except GateFailed as error:
        print(error.message)
    rows = {row.get("artifact"): row for row in verify(bundle)}
    print(json.dumps(rows, indent=1, default=str))
    assert all(rows[name]["result"] != "failed" for name in names)
    for device in ("", "cuda+nograph", "cuda+mapped"):
        for row in bench(bundle, artifacts=names, device=device, memory=False):
            print(row.artifact, row.device, row.precision_ran, row.latency_ms.p50, row.notes)
            assert row.precision_ran == RAN[row.precision_asked]
