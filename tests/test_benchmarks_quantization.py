"""The tables of fewer bits: made from what was measured, and saying what was not run."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "int8-ham10000.json"
DOCUMENT = ROOT / "docs" / "concepts" / "quantization.md"


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("quantization_table")


def test_the_document_can_be_made_again(table: ModuleType) -> None:
    record = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    text = DOCUMENT.read_text(encoding="utf-8")
    assert text == table.insert(text, record), "the document is out of date"


def row(accuracy: float, *, verdict: str = "passed", flips: int = 0) -> dict[str, Any]:
    return {
        "verdict": verdict, "loss": [0.7 - accuracy, 0.0, 0.0], "flips": flips, "images": 1000,
        "scores": {name: [accuracy, None, None] for name in ("accuracy", "macc", "ece", "brier")},
        "sensitivity": {"nv": [0.001, None, None], "mel": [0.02, None, None]},
        "bytes": 2_000_000, "float_layers": [],
    }  # fmt: skip


@pytest.fixture
def record() -> dict[str, Any]:
    rounds = {"onnx-fp32": [4.0, 8.0, 4.0], "onnxruntime-int8": [2.0, 4.0, 2.0],
              "openvino-int8": [1.0, 2.0, 1.0]}  # fmt: skip
    return {
        "seeds": [1, 2], "host": {"cpu": "x"}, "split": {"train": 1, "val": 2, "test": 3},
        "rows": {
            "resnet18/plain/1": {"onnx-fp32": row(0.7), "onnx-int8": row(0.69, flips=10)},
            "resnet18/plain/2": {
                "onnx-fp32": row(0.7), "onnx-int8": row(0.68, flips=30, verdict="refused")
            },
            "resnet18/qat/1": {"onnx-fp32": row(0.72), "onnx-int8": row(0.71)},
        },
        "timing": {"resnet18": {"rounds_ms": rounds, "ran": dict.fromkeys(rounds, "f32"),
                                "advised": "openvino-int8", "may_ship": list(rounds)}},
    }  # fmt: skip


def test_losses_flips_and_verdicts_are_over_seeds(table: ModuleType, record: Any) -> None:
    text = table.accuracy(record)
    line = next(line for line in text.splitlines() if "ResNet-18 | onnx int8 (PTQ)" in line)
    assert "| +1.50 [-4.85, +7.85] |" in line
    assert "| mel −2.0 |" in line
    assert "| 2.0 % |" in line
    assert line.endswith("| 1 passed, 1 refused |")
    assert "| ShuffleNetV2 x1.0 | onnx fp32 | not run |" in text


def test_training_in_int8_is_compared_with_the_student_before(
    table: ModuleType, record: Any
) -> None:
    lines = table.qat(record).splitlines()
    line = next(line for line in lines if "ResNet-18 | QAT without teacher" in line)
    assert "| 0.720 | 0.710 | -1.00 | +1.00 | passed | 1 |" in line


def test_latency_is_compared_round_by_round(table: ModuleType, record: Any) -> None:
    text = table.latency(record)
    assert "| onnxruntime int8 (PTQ) | 2.00 ms f32, 2.00x [2.00, 2.00] | not run |" in text


def test_the_advice_is_right_if_it_names_one_of_the_fastest(table: ModuleType, record: Any) -> None:
    found = record["timing"]["resnet18"]
    assert table.fastest_of(found) == ["openvino-int8"]
    assert table.agrees(found)
    assert not table.agrees({**found, "advised": "onnx-fp32"})
    assert table.agrees({**found, "may_ship": [], "advised": None})
    found["may_ship"].remove("openvino-int8")
    assert table.fastest_of(found) == ["onnxruntime-int8"]
