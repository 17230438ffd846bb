"""A search: resumable, shared, judged by validation, and what it finds can become a variant."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from edgekd import recipe_load
from edgekd.cli import main
from tests.sweep import fake

WEIGHT = "stages.distill.losses.ce.weight"
TEMPERATURE = "stages.distill.losses.kd.params.temperature"
SPACE = {WEIGHT: {"low": 0.1, "high": 2.0}, TEMPERATURE: {"values": [2, 4]}}


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "notes"
    fake.use(monkeypatch, path)
    return path


def tree(folder: Path, **search: Any) -> Path:
    return fake.tree(folder, search={"space": SPACE, "trials": 6, **search})


def search(path: Path, out: Path, *arguments: str) -> int:
    return main(["sweep", str(path), "--search", "--out", str(out), *arguments])


def test_it_finds_the_best_on_validation_and_writes_it_back(
    tmp_path: Path, notes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tree(tmp_path, trials=12), tmp_path / "s"
    assert search(path, out, "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert len(record["trials"]) == len(fake.starts(notes)) == 12
    values = [row["value"] for row in record["trials"]]
    assert record["best"]["value"] == max(values)
    assert record["part"] == "val"
    chosen = recipe_load.load(out / "search" / "base" / "best.yaml")
    assert chosen.stages["distill"].losses["ce"].weight == record["best"]["values"][WEIGHT]
    number = record["best"]["trial"]
    run = out / "runs" / f"search-base-{number:04d}"
    assert json.loads((run / "search.json").read_text())["values"] == record["best"]["values"]


def test_a_second_call_runs_nothing_again_and_more_trials_go_on(
    tmp_path: Path, notes: Path
) -> None:
    path, out = tree(tmp_path, trials=3), tmp_path / "s"
    assert search(path, out) == 0
    assert search(path, out) == 0
    assert len(fake.starts(notes)) == 3
    assert search(path, out, "--trials", "5") == 0
    assert len(set(fake.starts(notes))) == len(fake.starts(notes)) == 5


def test_the_same_seed_tries_the_same_values(tmp_path: Path, notes: Path) -> None:
    path = tree(tmp_path, trials=3, method="random", seed=4)
    found = []
    for name in ("a", "b"):
        assert search(path, tmp_path / name / "s") == 0
        text = (tmp_path / name / "s" / "search" / "base" / "search.json").read_text()
        found.append([row["values"] for row in json.loads(text)["trials"]])
    assert found[0] == found[1]


def test_a_grid_tries_every_combination_once(tmp_path: Path, notes: Path) -> None:
    space = {WEIGHT: {"low": 0.5, "high": 1.5, "step": 0.5}, TEMPERATURE: {"values": [2, 4]}}
    path, out = tree(tmp_path, space=space, method="grid"), tmp_path / "s"
    assert search(path, out, "--jobs", "2") == 0
    rows = json.loads((out / "search" / "base" / "search.json").read_text())["trials"]
    tried = sorted((row["values"][WEIGHT], row["values"][TEMPERATURE]) for row in rows)
    assert tried == [(w, t) for w in (0.5, 1.0, 1.5) for t in (2, 4)]
    assert len(fake.starts(notes)) == 6


def test_several_processes_share_one_study(
    tmp_path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPOCH_S", "0.1")
    path, out = tree(tmp_path, trials=6), tmp_path / "s"
    others = [fake.sweep_process(str(path), "--search", "--out", str(out)) for _ in range(2)]
    for process in others:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said.decode()
    assert sorted(fake.starts(notes)) == [f"search-base-{n:04d}" for n in range(6)]


def test_a_killed_search_goes_on_with_the_very_trial(
    tmp_path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPOCH_S", "0.3")
    path, out = tree(tmp_path, trials=3), tmp_path / "s"
    process = fake.sweep_process(str(path), "--search", "--out", str(out))
    fake.wait_for(lambda: len(fake.epochs(notes)) >= 2)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    monkeypatch.setenv("EPOCH_S", "0.01")
    assert search(path, out) == 0
    assert sorted(set(fake.starts(notes))) == [f"search-base-{n:04d}" for n in range(3)]
    epochs = fake.epochs(notes)
    assert len(epochs) == len(set(epochs)) == 3 * fake.EPOCHS  # no epoch was trained twice


def test_promoting_keeps_the_file_and_adds_a_variant(tmp_path: Path, notes: Path) -> None:
    path, out = tree(tmp_path), tmp_path / "s"
    before = "# my notes\n" + path.read_text()
    path.write_text(before)
    assert search(path, out, "--variant", "warm", "--promote", "tuned") == 0
    after = path.read_text()
    assert all(line in after.splitlines() for line in before.splitlines())
    best = json.loads((out / "search" / "warm" / "search.json").read_text())["best"]["values"]
    tuned = recipe_load.load(path, variant="tuned")
    assert tuned.stages["distill"].losses["ce"].weight == pytest.approx(best[WEIGHT])
    kd = tuned.stages["distill"].losses["kd"].params["temperature"]
    assert kd == best[TEMPERATURE]  # what was found wins over what `warm` had said


def test_a_recipe_without_variants_gets_its_first(tmp_path: Path, notes: Path) -> None:
    path = fake.tree(tmp_path, variants={}, baseline=None, search={"space": SPACE, "trials": 2})
    path.write_text(path.read_text().replace("variants: {}\n", ""))
    assert search(path, tmp_path / "s", "--promote", "tuned") == 0
    assert list(recipe_load.load(path).variants) == ["tuned"]


@pytest.mark.parametrize(
    ("space", "text"),
    [
        ({"stages.distil.epochs": {"values": [1]}}, "stages has no key 'distil'"),
        (
            {"stages.distill.losses.kd.params.temprature": {"values": [1]}},
            "has no key 'temprature'",
        ),
        ({"stages.distill.epochs": {"low": 1, "high": 3}}, "add `integer: true`"),
        ({"stages.distill.epochs": {"values": [0, 3]}}, "stages.distill.epochs"),
        ({"stages.distill": {"values": [1]}}, "a search sets single values"),
        ({WEIGHT: {"low": 2, "high": 1}}, "low 2 is not below high 1"),
        ({WEIGHT: {"low": 0, "high": 1, "log": True}}, "starts above 0"),
        ({WEIGHT: {"values": [1], "low": 0}}, "either `values` or"),
        (
            {"stages.distill.epochs": {"low": 1, "high": 5, "step": 0.5, "integer": True}},
            "whole ends and a whole step",
        ),
        ({WEIGHT: {}}, "needs `values: [...]`"),
        ({}, "search.space"),
    ],
)
def test_spaces_that_cannot_be_searched(
    tmp_path: Path,
    notes: Path,
    capsys: pytest.CaptureFixture[str],
    space: dict[str, Any],
    text: str,
) -> None:
    path = tree(tmp_path, space=space, trials=2)
    assert search(path, tmp_path / "s") == 2
    assert text in capsys.readouterr().err
    assert not fake.starts(notes)


def test_a_search_in_which_nothing_runs_stops_soon(
    tmp_path: Path,
    notes: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FAKE_FAILS", ",".join(f"search-base-{n:04d}" for n in range(6)))
    assert search(tree(tmp_path), tmp_path / "s") == 2
    text = "the first trials all failed, so the search stopped: the disk is made of cheese (eat it)"
    assert text in capsys.readouterr().err
    assert len(fake.starts(notes)) == 3


def test_a_trial_that_failed_is_tried_again_by_the_next_call(
    tmp_path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = tree(tmp_path, method="grid", space={WEIGHT: {"values": [1, 2, 3]}}), tmp_path / "s"
    monkeypatch.setenv("FAKE_FAILS", "search-base-0001")
    assert search(path, out) == 2
    monkeypatch.delenv("FAKE_FAILS")
    assert search(path, out) == 0
    rows = json.loads((out / "search" / "base" / "search.json").read_text())["trials"]
    assert sorted(row["values"][WEIGHT] for row in rows) == [1, 2, 3]
    assert {row["state"] for row in rows} == {"complete"}
    assert len(fake.starts(notes)) == 4
    assert search(path, out) == 0
    assert len(fake.starts(notes)) == 4


def test_what_is_searched_for_belongs_to_the_study(
    tmp_path: Path, notes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tree(tmp_path, trials=1), tmp_path / "s"
    assert search(path, out) == 0
    for change in ("export.model=teacher", "hardware.precision=bf16-mixed",
                   "data.params.images=61", "task.primary=macc"):  # fmt: skip
        assert search(path, out, change) == 2, change
        assert "holds a search of another recipe, space or data" in capsys.readouterr().err
    assert search(path, out, "data.workers=1", "bench.repeats=10") == 0


def test_list_says_what_a_search_has_to_do_and_writes_nothing(
    tmp_path: Path, notes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tree(tmp_path), tmp_path / "s"
    assert search(path, out, "--list") == 0
    assert "6 trials to think of and try" in capsys.readouterr().out
    assert not out.exists()


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("indent", [" ", "    "])
def test_promoting_follows_the_files_own_form(tmp_path: Path, newline: str, indent: str) -> None:
    from edgekd.sweep.promote import promote

    real = fake.tree(tmp_path, variants={})
    text = real.read_text().replace("variants: {}\n", "") + (
        f"# mine\nvariants:\n\n{indent}# first\n{indent}alone:\n{indent}{indent}"
        f"stages.distill.epochs: 3\n# the end\n"
    )
    real.write_bytes(text.replace("\n", newline).encode())
    real.chmod(0o600)
    link = tmp_path / "link.yaml"
    link.symlink_to(real)
    promote(link, "tuned", "alone", {WEIGHT: 0.5}, "why")
    assert link.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o600
    after = real.read_bytes().decode()
    assert after.count("\n") == after.count(newline)
    assert f"{newline}{indent}tuned:  # why{newline}" in after
    assert after.endswith(f"# the end{newline}")
    tuned = recipe_load.load(real, variant="tuned")
    assert (tuned.stages["distill"].epochs, tuned.stages["distill"].losses["ce"].weight) == (3, 0.5)


@pytest.mark.parametrize("name", ["true", "123", "1e5", "null", "a.b", "base", ""])
def test_names_that_are_no_variants(
    tmp_path: Path, notes: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert search(tree(tmp_path), tmp_path / "s", "--promote", name) == 2
    assert "a variant's name has letters" in capsys.readouterr().err
    assert not fake.starts(notes)


def test_a_shipped_recipe_is_not_edited(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = "search={space: {stages.distill.losses.kd.weight: {values: [1, 2]}}}"
    arguments = ["sweep", "quickstart", "--search", "--promote", "tuned", space]
    assert main([*arguments, "--out", str(tmp_path / "s")]) == 2
    assert "came with edgekd and is not edited" in capsys.readouterr().err


def test_another_space_needs_another_folder(
    tmp_path: Path, notes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "s"
    assert search(tree(tmp_path, trials=1), out) == 0
    assert search(tree(tmp_path, space={WEIGHT: {"values": [1, 2]}}), out) == 2
    assert "holds a search of another recipe, space or data" in capsys.readouterr().err


def test_what_else_is_refused(
    tmp_path: Path, notes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def err() -> str:
        return capsys.readouterr().err

    assert search(fake.tree(tmp_path), tmp_path / "s") == 2
    assert "has no `search:`" in err()
    assert search(tree(tmp_path), tmp_path / "s", "--promote", "warm") == 2
    assert "has this variant already" in err()
    assert search(tree(tmp_path), tmp_path / "s", "--variant", "base,warm") == 2
    assert "a search works on one variant" in err()
    assert search(tree(tmp_path), tmp_path / "s", "--seeds", "1,2") == 2
    assert "--seeds does not belong to a search" in err()
    assert search(tree(tmp_path, score="acuracy"), tmp_path / "s") == 2
    assert "did you mean 'accuracy'?" in err()
    assert search(tree(tmp_path, method="grid"), tmp_path / "s") == 2
    assert "a grid needs `values`, or a `step`" in err()
    assert not fake.starts(notes)
