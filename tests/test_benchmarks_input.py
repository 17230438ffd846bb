"""The input benchmark runs, and its tables are what its results say."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("input_table")


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """The record and the printed tables of a few drawn images."""
    folder = tmp_path_factory.mktemp("smoke")
    command = [sys.executable, "benchmarks/input_pipeline.py", "--smoke",
               "--results", str(folder / "record.json"), "--scratch", str(folder)]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in folder.iterdir()] == ["record.json"]
    return json.loads((folder / "record.json").read_text(encoding="utf-8")), done.stdout


def test_every_setting_is_measured_in_every_round(smoke: tuple[dict[str, Any], str]) -> None:
    record, _ = smoke
    found = {(c["source"], c["workers"], c["kind"], c.get("augment")) for c in record["cells"]}
    assert found == {
        (source, workers, kind, augment)
        for source in ("raw", "64x48", "prepared", "memory")
        for workers in (0, 1)
        for kind, augment in (("rate", True), ("rate", False), ("epoch", None))
    }
    for cell in record["cells"]:
        assert len(cell["rounds"]) == record["rounds"] == 2
        for one in cell["rounds"]:
            assert 0 < one["first"] <= one["waiting"] <= one["seconds"]
            assert cell["kind"] == "rate" or one["waiting"] < one["seconds"]
    assert record["images"] == 24
    assert record["copy_bytes"] == 24 * 24 * 24 * 3
    assert record["pictures"]["raw"] == {"size": "24x24", "is_mixed": False, "mean_bytes": None}
    assert record["pictures"]["64x48"]["size"] == "64x48"
    assert record["pictures"]["64x48"]["mean_bytes"] > 500
    assert record["host"]["python"]
    assert str(ROOT) not in json.dumps(record)


def test_what_is_printed_is_made_from_the_record(
    smoke: tuple[dict[str, Any], str], table: ModuleType
) -> None:
    record, printed = smoke
    assert printed == table.render(record) + "\n"
    assert printed.count("| raw, 64x48 | 1 |") == printed.count("| in memory | 0 |") == 2


def drawn(seconds: dict[tuple[str, int], list[float]]) -> dict[str, Any]:
    cells = [{"kind": "epoch", "source": source, "workers": workers,
              "rounds": [{"seconds": s, "waiting": s / 2, "first": 0.1} for s in values]}
             for (source, workers), values in seconds.items()]  # fmt: skip
    return {"cells": cells}


def test_the_recommendation_is_the_fastest_epoch_and_names_its_equals(table: ModuleType) -> None:
    record = drawn(
        {
            ("raw", 0): [4.0, 4.4, 4.2, 4.0, 4.4],
            ("raw", 1): [3.0, 3.2, 3.1, 3.0, 3.2],
            ("prepared", 0): [2.0, 2.2, 2.1, 2.0, 2.2],
            ("prepared", 1): [2.1, 2.1, 2.2, 1.9, 2.3],
            ("memory", 0): [1.0] * 5,  # nothing that a recipe can ask for
        }
    )
    found = table.recommend(record, "raw")
    assert (found["source"], found["workers"]) == ("prepared", 0)
    assert found["ratio"] == pytest.approx((2.0, 2.0, 2.0))
    assert found["ties"] == [{"source": "prepared", "workers": 1}]


def test_an_interval_holds_its_median_and_repeats(table: ModuleType) -> None:
    median, low, high = table.interval([1.0, 2.0, 3.0, 4.0, 50.0])
    assert (median, low) == (3.0, 1.0)
    assert low <= median <= high <= 50.0
    assert table.interval([1.0, 2.0, 3.0, 4.0, 50.0]) == (median, low, high)
    assert table.interval([2.0]) == (2.0, 2.0, 2.0)


def test_the_tables_in_the_document_are_what_the_results_say(table: ModuleType) -> None:
    study = importlib.import_module("study")
    document = ROOT / "docs" / "studies" / "input-pipeline.md"
    text = document.read_text(encoding="utf-8")
    results = BENCHMARKS / "results" / "input_pipeline.json"
    made = "Not measured yet.\n"
    if results.is_file():
        made = table.render(json.loads(results.read_text(encoding="utf-8")))
    assert text == study.insert(text, made), f"{document} is out of date"
