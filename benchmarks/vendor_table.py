"""The table of `against_vendor.py`, computed from what it measured."""

from __future__ import annotations

from typing import Any

import numpy as np
from study import insert as _insert

from edgekd.stats import percentile_interval

CLOCK = "edgekd, OpenVINO's clock"
TOOLS = ("edgekd, openvino", "benchmark_app", CLOCK, "edgekd, onnxruntime", "bare loop")
PAIRS = (("edgekd, openvino", "benchmark_app"), (CLOCK, "benchmark_app"),
         ("edgekd, onnxruntime", "bare loop"))  # fmt: skip
SMALL_MS, BOUND, SMALL_BOUND = 3.0, 0.05, 0.10
RESAMPLES = 10_000


def ratio(found: dict[str, list[float]], ours: str, theirs: str) -> tuple[float, float, float]:
    """Ours over theirs, round by round: median and its 95 % bootstrap interval."""
    ratios = np.array(found[ours]) / np.array(found[theirs])
    drawn = np.random.default_rng(0).integers(0, len(ratios), (RESAMPLES, len(ratios)))
    low, high = percentile_interval(np.median(ratios[drawn], axis=1))
    return float(np.median(ratios)), low, high


def bound(median_ms: float) -> float:
    """How far from 1 a ratio may be."""
    return SMALL_BOUND if median_ms < SMALL_MS else BOUND


def agrees(found: dict[str, list[float]], ours: str, theirs: str) -> bool:
    """Whether the interval of the ratio reaches into the bound."""
    _, low, high = ratio(found, ours, theirs)
    limit = bound(float(np.median(found[theirs])))
    return low <= 1 + limit and high >= 1 - limit


def render(record: dict[str, Any]) -> str:
    lines = [
        f"{record['host'].get('cpu')}, one thread, batch 1, {record['seconds']:g} s per round.",
        "",
        "| model | ours | theirs | ours, ms | theirs, ms | ratio | bound | rounds |",
        "|---|---|---|---:|---:|---:|---|---:|",
    ]
    for name, model in record["models"].items():
        found = model["rounds_ms"]
        for ours, theirs in PAIRS:
            middle, low, high = ratio(found, ours, theirs)
            own, other = (float(np.median(found[tool])) for tool in (ours, theirs))
            limit = (
                f"{100 * bound(other):.0f} %: {'met' if agrees(found, ours, theirs) else 'not met'}"
            )
            lines.append(
                f"| {name} | {ours} | {theirs} | {own:.3f} | {other:.3f} | "
                f"{middle:.3f} [{low:.3f}, {high:.3f}] | {limit} | {len(found[ours])} |"
            )
    return "\n".join(lines)


def insert(document: str, record: dict[str, Any]) -> str:
    return _insert(document, render(record) if record else "not run")
