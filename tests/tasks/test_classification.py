"""What classification scores beside the averages: each class by itself, and an accuracy of 2 C."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as sk

from edgekd import published
from edgekd.errors import RecipeError
from edgekd.recipe import Recipe
from edgekd.report import paper
from edgekd.results import Predictions
from edgekd.tasks.classification import MOST_CLASSES, Classification
from tests import tiny

KINDS = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC")
GENERATOR = np.random.default_rng(3)
TARGETS = np.concatenate([np.arange(8), GENERATOR.integers(0, 8, size=112)])
LOGITS = (GENERATOR.normal(size=(120, 8)) + 1.5 * np.eye(8)[TARGETS]).astype(np.float32)
DECIDED = LOGITS.argmax(axis=1)
WEIGHTS = GENERATOR.integers(1, 4, size=(5, 120)).astype(float)


def predictions(targets: np.ndarray = TARGETS) -> Predictions:
    ids = [str(i) for i in range(len(targets))]
    return Predictions(ids, ids, targets, LOGITS[: len(targets)])


@pytest.mark.parametrize("label", range(8))
def test_the_f1_of_a_class_is_scikit_learns_for_every_resample(label: int) -> None:
    task = Classification(classes=KINDS)
    found = task.metrics()[f"f1_{KINDS[label]}"].compute(task.activate(LOGITS), TARGETS, WEIGHTS)
    expected = [
        sk.f1_score(TARGETS, DECIDED, labels=range(8), average=None, sample_weight=w)[label]
        for w in WEIGHTS
    ]
    assert found == pytest.approx(expected, rel=1e-9)


def test_macro_f1_is_the_mean_of_the_classes() -> None:
    found = Classification(classes=KINDS).score(predictions(), resamples=0)
    mean = np.mean([found[f"f1_{name}"].value for name in KINDS])
    assert found["macro_f1"].value == pytest.approx(mean)


def test_a_class_without_images_has_no_f1_even_if_it_is_named() -> None:
    targets = np.where(TARGETS == 2, 3, TARGETS)
    assert (DECIDED == 2).any()
    task = Classification(classes=KINDS)
    assert task.score(predictions(targets), resamples=0)["f1_BCC"].value is None
    assert math.isnan(task.value("f1_BCC", predictions(targets)))
    assert task.value("f1_AK", predictions(targets)) >= 0


def test_scores_of_single_classes_have_no_interval_and_no_curve() -> None:
    task = Classification(classes=KINDS)
    found = task.score(predictions(), resamples=50)
    assert found["f1_DF"].low is found["f1_DF"].high is None
    assert found["macro_f1"].low is not None
    assert not [name for name in task.curve() if name.startswith("f1_")]
    assert "binary_style_accuracy" not in task.curve()


def test_a_class_may_be_the_primary_score() -> None:
    task = Classification(classes=KINDS, primary="f1_DF")
    assert task.higher_is_better
    assert "f1_DF" in task.curve()
    with pytest.raises(RecipeError, match="not a score"):
        Classification(classes=KINDS, primary="f1_nevus")


def test_with_many_classes_there_are_only_averages() -> None:
    few, many = (tuple(map(str, range(n))) for n in (MOST_CLASSES, MOST_CLASSES + 1))
    assert f"f1_{MOST_CLASSES - 1}" in Classification(classes=few).metrics()
    names = Classification(classes=many).metrics()
    assert not [name for name in names if name.startswith("f1_")]


def test_the_accuracy_of_equation_9_counts_every_class_against_the_rest() -> None:
    counted = 0
    for c in range(8):
        for truth, answer in zip(TARGETS, DECIDED, strict=True):
            counted += (truth == c) == (answer == c)  # a true positive or a true negative
    task = Classification(classes=KINDS)
    found = task.value("binary_style_accuracy", predictions())
    assert found == pytest.approx(counted / (8 * 120))
    assert found > task.value("accuracy", predictions())
    two = Classification(classes=("a", "b"))
    logits = np.eye(2, dtype=np.float32)[[0, 0]]
    binary = Predictions(["1", "2"], ["1", "2"], np.array([0, 1]), logits)
    assert two.score(binary, resamples=0)["binary_style_accuracy"].value == pytest.approx(0.5)


def test_the_published_f1_of_classes_stands_beside_ours(tmp_path: Path) -> None:
    line = {"table": "dspkd_table2", "method": "DSP-KD", "scenario": "Res2Net101",
            "also": ["dspkd_table4"]}  # fmt: skip
    ours = Recipe.model_validate({**tiny.tree(tmp_path), "paper": line})
    measured = Classification(classes=KINDS).score(predictions(), resamples=0)
    rows, _ = paper.rows(ours, {ours.export.model: {"test": measured}})
    beside = {row.metric: row.measured for row in rows if row.table == "dspkd_table4"}
    (printed,) = published.table("dspkd_table4").rows_of("DSP-KD", "Res2Net101")
    assert set(beside) == set(printed.values) == {*(f"f1_{name}" for name in KINDS), "macro_f1"}
    assert all(score is not None and score.value is not None for score in beside.values())
