"""The study of hardware settings: its tables are what was measured, its sentences are computed."""

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
RESULTS = ROOT / "benchmarks" / "results" / "device_settings.json"
DOCUMENT = ROOT / "docs" / "studies" / "device-settings.md"


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("settings_table")


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("study")


def test_the_tables_can_be_made_again_from_their_results(
    table: ModuleType, study: ModuleType
) -> None:
    record = json.loads(RESULTS.read_text(encoding="utf-8"))
    for found in record["devices"].values():
        assert found["rounds"] >= 7
        assert found["block_ms"] >= 100
        assert len(found["networks"]) == 5
        for row in found["networks"].values():
            assert sorted(row["step_ms"]) == sorted(table.SETTINGS)
            assert {len(times) for times in row["step_ms"].values()} == {found["rounds"]}
    text = DOCUMENT.read_text(encoding="utf-8")
    assert text == study.insert(text, table.render(record)), "the study is out of date"


def row(family: str, **factors: float) -> dict[str, Any]:
    """A network whose settings take these parts of the time of plain fp32."""
    base = [100.0, 104.0, 300.0, 98.0, 101.0, 99.0, 102.0]  # one round was disturbed, in all
    names = {"last": "channels_last", "bf16": "bf16 + channels_last",
             "compile": "compile + channels_last"}  # fmt: skip
    times = {"fp32": base} | {names[k]: [v * ms for ms in base] for k, v in factors.items()}
    return {"family": family, "size": 64, "batch": 32, "first_step_s": dict.fromkeys(times, 40.0),
            "step_ms": times}  # fmt: skip


def test_a_speed_compares_each_round_with_itself(table: ModuleType) -> None:
    times = row("dense", last=0.8)["step_ms"]
    assert table.speed(times, "channels_last", "fp32") == pytest.approx((1.25, 1.25, 1.25))


def test_the_sentences_follow_from_the_numbers(table: ModuleType) -> None:
    networks = {
        "one": row("dense", last=0.8, bf16=0.4, compile=0.8),
        "two": row("dense", last=0.9, bf16=0.6, compile=0.9),
        "three": row("dense", last=1.0, bf16=0.7, compile=1.1),
        "small": row("depthwise", last=1.25),
    }
    found = list(table.conclusions({"networks": networks}))
    assert found == [
        "- dense: `channels_last: true` is faster on 2 of 3 networks and slower on 0 (1.00 to 1.25 "
        "times the speed of `fp32`). The evidence is for `true`, as is the default.",
        "- dense: `precision: bf16-mixed` is faster on 3 of 3 networks and slower on 0 (1.43 to "
        "2.00 times the speed of `channels_last`). The evidence is for `bf16-mixed`, not for the "
        "default, `32-true`.",
        "- dense: `compile: true` is faster on 0 of 3 networks and slower on 1 (0.91 to 1.00 times "
        "the speed of `channels_last`). The evidence is for `false`, as is the default.",
        "- depthwise: `channels_last: true` is faster on 0 of 1 networks and slower on 1 (0.80 to "
        "0.80 times the speed of `fp32`). The evidence is for `false`, not for the default, "
        "`true`.",
    ]
    assert table.pays_after(networks["three"]) == "40 s, never"
    assert table.pays_after(row("dense", last=1.0, compile=0.5)) == "40 s, 792 steps"


def test_a_smoke_run_times_all_settings_and_touches_no_document(tmp_path: Path) -> None:
    before = DOCUMENT.read_bytes()
    results = tmp_path / "results.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "device_settings.py"), "--smoke",
               "--rounds", "2", "--results", str(results)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(results.read_text(encoding="utf-8"))["devices"]["cpu"]
    (network,) = found["networks"].values()
    assert list(network["step_ms"]) == ["fp32", "channels_last", "bf16", "bf16 + channels_last"]
    assert all(len(times) == 2 and min(times) > 0 for times in network["step_ms"].values())
    assert found["host"]["cpu"]
    assert "| quickstart's student | 32, 4 |" in done.stdout
    assert DOCUMENT.read_bytes() == before


def test_too_few_rounds_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    with pytest.raises(SystemExit):
        importlib.import_module("device_settings").main(["--rounds", "3"])
    assert "at least 7" in capsys.readouterr().err
