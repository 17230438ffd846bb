"""What a sweep refuses before it starts anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.cli import main
from tests.sweep import fake


@pytest.fixture(autouse=True)
def _no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.use(monkeypatch, tmp_path / "notes")


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["sweep", *arguments]) == 2
    return capsys.readouterr().err


def test_two_variants_that_are_the_same_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twice = {"a": {"stages.distill.epochs": 3}, "b": {"stages.distill": {}}}
    path = fake.tree(tmp_path, baseline=None, variants={**twice, "b": dict(twice["a"])})
    text = refused(capsys, str(path), "--out", str(tmp_path / "s"))
    assert "the variants 'a' and 'b' resolve to the same stages" in text
    assert not (tmp_path / "s").exists()
    path = fake.tree(tmp_path, baseline=None, variants={"same": {"stages.distill.epochs": 1}})
    assert "'base' and 'same'" in refused(capsys, str(path), "--out", str(tmp_path / "s"))


def test_names_that_are_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(fake.tree(tmp_path))
    assert "there is no variant 'alonee'" in refused(capsys, path, "--variant", "alonee")
    assert "did you mean 'alone'" in refused(capsys, path, "--baseline", "alonne")
    text = refused(capsys, path, "--variant", "base,warm", "--baseline", "alone")
    assert "this sweep does not run it" in text
    assert "expected numbers like 1,2,3" in refused(capsys, path, "--seeds", "one")
    assert "a sweep chooses the seeds" in refused(capsys, path, "seed=3")
    assert "--variant is empty" in refused(capsys, path, "--variant", "")
    assert "belongs to a search" in refused(capsys, path, "--promote", "x")


def test_a_typo_in_one_variant_stops_before_the_first_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = fake.tree(tmp_path, variants={"alone": {"stages.distil.epochs": 2}})
    text = refused(capsys, str(path), "--out", str(tmp_path / "s"))
    assert "stages.distil.epochs: there is no 'distil'" in text
    assert not fake.starts(tmp_path / "notes")


def test_a_score_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = str(fake.tree(tmp_path)), str(tmp_path / "s")
    text = refused(capsys, path, "--out", out, "--seeds", "1", "--metrics", "acuracy")
    assert "there is no score 'acuracy'" in text


def test_a_folder_of_another_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "s")
    path = str(fake.tree(tmp_path))
    assert main(["sweep", path, "--out", out, "--seeds", "1", "--variant", "base,alone"]) == 0
    text = refused(capsys, path, "stages.distill.epochs=9", "--out", out, "--seeds", "1")
    assert "was trained with another recipe: stages.distill.epochs is 1 there, 9 here" in text
    other = str(fake.tree(tmp_path, name="other"))
    assert "is the sweep of recipe 'fake', not of 'other'" in refused(capsys, other, "--out", out)
    more = {"params": {"images": 61, "size": 16}}
    data = {"name": "synthetic", "split": "official", "input": {"size": 16}, **more}
    changed = str(fake.tree(tmp_path, data=data))
    assert "data.params.images is 60 there, 61 here" in refused(capsys, changed, "--out", out)


def test_a_folder_that_is_no_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(fake.tree(tmp_path))
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "cat.jpg").write_bytes(b"")
    assert "not a sweep's folder" in refused(capsys, path, "--out", str(folder))
    (tmp_path / "file").write_text("")
    assert "is a file" in refused(capsys, path, "--out", str(tmp_path / "file"))


def test_changed_weights_of_a_teacher_are_noticed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "teacher.safetensors"
    weights.write_bytes(b"one")
    teacher = {"arch": "timm:resnet18", "pretrained": str(weights)}
    models = {"teacher": teacher, "student": {"arch": "timm:resnet10t"}}
    path, out = str(fake.tree(tmp_path, models=models)), str(tmp_path / "s")
    assert main(["sweep", path, "--out", out, "--seeds", "1", "--variant", "base"]) == 0
    weights.write_bytes(b"two")
    assert "a file that the recipe names, has changed" in refused(capsys, path, "--out", out)
