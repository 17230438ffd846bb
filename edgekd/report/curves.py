"""What is seen of training: loss terms, validation scores, and what losses note, by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekd.report.figure import DASHES, INK, MARKERS, SERIES, canvas, svg
from edgekd.report.records import Curve, ReportData, StageCurves
from edgekd.report.section import Section
from edgekd.report.words import NOT_MEASURED, NOT_RUN, plural

MOST = 12  # curves of one figure


def section(data: ReportData, key: str) -> Section:
    """The curves of all stages."""
    section = Section(f"{key}-training", "Training")
    idle = []
    for index, stage in enumerate(data.stages):
        found = _figures(stage, data.primary_label, f"{key}-tr{index}")
        section.figures += found
        if not found:
            idle.append(stage.stage)
    if idle:
        section.missing = f"Stage {', '.join(idle)}: {NOT_RUN}."
    elif not data.stages:
        section.missing = f"Training: {NOT_MEASURED} here (a bundle does not carry its curves)."
    return section


def _figures(stage: StageCurves, primary_label: str, name: str) -> list[tuple[str, str]]:
    found = []
    for kind, what in (("terms", "loss terms"), ("val", "validation score")):
        drawn = curves(stage, kind, primary_label, f"{name}{kind}")
        if drawn:
            took = f", {stage.seconds:.0f} s" if stage.seconds is not None else ""
            ran = len((stage.terms or stage.val)[0].epochs)
            caption = f"Stage {stage.stage}: {what}, {ran} of {plural(stage.epochs, 'epoch')}"
            found.append((drawn, f"{caption}{took}."))
    for number, (title, noted) in enumerate(stage.notes.items()):
        shown, words = most_moved(noted)
        drawn = noted_curves(stage.stage, title, shown, f"{name}n{number}")
        caption = f"Stage {stage.stage}: {title}, as each epoch had it. {words}"
        found.append((drawn, caption.rstrip()))
    return found


def curves(stage: StageCurves, kind: str, primary_label: str, name: str) -> str | None:
    """Loss terms (`terms`) or the primary score on the validation part (`val`) by epoch."""
    found = stage.terms if kind == "terms" else stage.val
    drawn = [curve for curve in found if any(value is not None for value in curve.values)]
    if not drawn:
        return None
    what = "loss terms" if kind == "terms" else f"{primary_label} on the validation part"
    label = "loss term, unweighted" if kind == "terms" else f"{primary_label}, val"
    return _drawn(drawn, label, f"Stage {stage.stage}: {what} by epoch", name, columns=4)


def noted_curves(stage: str, title: str, shown: Sequence[Curve], name: str) -> str:
    """What a loss has kept with each epoch (`rskd/w`: its weights), a curve for each class."""
    return _drawn(shown, title, f"Stage {stage}: {title} by epoch", name, columns=2)


def most_moved(noted: Sequence[Curve]) -> tuple[list[Curve], str]:
    """At most so many curves, those that moved most, in their order; the others in words."""
    if len(noted) <= MOST:
        return list(noted), ""
    order = sorted(range(len(noted)), key=lambda i: -_moved(noted[i]))[:MOST]
    kept = {i for i in order if _moved(noted[i]) > 0} or set(order)
    ends: dict[str, list[str]] = {}
    for index, curve in enumerate(noted):
        if index not in kept:
            last = curve.values[-1] if curve.values else None
            text = NOT_MEASURED if last is None else f"{last:.2f}"
            ends.setdefault(text, []).append(curve.name)
    words = "; ".join(f"{', '.join(names)}: {end}" for end, names in ends.items())
    return ([noted[i] for i in sorted(kept)],
            f"Not drawn, as they moved less, or not at all (at the end): {words}.")  # fmt: skip


def _moved(curve: Curve) -> float:
    values = [value for value in curve.values if value is not None]
    return max(values) - min(values) if values else -1.0


def _drawn(found: Sequence[Curve], label: str, words: str, name: str, *, columns: int) -> str:
    rows = -(-len(found) // columns)
    with canvas(2.7 + 0.2 * rows) as (figure, axes):
        for index, curve in enumerate(found):
            _draw(axes, curve, index)
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        figure.legend(loc="outside lower left", ncols=min(columns, len(found)), columnspacing=1.2)
        ends = "; ".join(f"{curve.name} ends at {curve.values[-1]:.3f}"
                         for curve in found if curve.values[-1] is not None)  # fmt: skip
        return svg(figure, name, f"{words}. {ends}")


def _draw(axes: Any, curve: Curve, index: int) -> None:
    values = [np.nan if value is None else value for value in curve.values]
    label = curve.name if curve.chosen is None else f"{curve.name} (epoch {curve.chosen} goes on)"
    colour = SERIES[1:][index % (len(SERIES) - 1)]
    axes.plot(curve.epochs, values, color=colour, ls=DASHES[index % len(DASHES)], lw=1.6,
              marker=MARKERS[1:][index % 7], ms=4.5, label=label)  # fmt: skip
    if curve.chosen in curve.epochs:
        value = values[curve.epochs.index(curve.chosen)]
        axes.plot([curve.chosen], [value], "o", ms=12, mfc="none", mec=INK, mew=1.4)
