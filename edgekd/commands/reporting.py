"""report: one page of runs, or published tables beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekd.commands.common import Json, print_json, print_table
from edgekd.errors import DataError, RecipeError


def report(
    targets: Annotated[list[Path] | None, typer.Argument(metavar="[RUN|BUNDLE|DIR...]")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write (default: RUN/report).")] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="TABLE",
            help="A published table (umkd_table1, ...) beside all runs below DIR (default: runs), "
            "or a study's results file.",
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="A site of all published tables, likewise.")
    ] = False,
    pictures: Annotated[
        bool,
        typer.Option(
            "--pictures",
            help="Masks: put test pictures into the page, which is then as private as they are.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Tables and plots as html, md, csv and json, or a paper's tables beside one's own figures."""
    if against is not None or everything:
        if against is not None and everything:
            raise RecipeError("--against names one table, --all means all", hint="leave one out")
        if pictures:
            raise RecipeError("--pictures: published tables have none", hint="leave it out")
        _report_against(targets or [Path("runs")], out, against, json)
        return
    if not targets:
        raise DataError("nothing to report on", hint="edgekd report RUN, or --against TABLE")
    show_report(targets, out, json, pictures=pictures)


def _report_against(targets: list[Path], out: Path | None, name: str | None, json: bool) -> None:
    from edgekd.report.against import gather
    from edgekd.report.against_page import grid, known, overview, terminal, tree, write

    if name is not None:
        from edgekd.published import table

        table(name)  # an unknown one says so before anything is read
    folder = out or Path("report-against")
    made = write(known() if name is None else [name], gather(targets), folder)
    if json:
        print_json([tree(one) for one in made])
        return
    print_table(terminal(overview(made) if name is None else grid(made[0])))
    typer.echo(f"report: {folder / ('index.html' if name is None else f'{name}.html')}")


def show_report(
    targets: list[Path], out: Path | None, json: bool, *, pictures: bool = False
) -> None:
    """Write the report, and print its table."""
    from edgekd.report.render import report as render
    from edgekd.report.table import terminal

    files = render(targets, out=out, pictures=pictures)
    if json:
        print_json(files.summary)
        return
    for data in files.data:
        print_table(terminal(data))
    typer.echo(f"report: {files.html}")
