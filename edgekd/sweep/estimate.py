"""How far a trial is, and how long it will take, judged by what has been trained already."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from edgekd.sweep.plan import Trial
from edgekd.sweep.state import SweepDir


@dataclass(frozen=True)
class Position:
    """Where a trial's training is, from its last row of `metrics.jsonl`."""

    stage: str
    epoch: int
    epochs: int
    scores: dict[str, dict[str, float | None]]  # on validation images

    @property
    def text(self) -> str:
        return f"{self.stage} {self.epoch}/{self.epochs}"


def rows(folder: Path) -> list[dict[str, Any]]:
    """The finished epochs of a stage."""
    try:
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:  # being written at this moment
            continue
        if isinstance(row, dict) and {"epoch", "epochs", "seconds"} <= set(row):
            found.append(row)
    return found


def position(trial: Trial, folder: SweepDir) -> Position | None:
    """The last epoch that a trial has finished."""
    run = folder.run(trial)
    for stage in reversed(trial.recipe.stages):
        done = rows(run.stage(stage))
        if done:
            last = done[-1]
            return Position(stage, int(last["epoch"]), int(last["epochs"]), last.get("val", {}))
    return None


def missing(trial: Trial, folder: SweepDir) -> dict[str, str]:
    """The stages that nobody has trained yet, with their keys."""
    run = folder.run(trial)
    return {
        stage: key
        for stage, key in trial.keys.items()
        if not (run.shelf / key / "done.json").is_file()
        and _key_of(run.stage(stage) / "done.json") != key
    }


class Estimates:
    """Seconds per stage and per start, from the trials that are done."""

    def __init__(self, trials: Sequence[Trial], folder: SweepDir) -> None:
        self.folder = folder
        self.by_variant: dict[tuple[str, str], list[float]] = {}
        self.by_stage: dict[str, list[float]] = {}
        self.around: list[float] = []  # start-up, dry run, scoring
        for trial in trials:
            seconds = self._stages_of(trial)
            for stage, value in seconds.items():
                self.by_variant.setdefault((trial.variant, stage), []).append(value)
                self.by_stage.setdefault(stage, []).append(value)
            ended = folder.ended(trial.name)
            if ended is not None and ended.outcome == "done":
                training = sum(seconds.get(stage, 0.0) for stage in ended.trained)
                self.around.append(max(0.0, ended.seconds - training))

    def total_left(self, trials: Sequence[Trial]) -> float | None:
        """What all trials still need one after the other, a shared stage once."""
        counted: set[str] = set()
        lefts = [self.seconds_left(trial, counted) for trial in trials]
        known = [left for left in lefts if left is not None]
        return sum(known) if len(known) == len(lefts) else None

    def seconds_left(self, trial: Trial, counted: set[str] | None = None) -> float | None:
        """What a trial still needs; None where nothing like it has been trained.

        Stages in `counted` are left out, and those that are not are added to it.
        """
        left = median(self.around) if self.around else 0.0
        for stage, key in missing(trial, self.folder).items():
            if counted is not None:
                if key in counted:
                    continue
                counted.add(key)
            known = self.by_variant.get((trial.variant, stage)) or self.by_stage.get(stage)
            own = rows(self.folder.run(trial).stage(stage))
            spent = sum(float(row["seconds"]) for row in own)
            if own:  # its own speed is the best guess
                left += spent / len(own) * (int(own[-1]["epochs"]) - len(own))
            elif known:
                left += median(known)
            else:
                return None
        return left

    def _stages_of(self, trial: Trial) -> dict[str, float]:
        run = self.folder.run(trial)
        found = {}
        for stage in trial.recipe.stages:
            if (run.stage(stage) / "done.json").is_file():
                found[stage] = sum(float(row["seconds"]) for row in rows(run.stage(stage)))
        return found


def _key_of(path: Path) -> str | None:
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def duration(seconds: float | None) -> str:
    """Seconds for a person: `8 s`, `3:05 min`, `1:20 h`."""
    if seconds is None:
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"
