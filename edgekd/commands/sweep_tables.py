"""What `edgekd sweep` prints of its trials."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from edgekd.commands.common import print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgekd.sweep.plan import Trial
    from edgekd.sweep.state import SweepDir


def show_search(record: dict[str, Any], keys: list[str], *, json: bool) -> None:
    """The trials of a search with their values, the best one marked."""
    if json:
        print_json(record)
        return
    from rich.table import Table

    table = Table(title=f"{record['variant']}: {record['score']} of {record['model']} on val",
                  title_justify="left", box=None, pad_edge=False)  # fmt: skip
    for name in ("trial", *_short(keys), record["score"], ""):
        table.add_column(name, justify="right" if name != "" else "left")
    best = record["best"]["trial"] if record["best"] else None
    for row in record["trials"]:
        value = "-" if row["value"] is None else f"{row['value']:.4f}"
        note = "best" if row["trial"] == best else "" if row["value"] is not None else row["state"]
        shown = [_plain(row["values"].get(key)) for key in keys]
        table.add_row(str(row["trial"]), *shown, value, note)
    print_table(table)


def show_list(
    rows: list[dict[str, Any]],
    trials: Sequence[Trial],
    unborn: int,
    folder: SweepDir,
    jobs: int,
    *,
    json: bool,
) -> None:
    """Print the trials; `unborn` are those that a search has not thought of yet."""
    if json:
        print_json(rows)
        return
    from rich.markup import escape
    from rich.table import Table

    from edgekd.sweep.estimate import Estimates, duration
    from edgekd.sweep.progress import summary

    table = Table(box=None, pad_edge=False)
    for name in ("run", "status", "position", "left", ""):
        table.add_column(name, justify="right" if name == "left" else "left")
    for row in rows:
        left = "" if row["status"] == "done" else duration(row["seconds_left"])
        table.add_row(row["trial"], row["status"], row["position"] or "", left,
                      escape(row["message"] or ""))  # fmt: skip
    if rows:
        print_table(table)
    if unborn > 0:
        typer.echo(f"{unborn} trials to think of and try")
    if not rows:
        return
    estimates = Estimates(trials, folder)
    typer.echo(summary(trials, folder, jobs, estimates))


def _short(keys: list[str]) -> list[str]:
    """The last parts of each key that tell it from the others."""
    for count in range(1, 9):
        found = [".".join(key.split(".")[-count:]) for key in keys]
        if len(set(found)) == len(keys):
            return found
    return keys


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
