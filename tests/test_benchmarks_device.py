"""The studies of latencies and of cold starts: their tables are what was measured."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
RESULTS, DOCS = ROOT / "benchmarks" / "results", ROOT / "docs" / "studies"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module(request.param)


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("module", ["vendor_table"], indirect=True)
class TestAgainstVendor:
    def test_the_table_can_be_made_again(self, module: ModuleType) -> None:
        record = read("against_vendor")
        for model in record["models"].values():
            assert sorted(model["rounds_ms"]) == sorted(module.TOOLS)
            assert {len(times) >= 7 for times in model["rounds_ms"].values()} == {True}
        text = (DOCS / "against-vendor.md").read_text(encoding="utf-8")
        assert text == module.insert(text, record), "the study is out of date"

    def test_a_round_is_compared_with_itself(self, module: ModuleType) -> None:
        times = {"a": [2.0, 22.0, 2.2], "b": [1.0, 11.0, 1.1]}  # one round was disturbed
        assert module.ratio(times, "a", "b") == pytest.approx((2.0, 2.0, 2.0))

    def test_a_small_model_may_differ_more(self, module: ModuleType) -> None:
        close = {"a": [1.08] * 7, "b": [1.0] * 7}
        assert module.agrees(close, "a", "b")
        large = {name: [10 * value for value in values] for name, values in close.items()}
        assert not module.agrees(large, "a", "b")


@pytest.mark.parametrize("module", ["cold_start"], indirect=True)
class TestColdStart:
    def test_the_table_can_be_made_again(self, module: ModuleType) -> None:
        record = read("cold_start")
        names = list(module.commands(Path("bundle"), Path("picture")))
        record["rounds_s"] = {name: record["rounds_s"][name] for name in names}
        assert {len(times) >= 7 for times in record["rounds_s"].values()} == {True}
        text = (DOCS / "cold-start.md").read_text(encoding="utf-8")
        assert text == module.insert(text, module.render(record)), "the study is out of date"

    def test_numpy_is_the_measure(self, module: ModuleType) -> None:
        record = {"host": {"cpu": "x"}, "rounds_s": {"import numpy": [0.1, 0.3],
                                                     "other": [0.2, 0.6]}}  # fmt: skip
        lines = module.render(record).splitlines()
        assert "| `import numpy` | 200 | 1 |" in lines
        assert "| `other` | 400 | 2.00 [2.00, 2.00] |" in lines
