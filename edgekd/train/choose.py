"""Which epoch's weights are kept, and when a stage has learned what it can."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekd.recipe import StageSpec
from edgekd.tasks.base import Task
from edgekd.train.checkpoint import Best, Progress, save_weights
from edgekd.train.distiller import Distiller

Scores = dict[str, dict[str, float]]  # {model: {score: value}}


@dataclass(frozen=True)
class Choice:
    """How the epoch to keep is chosen, and by what a stage ends early (patience 0: never)."""

    score: str
    higher: bool
    keep: str  # best, last
    patience: int = 0
    stop_score: str = ""
    stop_higher: bool = True


def choice_of(spec: StageSpec, task: Task) -> Choice:
    """What a stage says about it."""
    if spec.stop is None:
        return Choice(task.primary, task.higher_is_better, spec.select)
    score = spec.stop.score or task.primary
    higher = task.metrics()[score].direction == "higher"
    return Choice(task.primary, task.higher_is_better, spec.select, spec.stop.patience, score,
                  higher)  # fmt: skip


def choose(
    state: Progress, choice: Choice, scores: Scores, distiller: Distiller, folder: Path | None
) -> dict[str, bool]:
    """Keep this epoch's weights of every model for which it is the best (or the latest).

    Without a folder nothing is written: another process does that.
    """
    chosen = {}
    for model in distiller.trained:
        value = scores.get(model, {}).get(choice.score, math.nan)
        best = state.best.get(model)
        better = choice.keep == "last" or best is None
        if best is not None and not better:
            better = _is_better(value, best.value, choice.higher)
        chosen[model] = better
        if better:
            state.best[model] = Best(state.epoch, value if math.isfinite(value) else None)
            net: Any = distiller.networks[model]
            if folder is not None:
                save_weights(net.net, folder / f"{model}.safetensors")
    return chosen


def note_progress(state: Progress, choice: Choice, scores: Scores, models: Sequence[str]) -> None:
    """Remember the epoch in which each model was best by the score that ends the stage."""
    if not choice.patience:
        return
    for model in models:
        value = scores.get(model, {}).get(choice.stop_score, math.nan)
        best = state.waiting.get(model)
        if best is None or _is_better(value, best.value, choice.stop_higher):
            state.waiting[model] = Best(state.epoch, value if math.isfinite(value) else None)


def note_plateau(state: Progress, spec: StageSpec, task: Task, scores: Scores) -> None:
    """Lower the rate where no trained model's score has improved for more than `patience` epochs.

    As torch's ReduceLROnPlateau counts, with any improvement counting. `state.epoch` is the one
    that has just ended.
    """
    if spec.schedule.name != "plateau":
        return
    score = plateau_score(spec, task)
    higher = task.metrics()[score].direction == "higher"
    for model, found in scores.items():
        value, best = found.get(score, math.nan), state.plateau.get(model)
        if best is None or _is_better(value, best.value, higher):
            state.plateau[model] = Best(state.epoch, value if math.isfinite(value) else None)
    latest = max((best.epoch for best in state.plateau.values()), default=state.epoch)
    if state.epoch - latest > spec.schedule.patience:
        state.drops += 1
        # the next epochs have to show themselves before it is lowered again
        for best in state.plateau.values():
            best.epoch = state.epoch


def plateau_score(spec: StageSpec, task: Task) -> str:
    """The score by which a plateau is told."""
    return spec.schedule.score or ("nll" if "nll" in task.curve() else task.primary)


def has_stalled(state: Progress, choice: Choice) -> bool:
    """Has no model got better for `patience` epochs? `state.epoch` is the one to come."""
    if not choice.patience or not state.waiting:
        return False
    latest = max(best.epoch for best in state.waiting.values())
    return state.epoch - 1 - latest >= choice.patience


def _is_better(value: float, best: float | None, higher: bool) -> bool:
    if not math.isfinite(value):
        return False
    return best is None or (value > best if higher else value < best)
