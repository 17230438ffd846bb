"""One sweep with real training: the command line from a recipe to a table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekd.cli import main
from tests import tiny


@pytest.mark.slow
def test_a_sweep_trains_its_teacher_once_and_ends_in_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tiny.tree(tmp_path)
    recipe["baseline"] = "alone"
    recipe["variants"] = {"alone": {"stages.distill.losses.kd": None}}
    path = tiny.write(tmp_path, recipe)
    out = tmp_path / "runs" / "tiny.sweep"
    arguments = ["sweep", str(path), "--out", str(out), "--jobs", "2", "--json",
                 "stages.teacher.epochs=1", "stages.distill.epochs=1"]  # fmt: skip
    assert main(arguments) == 0
    record = json.loads(capsys.readouterr().out)
    assert {name: set(cell["scores"]) for name, cell in record["cells"].items()} == {
        "base/1": {"teacher", "student"},
        "alone/1": {"teacher", "student"},
    }
    trained = [
        json.loads((out / "ended" / f"{name}.seed1.json").read_text())["trained"]
        for name in ("base", "alone")
    ]
    assert sorted(trained, key=len) == [["distill"], ["teacher", "distill"]]
    assert main([*arguments, "--list"]) == 0
    assert {row["status"] for row in json.loads(capsys.readouterr().out)} == {"done"}
