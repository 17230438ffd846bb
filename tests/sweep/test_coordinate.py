"""Coordinate search: one key after the other, wherever it was stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgekd import recipe_load
from edgekd.cli import main
from edgekd.sweep.coordinate import count, outlook, point, start_of
from tests.sweep import fake

WEIGHT = "stages.distill.losses.ce.weight"
TEMPERATURE = "stages.distill.losses.kd.params.temperature"
RATE = "stages.distill.optimizer.lr"
# the fake runs score best at a weight of 1.2, and no temperature matters
SPACE = {WEIGHT: {"values": [0.5, 1, 1.5, 2]}, TEMPERATURE: {"values": [2, 4, 8]}}


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "notes"
    fake.use(monkeypatch, path, EPOCH_S="0.01")
    return path


def tree(folder: Path, **more: Any) -> Path:
    return fake.tree(folder, search={"space": SPACE, "method": "coordinate"}, **more)


def search(path: Path, out: Path, *arguments: str) -> int:
    return main(["sweep", str(path), "--search", "--out", str(out), *arguments])


def record(out: Path, variant: str = "base") -> Any:
    return json.loads((out / "search" / variant / "search.json").read_text())


def tried(out: Path, variant: str = "base") -> list[tuple[float, float]]:
    rows = record(out, variant)["trials"]
    return [(row["values"][WEIGHT], row["values"][TEMPERATURE]) for row in rows]


def test_of_values_that_score_alike_the_recipes_own_is_the_best(
    tmp_path: Path, notes: Path
) -> None:
    space = {TEMPERATURE: {"values": [2, 4, 8]}}
    path = fake.tree(tmp_path, search={"space": space, "method": "coordinate"})
    out = tmp_path / "out"
    assert search(path, out) == 0
    found = record(out)
    assert len({trial["value"] for trial in found["trials"]}) == 1
    assert found["best"]["values"] == {TEMPERATURE: 4}  # though 2 was tried first


def test_each_key_is_tried_with_the_best_of_those_before_it(tmp_path: Path, notes: Path) -> None:
    out = tmp_path / "s"
    assert search(tree(tmp_path), out) == 0
    # the recipe's own temperature first; then the best weight, with the values not yet tried
    assert tried(out) == [(0.5, 4), (1, 4), (1.5, 4), (2, 4), (1, 2), (1, 8)]
    assert record(out)["best"]["values"] == {WEIGHT: 1, TEMPERATURE: 4}  # a tie stays where it was
    assert record(out)["wanted"] == len(fake.starts(notes)) == 6
    chosen = recipe_load.load(out / "search" / "base" / "best.yaml")
    assert chosen.stages["distill"].losses["ce"].weight == 1
    assert search(tree(tmp_path), out) == 0
    assert len(fake.starts(notes)) == 6


@pytest.mark.parametrize("jobs", ["1", "3"])
def test_a_budget_that_ends_in_between_changes_nothing(
    tmp_path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch, jobs: str
) -> None:
    path, out = tree(tmp_path), tmp_path / "s"
    monkeypatch.setenv("EPOCH_S", "0.15")
    assert search(path, out, "--budget", "1s", "--jobs", jobs) in (0, 2)
    assert len(tried(out)) < 6
    monkeypatch.setenv("EPOCH_S", "0.01")
    assert search(path, out, "--jobs", jobs) == 0
    assert sorted(tried(out)) == [(0.5, 4), (1, 2), (1, 4), (1, 8), (1.5, 4), (2, 4)]
    epochs = fake.epochs(notes)
    assert len(epochs) == len(set(epochs)) == 6 * fake.EPOCHS


def test_what_failed_is_passed_by_and_tried_again_by_the_next_call(
    tmp_path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = tree(tmp_path), tmp_path / "s"
    monkeypatch.setenv("FAKE_FAILS", "search-base-0001")  # weight 1, which would be the best
    assert search(path, out) == 2
    assert tried(out)[4:] == [(1.5, 2), (1.5, 8)]
    monkeypatch.delenv("FAKE_FAILS")
    assert search(path, out) == 0  # it is the best now, so the temperatures are tried with it
    assert (1, 4) in tried(out)
    assert tried(out)[-2:] == [(1, 2), (1, 8)]
    assert record(out)["best"]["values"] == {WEIGHT: 1, TEMPERATURE: 4}
    assert search(path, out, "--list") == 0


def test_a_variant_may_have_a_space_of_its_own(
    tmp_path: Path, notes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = {
        "stages.distill.losses.kd": None,
        "search.space": {WEIGHT: {"values": [1, 2]}},
    }
    path, out = tree(tmp_path, variants={"alone": alone}), tmp_path / "s"
    assert search(path, out, "--variant", "alone") == 0
    rows = record(out, "alone")["trials"]
    assert [row["values"] for row in rows] == [{WEIGHT: 1}, {WEIGHT: 2}]
    # the recipe's own would not fit
    plain = {"stages.distill.losses.kd": None}
    path = tree(tmp_path, variants={"alone": plain})
    assert search(path, tmp_path / "t", "--variant", "alone") == 2
    assert "stages.distill.losses has no key 'kd'" in capsys.readouterr().err


def test_a_space_without_an_end_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = {"space": {WEIGHT: {"low": 0.1, "high": 2}}, "method": "coordinate"}
    assert search(fake.tree(tmp_path, search=spec), tmp_path / "s") == 2
    assert "a coordinate search needs `values`, or a `step`" in capsys.readouterr().err


def test_an_ensemble_may_be_what_is_judged(
    tmp_path: Path, notes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = {"space": SPACE, "method": "coordinate", "model": "pair"}
    path = fake.tree(tmp_path, search=spec, ensembles={"pair": ["student", "teacher"]})
    assert search(path, tmp_path / "s", "--list") == 0
    spec["model"] = "pear"
    path = fake.tree(tmp_path, search=spec, ensembles={"pair": ["student", "teacher"]})
    assert search(path, tmp_path / "t") == 2
    assert "search.model: there is no model 'pear'" in capsys.readouterr().err


AXES = {"a": [0.1, 1, 10], "b": [1, 2], "c": [True, 1]}


def test_the_number_of_trials_is_known_beforehand() -> None:
    scores: dict[Any, float | None] = {}
    start = {"a": 1, "b": 1, "c": 1}
    tried = 0
    while (found := outlook(AXES, start, scores, set())).todo:
        assert tried + found.left == count(AXES) == 5
        values = found.todo[0]
        scores[point(AXES, values)] = float(values["a"] == 10) + float(values["b"] == 2)
        tried += 1
    assert tried == 5
    assert max(scores.values(), default=0) == 2.0  # at a = 10, b = 2


def test_what_is_begun_is_waited_for() -> None:
    start = {"a": 1, "b": 1, "c": 1}
    line = [point(AXES, {**start, "a": value}) for value in (0.1, 1, 10)]
    found = outlook(AXES, start, {line[0]: 0.0}, {line[1], line[2]})
    assert found.todo == []
    assert found.left == 4


def test_a_key_whose_trials_all_failed_stays_where_it_was() -> None:
    start = {"a": 1, "b": 2, "c": 1}
    failed = {point(AXES, {**start, "a": value}): None for value in (0.1, 1, 10)}
    assert outlook(AXES, start, failed, set()).todo == [{"a": 1, "b": 1, "c": 1}]


def test_it_begins_at_the_recipes_own_values(tmp_path: Path) -> None:
    recipe = recipe_load.load(fake.tree(tmp_path))
    axes: dict[str, list[object]] = {WEIGHT: [0.5, 1], TEMPERATURE: [2, 8], RATE: [0.1, 0.001]}
    assert start_of(recipe, axes) == {WEIGHT: 1, TEMPERATURE: 2, RATE: 0.001}
