"""How far a student agrees with its teacher: by hand, over groups, and as a score by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd import plugins, stats
from edgekd.errors import DataError, RecipeError
from edgekd.recipe import Recipe
from edgekd.results import Predictions
from edgekd.sweep.show import as_csv, markdown
from edgekd.sweep.table import choose_metrics
from edgekd.tasks.classification import Classification
from edgekd.tasks.fidelity import fidelity
from tests import tiny

TASK = Classification(classes=("a", "b", "c"))
TEACHER = [0, 1, 2, 2, 1, 0, 0, 1]
STUDENT = [0, 1, 2, 0, 1, 0, 1, 1]  # 6 of 8 the same
GROUPS = ["p", "p", "q", "q", "r", "r", "s", "s"]


def said(decisions: list[int], targets: list[int] | None = None) -> Predictions:
    logits = 2.0 * np.eye(3, dtype=np.float32)[decisions]
    ids = [f"image{index}" for index in range(len(decisions))]
    return Predictions(ids, GROUPS[: len(ids)], np.array(targets or [0] * len(ids)), logits)


def test_agreement_is_the_other_side_of_deciding_otherwise() -> None:
    ours, theirs = said(STUDENT).logits, said(TEACHER).logits
    assert TASK.agreement(ours, theirs).tolist() == [1, 1, 1, 0, 1, 1, 0, 1]
    assert (TASK.agreement(ours, theirs) + TASK.decided_otherwise(ours, theirs) == 1).all()
    theirs[0] = np.nan
    assert TASK.agreement(ours, theirs)[0] == 0


def test_it_is_the_share_of_the_same_decisions_with_the_interval_of_the_scores() -> None:
    found = fidelity(TASK, said(STUDENT), said(TEACHER))
    assert found.value == pytest.approx(6 / 8)
    assert (found.images, found.groups, found.direction) == (8, 4, "higher")
    # a teacher's decisions taken for the truth: the accuracy, on the very same resamples
    accuracy = TASK.score(said(STUDENT, targets=TEACHER))["accuracy"]
    assert found == accuracy
    weights = stats.group_weights(GROUPS)
    same = np.equal(STUDENT, TEACHER)
    values = [float((w * same).sum() / w.sum()) for w in weights]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))


def test_labels_are_not_asked_for() -> None:
    unlabelled = said(STUDENT, targets=[-1] * 8)
    assert fidelity(TASK, unlabelled, said(TEACHER)).value == pytest.approx(6 / 8)


def test_a_model_agrees_with_itself_and_without_images_nobody_does() -> None:
    whole = fidelity(TASK, said(TEACHER), said(TEACHER))
    assert (whole.value, whole.low, whole.high) == (1, 1, 1)
    none = fidelity(TASK, said([]), said([]))
    assert (none.value, none.low, none.images) == (None, None, 0)


def test_predictions_for_other_images_are_refused() -> None:
    with pytest.raises(DataError, match=r"different images \(8 of the student, 7 of the teacher\)"):
        fidelity(TASK, said(STUDENT), said(TEACHER[:7]))


def test_it_is_no_task_of_its_own() -> None:
    assert "fidelity" not in plugins.names("tasks")


def test_a_sweep_can_show_it_where_there_is_a_teacher(tmp_path: Path) -> None:
    tree = tiny.tree(tmp_path)
    recipe = Recipe.model_validate(tree)
    assert choose_metrics(recipe, ["accuracy", "fidelity"]) == ["accuracy", "fidelity"]
    assert "fidelity" not in choose_metrics(recipe, [])
    with pytest.raises(RecipeError, match="there is no score 'fidellity'") as raised:
        choose_metrics(recipe, ["fidellity"])
    assert raised.value.hint == "did you mean 'fidelity'?"
    del tree["export"]["reference"]
    with pytest.raises(RecipeError, match=r"the recipe has no export\.reference"):
        choose_metrics(Recipe.model_validate(tree), ["fidelity"])


def test_the_table_of_a_sweep_shows_it_and_no_value_for_the_teacher() -> None:
    def cell(value: float) -> dict[str, Any]:
        fidelity = {"fidelity": {"value": value, "direction": "higher"}}
        accuracy = {"accuracy": {"value": 0.5, "direction": "higher"}}
        return {"model": "student", "scores": {"teacher": accuracy, "student": accuracy | fidelity}}

    record = {
        "name": "tiny", "command": "edgekd sweep tiny", "seeds": [1, 2], "variants": ["base"],
        "baseline": "base", "model": "student", "teacher": "teacher", "split": {},
        "metrics": ["accuracy", "fidelity"], "failures": {},
        "cells": {"base/1": cell(0.7), "base/2": cell(0.9)},
    }  # fmt: skip
    lines = markdown(record).splitlines()
    assert "| student | `base` | 0.500 ± 0.000 |  | 0.800 ± 0.141 |  | 2/2 |" in lines
    assert "| teacher |  | 0.500 ± 0.000 |  | undefined |  | 2/2 |" in lines
    assert "student,base,fidelity,0.8," in as_csv(record)
