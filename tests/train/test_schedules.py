"""Learning rates that wait for a plateau, fall at milestones, or warm up from somewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from edgekd.errors import RecipeError
from edgekd.recipe import ScheduleSpec, StageSpec
from edgekd.recipe_load import validate
from edgekd.rundir import RunDir
from edgekd.tasks.classification import Classification
from edgekd.train.checkpoint import Progress
from edgekd.train.choose import note_plateau, plateau_score
from edgekd.train.optim import factor
from edgekd.train.run import distill
from tests.tiny import tree

TASK = Classification(classes=("a", "b"))


def stage(**schedule: Any) -> StageSpec:
    spec = {"train": "s", "losses": {"ce": {"to": "s"}}}
    return StageSpec.model_validate({**spec, "schedule": {"name": "plateau", **schedule}})


def drops(values: list[float], **schedule: Any) -> list[int]:
    """How often the rate was lowered after each epoch with this validation loss."""
    state, found = Progress(), []
    for epoch, value in enumerate(values, 1):
        state.epoch = epoch
        note_plateau(state, stage(**schedule), TASK, {"s": {"nll": value}})
        found.append(state.drops)
    return found


def test_a_plateau_is_counted_as_torch_counts_it() -> None:
    values = [1.0, 0.9, 0.95, 0.93, 0.92, 0.91, 0.95, 0.95, 0.95, 0.8, 0.85, 0.85, 0.85]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    torchs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=2, threshold=0.0)
    rates = []
    for value in values:
        torchs.step(value)
        rates.append(optimizer.param_groups[0]["lr"])
    ours = [0.1**count for count in drops(values, patience=2)]
    assert ours == pytest.approx(rates)


def test_the_rate_falls_by_gamma_and_not_below_the_floor() -> None:
    spec = ScheduleSpec(name="plateau", gamma=0.1, floor=1e-7)
    found = [factor(spec, progress=9, epochs=10, lr=1e-4, drops=count) for count in (0, 2, 5)]
    assert found == pytest.approx([1.0, 0.01, 1e-3])


def test_by_default_the_validation_loss_tells_a_plateau() -> None:
    assert plateau_score(stage(), TASK) == "nll"
    assert plateau_score(stage(score="macc"), TASK) == "macc"


def test_a_score_that_is_not_taken_after_every_epoch_is_refused(tmp_path: Path) -> None:
    written = tree(tmp_path)
    written["stages"]["distill"]["schedule"] = {"name": "plateau", "score": "auroc"}
    with pytest.raises(RecipeError, match=r"stages\.distill\.schedule\.score: 'auroc'"):
        distill(validate(written, "tiny"), RunDir(tmp_path / "run"))


def test_milestones_take_the_place_of_every() -> None:
    spec = ScheduleSpec(name="step", milestones=[30, 45], gamma=0.1)
    found = [factor(spec, progress=epoch, epochs=60, lr=1.0) for epoch in (0, 29.9, 30, 45)]
    assert found == pytest.approx([1.0, 1.0, 0.1, 0.01])


def test_a_warm_up_may_begin_above_nothing() -> None:
    spec = ScheduleSpec(name="cosine", warmup=20, warmup_from=0.1, floor=1e-5)
    found = [factor(spec, progress=at, epochs=120, lr=1e-3) for at in (0, 10, 20, 120)]
    assert found == pytest.approx([0.1, 0.55, 1.0, 0.01])
