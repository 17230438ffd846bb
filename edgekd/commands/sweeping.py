"""sweep: many runs of one recipe."""

from __future__ import annotations

import shlex
import shutil
import sys
from dataclasses import dataclass
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
from edgekd.commands.sweep_tables import show_list, show_search
from edgekd.errors import EdgekdError
from edgekd.log import say, warn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgekd.recipe import Recipe
    from edgekd.sweep.plan import Trial
    from edgekd.sweep.search import Search
    from edgekd.sweep.state import SweepDir

WIDE = 200  # where there is no terminal


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
    from edgekd.sweep.workers import slots

    if variant is not None and not _words(variant):
        raise EdgekdError("--variant is empty", hint="leave it out to run all of them")
    budget_s = parse_budget(budget) if budget is not None else None
    path = catalog.resolve(recipe)
    loaded = plan.load_variant(path, plan.BASE, overrides or ())
    names = plan.choose_variants(loaded, _words(variant))
    folder = SweepDir(out or Path("runs") / f"{loaded.name}.sweep")
    settings = _Settings(loaded.name, folder, slots(jobs), budget_s, list_only, json,
                         list(overrides or ()))  # fmt: skip
    if search:
        grid_only = (("--seeds", seeds), ("--baseline", baseline), ("--metrics", metrics))
        for option, text in grid_only:
            if text is not None:
                raise EdgekdError(f"{option} does not belong to a search", hint="leave it out")
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
    command = shlex.join(
        ["edgekd", "sweep", recipe, *_shown(overrides), "--variant", ",".join(names),
         "--seeds", ",".join(map(str, chosen_seeds)), "--baseline", base,
         *(["--metrics", metrics] if metrics else [])]
    )  # fmt: skip
    _grid(found, base, shown, command, settings)


@dataclass(frozen=True)
class _Settings:
    """What both kinds of sweep are told."""

    name: str  # of the recipe without a variant
    folder: SweepDir
    jobs: int
    budget_s: float | None
    list_only: bool
    json: bool
    overrides: list[str]

    def print_list(self, rows: list[dict[str, Any]], trials: Sequence[Trial], unborn: int) -> None:
        show_list(rows, trials, unborn, self.folder, self.jobs, json=self.json)


def _grid(
    trials: Sequence[Trial], base: str, metrics: list[str], command: str, settings: _Settings
) -> None:
    from edgekd.sweep import show as shown
    from edgekd.sweep.progress import live
    from edgekd.sweep.run import Grid, listing, raise_failures, work
    from edgekd.sweep.table import collect

    folder = settings.folder
    if settings.list_only and not folder.root.exists():
        return show_list(
            listing(trials, folder), trials, 0, folder, settings.jobs, json=settings.json
        )
    folder.open(settings.name)
    folder.check(trials)
    if settings.list_only:
        return show_list(
            listing(trials, folder), trials, 0, folder, settings.jobs, json=settings.json
        )
    source = Grid(trials, folder)
    try:
        with live(source.trials, folder, settings.jobs) as show:
            work(source, folder, jobs=settings.jobs, budget_s=settings.budget_s, show=show)
    finally:
        record = collect(trials, folder, name=settings.name, baseline=base, metrics=metrics,
                         command=command)  # fmt: skip
        shown.write(record, folder)
        if settings.json:
            print_json(record)
        else:
            width = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDE
            print_table(shown.terminal(record, width))
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
    from edgekd.sweep.progress import live
    from edgekd.sweep.promote import check_name
    from edgekd.sweep.run import listing, raise_failures, work
    from edgekd.sweep.search import Search, is_begun, wanted
    from edgekd.sweep.space import check_space

    folder = settings.folder
    if recipe.search is None:
        raise EdgekdError(f"{path} has no `search:`", hint="see docs/guides/sweeps.md")
    check_space(recipe, recipe.search, str(path))
    if promoted is not None:
        check_name(path, promoted)
    if settings.list_only and not is_begun(folder, variant):
        return show_list(
            [], [], wanted(recipe.search, trials), folder, settings.jobs, json=settings.json
        )
    folder.open(settings.name)
    source = Search(recipe, variant, folder, trials=trials)
    if settings.list_only:
        known = source.trials()
        return show_list(
            listing(known, folder),
            known,
            max(0, source.wanted - len(known)),
            folder,
            settings.jobs,
            json=settings.json,
        )
    source.try_again()
    try:
        with live(source.trials, folder, settings.jobs) as show:
            work(source, folder, jobs=settings.jobs, budget_s=settings.budget_s, show=show)
    finally:
        best = source.write()
        show_search(source.record(), list(recipe.search.space), json=settings.json)
    if source.fatal:
        raise EdgekdError(
            f"the first trials all failed, so the search stopped: {source.fatal}",
            hint=f"logs are in {folder.root / 'logs'}",
        )
    if best is not None:
        say(f"the recipe with the best values: {best}")
        _promote(path, promoted, variant, source, settings)
    raise_failures(source.trials(), folder)
    return None


def _promote(
    path: Path, name: str | None, variant: str, source: Search, settings: _Settings
) -> None:
    from edgekd.sweep.promote import promote

    chosen = source.best()
    if name is None or chosen is None:
        return
    comment = f"best of {len(source.trials())} trials: {source.score} {chosen[2]:.4f} (val)"
    promote(path, name, variant, chosen[1], comment)
    say(f"{path}: variant '{name}' added")
    if settings.overrides:
        warn(f"the search ran with {' '.join(settings.overrides)}, which the variant does not set")


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
