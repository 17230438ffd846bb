"""analyze: what trained models have in common, beyond their scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekd.commands.common import Json, print_json, print_table
from edgekd.errors import DataError, EdgekdError

if TYPE_CHECKING:
    from rich.table import Table

    from edgekd.report.similarity import Finding
    from edgekd.results import CkaMap
    from edgekd.rundir import RunDir


def analyze(
    target: Annotated[Path, typer.Argument(metavar="RUN")],
    cka: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIRST,SECOND",
            help="Compare the layers of these two models; may be given several times (default: "
            "the recipe's `analysis`, else its reference and its exported model).",
        ),
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=4, help="At most so many (default: the recipe's, or 512).")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=4, help="Images at once (default: the recipe's, or 64).")
    ] = None,
    part: Annotated[
        str | None, typer.Option(help="train, val or test (default: the recipe's, or test).")
    ] = None,
    json: Json = False,
) -> None:
    """Compare the layers of a run's models by CKA; `report` shows the maps."""
    from edgekd.plugins import missing_package
    from edgekd.recipe_load import load
    from edgekd.rundir import RunDir

    run = RunDir(target)
    if not run.recipe.is_file():
        what = "is not a run" if target.is_dir() else "no such run"
        raise DataError(f"{target}: {what}", hint="`edgekd distill RECIPE` makes one")
    pairs = [_pair(text) for text in cka] if cka else None
    recipe = load(run.recipe)
    try:
        from edgekd.train.analysis import analyze as analyze_run
    except ModuleNotFoundError as error:
        raise missing_package((error.name or "").split(".")[0], "edgekd analyze") from None
    maps = analyze_run(run, recipe, pairs, images=images, batch=batch, part=part)
    if json:
        print_json({"run": run.root, "cka": [_record(run, one) for one in maps]})
    else:
        print_table(_table(maps))


def _pair(text: str) -> tuple[str, str]:
    names = [name.strip() for name in text.split(",")]
    if len(names) != 2 or not all(names):
        raise EdgekdError(f"--cka {text}: expected two models", hint="--cka teacher,student")
    return names[0], names[1]


def _record(run: RunDir, one: CkaMap) -> dict[str, Any]:
    """What `--json` says of a map; its figures are in the file."""
    from dataclasses import asdict

    from edgekd.report.similarity import deepest, nearest

    ends, best = deepest(one), nearest(one)
    return {
        "first": one.first,
        "second": one.second,
        "layers": [len(one.layers_first), len(one.layers_second)],
        "images": one.images,
        "batch": one.batch,
        "part": one.part,
        "deepest_features": asdict(ends) if ends else None,
        "nearest": asdict(best) if best else None,
        "file": run.cka(one.first, one.second),
    }


def _table(maps: list[CkaMap]) -> Table:
    """The same for a terminal, a pair in a row; the report draws the maps."""
    from rich.table import Table

    from edgekd.report.similarity import deepest, nearest

    table = Table(box=None, pad_edge=False)
    for name, numeric in (
        ("models", False), ("layers", True), ("images", True), ("deepest features", False),
        ("CKA", True), ("most like the first's", False), ("CKA", True),
    ):  # fmt: skip
        table.add_column(name, justify="right" if numeric else "left")
    for one in maps:
        ends, best = deepest(one), nearest(one)
        table.add_row(
            f"{one.first}, {one.second}",
            f"{len(one.layers_first)} x {len(one.layers_second)}",
            f"{one.images} {one.part}",
            f"{ends.first}, {ends.second}" if ends else "none",
            _figure(ends),
            best.second if best else "none",
            _figure(best),
        )
    return table


def _figure(found: Finding | None) -> str:
    return "undefined" if found is None or found.cka is None else f"{found.cka:.3f}"
