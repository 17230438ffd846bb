"""Several labels per image: what is decided, and how it is scored."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from edgekd.errors import RecipeError
from edgekd.recipe_export import OperatingSpec
from edgekd.results import Learned, Predictions
from edgekd.tasks._cuts import best_f1, with_thresholds
from edgekd.tasks.base import Task
from edgekd.tasks.classification import Classification
from edgekd.tasks.multilabel import MultiLabel

NAMES = ("a", "b", "c", "d")
SHOTS = ("head", "head", "medium", "tail")
PLAIN = MultiLabel(classes=NAMES).taught(Learned(shots=SHOTS))


def said(rows: int = 60, seed: int = 0) -> Predictions:
    """Labels of falling frequency, and scores with ties that know something of them."""
    random = np.random.default_rng(seed)
    targets = (random.random((rows, 4)) < (0.5, 0.3, 0.2, 0.1)).astype(np.int8)
    logits = (2 * targets - 1 + random.normal(0, 1.5, targets.shape)).round(1).astype(np.float32)
    names = [str(row) for row in range(rows)]
    return Predictions(names, [f"p{row // 2}" for row in range(rows)], targets, logits)


def value(name: str, predictions: Predictions, task: Task = PLAIN) -> float:
    return task.value(name, predictions)


def test_average_precision_and_auroc_are_those_of_scikit_learn() -> None:
    one = said()
    probabilities = PLAIN.activate(one.logits)
    ap = metrics.average_precision_score(one.targets, probabilities, average=None)
    assert value("map", one) == pytest.approx(ap.mean(), abs=1e-12)
    area = metrics.roc_auc_score(one.targets, probabilities, average="macro")
    assert value("auroc", one) == pytest.approx(area, abs=1e-12)


def test_resampled_scores_are_those_of_the_resampled_images() -> None:
    one = said(40)
    weights = np.random.default_rng(1).integers(0, 3, (5, 40)).astype(float)
    probabilities = PLAIN.activate(one.logits)
    for name in ("map", "auroc", "macro_f1", "recall", "specificity", "brier", "nll", "accuracy"):
        found = PLAIN.metrics()[name].compute(probabilities, one.targets, weights)
        for row, counts in enumerate(weights):
            picked = np.repeat(np.arange(40), counts.astype(int))
            drawn = Predictions(["x"] * len(picked), ["x"] * len(picked), one.targets[picked],
                                one.logits[picked])  # fmt: skip
            assert found[row] == pytest.approx(value(name, drawn), abs=1e-12), name


def test_the_group_means_are_means_of_their_classes_and_total_is_the_mean_of_the_three() -> None:
    one = said()
    ap = metrics.average_precision_score(one.targets, PLAIN.activate(one.logits), average=None)
    groups = [ap[:2].mean(), ap[2], ap[3]]
    shown = [value(f"map_{shot}", one) for shot in ("head", "medium", "tail")]
    assert shown == pytest.approx(groups)
    assert value("map_groups", one) == pytest.approx(np.mean(groups))
    assert value("map", one) == pytest.approx(ap.mean())


def test_without_one_of_the_three_groups_their_mean_is_undefined() -> None:
    task = MultiLabel(classes=NAMES).taught(Learned(shots=("head", "head", "tail", "tail")))
    assert np.isnan(value("map_groups", said(), task))
    assert task.score(said(), resamples=0)["map_groups"].value is None


def test_a_class_without_positives_is_left_out_of_the_means() -> None:
    one = said()
    one.targets[:, 3] = 0
    ap = metrics.average_precision_score(
        one.targets[:, :3], PLAIN.activate(one.logits)[:, :3], average=None
    )
    assert value("map", one) == pytest.approx(ap.mean())
    assert np.isnan(value("map_tail", one))


def test_what_is_not_known_of_an_image_does_not_count() -> None:
    one = said()
    hidden = Predictions(one.ids, one.groups, one.targets.copy(), one.logits)
    hidden.targets[:30, 0] = -1
    hidden.targets[5] = -1  # nothing known: the image itself does not count
    ap = [
        metrics.average_precision_score(
            hidden.targets[known, c] == 1, PLAIN.activate(one.logits)[known, c]
        )
        for c in range(4)
        for known in [hidden.targets[:, c] >= 0]
    ]
    assert value("map", hidden) == pytest.approx(np.mean(ap))
    assert PLAIN.score(hidden, resamples=0)["map"].images == 59


def test_f1_sensitivity_and_specificity_are_at_the_thresholds_of_the_classes() -> None:
    cuts = (0.3, 0.5, 0.6, 0.2)
    task, one = MultiLabel(classes=NAMES).taught(Learned(thresholds=cuts)), said()
    decided = task.activate(one.logits) >= np.array(cuts)
    assert (task.decide(task.activate(one.logits)) == decided).all()
    f1 = metrics.f1_score(one.targets, decided, average="macro", zero_division=0.0)
    assert value("macro_f1", one, task) == pytest.approx(f1)
    recall = metrics.recall_score(one.targets, decided, average="macro")
    assert value("recall", one, task) == pytest.approx(recall)
    other = metrics.recall_score(1 - one.targets, ~decided, average="macro")
    assert value("specificity", one, task) == pytest.approx(other)


def test_perfect_answers_score_1_and_are_calibrated_as_they_say() -> None:
    one = said()
    sure = Predictions(one.ids, one.groups, one.targets, 40.0 * (2.0 * one.targets - 1))
    scores = PLAIN.score(sure, resamples=0)
    for name in ("map", "map_groups", "auroc", "macro_f1", "recall", "specificity", "accuracy"):
        assert scores[name].value == 1.0, name
    for name in ("ece", "brier", "nll"):
        assert scores[name].value == pytest.approx(0.0, abs=1e-9), name


def test_the_gates_hooks_see_single_labels() -> None:
    one = said()
    decided = PLAIN.decide(PLAIN.activate(one.logits))
    assert (PLAIN.rightness(decided, one.targets) == (decided == one.targets).mean(axis=1)).all()
    positives, share = PLAIN.found(decided, one.targets, 2)
    assert (positives == (one.targets[:, 2] == 1)).all()
    assert share[positives].mean() == metrics.recall_score(one.targets[:, 2], decided[:, 2])
    assert PLAIN.logits_shape(64) == (4,)


def test_images_take_turns_by_their_rarest_class() -> None:
    targets = np.array([[1, 0, 0, 0], [1, 0, 0, 1], [1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0]])
    assert PLAIN.strata(targets).tolist() == [0, 3, 1, 4, 1]
    assert PLAIN.strata(np.array([2, 0])).tolist() == [2, 0]


def test_scores_of_single_classes_have_their_names() -> None:
    one = said()
    found = PLAIN.per_class(PLAIN.activate(one.logits), one.targets)
    assert found["ap:c"] == pytest.approx(
        metrics.average_precision_score(one.targets[:, 2], one.logits[:, 2])
    )
    right = ((one.logits[:, 1] >= 0) == (one.targets[:, 1] == 1)).mean()
    assert found["acc:b"] == pytest.approx(right)


def test_some_of_the_classes_make_a_smaller_task_that_knows_their_groups() -> None:
    few = PLAIN.only((1, 3))
    assert few.classes == ("b", "d")
    assert few.outputs() == 2
    assert few.learned.shots == ("head", "tail")


def test_where_classes_exclude_each_other_a_model_knows_all_of_them() -> None:
    with pytest.raises(RecipeError, match="not for task 'classification'"):
        Classification(classes=NAMES).only((0, 1))


def test_the_threshold_of_best_f1_is_the_best_of_all() -> None:
    one = said(80)
    for column in range(4):
        scores, positives = PLAIN.activate(one.logits)[:, column], one.targets[:, column] == 1
        chosen = best_f1(scores, positives)
        f1 = [metrics.f1_score(positives, scores >= cut) for cut in np.unique(scores)]
        assert metrics.f1_score(positives, scores >= chosen) == pytest.approx(max(f1))
        assert chosen not in scores  # halfway: no image lies on it


def test_thresholds_reach_the_sensitivity_that_is_asked_for() -> None:
    task = with_thresholds(PLAIN, said(200), OperatingSpec(sensitivity=0.8), "student")
    decided = task.decide(task.activate(said(200).logits))
    for column in range(4):
        assert metrics.recall_score(said(200).targets[:, column], decided[:, column]) >= 0.8


def test_a_class_that_validation_images_do_not_show_keeps_half(
    capsys: pytest.CaptureFixture[str],
) -> None:
    one = said()
    one.targets[:, 3] = 0
    task = with_thresholds(PLAIN, one, "f1", "student")
    assert task.learned.thresholds[3] == 0.5
    assert task.learned.thresholds[0] != 0.5
    assert "student: no threshold can be chosen for d" in capsys.readouterr().err


def test_the_most_probable_of_exclusive_classes_needs_no_threshold() -> None:
    with pytest.raises(RecipeError, match=r"task\.thresholds: task 'classification' decides"):
        with_thresholds(Classification(classes=NAMES), said(), "f1", "student")


def test_an_ensemble_shows_what_any_member_shows() -> None:
    members = [np.array([[0.2, 0.9]]), np.array([[0.6, 0.1]])]
    assert MultiLabel(classes=("a", "b")).combine(members).tolist() == [[0.6, 0.9]]
