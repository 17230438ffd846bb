"""A published table beside what runs here have measured, in the paper's rows and columns.

A figure is compared only where data, split, size of the images and pretraining are those of the
paper; elsewhere the cell says why not. With the paper's figure inside our 95 % interval over seeds
the cell is a `match`, else ours is wholly `better` or `worse`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from edgekd import catalog, published
from edgekd.errors import DataError, EdgekdError, RecipeError
from edgekd.log import warn
from edgekd.published import UNAVAILABLE, PublishedRow, PublishedTable, Setting
from edgekd.recipe import Recipe
from edgekd.recipe_load import load
from edgekd.stats import mean_interval

NOT_RUN = "not run"
ONE_SEED = "one seed"
LOWER = {"mae", "mae_argmax", "ece", "brier", "nll", "params_m", "latency_s"}

Status = Literal["match", "better", "worse"]


@dataclass(frozen=True)
class Found:
    """One recipe (or variant) with its scores on test images: {model: {seed: {score: value}}}."""

    name: str
    where: str  # the folder of the runs, or the file
    recipe: Recipe
    scores: dict[str, dict[int, dict[str, float | None]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Ours:
    """One figure measured here."""

    values: list[float]
    mean: float
    low: float | None
    high: float | None
    delta: float | None  # to the published figure, where they can be compared
    status: str  # a Status, or why there is none


@dataclass(frozen=True)
class Source:
    """What one recipe has measured for one published line."""

    name: str
    seeds: list[int]
    cells: dict[str, Ours | None]  # by score; None where the run does not have it


@dataclass(frozen=True)
class Line:
    """A published line and all that was measured for it."""

    row: PublishedRow
    sources: list[Source]


@dataclass(frozen=True)
class Against:
    """One published table."""

    table: PublishedTable
    scores: list[str]  # the columns
    lines: list[Line]
    differences: dict[str, list[str]]  # by recipe: why it is not compared


def gather(targets: Sequence[Path]) -> list[Found]:
    """All scored runs below some folders, and those of results files; seeds are put together.

    Raises DataError for a target that is not there.
    """
    found: dict[tuple[str, str], Found] = {}  # runs of one recipe that lie together are its seeds
    for target in targets:
        if not target.exists():
            raise DataError(f"{target}: no such file or folder")
        for one in _of_results(target) if target.is_file() else _of_runs(target):
            known = found.setdefault((one.name, one.where), one)
            if known is not one:
                for model, seeds in one.scores.items():
                    known.scores.setdefault(model, {}).update(seeds)
    return list(found.values())


def against(name: str, found: Sequence[Found]) -> Against:
    """One table. Raises RecipeError for a name that no paper has."""
    table = published.table(name)
    scores = list(dict.fromkeys(score for row in table.rows for score in row.values))
    differences: dict[str, list[str]] = {}
    lines = []
    for row in table.rows:
        sources: list[Source] = []
        for one in found:
            model = _stands_for(one.recipe, row, name)
            seeds = one.scores.get(model or "", {})
            if not seeds:
                continue
            why = differs(one.recipe, table.setting)
            differences[one.name] = why
            cells = {score: _ours(row, score, seeds, why) for score in row.values}
            same = any(cells == other.cells for other in sources)  # variants share a teacher
            if any(cells.values()) and not same:
                sources.append(Source(one.name, sorted(seeds), cells))
        lines.append(Line(row, sources))
    return Against(table, scores, lines, differences)


def differs(recipe: Recipe, setting: Setting | None) -> list[str]:
    """How a recipe's data and networks differ from the paper's; nothing where they do not."""
    if setting is None:
        return ["the paper's setting is not recorded"]
    if setting.private:
        return ["the paper's images are private"]
    data, found = recipe.data, []
    if setting.data and data.name not in setting.data:
        found.append(f"data {data.name}, not {' or '.join(setting.data)}")
    if data.limit is not None:
        found.append(f"{data.limit} of the images")
    if setting.split and data.split not in setting.split:
        found.append(f"split {data.split}, not {' or '.join(setting.split)}")
    if setting.size is not None and data.input.size != setting.size:
        found.append(f"{data.input.size} pixels, not {setting.size}")
    if setting.pretrained and not any(spec.pretrained for spec in recipe.models.values()):
        found.append("not pretrained")
    return found


def _stands_for(recipe: Recipe, row: PublishedRow, table: str) -> str | None:
    """The model of a recipe that a published line is of."""
    paper = recipe.paper
    if paper is None or table not in (paper.table, *paper.also):
        return None
    if row.scenario is not None and row.scenario != paper.scenario:
        return None
    if row.expert and row.method in paper.members:
        return paper.members[row.method]
    if row.method != paper.method:
        return None
    return recipe.export.model if row.member is None else paper.members.get(row.member)


def _ours(
    row: PublishedRow, score: str, seeds: dict[int, dict[str, float | None]], why: list[str]
) -> Ours | None:
    values = [v for found in seeds.values() if (v := found.get(score)) is not None]
    if not values:
        return None
    mean, low, high = mean_interval(values)
    printed = row.values[score]
    several = len(values) > 1
    return Ours(
        values=values,
        mean=mean,
        low=low if several else None,
        high=high if several else None,
        delta=None if printed is None or why or row.suspect else mean - printed,
        status=_status(printed, low, high, score in LOWER, several, why, row.suspect),
    )


def _status(
    printed: float | None,
    low: float,
    high: float,
    is_lower: bool,
    several: bool,
    why: list[str],
    suspect: str | None,
) -> str:
    if printed is None:
        return UNAVAILABLE
    if suspect:
        return f"not comparable: {suspect}"
    if why:
        return f"not comparable: {'; '.join(why)}"
    if not several:
        return ONE_SEED
    if low <= printed <= high:
        return "match"
    return "better" if (high < printed) == is_lower else "worse"


def _of_runs(folder: Path) -> Iterator[Found]:
    for path in sorted(folder.rglob("scores.json")):
        run = path.parent
        if not (run / "recipe.yaml").is_file():
            continue
        try:
            recipe = load(run / "recipe.yaml")
            tree = json.loads(path.read_text(encoding="utf-8"))
            scores = {model: {recipe.seed: _values(parts)} for model, parts in tree.items()}
        except (EdgekdError, OSError, ValueError, AttributeError, TypeError) as error:
            warn(f"{run} is left out: {error}")
            continue
        yield Found(recipe.name, str(run.parent), recipe, scores)


def _values(parts: dict[str, Any]) -> dict[str, float | None]:
    """A model's test scores; of a teacher for other data those on its own."""
    scores = parts.get("own_test") or parts["test"]
    return _plain(scores)


def _plain(scores: dict[str, Any]) -> dict[str, float | None]:
    """Values alone, where they come with their intervals."""
    return {name: s["value"] if isinstance(s, dict) else s for name, s in scores.items()}


def _of_results(path: Path) -> Iterator[Found]:
    """The cells of a results file of a study, by the recipe that it names."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: no results: {error}") from None
    if not isinstance(record, dict) or not {"recipe", "cells"} <= set(record):
        return
    name = str(record["recipe"])
    try:
        shipped = catalog.find(name)
    except RecipeError as error:
        warn(f"{path} is left out: {error.message}")
        return
    recipes: dict[str, Recipe] = {}
    for cell, entry in record["cells"].items():
        variant, _, seed = cell.rpartition("/")
        if variant not in recipes:
            try:
                recipes[variant] = load(shipped, variant=None if variant == "base" else variant)
            except EdgekdError as error:
                warn(f"{path}: {variant} is left out: {error.message}")
                continue
        scores = {**entry["scores"], **(entry.get("own_scores") or {})}
        yield Found(
            recipes[variant].name,
            str(path),
            recipes[variant],
            {model: {int(seed): _plain(values)} for model, values in scores.items()},
        )
