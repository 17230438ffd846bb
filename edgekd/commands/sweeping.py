"""sweep: many runs of one recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekd.commands.common import (
    Json,
    Overrides,
    RecipeArgument,
    print_json,
    print_table,
)
from edgekd.errors import EdgekdError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgekd.recipe import Recipe
    from edgekd.sweep.plan import Trial
    from edgekd.sweep.state import SweepDir


def sweep(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(help="Only these, comma-separated; `base` is the recipe itself."),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="For example 1,2,3 (default: the recipe's).")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Runs at the same time (default: one per GPU, or one)."),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(help="Working time over all calls, e.g. 45m; what is left says `not run`."),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="The variant to compare with (default: the recipe's).")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Scores in the table (default: the primary and one more).")
    ] = None,
    list_only: Annotated[
        bool, typer.Option("--list", help="Show what is done, running and to do; run nothing.")
    ] = False,
    search: Annotated[
        bool, typer.Option("--search", help="Run the recipe's `search:` instead of seeds.")
    ] = False,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Search: this many trials in all.")
    ] = None,
    promote: Annotated[
        str | None,
        typer.Option(help="Search: write the best values into the recipe as this variant."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The sweep's folder (default: runs/NAME.sweep).")
    ] = None,
    json: Json = False,
) -> None:
    """Run variants x seeds, or a search, over local processes; resumes by itself."""
    from edgekd import catalog
    from edgekd.sweep import plan, table
    from edgekd.sweep.run import parse_budget
    from edgekd.sweep.state import SweepDir

    budget_s = parse_budget(budget) if budget is not None else None
    path = catalog.resolve(recipe)
    loaded = plan.load_variant(path, plan.BASE, overrides or ())
    names = plan.choose_variants(loaded, _words(variant))
    folder = SweepDir(out or Path("runs") / f"{loaded.name}.sweep")
    settings = _Settings(folder, jobs, budget_s, list_only, json)
    if search:
        chosen = _one_variant(names, variant)
        searched = plan.load_variant(path, chosen, overrides or ())
        _search(searched, chosen, path, trials, promote, settings)
        return
    for option, value in (("--trials", trials), ("--promote", promote)):
        if value is not None:
            raise EdgekdError(f"{option} belongs to a search", hint="add --search")
    chosen_seeds = _seeds(seeds, loaded)
    base = plan.choose_baseline(loaded, names, baseline)
    shown = table.choose_metrics(loaded, _words([metrics] if metrics else None))
    found = plan.grid(path, names, chosen_seeds, overrides or ())
    command = " ".join(
        ["edgekd sweep", recipe, *_shown(overrides), "--variant", ",".join(names),
         "--seeds", ",".join(map(str, chosen_seeds)), "--baseline", base]
    )  # fmt: skip
    _grid(loaded, found, base, shown, command, settings)


class _Settings:
    """What both kinds of sweep are told."""

    def __init__(
        self,
        folder: SweepDir,
        jobs: int | None,
        budget_s: float | None,
        list_only: bool,
        json: bool,
    ) -> None:
        self.folder, self.jobs, self.budget_s = folder, jobs, budget_s
        self.list_only, self.json = list_only, json


def _grid(
    recipe: Recipe,
    trials: Sequence[Trial],
    base: str,
    metrics: list[str],
    command: str,
    settings: _Settings,
) -> None:
    from edgekd.sweep import table
    from edgekd.sweep.progress import live
    from edgekd.sweep.run import Grid, listing, raise_failures, work

    folder = settings.folder
    if settings.list_only and not folder.root.exists():
        return _list(listing(trials, folder), trials, settings)
    folder.open(recipe.name)
    folder.check(trials)
    if settings.list_only:
        return _list(listing(trials, folder), trials, settings)
    source = Grid(trials, folder)
    try:
        with live(source.trials, folder, settings.jobs or 1) as show:
            work(source, folder, jobs=settings.jobs, budget_s=settings.budget_s, show=show)
    finally:
        record = table.collect(trials, folder, baseline=base, metrics=metrics, command=command)
        table.write(record, folder)
        if settings.json:
            print_json(record)
        else:
            print_table(table.terminal(record))
            typer.echo(f"table: {folder.root / 'results.md'}")
    raise_failures(trials, folder)
    return None


def _search(
    recipe: Recipe,
    variant: str,
    path: Path,
    trials: int | None,
    promoted: str | None,
    settings: _Settings,
) -> None:
    from edgekd.log import say
    from edgekd.sweep.progress import live
    from edgekd.sweep.promote import check_name, promote
    from edgekd.sweep.run import listing, raise_failures, work
    from edgekd.sweep.search import Search
    from edgekd.sweep.space import check_space

    folder = settings.folder
    if recipe.search is None:
        raise EdgekdError(f"{path} has no `search:`", hint="see docs/guides/sweeps.md")
    check_space(recipe, recipe.search, str(path))
    if promoted is not None:
        check_name(path, promoted)
    folder.open(recipe.name.removesuffix(f".{variant}"))
    source = Search(recipe, variant, folder, trials=trials)
    if settings.list_only:
        return _list(listing(source.trials(), folder), source.trials(), settings)
    try:
        with live(source.trials, folder, settings.jobs or 1) as show:
            work(source, folder, jobs=settings.jobs, budget_s=settings.budget_s, show=show)
    finally:
        best = source.write()
        _show_search(source.record(), settings)
    if source.fatal:
        raise EdgekdError(
            f"the first trial failed, so the search stopped: {source.fatal}",
            hint=f"logs are in {folder.root / 'logs'}",
        )
    chosen = source.best()
    if best is not None and chosen is not None:
        say(f"the recipe with the best values: {best}")
        if promoted is not None:
            comment = f"best of {len(source.trials())} trials: {source.score} {chosen[2]:.4f} (val)"
            promote(path, promoted, variant, chosen[1], comment)
            say(f"{path}: variant '{promoted}' added")
    raise_failures(source.trials(), folder)
    return None


def _show_search(record: dict[str, Any], settings: _Settings) -> None:
    if settings.json:
        print_json(record)
        return
    from rich.table import Table

    table = Table(title=f"{record['variant']}: {record['score']} of {record['model']} on val",
                  title_justify="left", box=None, pad_edge=False)  # fmt: skip
    keys = list(record["trials"][0]["values"]) if record["trials"] else []
    for name in ("trial", *_short(keys), record["score"], ""):
        table.add_column(name, justify="right" if name != "" else "left")
    best = record["best"]["trial"] if record["best"] else None
    for row in record["trials"]:
        value = "-" if row["value"] is None else f"{row['value']:.4f}"
        note = "best" if row["trial"] == best else "" if row["value"] is not None else row["state"]
        shown = [_plain(row["values"].get(key)) for key in keys]
        table.add_row(str(row["trial"]), *shown, value, note)
    print_table(table)


def _list(rows: list[dict[str, Any]], trials: Sequence[Trial], settings: _Settings) -> None:
    if settings.json:
        print_json(rows)
        return
    from rich.table import Table

    from edgekd.sweep.estimate import Estimates, duration
    from edgekd.sweep.progress import summary

    table = Table(box=None, pad_edge=False)
    for name in ("run", "status", "position", "left", ""):
        table.add_column(name, justify="right" if name == "left" else "left")
    for row in rows:
        left = "" if row["status"] == "done" else duration(row["seconds_left"])
        table.add_row(row["trial"], row["status"], row["position"] or "", left,
                      row["message"] or "")  # fmt: skip
    print_table(table)
    estimates = Estimates(trials, settings.folder)
    typer.echo(summary(trials, settings.folder, settings.jobs or 1, estimates))


def _short(keys: list[str]) -> list[str]:
    """The last parts of each key that tell it from the others."""
    for count in range(1, 9):
        found = [".".join(key.split(".")[-count:]) for key in keys]
        if len(set(found)) == len(keys):
            return found
    return keys


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _one_variant(names: list[str], wanted: list[str] | None) -> str:
    if not wanted:
        return "base"
    if len(names) != 1:
        raise EdgekdError("a search works on one variant", hint="edgekd sweep RECIPE --search "
                          f"--variant {names[0]}")  # fmt: skip
    return names[0]


def _seeds(text: str | None, recipe: Recipe) -> list[int]:
    if text is None:
        return list(dict.fromkeys(recipe.seeds)) or [recipe.seed]
    try:
        return list(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise EdgekdError(f"--seeds {text}: expected numbers like 1,2,3") from None


def _words(options: list[str] | None) -> list[str]:
    return [word.strip() for text in options or [] for word in text.split(",") if word.strip()]


def _shown(overrides: list[str] | None) -> list[str]:
    """The overrides for a document: without places on this machine."""
    return [text for text in overrides or [] if not text.startswith(("data.root", "data.prepared"))]
