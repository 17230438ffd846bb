"""The one table of a sweep: mean and spread over seeds, and the paired difference to a baseline."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgekd.errors import RecipeError, did_you_mean
from edgekd.results import dump_json
from edgekd.rundir import write_text
from edgekd.stats import mean_interval
from edgekd.sweep.plan import BASE, Trial
from edgekd.sweep.state import SweepDir

if TYPE_CHECKING:
    from rich.table import Table

    from edgekd.recipe import Recipe

NOT_RUN = "not run"
Record = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One score of one variant over the seeds that were run.

    `difference` is variant minus baseline on the seeds that both have, with Student's 95 %
    interval; the interval is None for fewer than two such seeds.
    """

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
        run = folder.run(trial)
        scores = json.loads(run.scores.read_text(encoding="utf-8"))
        split = json.loads(run.environment.read_text(encoding="utf-8"))["split"]
        cells[cell] = {
            "model": trial.recipe.export.model,
            "seconds": ended.seconds if ended else None,
            "scores": {
                model: {
                    name: {"value": score["value"], "direction": score["direction"]}
                    for name, score in parts["test"].items()
                }
                for model, parts in scores.items()
            },
        }
    return {
        "name": first.name,
        "recipe": first.name,
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


def choose_metrics(recipe: Recipe, wanted: Sequence[str]) -> list[str]:
    """The scores to show: the wanted ones, else the primary and the next. Raises RecipeError."""
    from edgekd.plugins import load
    from edgekd.tasks.base import Task

    cls = load("tasks", recipe.task.name, Task)  # type: ignore[type-abstract]
    known = cls(classes=("a", "b"), primary=recipe.task.primary).metrics()
    for name in wanted:
        if name not in known:
            raise RecipeError(f"--metrics: there is no score '{name}'",
                              hint=did_you_mean(name, known))  # fmt: skip
    if wanted:
        return list(wanted)
    primary = recipe.task.primary or cls.default_primary
    return [primary, *(name for name in known if name != primary)][:2]


def rows(record: Record) -> list[Row]:
    """One row per variant, the teacher first."""
    found = []
    teacher, base = record["teacher"], record["baseline"]
    if teacher and record["cells"]:
        shown = base if _values(record, teacher, base, record["metrics"][0]) else BASE
        found.append(_row(record, teacher, shown, None))
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
        cells[name] = _cell(values, reference if compares else {})
    failed = [n for n in record.get("failures", {}) if n.rpartition("/")[0] == variant]
    note = f"{len(failed)} failed" if failed else ""
    runs = len(_values(record, model, source, record["metrics"][0])) if record["metrics"] else 0
    return Row(model, variant, cells, runs, note)


def _cell(values: dict[int, float], baseline: dict[int, float]) -> Cell:
    mean = sum(values.values()) / len(values) if values else None
    deviation = None
    if mean is not None and len(values) > 1:
        squares = sum((value - mean) ** 2 for value in values.values())
        deviation = (squares / (len(values) - 1)) ** 0.5
    shared = sorted(set(values) & set(baseline))
    if not shared:
        return Cell(values, mean, deviation)
    point, low, high = mean_interval([values[seed] - baseline[seed] for seed in shared])
    if len(shared) < 2:
        return Cell(values, mean, deviation, point, pairs=1)
    return Cell(values, mean, deviation, point, low, high, len(shared))


def _values(record: Record, model: str, variant: str, metric: str) -> dict[int, float]:
    found = {}
    for seed in record["seeds"]:
        cell = record["cells"].get(f"{variant}/{seed}")
        if cell is not None and model in cell["scores"]:
            value = cell["scores"][model][metric]["value"]
            if value is not None:
                found[seed] = value
    return found


def spread(cell: Cell) -> str:
    """Mean and standard deviation as text."""
    if cell.mean is None:
        return NOT_RUN
    if cell.deviation is None:
        return f"{cell.mean:.3f}"
    return f"{cell.mean:.3f} ± {cell.deviation:.3f}"


def difference(cell: Cell) -> str:
    """The paired difference with its interval as text."""
    if cell.difference is None:
        return NOT_RUN
    if cell.low is None or cell.high is None:
        return f"{cell.difference:+.3f}"
    return f"{cell.difference:+.3f} [{cell.low:+.3f}, {cell.high:+.3f}]"


def markdown(record: Record) -> str:
    """The table with the sentence that says how to read it."""
    seeds, metrics, base = record["seeds"], record["metrics"], record["baseline"]
    split = record["split"]
    images = (
        f"; {split['train']} training, {split['val']} validation, {split['test']} test images"
        if split
        else ""
    )
    heads = " | ".join(f"{name} | Δ to {base}" for name in metrics)
    lines = [
        f"`{record['command']}`",
        "",
        f"Seeds {', '.join(map(str, seeds))}{images}. "
        "Measured: mean ± standard deviation over seeds on the test part; in brackets the 95 % "
        f"interval (Student's t over seeds) of the paired difference to `{base}`.",
        "",
        f"| model | variant | {heads} | runs |",
        "|---|---|" + "---:|---:|" * len(metrics) + "---:|",
    ]
    for row in rows(record):
        cells = []
        for cell in row.cells.values():
            cells += [spread(cell), "" if row.variant in (None, base) else difference(cell)]
        label = "" if row.variant is None else f"`{row.variant}`"
        runs = f"{row.runs}/{len(seeds)}" + (f", {row.note}" if row.note else "")
        lines.append(f"| {row.model} | {label} | " + " | ".join(cells) + f" | {runs} |")
    return "\n".join(lines) + "\n"


def terminal(record: Record) -> Table:
    """The same for a terminal."""
    from rich.table import Table

    base = record["baseline"]
    table = Table(title=record["name"], title_justify="left", box=None, pad_edge=False)
    table.add_column("model")
    table.add_column("variant")
    for name in record["metrics"]:
        table.add_column(name, justify="right")
        table.add_column(f"Δ to {base}", justify="right")
    table.add_column("runs", justify="right")
    for row in rows(record):
        cells = []
        for cell in row.cells.values():
            cells += [spread(cell), "" if row.variant in (None, base) else difference(cell)]
        runs = f"{row.runs}/{len(record['seeds'])}" + (f" ({row.note})" if row.note else "")
        table.add_row(row.model, row.variant or "", *cells, runs)
    return table


def as_csv(record: Record) -> str:
    """One line per model, variant and score."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["model", "variant", "score", "mean", "std", "runs", "seeds", "baseline",
                     "difference", "low", "high", "pairs"])  # fmt: skip
    for row in rows(record):
        for name, cell in row.cells.items():
            numbers = [cell.difference, cell.low, cell.high]
            writer.writerow([
                row.model, row.variant or "", name,
                NOT_RUN if cell.mean is None else cell.mean, _blank(cell.deviation),
                row.runs, " ".join(map(str, cell.values)), record["baseline"],
                *map(_blank, numbers), cell.pairs,
            ])  # fmt: skip
    return stream.getvalue()


def _blank(value: float | None) -> float | str:
    return "" if value is None else value


def write(record: Record, folder: SweepDir) -> None:
    """`results.json`, `results.md` and `results.csv` in the sweep's folder."""
    write_text(folder.root / "results.json", dump_json(record))
    write_text(folder.root / "results.md", markdown(record))
    write_text(folder.root / "results.csv", as_csv(record))
