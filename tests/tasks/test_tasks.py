"""What the built-in tasks say of images with one class each: right, found, labelled, in turn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgekd import plugins
from edgekd.errors import DataError, EdgekdError
from edgekd.results import Predictions
from edgekd.tasks.base import Task
from edgekd.tasks.grading import Grading

BUILT_IN = plugins.names("tasks")
TARGETS = np.array([0, 1, 2, 1, 2, 0])
DECISIONS = np.array([0, 2, 2, 1, 0, 1])


@pytest.fixture(params=["classification", "grading"])
def task(request: pytest.FixtureRequest) -> Task:
    assert request.param in BUILT_IN
    found = plugins.load("tasks", request.param, Task)  # type: ignore[type-abstract]
    return found(classes=("none", "mild", "severe"))


def predictions(targets: np.ndarray = TARGETS) -> Predictions:
    ids = [str(i) for i in range(len(targets))]
    logits = 3.0 * np.eye(3, dtype=np.float32)[DECISIONS[: len(targets)]]
    return Predictions(ids, ids, targets, logits)


def test_a_decision_is_right_or_wrong(task: Task) -> None:
    right = task.rightness(DECISIONS, TARGETS)
    assert right.tolist() == [1.0, 0.0, 1.0, 1.0, 0.0, 0.0]
    assert right.dtype == np.float64


def test_what_is_found_of_a_class_is_its_sensitivity(task: Task) -> None:
    for label, images, hits in ((0, [0, 5], [1, 0]), (1, [1, 3], [0, 1]), (2, [2, 4], [1, 0])):
        positives, found = task.found(DECISIONS, TARGETS, label)
        assert np.flatnonzero(positives).tolist() == images
        assert found[positives].tolist() == hits


def test_images_take_turns_by_their_class(task: Task) -> None:
    assert task.strata(TARGETS).tolist() == TARGETS.tolist()


def test_the_network_gives_one_logit_per_class(task: Task) -> None:
    assert task.logits_shape(224) == (task.outputs(),) == (3,)


@pytest.mark.parametrize(
    ("targets", "labelled"),
    [
        ([0, -1, 2], [True, False, True]),
        ([[0, 1], [-1, 1], [-1, -1]], [True, False, False]),
        (np.zeros((2, 3, 3)) - np.eye(3) * [[[0]], [[1]]], [True, False]),
        (np.zeros((0, 4)), []),
        ([], []),
    ],
)
def test_one_negative_entry_makes_an_image_unlabelled(task: Task, targets, labelled) -> None:
    found = task.labelled(np.asarray(targets))
    assert found.tolist() == labelled
    assert found.dtype == bool


def test_only_labelled_images_are_kept_with_all_that_belongs_to_them(task: Task) -> None:
    targets = TARGETS.copy()
    targets[[1, 4]] = -1
    said = predictions(targets)
    known = task.only_labelled(said)
    assert known.ids == known.groups == ["0", "2", "3", "5"]
    assert known.targets.tolist() == [0, 2, 1, 0]
    assert known.logits.argmax(axis=1).tolist() == [0, 2, 1, 1]
    assert task.only_labelled(predictions()).logits.shape == (6, 3)


def test_another_decision_is_counted_and_a_larger_logit_is_not(task: Task) -> None:
    said = predictions().logits
    assert task.decided_otherwise(said, 2 * said + 1).tolist() == [0.0] * 6
    other = said.copy()
    other[1] = [5.0, 0.0, 0.0]
    other[3, 2] = np.nan
    assert task.decided_otherwise(said, other).tolist() == [0, 1, 0, 1, 0, 0]
    assert task.decided_otherwise(said[:0], other[:0]).tolist() == []


def test_targets_of_another_task_are_an_error_that_names_both_shapes(task: Task) -> None:
    said = replace(predictions(), targets=np.zeros((6, 3), dtype=np.int64))
    for asked in (task.score, lambda one: task.value("accuracy", one)):
        with pytest.raises(DataError, match=r"targets \(6, 3\) are not for task .* \(6,\)"):
            asked(said)


@pytest.mark.parametrize("method", ["rightness", "found", "strata"])
def test_one_class_per_image_is_never_assumed_of_other_targets(task: Task, method: str) -> None:
    labels = np.zeros((6, 3), dtype=np.int64)
    arguments = {"rightness": (labels, labels), "found": (labels, labels, 0), "strata": (labels,)}
    with pytest.raises(EdgekdError, match=f"does not define `{method}`"):
        getattr(task, method)(*arguments[method])


def test_averages_over_classes_say_so() -> None:
    metrics = Grading(classes=("0", "1")).metrics()
    assert {name for name, metric in metrics.items() if metric.over_classes} == {
        "macc", "macro_f1", "precision", "recall", "specificity", "qwk",
    }  # fmt: skip
