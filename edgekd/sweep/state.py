"""What a sweep's folder knows: which trials are done, running, failed or to do.

runs/<name>.sweep/
  sweep.json            the recipe it belongs to
  recipes/<trial>.yaml  the resolved recipe of each trial
  runs/<trial>/         an ordinary run folder
  logs/<trial>.log      what the run printed
  ended/<trial>.json    how its last attempt ended
  claims/<trial>.lock   held while the trial's process lives
  sessions/             how long each `edgekd sweep` has worked
  results.json, .md, .csv
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from edgekd import recipe_load
from edgekd.errors import EdgekdError, RecipeError
from edgekd.locks import try_lock
from edgekd.recipe import Recipe
from edgekd.rundir import RunDir, write_text
from edgekd.sweep.plan import Trial

Status = Literal["done", "running", "failed", "begun", "to do"]
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Ended:
    """How the last attempt of a trial ended."""

    outcome: Literal["done", "failed", "stopped"]
    seconds: float  # of this attempt
    message: str = ""
    trained: list[str] = field(default_factory=list)  # stages; the others came from the shelf
    signal: int = 0  # what killed it


@dataclass(frozen=True)
class SweepDir:
    """The paths inside one sweep folder, and what they say."""

    root: Path

    def run(self, trial: Trial) -> RunDir:
        """The trial's run; all runs of a sweep share the shelf beside the sweep's folder."""
        return RunDir(self.root / "runs" / trial.name, self.root.parent)

    def recipe(self, trial: Trial) -> Path:
        return self.root / "recipes" / f"{trial.name}.yaml"

    def log(self, trial: Trial) -> Path:
        return self.root / "logs" / f"{trial.name}.log"

    def claim(self, name: str) -> Path:
        return self.root / "claims" / f"{name}.lock"

    def open(self, recipe: str) -> None:
        """Make the folder this recipe's. Raises RecipeError where it is another's."""
        path = self.root / "sweep.json"
        if self.root.exists() and not self.root.is_dir():
            raise EdgekdError(f"--out {self.root} is a file, expected a folder")
        if not path.is_file():
            if self.root.is_dir() and any(p for p in self.root.iterdir() if p.name[0] != "."):
                raise EdgekdError(
                    f"{self.root} is not empty and not a sweep's folder",
                    hint="choose another with --out",
                )
            facts = {"schema_version": SCHEMA_VERSION, "recipe": recipe}
            write_text(path, json.dumps(facts, indent=2) + "\n")
            return
        known = _read(path)
        if known.get("schema_version") != SCHEMA_VERSION:
            raise EdgekdError(
                f"{path} is damaged or of another version of edgekd",
                hint="choose another folder with --out",
            )
        if known.get("recipe") != recipe:
            raise RecipeError(
                f"{self.root} is the sweep of recipe '{known.get('recipe')}', not of '{recipe}'",
                hint="choose another folder with --out",
            )

    def check(self, trials: Sequence[Trial]) -> None:
        """Raise RecipeError where a trial's folder holds a run of another recipe or other data."""
        for trial in trials:
            run = self.run(trial)
            if not run.recipe.is_file():
                continue
            there = recipe_load.load(run.recipe)
            scored = _read(run.environment).get("scored")
            what = _difference(there, trial)
            if what is None and scored in (None, trial.scored):
                continue
            why = what or "its data, or a file that the recipe names, has changed since"
            raise RecipeError(
                f"{run.root} was trained with another recipe: {why}",
                hint="choose another folder with --out, or remove this one",
            )

    def status(self, trial: Trial) -> Status:
        """Where a trial is. One that runs is known by its claim, which dies with its process."""
        if self.is_done(trial):
            return "done"
        if is_claimed(self.claim(trial.name)):
            return "running"
        ended = self.ended(trial.name)
        if ended is not None and ended.outcome == "failed":
            return "failed"
        return "begun" if any(self.run(trial).root.glob("stages/*/metrics.jsonl")) else "to do"

    def is_done(self, trial: Trial) -> bool:
        run = self.run(trial)
        return run.scores.is_file() and _read(run.environment).get("scored") == trial.scored

    def scores(self, trial: Trial) -> dict[str, Any]:
        """{model: {part: {score: results.Score}}} of a finished run; empty if it is damaged."""
        return _read(self.run(trial).scores)

    def ended(self, name: str) -> Ended | None:
        found = _read(self.root / "ended" / f"{name}.json")
        try:
            return Ended(**found) if found else None
        except TypeError:  # of another version
            return None

    def record(self, name: str, ended: Ended) -> None:
        text = json.dumps(asdict(ended), sort_keys=True)
        write_text(self.root / "ended" / f"{name}.json", text + "\n")

    def write_recipe(self, trial: Trial) -> Path:
        path = self.recipe(trial)
        write_text(path, recipe_load.to_yaml(trial.recipe))
        return path

    def spent(self) -> float:
        """Seconds that all sessions have worked on this sweep."""
        return sum(
            float(_read(path).get("seconds", 0.0)) for path in self.root.glob("sessions/*.json")
        )


class Session:
    """How long this process has worked on the sweep, kept where a kill cannot lose it."""

    EVERY_S = 5.0

    def __init__(self, folder: SweepDir) -> None:
        self.folder = folder
        self.others = folder.spent()
        self.path = folder.root / "sessions" / f"{uuid.uuid4().hex}.json"
        self.started = time.monotonic()
        self._written = -self.EVERY_S

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    @property
    def spent(self) -> float:
        """What all sessions have used, those that work at this moment included."""
        return self.others + self.seconds

    def beat(self, *, now: bool = False) -> None:
        """Write down the time, now and then."""
        if now or self.seconds - self._written >= self.EVERY_S:
            self._written = self.seconds
            write_text(self.path, json.dumps({"seconds": round(self.seconds, 1)}) + "\n")
            own = float(_read(self.path).get("seconds", 0.0))
            self.others = max(0.0, self.folder.spent() - own)


def claim(path: Path) -> int | None:
    """Take a trial; the open file that holds it, or None where another process has it.

    The descriptor is handed to the trial's process: the claim lives as long as either of the two.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    return try_lock(path)


def is_claimed(path: Path) -> bool:
    """Does a living process hold this claim?"""
    if not path.is_file():
        return False
    descriptor = try_lock(path, shared=True)  # looking must not look like holding
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


def holder(path: Path) -> str:
    """The number of the process that holds a claim, as text."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _difference(there: Recipe, trial: Trial) -> str | None:
    """The first key in which a run's recipe differs from the trial's, where training sees it."""
    first, second = (_flat(_trained_by(recipe)) for recipe in (there, trial.recipe))
    for key in sorted(set(first) | set(second)):
        if first.get(key) != second.get(key):
            return f"{key} is {first.get(key)!r} there, {second.get(key)!r} here"
    return None


def _trained_by(recipe: Recipe) -> dict[str, Any]:
    tree = recipe.model_dump(mode="json", by_alias=True)
    data = {
        key: value
        for key, value in tree["data"].items()
        if key not in {"root", "workers", "prepared"}
    }
    numeric = ("precision", "channels_last", "compile")
    hardware = {key: tree["hardware"][key] for key in numeric}
    kept = {key: tree[key] for key in ("task", "models", "stages", "plugins", "seed")}
    return {**kept, "data": data, "hardware": hardware}


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict) or not tree:
        return {prefix: tree}
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return found
