"""Interrupted training ends with the same bits; finished stages are not run again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from edgekd.cli import main
from edgekd.rundir import RunDir, sha256
from tests import tiny


@pytest.fixture(scope="module", autouse=True)
def no_trial_export() -> Iterator[None]:
    """Leave the ONNX part of the dry run out here: it takes most of a tiny run's time, and
    `tests/test_cli.py` tries it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgekd.doctor._try_export", lambda *_: None)
        yield


def distill(path: Path, out: Path, *overrides: str) -> int:
    return main(["distill", str(path), "--out", str(out), *overrides])


def weights(run: Path) -> dict[str, str]:
    return {path.stem: sha256(path) for path in sorted((run / "models").glob("*.safetensors"))}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A recipe and a run of it that nothing disturbed."""
    folder = tmp_path_factory.mktemp("reference")
    path = tiny.write(folder, tiny.tree(folder))
    assert distill(path, folder / "runs" / "whole") == 0
    return path, folder / "runs" / "whole"


KILLER = """
import os, signal, sys
from edgekd.train import loop

original = loop._Run.step
wanted_epoch, wanted_step, number = (int(value) for value in sys.argv[1:4])

def step(self, pixels, targets, indices, epoch, step, *rest):
    if self.spec.epochs == 3 and epoch == wanted_epoch and step == wanted_step:
        os.kill(os.getpid(), number)
    return original(self, pixels, targets, indices, epoch, step, *rest)

loop._Run.step = step
import edgekd.doctor
edgekd.doctor._try_export = lambda *_: None
from edgekd.cli import main
sys.exit(main(sys.argv[4:]))
"""


def run_and_kill(path: Path, out: Path, epoch: int, step: int, number: int, *overrides: str) -> int:
    """Run the recipe in a process that gets a signal at one step of the second stage."""
    arguments = [str(epoch), str(step), str(int(number)), "distill", str(path), "--out", str(out),
                 "hardware.checkpoint_every_s=1e-9", *overrides]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLER, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if number == signal.SIGINT:
        assert "interrupted" in done.stderr
        assert "goes on from the last checkpoint" in done.stderr
    return done.returncode


@pytest.mark.parametrize(
    ("epoch", "step", "number"),
    [
        (2, 0, signal.SIGKILL),  # between epochs
        (2, 4, signal.SIGKILL),  # inside one
        (1, 3, signal.SIGINT),  # Ctrl-C inside the first
    ],
)
def test_a_killed_run_continues_to_the_same_bits(
    reference: tuple[Path, Path], tmp_path: Path, epoch: int, step: int, number: signal.Signals
) -> None:
    path, whole = reference
    out = tmp_path / "runs" / "killed"
    code = run_and_kill(path, out, epoch, step, number)
    assert code == (130 if number == signal.SIGINT else -signal.SIGKILL)
    assert not (out / "stages" / "distill" / "done.json").exists()
    progress = json.loads((out / "stages/distill/last/progress.json").read_text())
    assert (progress["epoch"], progress["step"]) != (1, 0)
    assert distill(path, out) == 0
    assert weights(out) == weights(whole)
    rows = (out / "stages/distill/metrics.jsonl").read_text().splitlines()
    expected = (whole / "stages/distill/metrics.jsonl").read_text().splitlines()
    for found, wanted in zip(rows, expected, strict=True):
        first, second = json.loads(found), json.loads(wanted)
        first.pop("seconds"), second.pop("seconds")
        assert first == second


def test_a_second_run_does_nothing_and_says_so(
    reference: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path, whole = reference
    before = {p: p.stat().st_mtime_ns for p in whole.rglob("*.safetensors")}
    assert main(["distill", str(path), "--out", str(whole), "--json"]) == 0
    captured = capsys.readouterr()
    answer = json.loads(captured.out)
    assert answer["trained"] == []
    assert answer["reused"] == ["teacher", "distill"]
    assert "teacher: already trained" in captured.err
    assert before == {p: p.stat().st_mtime_ns for p in whole.rglob("*.safetensors")}


def test_a_changed_stage_runs_again_and_so_does_what_follows(
    reference: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = reference
    out = tmp_path / "runs" / "x"
    assert distill(path, out) == 0
    first = weights(out)
    capsys.readouterr()
    assert main(["distill", str(path), "--out", str(out), "--json",
                 "stages.distill.losses.kd.params.temperature=2"]) == 0  # fmt: skip
    answer = json.loads(capsys.readouterr().out)
    assert answer["trained"] == ["distill"]
    assert weights(out)["teacher"] == first["teacher"]
    assert weights(out)["student"] != first["student"]
    assert main(["distill", str(path), "--out", str(out), "--json",
                 "stages.teacher.optimizer.lr=0.001"]) == 0  # fmt: skip
    assert json.loads(capsys.readouterr().out)["trained"] == ["teacher", "distill"]


def test_variants_beside_each_other_train_their_teacher_once(
    reference: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path, whole = reference
    out = whole.parent / "other"
    assert main(["distill", str(path), "--out", str(out), "--json",
                 "stages.distill.losses.kd=null"]) == 0  # fmt: skip
    answer = json.loads(capsys.readouterr().out)
    assert answer["reused"] == ["teacher"]
    assert weights(out)["teacher"] == weights(whole)["teacher"]


def test_fresh_starts_over_and_ends_with_the_same_bits(
    reference: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, whole = reference
    before = weights(whole)
    assert main(["distill", str(path), "--out", str(whole), "--fresh", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["trained"] == ["teacher", "distill"]
    assert weights(whole) == before


def test_a_changed_network_file_is_noticed(tmp_path: Path) -> None:
    path = tiny.write(tmp_path, tiny.tree(tmp_path))
    out = tmp_path / "runs" / "x"
    assert distill(path, out, "stages.distill.epochs=1", "stages.teacher.epochs=1") == 0
    first = weights(out)
    nets = tmp_path / "nets.py"
    nets.write_text(nets.read_text().replace("Dropout(0.1)", "Dropout(0.5)"), encoding="utf-8")
    assert distill(path, out, "stages.distill.epochs=1", "stages.teacher.epochs=1") == 0
    assert weights(out) != first


def test_an_interrupted_retrain_is_not_served_as_the_old_finished_stage(
    reference: tuple[Path, Path], tmp_path: Path
) -> None:
    path, whole = reference
    out = tmp_path / "runs" / "x"
    assert distill(path, out) == 0
    overrides = ["stages.distill.optimizer.lr=0.01"]
    assert run_and_kill(path, out, 3, 4, signal.SIGKILL, *overrides) == -signal.SIGKILL
    assert distill(path, out) == 0
    assert weights(out) == weights(whole)
    stage = out / "stages" / "distill"
    assert sha256(stage / "student.safetensors") == sha256(
        whole / "stages" / "distill" / "student.safetensors"
    )


def test_a_command_that_fails_leaves_recipe_and_results_as_they_were(tmp_path: Path) -> None:
    path = tiny.write(tmp_path, tiny.tree(tmp_path))
    out = tmp_path / "runs" / "x"
    short = ["stages.teacher.epochs=1", "stages.distill.epochs=1"]
    assert distill(path, out, *short) == 0
    before = (out / "recipe.yaml").read_text(), weights(out)
    assert distill(path, out, *short, "stages.distill.losses.kd.params.temprature=2") == 2
    assert ((out / "recipe.yaml").read_text(), weights(out)) == before


def test_mixed_precision_trains_where_the_device_has_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tiny.write(tmp_path, tiny.tree(tmp_path))
    short = ["stages.teacher.epochs=1", "stages.distill.epochs=1"]
    assert distill(path, tmp_path / "x", *short, "hardware.precision=bf16-mixed") == 0
    assert distill(path, tmp_path / "y", *short, "hardware.precision=16-mixed") == 2
    assert "16-mixed needs a GPU" in capsys.readouterr().err


def test_a_score_that_is_costly_can_still_pick_the_epoch(tmp_path: Path) -> None:
    path = tiny.write(tmp_path, tiny.tree(tmp_path))
    assert distill(path, tmp_path / "x", "task.primary=auroc", "stages.distill.epochs=1") == 0
    rows = [
        json.loads(line)
        for line in (tmp_path / "x/stages/teacher/metrics.jsonl").read_text().splitlines()
    ]
    areas = [row["val"]["teacher"]["auroc"] for row in rows]
    best = json.loads((tmp_path / "x/stages/teacher/done.json").read_text())["best"]["teacher"]
    assert best["value"] == max(areas)


def test_a_library_teacher_with_a_random_classifier_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tiny.tree(tmp_path)
    del recipe["stages"]["teacher"]
    recipe["models"]["teacher"] = {"arch": "timm:resnet18", "pretrained": True}
    assert distill(tiny.write(tmp_path, recipe), tmp_path / "x") == 2
    assert "'teacher' has a random classifier" in capsys.readouterr().err


def test_a_network_of_the_wrong_width_is_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tiny.tree(tmp_path)
    wide = tmp_path / "wide.py"
    fixed = tiny.NETS.replace("def build(num_classes,", "def build(")
    wide.write_text(fixed.replace("Net(num_classes, width)", "Net(10, width)"), encoding="utf-8")
    recipe["models"]["student"]["arch"] = f"file:{wide}:build"
    assert distill(tiny.write(tmp_path, recipe), tmp_path / "x") == 2
    assert "expected logits of shape (2, 4)" in capsys.readouterr().err


def test_two_commands_cannot_write_into_one_run(tmp_path: Path) -> None:
    from edgekd.rundir import only_one

    path = tiny.write(tmp_path, tiny.tree(tmp_path))
    with only_one(tmp_path / "x"):
        assert distill(path, tmp_path / "x") == 2


def test_a_term_that_explodes_stops_training_and_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tiny.write(tmp_path, tiny.tree(tmp_path))
    assert distill(path, tmp_path / "x", "stages.teacher.optimizer={name: sgd, lr: 1e30}") == 2
    assert "term 'ce' became" in capsys.readouterr().err


def test_a_teacher_without_training_or_weights_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tiny.tree(tmp_path)
    del recipe["stages"]["teacher"]
    path = tiny.write(tmp_path, recipe)
    assert distill(path, tmp_path / "x") == 2
    assert "'teacher' has random weights" in capsys.readouterr().err


def test_a_gpu_that_is_not_there_is_exit_code_4(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    path = tiny.write(tmp_path, tiny.tree(tmp_path))
    assert distill(path, tmp_path / "x", "hardware.accelerator=cuda") == 4
    assert "no such device" in capsys.readouterr().err


def test_the_run_folder_holds_what_the_next_commands_need(reference: tuple[Path, Path]) -> None:
    _, whole = reference
    run = RunDir(whole)
    assert yaml.safe_load(run.recipe.read_text())["name"] == "tiny"
    scores = json.loads(run.scores.read_text())
    assert set(scores) == {"teacher", "student"}
    assert scores["student"]["test"]["accuracy"]["low"] is not None
    assert run.predictions("student", "test").is_file()
    assert run.split.is_file()
    assert time.strptime(json.loads(run.environment.read_text())["utc"], "%Y-%m-%dT%H:%M:%SZ")
    assert os.access(run.weights("student"), os.R_OK)
