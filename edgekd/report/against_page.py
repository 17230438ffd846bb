"""Published tables beside our own figures: as a page, as Markdown, and for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import edgekd
from edgekd import published
from edgekd.published import UNAVAILABLE, PublishedRow
from edgekd.report.against import NOT_RUN, Against, Found, Ours, Source, against
from edgekd.report.grid import Cell, Column, Grid, Tone
from edgekd.results import dump_json
from edgekd.rundir import write_text

if TYPE_CHECKING:
    from rich.table import Table

LEAD = (
    "Rows and columns are the paper's. Below each of its lines stands what runs here measured: the "
    "mean over seeds with its 95 % interval (Student's t), the difference to the printed figure, "
    "and `match` where that lies inside the interval, else `better` or `worse`. Where data, split, "
    "size of the images or pretraining are not the paper's, nothing is compared."
)
TONES: dict[str, Tone] = {"match": "good", "better": "good", "worse": "bad"}


def grid(found: Against) -> Grid:
    """The table in the paper's order of rows and columns."""
    columns = [Column("Line"), *(Column(score, True) for score in found.scores)]
    rows = []
    for line in found.lines:
        rows.append([
            Cell(_name(line.row), "strong", below=_why(line.row, line.sources)),
            *(Cell(_printed(line.row, score), "muted") for score in found.scores),
        ])  # fmt: skip
        rows += [_row(source, found.scores) for source in line.sources]
    notes = [
        f"{name}: not compared: {'; '.join(why)}" for name, why in found.differences.items() if why
    ]
    suspects = [f"{_name(line.row)}: doubtful: {line.row.suspect}" for line in found.lines
                if line.row.suspect]  # fmt: skip
    table = found.table
    return Grid(f"{table.paper}, {table.name}: {table.title} ({table.dataset}, {table.source})",
                columns, rows, [*notes, *suspects])  # fmt: skip


def _name(row: PublishedRow) -> str:
    return ", ".join(part for part in (row.method, row.member, row.scenario) if part)


def _why(row: PublishedRow, sources: Sequence[Source]) -> str:
    if sources:
        return "published"
    return f"published; {NOT_RUN}" + (f": {row.reason}" if row.reason else "")


def _printed(row: PublishedRow, score: str) -> str:
    if score not in row.values:
        return ""
    value = row.values[score]
    return UNAVAILABLE if value is None else f"{value:.4f}"


def _row(source: Source, scores: Sequence[str]) -> list[Cell]:
    seeds = f"{len(source.seeds)} seed{'s' * (len(source.seeds) != 1)}"
    return [Cell(source.name, below=f"here, {seeds}"),
            *(_cell(source.cells.get(score)) for score in scores)]  # fmt: skip


def _cell(ours: Ours | None) -> Cell:
    if ours is None:
        return Cell("")
    text = f"{ours.mean:.4f}"
    if ours.low is not None and ours.high is not None:
        text += f" [{ours.low:.4f}, {ours.high:.4f}]"
    word = ours.status.partition(":")[0]
    below = word if ours.delta is None else f"{ours.delta:+.4f}, {word}"
    return Cell(text, TONES.get(word, ""), below=below)


def html(title: str, grids: Sequence[Grid], links: Sequence[tuple[str, str]] = ()) -> str:
    """A page of its own, without scripts; `links` are (file, name) of other pages."""
    from jinja2 import Environment, PackageLoader
    from markupsafe import Markup

    from edgekd.report.page import code, glue

    environment = Environment(
        loader=PackageLoader("edgekd.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(glue=glue, code=code)
    style, _, _ = environment.loader.get_source(environment, "style.css")
    page = environment.get_template("against.html.j2")
    return str(page.render(title=title, style=Markup(style), lead=LEAD, grids=grids, links=links))


def write(names: Sequence[str], found: Sequence[Found], folder: Path) -> list[Against]:
    """One page per table (html, md, json) in `folder`, and an index where there are several.

    Raises RecipeError for an unknown table, before anything is written.
    """
    tables = [against(name, found) for name in names]
    for one in tables:
        name, shown = one.table.name, grid(one)
        links = [("index.html", "all tables")] if len(tables) > 1 else []
        write_text(folder / f"{name}.html", html(f"{one.table.paper}: {name}", [shown], links))
        write_text(folder / f"{name}.md", f"# {name}\n\n{LEAD}\n\n{shown.markdown()}")
        write_text(folder / f"{name}.json", dump_json(tree(one)))
    if len(tables) > 1:
        pages = [(f"{one.table.name}.html", f"{one.table.name}: {one.table.title}")
                 for one in tables]  # fmt: skip
        write_text(folder / "index.html", html("Published tables", [overview(tables)], pages))
    return tables


def overview(tables: Sequence[Against]) -> Grid:
    """How much of each table was run, and what came out."""
    rows = []
    for one in tables:
        lines = [line for line in one.lines if line.sources]
        cells = [c for line in lines for s in line.sources for c in s.cells.values() if c]
        words = [cell.status.partition(":")[0] for cell in cells]
        rows.append([
            Cell(one.table.name, below=f"{one.table.title} ({one.table.dataset})"),
            Cell(f"{len(lines)} of {len(one.lines)}"),
            *(Cell(str(words.count(word)), TONES.get(word, "")) for word in WORDS),
        ])  # fmt: skip
    columns = [Column("Table"), Column("Lines that were run", True),
               *(Column(word, True) for word in WORDS)]  # fmt: skip
    return Grid("What was run of each published table, and its figures by verdict", columns, rows)


WORDS = ("match", "better", "worse", "not comparable", UNAVAILABLE)


def tree(one: Against) -> dict[str, Any]:
    """For the JSON file."""
    return {"edgekd": edgekd.__version__, "table": one.table.model_dump(), "scores": one.scores,
            "lines": [{"line": _name(line.row), "sources": [asdict(s) for s in line.sources]}
                      for line in one.lines],
            "not_compared": one.differences}  # fmt: skip


def known() -> list[str]:
    """The names of all published tables."""
    return list(published.tables())


def terminal(found: Grid) -> Table:
    """A grid for the terminal, its small print below it."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, title=Text(found.caption, style="bold"),
                  title_justify="left", caption=Text("\n".join(found.notes)),
                  caption_justify="left", padding=(0, 1, 0, 0), pad_edge=False)  # fmt: skip
    for column in found.columns:
        table.add_column(column.name, justify="right" if column.numeric else "left")
    styles = {"good": "green", "bad": "bold red", "muted": "dim", "strong": "bold"}
    for row in found.rows:
        table.add_row(*(
            Text(f"{cell.text}\n{cell.below}" if cell.below else cell.text,
                 style=styles.get(cell.tone, ""))
            for cell in row
        ))  # fmt: skip
    return table
