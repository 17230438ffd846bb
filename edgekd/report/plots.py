"""The figures of the page, each from report data to one SVG. Never told apart by hue alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekd.report.figure import (
    DASHES,
    HATCHES,
    INK,
    MARKERS,
    SERIES,
    SOFT,
    canvas,
    plain_ticks,
    svg,
)
from edgekd.report.label_records import LabelSubject
from edgekd.report.mask_records import MaskSubject, SubjectKind
from edgekd.report.records import HostTable, ReportData, Row, Subject
from edgekd.report.words import integer, significant

PHASES = ("decode", "preprocess", "infer", "postprocess")


def accuracy_latency(data: ReportData, host: HostTable, name: str) -> str | None:
    """Score with its interval against latency (log): upper left is better."""
    rows = [row for row in host.rows if row.timing and row.score and row.score.value is not None]
    if not rows:
        return None
    with canvas(0.27 * len(rows) + 3.0) as (figure, axes):
        for index, row in enumerate(rows):
            assert row.timing
            assert row.score
            assert row.score.value is not None
            value, low, high = row.score.value, row.score.low, row.score.high
            latency, colour = row.timing.latency.p50, _colour(row)
            if low is not None and high is not None:
                axes.plot([latency, latency], [low, high], color=colour, lw=1.4)
            refused = row.gate == "refused"
            axes.plot([latency], [value], MARKERS[index % len(MARKERS)], color=colour, ms=9,
                      markerfacecolor="none" if refused else colour, markeredgewidth=1.6,
                      label=_label(row, host) + (" (refused)" if refused else ""))  # fmt: skip
            if row.deploy:
                # the fastest that may ship: to its left there is room
                axes.annotate("deploy", (latency, value), xytext=(-9, 0), weight="bold", ha="right",
                              va="center", textcoords="offset points", color=INK)  # fmt: skip
        axes.set_xscale("log")
        plain_ticks(axes.xaxis)
        _pad_log(axes, [row.timing.latency.p50 for row in rows if row.timing])
        axes.set_xlabel("latency p50 at batch 1, ms (log scale)")
        axes.set_ylabel(data.primary_label)
        figure.legend(loc="outside lower left", ncols=1, handletextpad=0.4, labelspacing=0.35)
        best = "; ".join(f"{row.label}: {row.score.value:.3f} at "
                         f"{significant(row.timing.latency.p50)} ms"
                         for row in rows if row.score and row.timing
                         and row.score.value is not None)  # fmt: skip
        return svg(figure, name, f"{data.primary_label} against latency on {host.name}. {best}")


def latency_distribution(host: HostTable, name: str) -> str | None:
    """A histogram per artifact on one log axis, with marks at p50 and p95."""
    rows = [row for row in host.rows if row.timing and len(row.timing.samples_ms) > 1]
    if not rows:
        return None
    every = np.concatenate([row.timing.samples_ms for row in rows if row.timing])
    edges = np.geomspace(every.min() * 0.97, every.max() * 1.03, 121)
    with canvas(0.52 * len(rows) + 0.9) as (figure, axes):
        for index, row in enumerate(rows):
            assert row.timing
            base = len(rows) - 1 - index
            counts, _ = np.histogram(row.timing.samples_ms, edges)
            heights = base + 0.8 * counts / counts.max()
            axes.stairs(heights, edges, baseline=base, fill=True, color=_colour(row), alpha=0.55)
            for value, style in ((row.timing.latency.p50, "-"), (row.timing.latency.p95, ":")):
                axes.plot([value, value], [base, base + 0.85], style, color=INK, lw=1.5)
        axes.set_xscale("log")
        plain_ticks(axes.xaxis)
        axes.set_yticks([len(rows) - 0.65 - i for i in range(len(rows))],
                        [_label(row, host, split=True) for row in rows])  # fmt: skip
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.set_ylim(-0.1, len(rows))
        axes.set_xlabel("one call at batch 1, ms (log); line p50, dots p95")
        words = "; ".join(f"{row.label}: p50 {significant(row.timing.latency.p50)}, "
                          f"p95 {significant(row.timing.latency.p95)} ms"
                          for row in rows if row.timing)  # fmt: skip
        return svg(figure, name, f"Latency distribution on {host.name}. {words}")


def phases(host: HostTable, name: str) -> str | None:
    """Stacked medians of the phases of one prediction."""
    rows = [row for row in host.rows if row.timing and row.timing.phases]
    if not rows:
        return None
    labels = [_label(row, host, split=True) for row in rows]
    with canvas(0.46 * len(rows) + 1.2) as (figure, axes):
        left = np.zeros(len(rows))
        for index, phase in enumerate(PHASES):
            values = np.array([
                row.timing.phases[phase].p50 if row.timing and phase in row.timing.phases else 0.0
                for row in rows
            ])  # fmt: skip
            if not values.any():
                continue
            axes.barh(range(len(rows)), values, 0.6, left=left, label=phase, edgecolor=INK,
                      color=SERIES[index], alpha=0.8, hatch=HATCHES[index], lw=0.6)  # fmt: skip
            left += values
        for index, total in enumerate(left):
            axes.text(total, index, f"  {significant(float(total))}", va="center")
        axes.set_yticks(range(len(rows)), labels)
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.set_xlim(0, float(left.max()) * 1.15)
        axes.set_xlabel("sum of the medians, ms")
        figure.legend(loc="outside lower left", ncols=4, columnspacing=1.0, handlelength=1.4,
                      handletextpad=0.4)  # fmt: skip
        words = "; ".join(f"{label.replace(chr(10), ' ')}: {significant(float(total))} ms"
                          for label, total in zip(labels, left, strict=True))  # fmt: skip
        return svg(figure, name, f"Phases of one prediction on {host.name}. {words}")


def per_class(data: ReportData, name: str) -> str | None:
    """Sensitivity per class with intervals, one bar per model."""
    subjects = data.subjects
    if not subjects:
        return None
    counted = list(zip(data.classes, subjects[0].support, strict=True))
    bars = [(one, one.recall, one.recall_low, one.recall_high) for one in subjects]
    words = "Sensitivity per class; the same figures are in the table below"
    return _bars(counted, bars, "sensitivity (recall), with 95 % CI", name, words)


def per_kind(data: ReportData, name: str) -> str | None:
    """Mean F-score of masks per kind of image with intervals, one bar per model."""
    if data.masks is None or not data.masks.subjects:
        return None
    counted = [(kind.name, kind.images) for kind in data.masks.kinds]
    bars = [
        (
            one,
            [f.fscore for f in one.kinds],
            [f.low for f in one.kinds],
            [f.high for f in one.kinds],
        )
        for one in data.masks.subjects
    ]
    words = "F-score per kind of image; the same figures are in the table below"
    return _bars(counted, bars, "F-score, mean of images, with 95 % CI", name, words)


Known = Sequence[float | None]


def _bars(
    counted: list[tuple[str, int]],
    bars: Sequence[tuple[Subject | MaskSubject, Known, Known, Known]],
    label: str,
    name: str,
    words: str,
) -> str:
    """Values from 0 to 1 with their bounds, a bar per subject at each of the named places."""
    count, each = len(counted), 0.8 / len(bars)
    with canvas(max(2.0, 0.24 * count * len(bars) + 1.2)) as (figure, axes):
        for index, (one, known, lows, highs) in enumerate(bars):
            places = np.arange(count) + (index - (len(bars) - 1) / 2) * each
            values = np.array([value or 0.0 for value in known])
            axes.barh(places, values, each * 0.9, label=one.label, color=subject_colour(one.kind),
                      hatch=HATCHES[index % len(HATCHES)], alpha=0.75, edgecolor=INK,
                      linewidth=0.6)  # fmt: skip
            for place, low, high in zip(places, lows, highs, strict=True):
                if low is not None and high is not None:
                    axes.plot([low, high], [place, place], color=INK, lw=1.2)
        ticks = [f"{_short(text)}\nn = {integer(n)}" for text, n in counted]
        axes.set_yticks(range(count), ticks)
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.set_xlim(0, 1)
        axes.set_xlabel(label)
        figure.legend(loc="outside lower left", ncols=1, labelspacing=0.35)
        return svg(figure, name, words)


def reliability(
    subjects: Sequence[Subject | LabelSubject], name: str, *, labels: bool = False
) -> str | None:
    """How often the model is right against how sure it is; on the diagonal it is calibrated.

    With several labels per image: how often a label is there against its probability.
    """
    if not subjects:
        return None
    with canvas(4.0) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=SOFT, lw=1, ls="--", label="calibrated")
        for index, one in enumerate(subjects):
            sure, right, images = (np.array(column) for column in zip(*one.bins, strict=True))
            colour = subject_colour(one.kind)
            axes.plot(sure, right, color=colour, lw=1.2, ls=DASHES[index % len(DASHES)])
            axes.scatter(sure, right, s=14 + 130 * images / images.sum(), color=colour,
                         marker=MARKERS[1 + index % 5], alpha=0.75,
                         label=f"{one.label}: ECE {one.ece:.3f}")  # fmt: skip
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.02)
        said, counted = ("probability", "labels") if labels else ("confidence", "images")
        axes.set_xlabel(f"{said} (mean of the bin; larger marks: more {counted})")
        axes.set_ylabel("share that is there" if labels else "share of right decisions")
        axes.legend(loc="upper left", labelspacing=0.5)
        words = "; ".join(f"{one.label}: ECE {one.ece:.3f}" for one in subjects)
        return svg(figure, name, f"Reliability diagram. {words}")


def _colour(row: Row) -> str:
    """By precision; the teacher has its own."""
    if row.role == "teacher":
        return SERIES[0]
    family = "int8" if row.precision.startswith("int8") else row.precision
    return {"fp32": SERIES[1], "int8": SERIES[2], "fp16": SERIES[3]}.get(family, SERIES[4])


def subject_colour(kind: SubjectKind) -> str:
    """One for teachers, students and artifacts."""
    return {"teacher": SERIES[0], "student": SERIES[1], "artifact": SERIES[2]}[kind]


def _label(row: Row, host: HostTable, split: bool = False) -> str:
    """Model and artifact; the setting too, where an artifact was measured in several."""
    twins = sum(other.artifact == row.artifact and other.model == row.model for other in host.rows)
    space = "\n" if split else " "
    label = f"{_short(row.model)}{space}{row.artifact}"
    return f"{label} ({row.timing.setting})" if twins > 1 and row.timing else label


def _short(text: str, most: int = 22) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _pad_log(axes: Any, values: list[float]) -> None:
    """Room beside the outermost points, so that labels do not leave the picture."""
    spread = max(values) / min(values)
    axes.set_xlim(min(values) / (1.3 * spread**0.25), max(values) * 1.3)
