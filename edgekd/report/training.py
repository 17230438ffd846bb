"""What happened before the export: the curves of each stage and the data card."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from edgekd.recipe import StageSpec
from edgekd.report import sources as files
from edgekd.report.records import Curve, DataCard, StageCurves
from edgekd.report.sources import Sources
from edgekd.report.words import plural
from edgekd.tasks.base import Task

PARTS = ["train", "val", "test"]


def stages(sources: Sources, primary: str, task: Task | None = None) -> list[StageCurves]:
    """The curves of all stages of the recipe, in its order.

    A model that knows some classes may have no primary score (no mean over head, medium and tail,
    where it knows the tail): it has the task's usual one, and its name says so.
    """
    run, recipe = sources.run, sources.recipe
    if run is None or recipe is None:
        return []
    found = []
    for name, spec in recipe.stages.items():
        rows = files.epochs(run, name)
        stage = _stage(name, spec, rows, primary)
        val = [_of_classes(sources, curve, rows, task) for curve in stage.val]
        found.append(replace(stage, val=val))
    return found


def _of_classes(
    sources: Sources, curve: Curve, rows: list[dict[str, Any]], task: Task | None
) -> Curve:
    knows = sources.knows(curve.name)
    if knows is None:
        return curve
    name, values = f"{curve.name}, {plural(knows, 'class', 'classes')}", curve.values
    if task is not None and all(value is None for value in values):
        usual = task.default_primary
        name += f", {task.metrics()[usual].label or usual}"
        values = [_number(_dict(_dict(row, "val"), curve.name).get(usual)) for row in rows]
    return replace(curve, name=name, values=values)


def _stage(name: str, spec: StageSpec, rows: list[dict[str, Any]], primary: str) -> StageCurves:
    epochs = [int(row["epoch"]) for row in rows]
    terms = [
        Curve(term, epochs, [_number(_dict(row, "terms").get(term)) for row in rows])
        for term in spec.losses
        if any(term in _dict(row, "terms") for row in rows)
    ]
    models = _in_order(model for row in rows for model in _dict(row, "val"))
    val = []
    for model in models:
        values = [_number(_dict(_dict(row, "val"), model).get(primary)) for row in rows]
        val.append(Curve(model, epochs, values, _chosen(rows, model, spec.select)))
    seconds = [number for row in rows if (number := _number(row.get("seconds"))) is not None]
    return StageCurves(name, spec.epochs, sum(seconds) if seconds else None, terms, val,
                       _notes(rows, epochs))  # fmt: skip


def _notes(rows: list[dict[str, Any]], epochs: list[int]) -> dict[str, list[Curve]]:
    """What losses keep with an epoch: of `rskd/w:CLASS` one curve per class below `rskd/w`."""
    found: dict[str, list[Curve]] = {}
    for key in _in_order(key for row in rows for key in _dict(row, "notes")):
        title, _, name = key.partition(":")
        values = [_number(_dict(row, "notes").get(key)) for row in rows]
        found.setdefault(title, []).append(Curve(name or title, epochs, values))
    return found


def _chosen(rows: list[dict[str, Any]], model: str, select: str) -> int | None:
    """The epoch whose weights go on to the next stage."""
    if select == "last":
        return int(rows[-1]["epoch"])
    best = [int(row["epoch"]) for row in rows if _dict(row, "best").get(model)]
    return best[-1] if best else None


def data_card(sources: Sources, classes: list[str], counted: str = "class") -> DataCard | None:
    """Count split.csv. Its targets are indices of classes, or of kinds of images where there are
    masks, or names; -1 is an image without label."""
    if sources.run is None:
        return None
    counts: dict[tuple[str, str], int] = {}
    parts_of: dict[str, set[str]] = {}
    for row in files.split_rows(sources.run):
        name = _class_name(row["target"], classes)
        counts[name, row["part"]] = counts.get((name, row["part"]), 0) + 1
        parts_of.setdefault(row["group"], set()).add(row["part"])
    if not counts:
        return None
    parts = parts_in_order(part for _, part in counts)
    names = [*classes, *sorted({name for name, _ in counts} - set(classes))]
    return DataCard(
        parts=parts,
        classes=names,
        images=[[counts.get((name, part), 0) for part in parts] for name in names],
        groups=[sum(part in found for found in parts_of.values()) for part in parts],
        shared_groups=sum(len(found) > 1 for found in parts_of.values()),
        counted=counted,
    )


def parts_in_order(found: Iterable[str]) -> list[str]:
    """Train, val and test first; others as they come."""
    seen = _in_order(found)
    return [part for part in PARTS if part in seen] + [p for p in seen if p not in PARTS]


def _class_name(target: str, classes: list[str]) -> str:
    if target in classes:
        return target
    try:
        index = int(target)
    except ValueError:
        return target
    if index < 0:
        return "(no label)"
    return classes[index] if index < len(classes) else f"class {index}"


def _dict(row: dict[str, Any], key: str) -> dict[str, Any]:
    value = row.get(key)
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _in_order(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
