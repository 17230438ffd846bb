"""The one table of a sweep: mean and spread over seeds, and the paired difference to a baseline."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgekd.errors import RecipeError, did_you_mean
from edgekd.stats import mean_interval
from edgekd.sweep.plan import BASE, Trial
from edgekd.sweep.state import SweepDir
from edgekd.tasks.fidelity import fidelity_labels

if TYPE_CHECKING:
    from edgekd.recipe import Recipe

Record = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One score of one variant over the seeds that were run.

    `difference` is variant minus baseline on the seeds that both have, with Student's 95 %
    interval; the interval is None for fewer than two such seeds.
    """

    runs: int  # with or without a value
    values: dict[int, float]
    mean: float | None
    deviation: float | None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    pairs: int = 0


@dataclass(frozen=True)
class Row:
    """One model of one variant; `variant` is None for the teacher."""

    model: str
    variant: str | None
    cells: dict[str, Cell]
    runs: int
    note: str = ""


def collect(
    trials: Sequence[Trial],
    folder: SweepDir,
    *,
    name: str,
    baseline: str,
    metrics: Sequence[str],
    command: str,
) -> Record:
    """What the finished trials say, as plain data."""
    from edgekd.host import host_facts

    first = trials[0].recipe
    cells: dict[str, Any] = {}
    failures: dict[str, str] = {}
    split: dict[str, int] = {}
    for trial in trials:
        cell = f"{trial.variant}/{trial.seed}"
        ended = folder.ended(trial.name)
        if not folder.is_done(trial):
            if ended is not None and ended.outcome == "failed":
                failures[cell] = ended.message
            continue
        scores = folder.scores(trial)
        if trial.recipe.export.model not in scores:  # a damaged file
            continue
        run = folder.run(trial)
        split = json.loads(run.environment.read_text(encoding="utf-8"))["split"]
        cells[cell] = {
            "model": trial.recipe.export.model,
            "seconds": ended.seconds if ended else None,
            "scores": {model: _values_of(parts["test"]) for model, parts in scores.items()},
            # of teachers that are for another part of the data than the student
            "own_scores": {
                model: _values_of(parts["own_test"])
                for model, parts in scores.items()
                if "own_test" in parts
            },
        }
    return {
        "name": name,
        "recipe": name,
        "command": command,
        "seeds": list(dict.fromkeys(trial.seed for trial in trials)),
        "variants": list(dict.fromkeys(trial.variant for trial in trials)),
        "baseline": baseline,
        "model": first.export.model,
        "teacher": first.export.reference,
        "metrics": list(metrics),
        "split": split,
        "host": {key: host_facts().get(key) for key in ("cpu", "cores_usable", "python")},
        "cells": cells,
        "failures": failures,
    }


def _values_of(scores: dict[str, Any]) -> dict[str, Any]:
    return {
        name: {"value": score["value"], "direction": score["direction"]}
        for name, score in scores.items()
    }


def choose_metrics(recipe: Recipe, wanted: Sequence[str]) -> list[str]:
    """The scores to show: the wanted ones, else the primary and the next. Raises RecipeError."""
    from edgekd.plugins import load
    from edgekd.tasks.base import Task

    cls = load("tasks", recipe.task.name, Task)  # type: ignore[type-abstract]
    task = cls(classes=("a", "b"), primary=recipe.task.primary)
    known, of_teacher = task.metrics(), fidelity_labels(task, "teacher")
    legal = [*known, *(of_teacher if recipe.export.reference else [])]
    for name in wanted:
        if name in of_teacher and name not in legal:
            raise RecipeError(f"--metrics: {name} is the agreement with a teacher, and the recipe "
                              "has no export.reference", hint="export.reference=teacher"
                              )  # fmt: skip
        if name not in legal:
            raise RecipeError(f"--metrics: there is no score '{name}'",
                              hint=did_you_mean(name, legal))  # fmt: skip
    if wanted:
        return list(wanted)
    primary = recipe.task.primary or cls.default_primary
    return [primary, *(name for name in known if name != primary)][:2]


def rows(record: Record) -> list[Row]:
    """One row per variant, the teacher first."""
    found = []
    teacher, base = record["teacher"], record["baseline"]
    if teacher and record["cells"]:
        ran = [v for v in (base, BASE, *record["variants"]) if _cells(record, teacher, v)]
        found.append(_row(record, teacher, ran[0] if ran else base, None))
    for variant in record["variants"]:
        found.append(_row(record, _model(record, variant), variant, variant))
    return found


def _model(record: Record, variant: str) -> str:
    """The exported model; a variant may export another one than the recipe."""
    models = [
        cell["model"]
        for name, cell in record["cells"].items()
        if name.rpartition("/")[0] == variant and "model" in cell
    ]
    return str(models[0] if models else record["model"])


def _row(record: Record, model: str, source: str, variant: str | None) -> Row:
    base = record["baseline"]
    cells = {}
    for name in record["metrics"]:
        values = _values(record, model, source, name)
        reference = _values(record, _model(record, base), base, name)
        compares = variant is not None and variant != base
        runs = len(_cells(record, model, source))
        cells[name] = cell_of(runs, values, reference if compares else {})
    failed = [n for n in record.get("failures", {}) if n.rpartition("/")[0] == variant]
    note = f"{len(failed)} failed" if failed else ""
    return Row(model, variant, cells, len(_cells(record, model, source)), note)


def cell_of(runs: int, values: dict[int, float], baseline: dict[int, float]) -> Cell:
    """A score by seed, beside that of a baseline."""
    mean = sum(values.values()) / len(values) if values else None
    deviation = None
    if mean is not None and len(values) > 1:
        squares = sum((value - mean) ** 2 for value in values.values())
        deviation = (squares / (len(values) - 1)) ** 0.5
    shared = sorted(set(values) & set(baseline))
    if not shared:
        return Cell(runs, values, mean, deviation)
    point, low, high = mean_interval([values[seed] - baseline[seed] for seed in shared])
    if len(shared) < 2:
        return Cell(runs, values, mean, deviation, point, pairs=1)
    return Cell(runs, values, mean, deviation, point, low, high, len(shared))


def _cells(record: Record, model: str, variant: str) -> dict[int, Any]:
    """The scores of a model in the finished runs of a variant, by seed."""
    found = {}
    for seed in record["seeds"]:
        cell = record["cells"].get(f"{variant}/{seed}")
        if cell is not None and model in cell["scores"]:
            found[seed] = cell["scores"][model]
    return found


def _values(record: Record, model: str, variant: str, metric: str) -> dict[int, float]:
    """A score by seed, where it is defined; a variant of another task may not have it."""
    values = {
        seed: scores.get(metric, {}).get("value")
        for seed, scores in _cells(record, model, variant).items()
    }
    return {seed: value for seed, value in values.items() if value is not None}
