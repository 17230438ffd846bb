"""Two students and their ensemble through the whole line: run, bundles, gates, bench, report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgekd.bundle import open_bundle
from edgekd.cli import main
from edgekd.results import Predictions
from edgekd.rundir import RunDir, run_around
from edgekd.tasks.grading import Grading
from tests import tiny

MEMBERS = ("student_a", "student_b")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """24 test images cannot prove an int8 model, so the gates say inconclusive: exit code 3."""
    folder = tmp_path_factory.mktemp("pair")
    tree = tiny.tree(folder)
    student = tree["models"].pop("student")
    tree["models"] |= dict.fromkeys(MEMBERS, student)
    tree["ensembles"] = {"pair": list(MEMBERS)}
    tree["stages"]["distill"] = {
        "train": list(MEMBERS),
        "frozen": ["teacher"],
        "losses": {
            "ce_a": {"loss": "ce", "to": "student_a"},
            "ce_b": {"loss": "ce", "to": "student_b"},
            "t_a": {"loss": "kd", "from": "teacher", "to": "student_a"},
            "a_b": {"loss": "feature_mse", "from": "student_a", "to": "student_b"},
        },
        "optimizer": {"lr": 3e-3},
        "epochs": 2,
    }
    tree["export"] |= {"model": "pair", "also": list(MEMBERS), "make": ["onnx-fp32", "onnx-int8"]}
    run = RunDir(folder / "runs" / "pair")
    assert main(["run", str(tiny.write(folder, tree)), "--out", str(run.root)]) == 3
    return run


def bundles(run: RunDir) -> dict[str, Path]:
    return {"pair": run.bundle, **{name: run.bundle_of(name) for name in MEMBERS}}


def test_the_ensemble_and_each_member_have_a_bundle_with_gates_of_their_own(
    finished: RunDir,
) -> None:
    params = {}
    for name, folder in bundles(finished).items():
        manifest = open_bundle(folder)
        assert manifest.model.name == name
        assert manifest.model.role == "student"
        assert manifest.artifacts["onnx-fp32"].gate.verdict == "passed"  # type: ignore[union-attr]
        assert manifest.artifacts["onnx-int8"].gate.verdict in ("inconclusive", "refused")  # type: ignore[union-attr]
        params[name] = manifest.model.params
    assert params["pair"] == params["student_a"] + params["student_b"]


def test_the_bundle_answers_as_the_task_combines_its_members(finished: RunDir) -> None:
    task = Grading(classes=open_bundle(finished.bundle).classes)
    said = [Predictions.load(finished.predictions(name, "test")) for name in MEMBERS]
    pair = Predictions.load(finished.predictions("onnx-fp32", "test"))
    joined = task.combine_logits([one.logits for one in said])
    np.testing.assert_allclose(pair.logits, joined, atol=1e-4)
    own = Predictions.load(finished.predictions("student_a.onnx-fp32", "test"))
    np.testing.assert_allclose(own.logits, said[0].logits, atol=1e-4)


def test_every_model_is_scored_and_compared_with_the_teacher(finished: RunDir) -> None:
    scores = json.loads(finished.scores.read_text())
    assert set(scores) == {"teacher", "pair", *MEMBERS}
    for name, parts in scores.items():
        assert ("fidelity" in parts["test"]) == (name != "teacher")


def test_all_of_them_are_measured_on_this_machine(finished: RunDir) -> None:
    for folder in bundles(finished).values():
        rows = [
            json.loads(line)
            for path in (folder / "bench").glob("*.jsonl")
            for line in path.read_text().splitlines()
        ]
        assert "onnx-fp32" in {row["artifact"] for row in rows}


def test_the_report_sets_pair_and_singles_side_by_side(finished: RunDir) -> None:
    report = json.loads((finished.report / "report.json").read_text())
    (run,) = report.get("runs", [report])
    rows = {row["model"] for row in run["hosts"][0]["rows"] if row["artifact"] == "onnx-fp32"}
    assert rows == {"teacher", "pair", *MEMBERS}
    gates = {gate["artifact"] for gate in run["gates"]}
    assert {"onnx-int8", "student_a onnx-int8", "student_b onnx-int8"} <= gates


def test_a_failed_gate_names_the_model(
    finished: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(finished.root)]) == 3
    said = capsys.readouterr().err
    assert "up to date" in said
    assert "pair onnx-int8:" in said
    assert "student_b onnx-int8:" in said


def test_a_members_bundle_can_be_extended_by_itself(finished: RunDir) -> None:
    folder = finished.bundle_of("student_b")
    assert run_around(folder).root == finished.root.resolve()
    assert run_around(finished.bundle).root == finished.root.resolve()
    assert (
        main(["export", str(folder), "--make", "onnx-fp16"]) == 3
    )  # its int8 still has not passed
    assert "onnx-fp16" in open_bundle(folder).artifacts
    assert "onnx-fp16" not in open_bundle(finished.bundle).artifacts
    assert finished.predictions("student_b.onnx-fp16", "test").is_file()


def test_bench_of_a_run_measures_pair_and_singles(
    finished: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["bench", str(finished.root), "--artifact", "onnx-fp32", "--repeats", "10"]
    assert main([*command, "--warmup", "1", "--seconds", "0", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["model"] for row in rows] == ["pair", *MEMBERS]
