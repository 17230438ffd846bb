"""The tables in docs/papers are what benchmarks/results and the published tables say."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edgekd.results import Predictions

ROOT = Path(__file__).parents[1]


def load(name: str) -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")  # its scripts import each other
        return importlib.import_module(name)


@pytest.fixture(scope="module")
def papers() -> ModuleType:
    return load("papers")


def cell(value: float) -> dict[str, Any]:
    scores = {name: {"value": value} for name in ("accuracy", "macc", "weighted_f1")}
    return {"scores": {"student": scores}, "own_scores": {"expert_a": scores}}


def record(**cells: float) -> dict[str, Any]:
    """`base_1=0.8` is the recipe itself with seed 1."""
    return {
        "seeds": [1, 2, 3],
        "variants": ["base", "alone", "kd", "sdd", "sfa", "sfa-cfa"],
        "model": "student",
        "cells": {name.replace("_", "/"): cell(value) for name, value in cells.items()},
    }


def test_every_document_is_made_again_from_its_results(papers: ModuleType) -> None:
    for name, blocks in papers.PAPERS.items():
        path = ROOT / "docs" / "papers" / f"{name}.md"
        text = path.read_text(encoding="utf-8")
        assert text == papers.render(text, blocks()), f"{path} is out of date"
        shown = [match[1] for match in papers.BLOCK.findall(text)]
        assert sorted(shown) == sorted(blocks())  # none is left out


def test_published_and_measured_stand_in_columns_of_their_own(papers: ModuleType) -> None:
    found = record(base_1=0.8, base_2=0.7, kd_1=0.6, kd_2=0.6, kd_3=0.6)
    table = papers.methods(found, "umkd_table1", "sources_imbalanced", ["accuracy"])
    lines = {line.split(" | ")[0].strip("| "): line for line in table.splitlines()}
    assert lines["KD"] == (
        "| KD | 0.8906 | 0.8839 | 0.600 ± 0.000 | +0.150 [-0.485, +0.785] "
        "| +0.150 [-0.485, +0.785] | 3 |"
    )
    assert lines["**UMKD** (`paper`)"].endswith("| 0.9102 | 0.9023 | 0.750 ± 0.071 |  |  | 2 |")
    assert lines["expert_a, on its own data"].startswith(
        "| expert_a, on its own data | 0.9153 | 0.8948 | 0.750"
    )


def test_what_was_not_run_says_so(papers: ModuleType) -> None:
    table = papers.methods(record(base_1=0.8), "umkd_table1", "target_imbalanced", ["accuracy"])
    sdd = next(line for line in table.splitlines() if line.startswith("| SDD"))
    assert sdd == "| SDD | 0.8993 | 0.8881 | not run | not run | not run | 0 |"
    fitnet = next(line for line in table.splitlines() if line.startswith("| FitNet"))
    assert "| 0.7906 (?) |" in fitnet  # a printed figure that cannot be right


def test_modules_are_marked_and_compared_with_none(papers: ModuleType) -> None:
    table = papers.modules(record(alone_1=0.5, alone_2=0.5, sfa_1=0.6, sfa_2=0.6))
    lines = table.splitlines()[2:]
    assert len(lines) == 8
    assert lines[1].startswith("| ✓ |  |  | 0.600 ± 0.000 | 0.600 ± 0.000 | +0.100 [+0.100, +0.1")
    assert lines[4].startswith("| ✓ | ✓ |  | not run |")


def test_a_block_that_nobody_makes_is_named(papers: ModuleType) -> None:
    with pytest.raises(SystemExit, match="there is no block 'x'; known: y"):
        papers.render("<!-- block x -->\n\n<!-- end -->", {"y": ""})


def test_proportions_count_what_is_named_and_what_is_right(papers: ModuleType) -> None:
    one = {"named": [0.75, 0.25], "recall": [1.0, 0.5], "accuracy": 0.75}
    other = {"named": [0.25, 0.75], "recall": [0.5, 1.0], "accuracy": 0.25}
    found = {
        "classes": ["nv", "mel"],
        "test": [0.5, 0.5],
        "runs": {
            "base.seed1": {"student": one, "expert_a": other},
            "base.seed2": {"student": other},
            "sfa-cfa.seed1": {"student": one},
        },
    }
    lines = papers.proportions(found, ["mel"]).splitlines()
    assert lines[2:] == [
        "| *the test images* | 0.50 |  |  |  |",
        "| expert_a | 0.75 | 1.00 | 0.250 | 1 |",
        "| **UMKD** (`paper`) | 0.50 | 0.75 | 0.500 | 2 |",
    ]


def test_correcting_an_experts_logits_changes_what_it_names() -> None:
    shift = load("class_shift")
    logits = np.array([[1.0, 0.0], [0.5, 0.0], [0.0, 2.0]], dtype=np.float32)
    targets = np.array([0, 1, 1])
    ids = ["a", "b", "c"]
    predictions = Predictions(ids, ids, targets, logits)
    plain = shift.counts(predictions)
    assert plain["named"] == [pytest.approx(2 / 3), pytest.approx(1 / 3)]
    assert plain["recall"] == [1.0, 0.5]
    corrected = shift.counts(predictions, np.log(np.array([0.5, 0.5]) / np.array([0.6, 0.4])))
    assert corrected["accuracy"] == pytest.approx(2 / 3)
    more = shift.counts(predictions, np.log(np.array([0.5, 0.5]) / np.array([0.7, 0.3])))
    assert more["recall"] == [1.0, 1.0]
