"""The table of a sweep as Markdown, CSV, and for a terminal."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from edgekd.results import dump_json
from edgekd.rundir import write_text
from edgekd.sweep.state import SweepDir
from edgekd.sweep.table import Cell, Record, rows

if TYPE_CHECKING:
    from rich.table import Table

NOT_RUN = "not run"
UNDEFINED = "undefined"
NARROW = 110  # columns; below, a terminal shows the first score only


def _label(record: Record, metric: str) -> str:
    """The score's name, with an arrow where less is better."""
    for cell in record["cells"].values():
        for scores in cell["scores"].values():
            if scores.get(metric, {}).get("direction") == "lower":
                return f"{metric} ↓"
    return metric


def spread(cell: Cell) -> str:
    """Mean and standard deviation as text."""
    if cell.mean is None:
        return UNDEFINED if cell.runs else NOT_RUN
    if cell.deviation is None:
        return f"{cell.mean:.3f}"
    return f"{cell.mean:.3f} ± {cell.deviation:.3f}"


def difference(cell: Cell) -> str:
    """The paired difference with its interval as text."""
    if cell.difference is None:
        return UNDEFINED if cell.runs and cell.mean is None else NOT_RUN
    pairs = f" ({cell.pairs} of {cell.runs} runs)" if cell.pairs < cell.runs else ""
    if cell.low is None or cell.high is None:
        return f"{cell.difference:+.3f}{pairs}"
    return f"{cell.difference:+.3f} [{cell.low:+.3f}, {cell.high:+.3f}]{pairs}"


def markdown(record: Record) -> str:
    """The table with the sentence that says how to read it."""
    seeds, metrics, base = record["seeds"], record["metrics"], record["baseline"]
    split = record["split"]
    images = (
        f"; {split['train']} training, {split['val']} validation, {split['test']} test images"
        if split
        else ""
    )
    heads = " | ".join(f"{_label(record, name)} | Δ to {base}" for name in metrics)
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


def terminal(record: Record, width: int) -> Table:
    """The same for a terminal; one with few columns has room for the first score only."""
    from rich.table import Table

    if width < NARROW and len(record["metrics"]) > 1:
        record = {**record, "metrics": record["metrics"][:1]}
    base = record["baseline"]
    table = Table(title=record["name"], title_justify="left", box=None, pad_edge=False)
    table.add_column("model")
    table.add_column("variant")
    for name in record["metrics"]:
        table.add_column(_label(record, name), justify="right")
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
                spread(cell) if cell.mean is None else cell.mean, _blank(cell.deviation),
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
