"""What a paper printed, beside what this run measured: for a recipe that names its row."""

from __future__ import annotations

from collections.abc import Mapping

from edgekd import published
from edgekd.errors import RecipeError
from edgekd.recipe import Recipe
from edgekd.report.grid import Cell, Column, Grid
from edgekd.report.records import PaperRow, ReportData
from edgekd.report.words import CI, score
from edgekd.results import Scores

LEAD = "What is printed of the method that this recipe stands for, and what came out here."
NOT_COMPARED = (
    "One run is not compared with a printed figure: its seed alone may make the difference, and "
    "data, split or networks may be others than the paper's. A sweep runs several seeds."
)

Measured = Mapping[str, Mapping[str, Scores]]  # model -> part -> scores


def rows(recipe: Recipe | None, scores: Measured) -> tuple[list[PaperRow], list[str]]:
    """A row for every figure of the paper's tables that this run has a model for, and notes.

    A line of a table that tells members apart is of the model that `paper.members` says, any other
    of the exported one.
    """
    paper = recipe.paper if recipe else None
    if recipe is None or paper is None or paper.method is None:
        return [], []
    found: list[PaperRow] = []
    notes: list[str] = []
    for name in (paper.table, *paper.also):
        try:
            table = published.table(name)
        except RecipeError as error:
            notes.append(error.message)
            continue
        lines = table.rows_of(paper.method, paper.scenario)
        if not lines and name == paper.table:
            notes.append(f"paper.method: the table '{name}' has no line '{paper.method}'")
        for line in lines:
            model = recipe.export.model if line.member is None else paper.members.get(line.member)
            if model is None:
                continue
            measured = scores.get(model, {}).get("test", {})
            found += [
                PaperRow(
                    table=name, title=table.title, source=f"{table.paper}, {table.source}",
                    method=line.method, scenario=line.scenario, member=line.member, model=model,
                    metric=metric, published=value, printed=published.printed(value),
                    suspect=line.suspect, measured=measured.get(metric),
                )
                for metric, value in line.values.items()
            ]  # fmt: skip
    return found, notes


def grid(data: ReportData) -> Grid:
    """The published figure and ours, line by line. Nothing is claimed of the difference."""
    first = data.beside[0]
    line = f"{first.method}, {first.scenario}" if first.scenario else first.method
    columns = [
        Column("Table"), Column("Line"), Column("Score"), Column("Published"),
        Column(f"Measured here {CI}", True),
    ]  # fmt: skip
    cells = [
        [
            Cell(row.table, below=row.title),
            Cell(row.member or row.method, below=f"here {row.model}"),
            Cell(data.score_labels.get(row.metric, row.metric)),
            Cell(row.printed, "muted" if row.published is None else "",
                 below=f"doubtful: {row.suspect}" if row.suspect else ""),
            Cell(score(row.measured)),
        ]
        for row in data.beside
    ]  # fmt: skip
    return Grid(f"{first.source}: {line}", columns, cells, [NOT_COMPARED])
