"""Every score against scikit-learn, or against its formula; then resampling and odd cases."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from edgekd.errors import RecipeError
from edgekd.results import Predictions
from edgekd.tasks import scores
from edgekd.tasks.base import softmax
from edgekd.tasks.classification import Classification
from edgekd.tasks.grading import Grading

GENERATOR = np.random.default_rng(7)
TARGETS = GENERATOR.choice(4, size=200, p=[0.5, 0.3, 0.15, 0.05])
LOGITS = GENERATOR.normal(size=(200, 4)) + 1.5 * np.eye(4)[TARGETS]
PROBABILITIES = softmax(LOGITS)
PREDICTED = PROBABILITIES.argmax(axis=1)
WEIGHTS = GENERATOR.integers(0, 4, size=(5, 200)).astype(float)

ORACLES = {
    "accuracy": lambda w: sk.accuracy_score(TARGETS, PREDICTED, sample_weight=w),
    "macc": lambda w: sk.balanced_accuracy_score(TARGETS, PREDICTED, sample_weight=w),
    "macro_f1": lambda w: sk.f1_score(TARGETS, PREDICTED, average="macro", sample_weight=w),
    "weighted_f1": lambda w: sk.f1_score(TARGETS, PREDICTED, average="weighted", sample_weight=w),
    "precision": lambda w: sk.precision_score(
        TARGETS, PREDICTED, average="macro", sample_weight=w, zero_division=0
    ),
    "recall": lambda w: sk.recall_score(TARGETS, PREDICTED, average="macro", sample_weight=w),
    "qwk": lambda w: sk.cohen_kappa_score(TARGETS, PREDICTED, weights="quadratic", sample_weight=w),
    "mae_argmax": lambda w: sk.mean_absolute_error(TARGETS, PREDICTED, sample_weight=w),
    "mae": lambda w: sk.mean_absolute_error(TARGETS, PROBABILITIES @ np.arange(4), sample_weight=w),
    "nll": lambda w: sk.log_loss(TARGETS, PROBABILITIES, sample_weight=w, labels=range(4)),
    "auroc": lambda w: np.mean(
        [
            sk.roc_auc_score((c == TARGETS)[w > 0], PROBABILITIES[w > 0, c], sample_weight=w[w > 0])
            for c in range(4)
        ]
    ),
}


def task(primary: str | None = None) -> Grading:
    return Grading(classes=("0", "1", "2", "3"), primary=primary)


@pytest.mark.parametrize("name", sorted(ORACLES))
def test_the_score_is_scikit_learns_for_every_resample(name: str) -> None:
    values = task().metrics()[name].compute(PROBABILITIES, TARGETS, WEIGHTS)
    assert values == pytest.approx([ORACLES[name](weight) for weight in WEIGHTS], rel=1e-9)


def test_specificity_is_the_mean_of_tn_over_tn_plus_fp() -> None:
    expected = []
    for c in range(4):
        negatives = c != TARGETS
        expected.append((PREDICTED[negatives] != c).mean())
    value = scores.specificity(PROBABILITIES, TARGETS, np.ones((1, 200)))
    assert value == pytest.approx([np.mean(expected)])


def test_brier_and_ece_follow_their_definitions() -> None:
    once = np.ones((1, 200))
    brier = np.mean(((PROBABILITIES - np.eye(4)[TARGETS]) ** 2).sum(axis=1))
    assert scores.brier(PROBABILITIES, TARGETS, once) == pytest.approx([brier])
    confidence = PROBABILITIES.max(axis=1)
    ece = 0.0
    for i in range(15):
        inside = (confidence >= i / 15) & (confidence < (i + 1) / 15)
        if inside.any():
            gap = (PREDICTED == TARGETS)[inside].mean() - confidence[inside].mean()
            ece += inside.mean() * abs(gap)
    assert scores.ece(PROBABILITIES, TARGETS, once) == pytest.approx([ece])


def test_a_class_without_images_is_passed_over_by_balanced_accuracy() -> None:
    targets = np.array([0, 0, 1, 1])
    probabilities = np.eye(3)[[0, 1, 1, 1]]
    assert scores.mean_accuracy(probabilities, targets, np.ones((1, 4))) == pytest.approx([0.75])


def test_a_perfect_and_an_inverted_grader_have_kappa_one_and_below_zero() -> None:
    targets = np.array([0, 1, 2, 3])
    once = np.ones((1, 4))
    assert scores.quadratic_kappa(np.eye(4), targets, once) == pytest.approx([1.0])
    assert scores.quadratic_kappa(np.eye(4)[::-1], targets, once)[0] < 0


def predictions(targets: np.ndarray = TARGETS) -> Predictions:
    ids = [str(i) for i in range(len(targets))]
    return Predictions(
        ids, [str(i // 4) for i in range(len(targets))], targets, LOGITS.astype(np.float32)
    )


def test_scores_carry_intervals_over_groups_and_counts() -> None:
    found = task().score(predictions(), resamples=200)
    score = found["accuracy"]
    assert score.images == 200
    assert score.groups == 50
    assert score.low is not None
    assert score.high is not None
    assert score.low < score.value < score.high
    assert found["auroc"].low is None


def test_unlabelled_images_do_not_count() -> None:
    hidden = TARGETS.copy()
    hidden[100:] = -1
    found = task().score(predictions(hidden), resamples=0)["accuracy"]
    assert found.images == 100
    assert found.value == pytest.approx((PREDICTED == TARGETS)[:100].mean())


def test_no_images_give_no_value_instead_of_a_number() -> None:
    empty = Predictions([], [], np.zeros(0, np.int64), np.zeros((0, 4), np.float32))
    assert task().score(empty)["accuracy"].value is None


def test_an_ensemble_of_equal_members_is_the_member_and_the_most_confident_wins() -> None:
    one = np.array([[0.6, 0.4]])
    both = np.array([[0.1, 0.9]])
    classification = Classification(classes=("a", "b"))
    assert classification.combine([one, one]) == pytest.approx(one)
    assert classification.combine([one, both]) == pytest.approx(np.array([[0.6, 0.9]]) / 1.5)


def test_an_unknown_primary_score_is_an_error_with_a_suggestion() -> None:
    with pytest.raises(RecipeError) as caught:
        task("acuracy")
    assert "accuracy" in (caught.value.hint or "")
    assert not task("mae").higher_is_better
