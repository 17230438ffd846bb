"""The study of the teacher cache: its table is what was measured, its verdict is computed."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("teacher_cache")


def test_the_table_can_be_made_again_from_its_results(benchmark: ModuleType) -> None:
    record = json.loads(benchmark.RESULTS.read_text(encoding="utf-8"))
    assert sorted(record["pairs"]) == sorted(benchmark.PAIRS)
    for pair in record["pairs"].values():
        assert pair["rounds"] >= 7
        assert pair["block_ms"] >= 100
        assert {len(times) for times in pair["step_ms"].values()} == {pair["rounds"]}
    text = benchmark.DOCUMENT.read_text(encoding="utf-8")
    assert text == benchmark.insert(text, benchmark.render(record)), "the study is out of date"


def test_a_ratio_is_of_medians_and_rounds_are_drawn_together(benchmark: ModuleType) -> None:
    alone = [100.0, 110.0, 300.0, 105.0, 95.0, 102.0, 98.0]  # one round was disturbed, in all arms
    times = {"alone": alone, "cached": [1.05 * value for value in alone]}
    assert benchmark.ratio(times, "cached") == pytest.approx((1.05, 1.05, 1.05))


@pytest.mark.parametrize(
    ("low", "high", "answer"),
    [(1.01, 1.05, "yes: interval below 1.10"), (1.05, 1.2, "yes: interval includes 1.10"),
     (1.1, 1.2, "yes: interval includes 1.10"), (1.11, 1.2, "no: above 1.10")],
)  # fmt: skip
def test_the_verdict_follows_from_the_interval(
    benchmark: ModuleType, low: float, high: float, answer: str
) -> None:
    assert benchmark.verdict(low, high) == answer


def test_a_smoke_run_times_all_arms_and_touches_no_document(
    benchmark: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = benchmark.DOCUMENT.read_bytes()
    results = tmp_path / "results.json"
    benchmark.main(["--smoke", "--rounds", "2", "--results", str(results)])
    record = json.loads(results.read_text(encoding="utf-8"))
    pair = record["pairs"]["smoke"]
    assert sorted(pair["step_ms"]) == ["alone", "cached", "live"]
    assert all(len(times) == 2 and min(times) > 0 for times in pair["step_ms"].values())
    assert pair["build_ms_per_image"] > 0
    assert pair["host"]["cpu"]
    captured = capsys.readouterr()
    assert captured.out.strip() == benchmark.render(record).strip()
    assert "4 views of 21 images: 4 computed" in captured.err
    assert benchmark.DOCUMENT.read_bytes() == before


def test_too_few_rounds_are_refused(
    benchmark: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        benchmark.main(["--rounds", "3"])
    assert "at least 7" in capsys.readouterr().err
