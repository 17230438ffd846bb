"""The tables in docs/studies are what benchmarks/results says, to the last digit."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]


def study() -> ModuleType:
    spec = importlib.util.spec_from_file_location("study", ROOT / "benchmarks" / "study.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_table_can_be_made_again_from_its_results() -> None:
    module = study()
    papers = (ROOT / "benchmarks" / "papers.py").read_text(encoding="utf-8")
    walked = 0
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if "variants" not in record:  # a benchmark with a table of its own form, and its own test
            continue
        if f'record_of("{path.stem}")' in papers:  # on a page of docs/papers, with its own test
            continue
        document = ROOT / "docs" / "studies" / f"{path.stem}.md"
        text = document.read_text(encoding="utf-8")
        assert text == module.insert(text, module.render(record)), f"{document} is out of date"
        walked += 1
    assert walked >= 1


def test_a_cell_that_was_not_run_says_so_and_differences_are_paired() -> None:
    module = study()
    cell = {"seconds": 1.0, "scores": {"student": {"accuracy": {"value": 0.5}}}}
    better = {"seconds": 1.0, "scores": {"student": {"accuracy": {"value": 0.6}}}}
    record = {
        "name": "x", "command": "c", "seeds": [1, 2], "variants": ["alone", "base", "dkd"],
        "baseline": "alone", "model": "student", "teacher": None, "metrics": ["accuracy"],
        "split": {"train": 1, "val": 1, "test": 1},
        "cells": {"alone/1": cell, "alone/2": better, "base/1": better},
    }  # fmt: skip
    table = module.render(record)
    assert "| student | `alone` | 0.550 ± 0.071 |  | 2/2 |" in table
    assert "| student | `base` | 0.600 | +0.100 | 1/2 |" in table
    assert "| student | `dkd` | not run | not run | 0/2 |" in table
