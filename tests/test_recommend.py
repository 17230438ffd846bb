"""Which artifact a host is told to deploy."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.bundle import Gate, Manifest
from edgekd.host import host_name
from edgekd.recommend import is_current, may_ship, on_this_host, recommend
from edgekd.results import append_jsonl
from tests.bench.measurements import measurement
from tests.tiny_bundle import gate, write_bundle


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return write_bundle(tmp_path)


def test_the_fastest_that_passed(manifest: Manifest) -> None:
    rows = [measurement(manifest, "onnx-fp32", 2.0), measurement(manifest, "onnx-int8", 1.0)]
    found = recommend(manifest, rows)
    assert found.artifact == "onnx-int8"
    assert found.why == "fastest that passed its gates: 1 ms median (CPU, 2 threads)"
    assert [row.artifact for row in found.ranking] == ["onnx-int8", "onnx-fp32"]
    assert found.tied == []


@pytest.mark.parametrize("verdict", ["refused", "inconclusive"])
def test_what_did_not_pass_is_not_named_however_fast(tmp_path: Path, verdict: str) -> None:
    manifest = write_bundle(tmp_path, int8=gate(verdict))  # type: ignore[arg-type]
    rows = [measurement(manifest, "onnx-fp32", 2.0), measurement(manifest, "onnx-int8", 1.0)]
    assert recommend(manifest, rows).artifact == "onnx-fp32"
    assert recommend(manifest, rows[1:]).why == "no measured artifact passed its gates"


def test_what_a_person_accepted_may_ship_and_says_so(tmp_path: Path) -> None:
    accepted: Gate = gate("inconclusive", accepted="shown on another data set")
    manifest = write_bundle(tmp_path, int8=accepted)
    found = recommend(manifest, [measurement(manifest, "onnx-int8", 1.0)])
    assert found.artifact == "onnx-int8"
    assert "inconclusive and accepted by hand" in found.why


def test_a_gate_holds_for_its_own_runtime_only(manifest: Manifest) -> None:
    elsewhere = measurement(manifest, "onnx-int8", 1.0, runtime="openvino")
    assert recommend(manifest, [elsewhere]).artifact is None


@pytest.mark.parametrize("device", ["NPU", "GPU.0", "CUDA", "CUDA:1"])
def test_a_gate_proves_nothing_off_the_processor(manifest: Manifest, device: str) -> None:
    fast = measurement(manifest, "onnx-int8", 0.1, device=device)
    slow = measurement(manifest, "onnx-fp32", 2.0)
    assert recommend(manifest, [fast, slow]).artifact == "onnx-fp32"
    alone = recommend(manifest, [fast])
    assert alone.artifact is None
    assert alone.why == f"what was measured is not proven as it ran: onnx-int8 on {device} as f32"


@pytest.mark.parametrize("ran", ["f16", "bf16", ""])
def test_fp32_that_did_not_run_as_f32_is_another_model(manifest: Manifest, ran: str) -> None:
    fast = measurement(manifest, "onnx-fp32", 0.1, precision_ran=ran)
    slow = measurement(manifest, "onnx-int8", 2.0, precision_ran="i8")
    assert recommend(manifest, [fast, slow]).artifact == "onnx-int8"
    alone = recommend(manifest, [fast])
    assert alone.artifact is None
    assert alone.why.endswith(f"onnx-fp32 on CPU as {ran or 'unknown'}")


def test_what_no_gate_judged_may_not_ship(manifest: Manifest) -> None:
    """Not even the fp32 ONNX file: the export judges it like any other."""
    artifact = manifest.artifacts["onnx-fp32"]
    assert may_ship(artifact)
    unjudged = artifact.model_copy(update={"gate": None})
    assert not may_ship(unjudged)


def test_a_measurement_is_current_while_the_bundle_lists_that_very_file(
    manifest: Manifest,
) -> None:
    row = measurement(manifest, "onnx-int8", 1.0)
    assert is_current(row, manifest)
    assert not is_current(row.model_copy(update={"sha256": "0" * 64}), manifest)
    assert not is_current(row.model_copy(update={"artifact": "onnx-int4"}), manifest)
    assert not is_current(row, manifest.model_copy(update={"files": {}}))


def test_rows_that_are_kept_elsewhere_count_beside_those_in_the_bundle(tmp_path: Path) -> None:
    manifest = write_bundle(tmp_path)
    kept, elsewhere = (measurement(manifest, name, p50)
                       for name, p50 in (("onnx-fp32", 2.0), ("onnx-int8", 1.0)))  # fmt: skip
    append_jsonl(tmp_path / "bench" / f"{host_name()}.jsonl", kept)
    assert on_this_host(tmp_path, manifest).artifact == "onnx-fp32"
    assert on_this_host(tmp_path, manifest, [elsewhere]).artifact == "onnx-int8"


def test_timings_of_an_earlier_export_do_not_count(manifest: Manifest) -> None:
    old = measurement(manifest, "onnx-int8", 1.0, sha256="0" * 64)
    assert recommend(manifest, [old]).artifact is None


def test_other_batch_sizes_do_not_count(manifest: Manifest) -> None:
    assert recommend(manifest, [measurement(manifest, "onnx-int8", 1.0, batch=8)]).artifact is None


def test_the_latest_measurement_of_a_setting_counts(manifest: Manifest) -> None:
    rows = [
        measurement(manifest, "onnx-int8", 1.0, utc="2026-01-01T00:00:00+00:00"),
        measurement(manifest, "onnx-int8", 5.0, utc="2026-01-02T00:00:00+00:00"),
        measurement(manifest, "onnx-fp32", 2.0),
    ]
    assert recommend(manifest, rows).artifact == "onnx-fp32"
    assert recommend(manifest, rows[::-1]).artifact == "onnx-fp32"


def test_what_cannot_be_told_apart_is_named(manifest: Manifest) -> None:
    rows = [measurement(manifest, "onnx-fp32", 1.01), measurement(manifest, "onnx-int8", 1.0)]
    found = recommend(manifest, rows)
    assert found.tied == ["onnx-fp32"]
    assert found.why.endswith("not told apart from onnx-fp32")


def test_nothing_measured(manifest: Manifest) -> None:
    assert recommend(manifest, []).why == "nothing was measured at batch 1 on this host"
