"""The whole line on drawn images in seconds: run, and everything it leaves behind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgekd.bundle import open_bundle
from edgekd.cli import main
from tests import tiny

ARTIFACTS = ["onnx-fp32", "onnx-int8", "openvino-fp32", "openvino-int8"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture(scope="module")
def finished(folder: Path) -> Path:
    """`edgekd run` on the tiny recipe. 24 test images cannot prove an int8 model, so its gates
    must say inconclusive, and the command must end with exit code 3."""
    path = tiny.write(folder, tiny.tree(folder))
    out = folder / "runs" / "tiny"
    assert main(["run", str(path), "--out", str(out)]) == 3
    return out


def test_the_bundle_holds_every_artifact_that_was_asked_for(finished: Path) -> None:
    manifest = open_bundle(finished / "bundle")
    assert set(ARTIFACTS) <= set(manifest.artifacts)  # and mixed ones, where int8 is refused
    for artifact in manifest.artifacts.values():
        assert (finished / "bundle" / artifact.file).is_file()
        assert artifact.scores is not None
    assert manifest.model.macs * 10 < open_bundle(finished / "reference").model.macs


def test_too_few_test_images_make_the_gate_inconclusive_never_passed(finished: Path) -> None:
    artifacts = open_bundle(finished / "bundle").artifacts
    for name in ("onnx-int8", "openvino-int8"):
        gate = artifacts[name].gate
        assert gate is not None
        assert gate.verdict in ("inconclusive", "refused")


def test_every_artifact_that_may_ship_was_measured(finished: Path) -> None:
    rows = [
        json.loads(line)
        for path in (finished / "bundle" / "bench").glob("*.jsonl")
        for line in path.read_text().splitlines()
    ]
    assert "onnx-fp32" in {row["artifact"] for row in rows}
    for row in rows:
        assert 0 < row["latency_ms"]["p50"] <= row["latency_ms"]["p99"]
        assert set(row["phases_ms"]) == {"decode", "preprocess", "infer", "postprocess", "total"}
        if row["artifact"].endswith("fp32"):
            assert row["precision_ran"] == "f32"


def test_the_report_is_there_in_four_forms(finished: Path) -> None:
    names = {path.name for path in (finished / "report").iterdir()}
    assert {"index.html", "report.md", "report.csv", "report.json"} <= names
    assert "http://" not in (finished / "report" / "index.html").read_text().replace(
        "http://www.w3.org", ""
    )


def test_a_second_run_trains_and_exports_nothing(
    finished: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = {p: p.stat().st_mtime_ns for p in finished.rglob("*.safetensors")}
    models = {p: p.stat().st_mtime_ns for p in (finished / "bundle").rglob("*.onnx")}
    assert main(["run", str(folder / "tiny.yaml"), "--out", str(finished)]) == 3
    talk = capsys.readouterr().err
    assert "distill: already trained" in talk
    assert "bundle: already measured on this host" in talk
    assert weights == {p: p.stat().st_mtime_ns for p in finished.rglob("*.safetensors")}
    assert models == {p: p.stat().st_mtime_ns for p in (finished / "bundle").rglob("*.onnx")}


def test_an_inconclusive_artifact_ships_only_with_a_recorded_reason(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reason = "bench test on drawn images"
    code = main(["export", str(finished), "--accept-inconclusive", reason, "--json"])
    manifest = json.loads(capsys.readouterr().out)
    gates = {name: entry["gate"] for name, entry in manifest["artifacts"].items() if entry["gate"]}
    inconclusive = [gate for gate in gates.values() if gate["verdict"] == "inconclusive"]
    assert all(gate["accepted_because"] == reason for gate in inconclusive)
    assert code == (3 if any(gate["verdict"] == "refused" for gate in gates.values()) else 0)


def test_predict_names_a_class_and_a_broken_picture_does_not_stop_it(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    good = tmp_path / "good.png"
    Image.fromarray(np.full((40, 50, 3), 128, dtype=np.uint8)).save(good)
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    code = main(["predict", str(finished), str(tmp_path), "--artifact", "onnx-fp32", "--json"])
    rows = {Path(row["file"]).name: row for row in json.loads(capsys.readouterr().out)}
    assert code == 2
    assert rows["bad.png"]["error"]
    assert rows["good.png"]["error"] is None
    assert sum(rows["good.png"]["probabilities"].values()) == pytest.approx(1.0)


def test_verify_finds_the_golden_outputs_again(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(finished / "bundle"), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"onnx-fp32", "openvino-fp32"} <= {row.get("artifact") for row in rows}


def test_bench_scores_accuracy_through_the_same_runtime(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder of two pictures per class; the score must be that of the predictions."""
    from PIL import Image

    from edgekd.data.synthetic import Synthetic

    source = Synthetic(images=240, size=32)
    for target in range(len(source.classes)):
        chosen = np.flatnonzero(source.targets() == target)[:2]
        place = tmp_path / source.classes[target]
        place.mkdir()
        for index in chosen:
            Image.fromarray(source[int(index)].image).save(place / f"{index}.png")
    code = main(["bench", str(finished), "--artifact", "onnx-fp32", "--data", str(tmp_path),
                 "--repeats", "10", "--warmup", "1", "--seconds", "0", "--json",
                 "--out", str(tmp_path / "rows.jsonl")])  # fmt: skip
    assert code == 0
    row = json.loads(capsys.readouterr().out)[0]
    assert row["scores"]["accuracy"]["images"] == 2 * len(source.classes)
