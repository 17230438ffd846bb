"""How far a student agrees with its teacher: by hand, over groups, and as a score by name."""

from __future__ import annotations

from dataclasses import replace
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
from edgekd.tasks.fidelity import fidelities, fidelity, fidelity_labels
from edgekd.tasks.segmentation import Segmentation
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


LESION = Segmentation(classes=("lesion",))
TISSUES = Segmentation(classes=("background", "benign", "tumour"))


def masks(task: Segmentation, seed: int, images: int = 8) -> Predictions:
    """Masks of 5 x 6 pixels; the images 0 and 5 show nothing."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (images, task.outputs(), 5, 6)).astype(np.float32)
    logits[[row for row in (0, 5) if row < images]] = -9.0
    if task.outputs() > 1:
        logits[:, 0][[row for row in (0, 5) if row < images]] = 9.0
    ids = [f"image{row}" for row in range(images)]
    unlabelled = np.full((images, 5, 6), -1, dtype=np.int8)
    return Predictions(ids, GROUPS[:images], unlabelled, logits)


def overlaps(task: Segmentation, ours: Predictions, theirs: Predictions) -> tuple[float, float]:
    """IoU and F-score of two models' masks over all pixels, mean of the foreground classes."""
    classes = [1] if task.outputs() == 1 else [1, 2]
    found = []
    for pixel in classes:
        both = either = seen = 0
        for place in np.ndindex(*ours.targets.shape):
            row, i, j = place
            said = []
            for model in (ours, theirs):
                z = model.logits[row, :, i, j]
                said.append((int(z[0] > 0) if len(z) == 1 else int(z.argmax())) == pixel)
            both, either, seen = both + all(said), either + any(said), seen + sum(said)
        found.append((both / either, 2 * both / seen))
    return sum(f[0] for f in found) / len(found), sum(f[1] for f in found) / len(found)


@pytest.mark.parametrize("task", [LESION, TISSUES])
def test_of_masks_it_is_iou_and_fscore_of_the_two_models_masks_over_all_pixels(
    task: Segmentation,
) -> None:
    ours, theirs = masks(task, 1), masks(task, 2)
    found = fidelities(task, ours, theirs)
    assert set(found) == {"fidelity", "fidelity_iou", "fidelity_fscore"}
    assert (found["fidelity_iou"].value, found["fidelity_fscore"].value) == pytest.approx(
        overlaps(task, ours, theirs)
    )
    assert found["fidelity"] == fidelity(task, ours, theirs)
    # a teacher's masks taken for the truth: its scores, on the very same resamples
    truth = replace(ours, targets=task.decide(task.activate(theirs.logits)))
    scores = task.score(truth)
    assert found["fidelity_iou"] == scores["iou"]
    assert found["fidelity_fscore"] == scores["fscore"]


def test_it_does_not_matter_which_of_two_masks_is_the_teachers() -> None:
    one, other = masks(LESION, 1), masks(LESION, 2)
    assert fidelities(LESION, one, other) == fidelities(LESION, other, one)


def test_a_model_sees_what_itself_sees_and_where_nobody_sees_anything_there_is_no_overlap() -> None:
    same = fidelities(LESION, masks(LESION, 1), masks(LESION, 1))
    assert {score.value for score in same.values()} == {1.0}
    blind = replace(masks(LESION, 1), logits=np.full((8, 1, 5, 6), -9.0, dtype=np.float32))
    found = fidelities(LESION, blind, blind)
    assert found["fidelity"].value == 1.0
    assert found["fidelity_iou"].value is found["fidelity_fscore"].low is None
    none = fidelities(LESION, masks(LESION, 1, images=0), masks(LESION, 2, images=0))
    assert {score.value for score in none.values()} == {None}


def test_of_one_class_per_image_there_is_agreement_only() -> None:
    assert fidelities(TASK, said(STUDENT), said(TEACHER)) == {
        "fidelity": fidelity(TASK, said(STUDENT), said(TEACHER))
    }


def test_what_each_of_them_is_in_words() -> None:
    assert fidelity_labels(TASK, "T") == {"fidelity": "agreement with T"}
    assert fidelity_labels(None, "T") == {"fidelity": "agreement with T"}
    assert fidelity_labels(LESION, "T") == {
        "fidelity": "agreement with T",
        "fidelity_fscore": "F-score (Dice, over the data set) with T",
        "fidelity_iou": "IoU (over the data set) with T",
    }


def test_it_is_no_task_of_its_own() -> None:
    assert "fidelity" not in plugins.names("tasks")


def test_a_sweep_can_show_it_where_there_is_a_teacher(tmp_path: Path) -> None:
    tree = tiny.tree(tmp_path)
    recipe = Recipe.model_validate(tree)
    assert choose_metrics(recipe, ["accuracy", "fidelity"]) == ["accuracy", "fidelity"]
    assert "fidelity" not in choose_metrics(recipe, [])
    masks = tree | {"task": {"name": "segmentation"}}
    of_masks = ["fidelity_iou", "fidelity_fscore"]
    assert choose_metrics(Recipe.model_validate(masks), of_masks) == of_masks
    with pytest.raises(RecipeError, match="there is no score 'fidelity_iou'"):
        choose_metrics(recipe, of_masks)
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
