"""Experts of one part of the data and a student of another, from the recipe to the export."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from edgekd.cli import main
from edgekd.data.splits import read_split
from edgekd.export.materials import Materials
from edgekd.recipe_load import load
from edgekd.rundir import RunDir
from edgekd.train.setup import prepare
from tests import tiny

COUNTS = [20, 15, 20, 15]


def recipe_of(folder: Path, subset: dict[str, str | None], split: str = "3-1-2") -> Path:
    """The tiny recipe, its stages on the parts of the data that `subset` says."""
    tree: dict[str, Any] = tiny.tree(folder, split=split)
    tree["data"]["subsets"] = {"few": {"counts": COUNTS}}
    tree["export"]["make"] = ["onnx-fp32"]
    for stage, name in subset.items():
        tree["stages"][stage]["data"] = {"subset": name}
        tree["stages"][stage]["epochs"] = 1
    return tiny.write(folder, tree)


def ids_of(path: Path, part: str) -> set[str]:
    rows = [line.split(",") for line in path.read_text().splitlines()[1:]]
    return {row[0] for row in rows if part in row[3].split("+")}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """Sources-imbalanced: the teacher learns from all images, the student from few."""
    folder = tmp_path_factory.mktemp("subsets")
    path = recipe_of(folder, {"teacher": None, "distill": "few"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgekd.doctor._try_export", lambda *_: None)
        assert main(["distill", str(path), "--out", str(folder / "run")]) == 0
    return RunDir(folder / "run")


def test_the_runs_split_is_the_students_and_the_teachers_lies_beside_it(run: RunDir) -> None:
    student, teacher = run.split, run.split_of("all")
    used = {part: ids_of(student, part) for part in ("train", "val", "test")}
    assert sum(map(len, used.values())) == sum(COUNTS)
    for part, ids in used.items():
        assert ids < ids_of(teacher, part)


def test_no_test_image_of_the_student_was_seen_by_the_teacher(run: RunDir) -> None:
    seen = ids_of(run.split_of("all"), "train") | ids_of(run.split_of("all"), "val")
    assert ids_of(run.split, "test")
    assert not ids_of(run.split, "test") & seen


def test_both_are_scored_on_the_students_test_part_and_the_teacher_on_its_own(run: RunDir) -> None:
    scores = json.loads(run.scores.read_text())
    ours = len(ids_of(run.split, "test"))
    assert scores["student"]["test"]["accuracy"]["images"] == ours
    assert scores["teacher"]["test"]["accuracy"]["images"] == ours
    own = scores["teacher"]["own_test"]["accuracy"]["images"]
    assert own == len(ids_of(run.split_of("all"), "test")) > ours
    assert "own_test" not in scores["student"]


def test_each_stage_trains_on_its_own_part(run: RunDir) -> None:
    for stage, path in (("teacher", run.split_of("all")), ("distill", run.split)):
        row = json.loads((run.stage(stage) / "metrics.jsonl").read_text().splitlines()[0])
        assert row["train_images"] == len(ids_of(path, "train"))


def test_the_gate_and_the_bench_see_the_students_part(run: RunDir) -> None:
    recipe = load(run.recipe)
    split = Materials(run, recipe, print).split
    source = prepare(recipe).source
    written = read_split(run.split, source)
    again = Materials(run, recipe, print, is_run=False).split  # without split.csv, as a bundle
    for part in ("train", "val", "test"):
        assert getattr(split, part).tolist() == getattr(written, part).tolist()
        assert getattr(again, part).tolist() == getattr(written, part).tolist()


def test_target_imbalanced_is_the_other_way_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = prepare(load(recipe_of(tmp_path, {"teacher": "few", "distill": None})))
    few, whole = data.splits["few"], data.splits[None]
    assert data.split is whole
    assert len(few.used()) == sum(COUNTS) < len(whole.used())
    assert not set(whole.test) & (set(few.train) | set(few.val))


def test_umkd_code_warns_everywhere_of_what_the_teacher_has_seen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = recipe_of(tmp_path, {"teacher": None, "distill": "few"}, split="umkd_code")
    data = prepare(load(path))
    seen = len(set(data.split.test) & set(data.splits[None].train))
    assert seen > 0
    wanted = [
        "umkd_code: the epoch was chosen on the very images that are reported as test",
        f"umkd_code: {seen} of the {len(data.split.test)} images that student is tested on have "
        "trained teacher (stage teacher)",
    ]
    assert data.caveats == wanted
    out = tmp_path / "run"
    monkeypatch.setattr("edgekd.doctor._try_export", lambda *_: None)
    assert main(["distill", str(path), "--out", str(out)]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert all(f"warning: {text}" in said for text in wanted)
    assert json.loads(RunDir(out).environment.read_text())["caveats"] == wanted
    assert main(["report", str(out)]) == 0
    report = (out / "report" / "report.md").read_text()
    assert all(text.replace("_", "\\_") in report or text in report for text in wanted)
    assert main(["data", "check", str(path)]) == 2
    assert "umkd_code validates and tests on the same images" in capsys.readouterr().err


def test_another_exported_model_is_scored_anew_and_no_split_of_before_is_left(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, root = tmp_path / "tiny.yaml", tmp_path / "run"
    path.write_text((run.root.parent / "tiny.yaml").read_text())
    shutil.copytree(run.root, root)
    change = ["export.model=teacher", "export.reference=null"]
    assert main(["distill", str(path), *change, "--out", str(root)]) == 0
    scores = json.loads(RunDir(root).scores.read_text())
    tested = len(ids_of(RunDir(root).split, "test"))
    assert scores["teacher"]["test"]["accuracy"]["images"] == tested
    assert scores["student"]["own_test"]["accuracy"]["images"] < tested
    assert [path.name for path in root.glob("split.*.csv")] == ["split.few.csv"]


def test_data_check_looks_at_every_subset(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe_of(tmp_path, {"distill": "few"})
    assert main(["data", "check", str(path)]) == 0
    assert main(["data", "check", str(path), "data.subsets.few.counts=[20,15,20,0]"]) == 2
    assert "problem: data.subsets.few: class" in capsys.readouterr().out


def test_a_subset_cannot_be_called_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recipe_of(tmp_path, {"distill": "few"})
    assert main(["distill", str(path), "data.subsets={all: {counts: [1, 1, 1, 1]}}"]) == 2
    assert "data.subsets: `all` means all images" in capsys.readouterr().err


def test_a_subset_that_is_not_there_comes_with_a_suggestion(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe_of(tmp_path, {"distill": "fw"})
    assert main(["distill", str(path)]) == 2
    said = capsys.readouterr().err
    assert "stages.distill.data.subset: there is no subset 'fw'" in said
    assert "did you mean 'few'" in said
