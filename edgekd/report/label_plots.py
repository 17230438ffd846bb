"""The figures of several labels per image: a line for each class, those with most images on top."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgekd.report.figure import HATCHES, INK, SERIES, SOFT, canvas, svg
from edgekd.report.label_records import LabelClass, LabelEvidence, LabelFigures, LabelSubject
from edgekd.report.plots import subject_colour
from edgekd.report.words import NOT_MEASURED, integer
from edgekd.results import SHOTS

MANY = 16  # classes; with more of them a line is as high as its text
LONGEST = 22  # letters of a class's name
Known = tuple[LabelSubject, LabelFigures]


def ap(evidence: LabelEvidence, name: str) -> str | None:
    """Average precision per class with intervals: a bar for each model that knows the class."""
    if not evidence.subjects:
        return None
    known: list[list[Known]] = [
        [(one, figures) for one in evidence.subjects if (figures := one.figures[index])]
        for index in range(len(evidence.classes))
    ]
    most = max(map(len, known))
    thick = 0.8 / max(1, most)
    with canvas(_height(evidence, most)) as (figure, axes):
        drawn: dict[str, Any] = {}
        for index, found in enumerate(known):
            if all(figures.ap is None for _, figures in found):
                axes.text(0.01, index, NOT_MEASURED, va="center", fontsize=8, color=SOFT)
                continue
            for number, (one, figures) in enumerate(found):
                place = index + (number - (len(found) - 1) / 2) * thick
                if figures.ap is None:
                    axes.text(0.01, place, NOT_MEASURED, va="center", fontsize=8, color=SOFT)
                    continue
                bar = axes.barh(place, figures.ap, thick * 0.9, color=subject_colour(one.kind),
                                hatch=_hatch(evidence, one), alpha=0.75, edgecolor=INK,
                                linewidth=0.6)  # fmt: skip
                drawn.setdefault(lane(evidence, one), bar)
                if figures.low is not None and figures.high is not None:
                    axes.plot([figures.low, figures.high], [place, place], color=INK, lw=1.2)
        _classes(axes, evidence.classes)
        axes.set_xlim(0, 1)
        axes.set_xlabel("average precision, with 95 % CI")
        figure.legend(list(drawn.values()), list(drawn), loc="outside lower left", ncols=1,
                      labelspacing=0.35)  # fmt: skip
        return svg(figure, name, "Average precision per class; the same figures are in the table "
                   "below")  # fmt: skip


def lane(evidence: LabelEvidence, one: LabelSubject) -> str:
    """A model's name in a legend. Teachers that share the classes among them are one."""
    if one.kind != "teacher" or one.knows == len(evidence.classes):
        return one.label
    return "the teachers of the class"


def tail(evidence: LabelEvidence, name: str) -> str | None:
    """Training images per class: head, medium and tail are told apart by colour and hatch."""
    counts = [one.training for one in evidence.classes]
    if None in counts or not counts:
        return None
    numbers = [count or 0 for count in counts]
    with canvas(0.21 * len(counts) + 1.2) as (figure, axes):
        seen: dict[str, Any] = {}
        for index, (one, count) in enumerate(zip(evidence.classes, numbers, strict=True)):
            shot = SHOTS.index(one.shot) if one.shot in SHOTS else len(SHOTS)
            bar = axes.barh(index, count, 0.75, color=SERIES[1:][shot], hatch=HATCHES[shot],
                            alpha=0.75, edgecolor=INK, linewidth=0.6)  # fmt: skip
            seen.setdefault(one.shot, bar)
            axes.text(count, index, f" {integer(count)}", va="center", fontsize=9)
        axes.set_yticks(range(len(counts)), [_short(one.name) for one in evidence.classes])
        _plain(axes, len(counts))
        axes.set_xlim(0, max(1, *numbers) * 1.12)
        axes.set_xlabel("training images")
        if any(seen):
            figure.legend(list(seen.values()), list(seen), loc="outside lower left", ncols=3)
        words = "; ".join(f"{shot}: {sum(c.shot == shot for c in evidence.classes)} classes"
                          for shot in seen if shot)  # fmt: skip
        return svg(figure, name, f"Training images per class, {max(numbers)} to {min(numbers)}. "
                   f"{words}")  # fmt: skip


def change(evidence: LabelEvidence, name: str) -> str | None:
    """Change of the average precision per class against the baseline, with intervals."""
    found = evidence.change
    if found is None:
        return None
    with canvas(_height(evidence, 1)) as (figure, axes):
        axes.axvline(0, color=SOFT, lw=1)
        ends = [0.01]
        for index, one in enumerate(found.classes):
            if one is None:
                axes.text(0, index, f" {NOT_MEASURED}", va="center", fontsize=8, color=SOFT)
                continue
            gains = one.value >= 0
            axes.barh(index, one.value, 0.7, color=SERIES[1 if gains else 0],
                      hatch=HATCHES[0 if gains else 1], alpha=0.75, edgecolor=INK,
                      linewidth=0.6)  # fmt: skip
            ends.append(abs(one.value))
            if one.low is not None and one.high is not None:
                axes.plot([one.low, one.high], [index, index], color=INK, lw=1.2)
                ends += [abs(one.low), abs(one.high)]
        _classes(axes, evidence.classes)
        axes.set_xlim(-1.05 * max(ends), 1.05 * max(ends))
        axes.set_xlabel("change of average precision, with 95 % CI")
        return svg(figure, name, f"Change of average precision per class against {found.baseline}; "
                   "the same figures are in the table below")  # fmt: skip


def _hatch(evidence: LabelEvidence, one: LabelSubject) -> str:
    lanes = list(dict.fromkeys(lane(evidence, other) for other in evidence.subjects))
    return HATCHES[lanes.index(lane(evidence, one)) % len(HATCHES)]


def _height(evidence: LabelEvidence, bars: int) -> float:
    """Inches, for so many bars per class."""
    count = len(evidence.classes)
    each = max(0.4, 0.2 * bars + 0.06) if count <= MANY else max(0.2, 0.13 * bars + 0.05)
    return max(2.0, each * count + 1.3)


def _classes(axes: Any, classes: Sequence[LabelClass]) -> None:
    """Names and training images at the left, and at the right what begins: head, medium, tail."""
    count, gap = len(classes), "\n" if len(classes) <= MANY else "  "
    axes.set_yticks(range(count), [
        _short(one.name) + ("" if one.training is None else f"{gap}n = {integer(one.training)}")
        for one in classes
    ])  # fmt: skip
    _plain(axes, count)
    before = ""
    for index, one in enumerate(classes):
        if one.shot and one.shot != before:
            axes.text(1.015, index, one.shot, va="center", fontsize=9, color=SOFT,
                      transform=axes.get_yaxis_transform())  # fmt: skip
            if index:
                axes.axhline(index - 0.5, color=SOFT, lw=0.8, ls=":")
        before = one.shot


def _plain(axes: Any, count: int) -> None:
    axes.set_ylim(count - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
