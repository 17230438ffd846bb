"""What is said, checked and passed on of an epoch."""

from __future__ import annotations

import math
from typing import Any

from edgekd.errors import TrainingDiverged
from edgekd.log import say, warn
from edgekd.losses.base import Clock
from edgekd.train.choose import Choice, Scores
from edgekd.train.distiller import Distiller


def check_finite(found: dict[str, float], epoch: int, step: int) -> None:
    for term, value in found.items():
        if not math.isfinite(value):
            raise TrainingDiverged(
                f"term '{term}' became {value} in epoch {epoch}, step {step + 1}",
                hint="lower the learning rate or the term's weight, or set optimizer.clip",
            )


def observe(distiller: Distiller, clock: Clock, scores: Scores, of_classes: Scores) -> None:
    both = {model: {**found, **of_classes.get(model, {})} for model, found in scores.items()}
    for loss in distiller.terms.values():
        loss.observe(clock, both)  # type: ignore[operator]


def warn_of_weights(name: str, found: dict[str, float]) -> None:
    for term, multiple in found.items():
        warn(
            f"{name}: the weighted term '{term}' was {multiple:.0f} times the task's loss in epoch "
            f"1; consider a smaller stages.{name}.losses.{term}.weight"
        )


def report(name: str, row: dict[str, Any], choice: Choice) -> None:
    terms = "  ".join(f"{term} {value:.3f}" for term, value in row["terms"].items())
    scores = "  ".join(
        f"{model} {choice.score} {values.get(choice.score) or 0:.3f}{'*' * row['best'][model]}"
        for model, values in row["val"].items()
    )
    where = f"{name} {row['epoch']:>3}/{row['epochs']}"
    say(f"{where}  {terms}  |  {scores}  |  {row['seconds']:.0f} s")
