"""The page of RSKD: gathered from the folders of two sweeps, and saying what was not run."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edgekd import catalog
from edgekd.errors import DataError
from edgekd.recipe_load import load, read_tree, to_yaml
from edgekd.results import Predictions, dump_json
from edgekd.rundir import RunDir, write_text

ROOT = Path(__file__).parents[1]
SCORES = ("map_head", "map_medium", "map_tail", "map_groups", "map")
SHOTS = ["head", "medium", "tail"]
ENOUGH, SCARCE = [50, 20, 8], [50, 20, 4]  # test images of the three classes


def module(name: str) -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        return importlib.import_module(name)


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    return module("rskd_tables")


@pytest.fixture(scope="module")
def claims() -> ModuleType:
    return module("rskd_claims")


def cell(value: float, ap: list[float | None] | None = None) -> dict[str, Any]:
    """One run: the same for all scores; three classes."""
    scores = {name: {"value": value, "direction": "higher"} for name in SCORES}
    return {
        "model": "student",
        "scores": {"student": scores},
        "ap": ap or [value] * 3,
        "threshold": [value] * 3,
        "sensitivity": [value] * 3,
        "specificity": [value] * 3,
    }


def record(
    cells: dict[str, list[float]], test: list[int] = ENOUGH, val: list[int] | None = None
) -> dict[str, Any]:
    """The score of every variant for seeds 1, 2, ..."""
    parts = {"train": [90, 40, 10], "val": val or [9, 4, 1], "shots": SHOTS}
    return {
        "command": "c", "seeds": [1, 2, 3], "model": "student", "host": {"cpu": "x"},
        "split": {"train": 10, "val": 2, "test": 8},
        "costs": {"params": 310_426, "macs": 8_584_704},
        "classes": ["DR", "LS", "ST"], "test": test, "left_out": ["VH"],
        "by_seed": {str(seed): parts for seed in (1, 2, 3)},
        "cells": {
            f"{variant}/{seed}": cell(value)
            for variant, values in cells.items()
            for seed, value in enumerate(values, 1)
        },
    }  # fmt: skip


def line_of(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(f"| {start} |"))


def test_without_results_every_block_says_so(tables: ModuleType, claims: ModuleType) -> None:
    made = claims.blocks(dict.fromkeys(tables.STUDIES))
    text = (ROOT / "docs" / "papers" / "rskd.md").read_text(encoding="utf-8")
    for name, block in made.items():
        assert f"<!-- block {name} -->" in text
        assert "not run" in block.lower()
    own = [block for name, block in made.items() if name not in ("claims", "published")]
    assert set(own) == {tables.not_run_yet(study) for study in tables.STUDIES}
    rows = [line.split(" | ")[2:] for line in made["claims"].splitlines()[2:]]
    assert all(value.strip(" |") in ("not run", "–") for row in rows for value in row)


def test_the_studies_have_the_variants_of_the_tables(tables: ModuleType) -> None:
    for study in tables.STUDIES:
        names = ["base", *read_tree(catalog.find(f"studies/rskd-{study}"))["variants"]]
        assert sorted(names) == sorted(tables.variants_of(study))


def test_a_record_with_nothing_in_it_claims_nothing(claims: ModuleType) -> None:
    empty = record({})
    made = claims.blocks({"rfmid": empty, "synthetic": empty})
    for name, text in made.items():
        if name.endswith(("facts", "classes")):
            continue
        rows = [row for row in text.splitlines() if row.startswith("| ")][1:]
        assert rows
        for row in rows:
            assert "not run" in row, (name, row)
            assert not any(sign in row for sign in ("±", "nan", "["))


def test_one_study_alone_fills_its_own_blocks(claims: ModuleType) -> None:
    made = claims.blocks({"rfmid": record({"erm": [0.5, 0.6]}), "synthetic": None})
    assert line_of(made["rfmid-scores"], "plain (ERM)").startswith(
        "| plain (ERM) | 0.550 ± 0.071 | 0.550 ± 0.071 |"
    )
    assert line_of(made["rfmid-scores"], "RS").endswith("| not run | 0 |")
    assert made["synthetic-scores"].startswith("Not run yet")


def test_differences_to_plain_training_are_paired_over_seeds(tables: ModuleType) -> None:
    found = record({"erm": [0.50, 0.60, 0.70], "base": [0.60, 0.70]})
    text = tables.differences("rfmid", found)
    delta = "+0.100 [+0.100, +0.100]"
    assert line_of(text, "**RSKD**, by shot") == (
        f"| **RSKD**, by shot | {' | '.join([delta] * 5)} |"
    )
    assert "plain (ERM)" not in text


def test_classes_without_a_test_image_are_named_and_left_out(tables: ModuleType) -> None:
    found = record({"erm": [0.5, 0.5], "base": [0.6, 0.7]}, test=[50, 20, 0])
    text = tables.classes("rfmid", found)
    assert line_of(text, "DR").startswith(
        "| DR | head | 90 | 9 | 50 | 0.500 ± 0.000 | +0.150 [-0.485, +0.785] | not run | not run |"
    )
    assert "| ST |" not in text
    assert "Without a test image, and in no score: ST." in text
    assert "(1): VH." in text


def test_classes_are_counted_by_group_and_by_their_intervals(tables: ModuleType) -> None:
    found = record({"erm": [0.5, 0.5, 0.5], "rs": [0.6, 0.61, 0.62], "rw": [0.4, 0.6, 0.5]})
    for seed in (1, 2):  # one seed has no interval
        found["cells"][f"rs/{seed}"]["ap"][1] = None
    text = tables.counts("rfmid", found)
    assert line_of(text, "RS") == "| RS | 1, 0, 0 | 0, 0, 1 | 1, 0, 0 |"
    assert line_of(text, "RW") == "| RW | 0, 0, 1 | 0, 0, 1 | 0, 0, 1 |"
    assert line_of(text, "focal") == "| focal | not run | not run | not run |"


def test_thresholds_that_nothing_chose_do_not_count(tables: ModuleType) -> None:
    found = record({"erm": [0.3, 0.4]}, val=[9, 4, 0])
    text = tables.thresholds("rfmid", found)
    own = "0.350 ± 0.071"
    assert line_of(text, "plain (ERM)") == (
        "| plain (ERM) | " + " | ".join([own, own, "not run"] * 3) + " |"
    )
    assert "where 0.5 stays and does not count: ST." in text


def test_published_figures_stand_apart_and_are_not_compared(tables: ModuleType) -> None:
    text = tables.beside({"rfmid": record({"base": [0.5]}), "synthetic": None})
    assert line_of(text, "**RSKD**, by shot") == (
        "| **RSKD**, by shot | 0.3431 | 0.6304 | 0.2638 | 0.4585 | 0.500 | 0.500 | not run "
        "| not run | not comparable |"
    )
    rows = [row for row in text.splitlines() if row.startswith("| ")][1:]
    assert len(rows) == 14 + 3
    assert all(row.endswith("| not comparable |") for row in rows)
    assert "0.6300 (?)" in line_of(text, "RW")  # a total that is no mean
    assert line_of(text, "**RSKD**, by region").count("| – |") == 1  # there are no regions


@pytest.mark.parametrize(
    ("fixed", "wanted"),
    [
        ({"kd-t3": 0.4, "kd-t10": 0.4, "kd-t20": 0.4}, "**supported** (3 as claimed)"),
        ({"kd-t3": 0.6, "kd-t10": 0.4, "kd-t20": 0.4}, "**not supported** (2 as claimed, 1 against "
         "it)"),
        ({"kd-t3": 0.6, "kd-t10": 0.4}, "**not supported** (1 as claimed, 1 against it, 1 not "
         "run)"),
        ({"kd-t3": 0.4, "kd-t10": 0.4}, "**not run** (2 as claimed, 1 not run)"),
        ({"kd-t3": 0.4, "kd-t10": 0.4, "kd-t20": None}, "**cannot be concluded** (2 as claimed, "
         "1 undecided)"),
        ({}, "not run"),
    ],
)  # fmt: skip
def test_a_verdict_follows_from_the_intervals(
    claims: ModuleType, fixed: dict[str, float | None], wanted: str
) -> None:
    cells = {"rskd-look": [0.50, 0.51, 0.52]}
    for variant, value in fixed.items():
        cells[variant] = [0.4, 0.6, 0.5] if value is None else [value, value + 0.01, value + 0.02]
    text = claims.claims({"rfmid": None, "synthetic": record(cells)})
    row = line_of(text, "4. Dynamic weights beat any fixed temperature")
    assert row.endswith(f"| not run | {wanted} |")


def test_what_is_claimed_to_lose_must_lose(claims: ModuleType) -> None:
    losses = ("focal", "ldam", "db", "oltr")
    low, high = [0.40, 0.41, 0.42], [0.50, 0.51, 0.52]
    cells = {f"rskd-{loss}": high if loss in ("focal", "ldam") else low for loss in losses}
    cells |= {loss: low if loss in ("focal", "ldam") else high for loss in losses}
    found = record(cells)
    text = claims.claims({"rfmid": found, "synthetic": found})
    rows = [row for row in text.splitlines() if "RSKD + X" in row]
    assert rows[0].endswith("| – | **supported** (4 as claimed) |")
    assert rows[1].endswith("| **not supported** (2 as claimed, 2 against it) | – |")


def test_few_test_images_withhold_a_verdict(claims: ModuleType) -> None:
    plain, ours = [0.40, 0.41, 0.42], [0.50, 0.51, 0.52]
    cells = {"erm": plain, "base": ours, "rskd-region": ours, "rskd-feature": ours}
    text = claims.claims({"rfmid": record(cells, test=SCARCE), "synthetic": None})
    said = ("**cannot be concluded**: 1 of 1 tail classes have fewer than 5 test images (over "
            "seeds 3 as claimed)")  # fmt: skip
    assert text.count(said) == 2  # of the total, and of the tail
    assert "supported" not in text


def test_the_published_difference_stands_beside_each_comparison(claims: ModuleType) -> None:
    found = record({"erm": [0.4, 0.5], "base": [0.5, 0.6]})
    text = claims.comparisons("rfmid", found)
    assert line_of(text, "RSKD, by shot − plain (ERM), total") == (
        "| RSKD, by shot − plain (ERM), total | above | +0.0309 | +0.100 [+0.100, +0.100] "
        "| as claimed |"
    )
    assert "+0.0778" in line_of(text, "RSKD, by shot − plain (ERM), tail")
    assert line_of(text, "RSKD, by sign − fixed weights, T = 3, total").endswith(
        "| above | – | not run | not run |"
    )
    text = claims.comparisons("synthetic", found)
    assert "| +0.1518 |" in line_of(text, "RSKD, by colour − plain (ERM), tail")
    assert "| +0.0329 |" in line_of(text, "RSKD, by colour − plain (ERM), total")
    for loss, printed in (("focal", "+0.0138"), ("LDAM", "+0.0094"), ("DB loss", "-0.0148"),
                          ("OLTR", "-0.0020")):  # fmt: skip
        assert f"| {printed} |" in line_of(text, f"RSKD + {loss} − {loss}, total")
    row = line_of(text, "RSKD, by colour − fixed weights, T = 10, total")
    assert "| +0.0112 |" in row


def write_run(sweep: Path, variant: str, seed: int, *, targets: list[list[int]]) -> RunDir:
    """What a sweep leaves of a finished run, as far as it is read."""
    run = RunDir(sweep / "runs" / f"{variant}.seed{seed}")
    recipe = load(catalog.find("studies/rskd-synthetic"), variant="erm")
    write_text(run.recipe, to_yaml(recipe))
    score = {"value": 0.1 * seed, "low": 0, "high": 1, "direction": "higher", "images": 4}
    write_text(run.scores, dump_json({"student": {"val": {}, "test": {"map": score}}}))
    write_text(run.thresholds, dump_json({"student": [0.5, 0.4, 0.5]}))
    ids = [f"eye-{number}" for number in range(len(targets))]
    logits = np.array([[2, 1, 0], [1, -2, 0], [0, 0, 0], [-1, -1, 0]], dtype=np.float32)
    said = Predictions(ids, ids, np.array(targets), logits)
    for part in ("val", "test"):
        said.save(run.predictions("student", part))
    write_text(run.environment, dump_json({
        "split": {"train": 3, "val": 1, "test": 2}, "host": {"cpu": "x", "python": "3"},
        "models": {"student": {"params": 100 + len(variant), "macs": 10}},
        "classes": ["red-spots", "white-ring", "green-dot"],
        "learned": {"counts": [9, 5, 2], "shots": SHOTS},
    }))  # fmt: skip
    return run


TARGETS = [[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 0]]


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    write_text(tmp_path / "sweep.json", json.dumps({"recipe": "rskd-synthetic"}))
    return tmp_path


def test_the_finished_runs_of_a_sweep_are_gathered(sweep: Path, claims: ModuleType) -> None:
    write_run(sweep, "oltr", 2, targets=TARGETS)
    write_run(sweep, "erm", 1, targets=TARGETS)
    write_run(sweep, "base", 1, targets=TARGETS).environment.unlink()
    (sweep / "runs" / "search-base-0001").mkdir()
    found = module("rskd").collect(sweep)
    assert list(found["cells"]) == ["erm/1", "oltr/2"]
    assert (found["seeds"], found["variants"]) == ([1, 2], ["erm", "oltr"])
    assert found["command"] == "edgekd sweep studies/rskd-synthetic --variant erm,oltr --seeds 1,2"
    assert found["costs"]["params"] == 103  # of plain training: no memory
    assert found["test"] == [2, 1, 0]
    assert found["by_seed"]["2"] == {"train": [9, 5, 2], "val": [2, 1, 0], "shots": SHOTS}
    assert "white-ring" not in found["left_out"]
    assert "yellow-arc" in found["left_out"]
    first = found["cells"]["erm/1"]
    assert first["scores"]["student"]["map"] == {"value": 0.1, "direction": "higher"}
    assert first["ap"][:2] == [pytest.approx(5 / 6, abs=1e-6), 0.25]
    # from 0.4 on the second class is seen in images 1 and 3, and not in 2, where it is
    assert first["sensitivity"][:2] == [1.0, 0.0]
    assert first["specificity"][:2] == [0.5, pytest.approx(1 / 3, abs=1e-6)]
    kept = json.loads(dump_json(found))
    assert kept["cells"]["erm/1"]["ap"][2] is None  # no test image
    assert "root" not in json.dumps(kept)
    made = claims.blocks({"rfmid": None, "synthetic": kept})
    assert line_of(made["synthetic-scores"], "OLTR").endswith("| 0.200 | 1 |")
    assert "in no score: green-dot." in made["synthetic-classes"]


def test_runs_that_were_tested_on_other_images_are_refused(sweep: Path) -> None:
    write_run(sweep, "erm", 1, targets=TARGETS)
    write_run(sweep, "erm", 2, targets=[[1, 1, 0], *TARGETS[1:]])
    with pytest.raises(DataError, match="seed2: its classes or test images are not those"):
        module("rskd").collect(sweep)


def test_a_folder_without_finished_runs_is_refused(sweep: Path) -> None:
    with pytest.raises(DataError, match="no finished runs there"):
        module("rskd").collect(sweep)


def test_another_sweeps_folder_is_refused(tmp_path: Path) -> None:
    collect = module("rskd").collect
    with pytest.raises(DataError, match="not a folder of `edgekd sweep`"):
        collect(tmp_path)
    write_text(tmp_path / "sweep.json", json.dumps({"recipe": "kdml-ham10000"}))
    with pytest.raises(DataError, match="is of 'kdml-ham10000', expected one of rskd-rfmid, rskd-"):
        collect(tmp_path)
