"""The page of KDML: gathered from a sweep's folder, and saying what was not run."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from edgekd import catalog
from edgekd.errors import DataError
from edgekd.recipe_load import load, read_tree, to_yaml
from edgekd.results import CkaMap, dump_json
from edgekd.rundir import RunDir, sha256, write_text

ROOT = Path(__file__).parents[1]
STUDY = "studies/kdml-ham10000"


def module(name: str) -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        return importlib.import_module(name)


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    return module("kdml_tables")


def cell(scores: dict[str, float], cka: float | None = None) -> dict[str, Any]:
    """One run: the same score for all metrics of a network."""
    metrics = ("accuracy", "macc", "macro_f1", "fidelity")
    return {
        "model": "pair",
        "scores": {
            model: {name: {"value": value, "direction": "higher"} for name in metrics}
            for model, value in scores.items()
        },
        "cka": {f"teacher.{model}": cka for model in ("student_a", "student_b")},
    }


def pair(a: float, b: float, ensemble: float, teacher: float | None = None) -> dict[str, float]:
    found = {"student_a": a, "student_b": b, "pair": ensemble}
    return found if teacher is None else {**found, "teacher": teacher}


def record(**cells: dict[str, Any]) -> dict[str, Any]:
    """`kd_on_v3__1` is the variant kd-on-v3 with seed 1."""
    return {
        "command": "c", "seeds": [1, 2, 3], "model": "pair", "host": {"cpu": "x"},
        "split": {"train": 10, "val": 2, "test": 8},
        "costs": {"teacher": {"params": 1_266_179, "macs": 91_517_824},
                  "pair": {"params": 619_562, "macs": 46_561_024}},
        "cells": {
            "/".join(name.replace("__", "/").rsplit("/", 1)).replace("_", "-"): found
            for name, found in cells.items()
        },
    }  # fmt: skip


def line_of(text: str, *starts: str) -> str:
    begin = "| " + " | ".join(starts) + " |"
    return next(line for line in text.splitlines() if line.startswith(begin))


def test_without_results_every_block_says_so(tables: ModuleType) -> None:
    made = tables.blocks(None)
    assert set(made.values()) == {tables.NOT_RUN_YET}
    text = (ROOT / "docs" / "papers" / "kdml.md").read_text(encoding="utf-8")
    for name in made:
        assert f"<!-- block {name} -->" in text


def test_the_study_has_the_variants_of_the_tables(tables: ModuleType) -> None:
    names = ["base", *read_tree(catalog.find(STUDY))["variants"]]
    assert sorted(names) == sorted(tables.ORDER)


def test_a_record_with_nothing_in_it_claims_nothing(tables: ModuleType) -> None:
    for name, text in tables.blocks(record()).items():
        rows = [row for row in text.splitlines()[2:] if row.startswith("| ")]
        for row in rows if name not in ("facts", "claims") else ():
            assert "not run" in row or row.endswith("| 0 |"), row
            assert not any(sign in row for sign in ("[", "0.", "nan"))
    claims = tables.blocks(record())["claims"]
    assert all(row.split(" | ")[2:5] == ["0", "0", "0"] for row in claims.splitlines()[2:])


def test_each_network_stands_beside_its_namesake_of_alone(tables: ModuleType) -> None:
    found = record(
        alone__1=cell(pair(0.5, 0.4, 0.6, 0.7)), alone__2=cell(pair(0.5, 0.4, 0.6, 0.7)),
        kd_off_v1__1=cell(pair(0.6, 0.4, 0.6, 0.7)), kd_off_v1__2=cell(pair(0.7, 0.4, 0.6, 0.7)),
    )  # fmt: skip
    text = tables.variants(found)
    spread, delta = "0.650 ± 0.071", "+0.150 [-0.485, +0.785]"
    assert line_of(text, "KD_off V1", "S1") == (
        f"| KD_off V1 | S1 | {spread} | {delta} | {spread} | {delta} | {spread} | {spread} | 2 |"
    )
    # the very same teacher: nothing to compare
    teacher = "0.700 ± 0.000"
    assert line_of(text, "KD_off V1", "T") == (
        f"| KD_off V1 | T | {teacher} |  | {teacher} |  | {teacher} | – | 2 |"
    )
    assert "| ML V1 | T |" not in text


def test_claims_are_counted_by_their_intervals(tables: ModuleType) -> None:
    def seeds(variant: str, *values: float) -> dict[str, Any]:
        return {
            f"{variant}__{seed}": cell(pair(value, value, value, 0.7), cka=value)
            for seed, value in enumerate(values, 1)
        }

    found = record(
        **seeds("kd_on_v1", 0.50, 0.51, 0.52), **seeds("kd_on_v2", 0.70, 0.71, 0.72),
        **seeds("kd_on_v3", 0.60, 0.61, 0.62), **seeds("base", 0.60, 0.40, 0.70),
    )  # fmt: skip
    text = tables.claims(found)
    versions = line_of(text, "V3 is better than V1 and V2 in every framework", "ensemble, accuracy")
    assert versions.endswith("| 1 | 1 | 0 | 6 |")
    frameworks = line_of(text, "KD+ML is better than KD and than ML", "ensemble, accuracy")
    assert frameworks.endswith("| 0 | 0 | 1 | 8 |")  # KD+ML V3 and KD_on V3, of 9
    cka = line_of(text, "V3 raises the similarity of the deepest features to the teacher's")
    assert cka.endswith("| 1 | 1 | 0 | 4 |")
    versions = tables.versions(found)
    assert "| KD_on V3 − KD_on V1 | +0.100 [+0.100, +0.100] |" in versions
    assert "| KD_on V1 | 0.510 ± 0.010 | 0.510 ± 0.010 | +0.100 [+0.100, +0.100] | 3 |" in (
        tables.similarity(found)
    )
    assert tables.word(tables.paired({}, {})) == "not run"
    assert tables.word(tables.paired({1: 0.5}, {1: 0.4})) == "undecided"  # one seed


def test_the_average_of_two_students_is_by_seed(tables: ModuleType) -> None:
    found = record(base__1=cell(pair(0.4, 0.6, 0.9)), base__2=cell({"student_a": 0.1}))
    assert tables.of_students("accuracy")(found, "base") == {1: 0.5}
    assert tables.of_pair("accuracy")(found, "base") == {1: 0.9}


def write_run(root: Path, variant: str, seed: int, value: float) -> RunDir:
    """What a sweep leaves of a finished run, as far as it is read."""
    run = RunDir(root / "runs" / f"{variant}.seed{seed}")
    recipe = load(catalog.find(STUDY), variant=None if variant == "base" else variant)
    write_text(run.recipe, to_yaml(recipe))
    scores = {"accuracy": {"value": value, "low": 0, "high": 1, "direction": "higher"}}
    models = [*recipe.models, *recipe.ensembles]
    write_text(run.scores, dump_json({m: {"val": {}, "test": scores} for m in models}))
    costs = {m: {"params": 100 + seed, "macs": 10} for m in models}
    write_text(run.environment, dump_json({
        "split": {"train": 3, "val": 1, "test": 2}, "host": {"cpu": "x", "python": "3"},
        "models": costs,
    }))  # fmt: skip
    write_text(run.weights("teacher"), "t")
    write_text(run.weights("student_a"), "a")
    one = CkaMap(
        first="teacher", second="student_a", layers_first=["conv", "relu", "fc"],
        layers_second=["relu", "fc"], kinds_first=["convolution", "activation", "linear"],
        kinds_second=["activation", "linear"], matrix=[[0.1, 0.2], [0.75, 0.3], [0.4, 0.5]],
        images=8, asked=8, batch=4, part="test", sha256_first=sha256(run.weights("teacher")),
        sha256_second=sha256(run.weights("student_a")), data=None,
    )  # fmt: skip
    write_text(run.cka("teacher", "student_a"), dump_json(one))
    return run


def test_the_finished_runs_of_a_sweep_are_gathered(tmp_path: Path) -> None:
    collect = module("kdml").collect
    write_run(tmp_path, "base", 1, 0.5)
    write_run(tmp_path, "simkd", 2, 0.4)
    unfinished = write_run(tmp_path, "alone", 1, 0.9)
    unfinished.environment.unlink()
    (tmp_path / "runs" / "search-base-0001").mkdir()
    found = collect(tmp_path)
    assert list(found["cells"]) == ["base/1", "simkd/2"]
    assert found["seeds"] == [1, 2]
    assert found["variants"] == ["base", "simkd"]
    assert found["command"] == f"edgekd sweep {STUDY} --variant base,simkd --seeds 1,2"
    first = found["cells"]["base/1"]
    assert first["scores"]["pair"]["accuracy"] == {"value": 0.5, "direction": "higher"}
    assert first["cka"] == {"teacher.student_a": 0.75}
    assert found["costs"]["student_a"]["params"] == 101  # not the grafted one
    assert "root" not in json.dumps(found)
    rendered = module("kdml_tables").blocks(json.loads(dump_json(found)))
    assert "| KD+ML V3 | S1 | 0.500 | not run |" in rendered["variants"]


def test_a_folder_without_finished_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no finished runs there"):
        module("kdml").collect(tmp_path)


def test_the_published_tables_hold_no_figure() -> None:
    """Should somebody find them, the page must say so no more."""
    text = (ROOT / "edgekd" / "papers" / "kdml.yaml").read_text(encoding="utf-8")
    rows = [row for table in yaml.safe_load(text)["tables"].values() for row in table["rows"]]
    scores = ("accuracy", "precision", "recall", "fidelity")
    assert all(row[name] is None for row in rows for name in scores if name in row)
