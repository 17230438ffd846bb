"""Masks: what a segmentation task decides, and how it is scored."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.results import Predictions
from edgekd.tasks.mask_scores import SMALL, small_images
from edgekd.tasks.segmentation import Segmentation

LESION = Segmentation(classes=("lesion",))
LAYERS = Segmentation(classes=("background", "fluid", "drusen"))
SIDE = 16


def truth(count: int, seed: int = 0, classes: int = 1) -> np.ndarray:
    """Squares of random size and place; every fourth image is empty."""
    random = np.random.default_rng(seed)
    masks = np.zeros((count, SIDE, SIDE), dtype=np.int8)
    for row in range(count):
        if row % 4:
            top, left, side = random.integers(0, 10), random.integers(0, 10), random.integers(1, 6)
            masks[row, top : top + side, left : left + side] = 1 + row % classes
    return masks


def said(
    targets: np.ndarray, *, outputs: int = 1, noise: float = 2.0, seed: int = 1
) -> Predictions:
    random = np.random.default_rng(seed)
    pixels = np.arange(outputs)[None, :, None, None] + (outputs == 1)
    logits = np.where(targets[:, None] == pixels, 2.0, -2.0)
    logits = (logits + random.normal(0, noise, logits.shape)).astype(np.float32)
    names = [str(row) for row in range(len(targets))]
    return Predictions(
        names, [f"patient{row // 3}" for row in range(len(targets))], targets, logits
    )


def by_hand(predictions: Predictions, pixel: int = 1) -> tuple[int, int, int]:
    """True positives, false positives and false negatives, pixel by pixel."""
    hit = extra = missed = 0
    for target, logits in zip(predictions.targets, predictions.logits, strict=True):
        for row in range(SIDE):
            for column in range(SIDE):
                z = logits[:, row, column]
                decided = int(z[0] > 0) if len(z) == 1 else int(z.argmax())
                is_there, is_said = target[row, column] == pixel, decided == pixel
                hit += is_there and is_said
                extra += is_said and not is_there
                missed += is_there and not is_said
    return hit, extra, missed


def test_the_scores_over_the_data_set_add_up_pixels_before_dividing() -> None:
    predictions = said(truth(12))
    hit, extra, missed = by_hand(predictions)
    for name, wanted in {
        "fscore": 2 * hit / (2 * hit + extra + missed),
        "iou": hit / (hit + extra + missed),
        "sensitivity": hit / (hit + missed),
        "precision": hit / (hit + extra),
    }.items():
        assert LESION.value(name, predictions) == pytest.approx(wanted)


def test_several_classes_are_averaged_over_the_foreground() -> None:
    predictions = said(truth(12, classes=2), outputs=3)
    scores = []
    for pixel in (1, 2):
        hit, extra, missed = by_hand(predictions, pixel)
        scores.append(2 * hit / (2 * hit + extra + missed))
    assert LAYERS.value("fscore", predictions) == pytest.approx(np.mean(scores))


def test_an_image_without_a_lesion_in_which_none_is_seen_scores_1_by_itself() -> None:
    targets = np.zeros((2, SIDE, SIDE), np.int8)
    targets[1, :4, :4] = 1
    logits = np.where(targets[:, None] == 1, 3.0, -3.0).astype(np.float32)
    predictions = Predictions(["a", "b"], ["a", "b"], targets, logits)
    assert LESION.value("fscore_per_image", predictions) == 1.0
    assert LESION.value("iou_per_image", predictions) == 1.0
    logits[0, 0, 0, 0] = 3.0  # one pixel of false alarm
    assert LESION.value("fscore_per_image", predictions) == 0.5
    assert LESION.value("false_alarms", predictions) == 1.0


def test_nothing_there_and_nothing_seen_is_undefined_over_the_data_set() -> None:
    targets = np.zeros((3, SIDE, SIDE), np.int8)
    logits = np.full((3, 1, SIDE, SIDE), -3.0, np.float32)
    predictions = Predictions(["a", "b", "c"], ["a", "b", "c"], targets, logits)
    assert np.isnan(LESION.value("fscore", predictions))
    assert LESION.value("false_alarms", predictions) == 0.0
    assert np.isnan(LESION.value("small_hits", predictions))


def test_small_lesions_are_those_of_at_most_a_hundredth_of_the_pixels() -> None:
    targets = np.zeros((3, 20, 20), np.int8)
    targets[0, 0, :4] = 1  # 4 of 400
    targets[1, 0, :5] = 1
    assert small_images(targets).tolist() == [True, False, False]
    assert SMALL == 0.01
    logits = np.full((3, 1, 20, 20), -3.0, np.float32)
    logits[0, 0, 0, 0] = 3.0
    predictions = Predictions(["a", "b", "c"], ["a", "b", "c"], targets, logits)
    assert LESION.value("small_hits", predictions) == 1.0
    assert LESION.value("small_sensitivity", predictions) == 0.25


def test_nll_and_brier_of_pixels() -> None:
    predictions = said(truth(6))
    p = 1 / (1 + np.exp(-predictions.logits[:, 0].astype(np.float64)))
    own = np.where(predictions.targets > 0, p, 1 - p)
    assert LESION.value("nll", predictions) == pytest.approx(-np.log(own).mean(), rel=1e-5)
    assert LESION.value("brier", predictions) == pytest.approx(
        (2 * (1 - own) ** 2).mean(), rel=1e-5
    )


def test_extreme_logits_stay_finite() -> None:
    logits = np.array([1e4, -1e4], np.float32).reshape(2, 1, 1, 1) * np.ones((2, 1, 4, 4))
    targets = np.zeros((2, 4, 4), np.int8)
    predictions = Predictions(["a", "b"], ["a", "b"], targets, logits.astype(np.float32))
    assert np.isfinite(LESION.activate(predictions.logits)).all()
    assert np.isfinite(LESION.value("nll", predictions))


def test_intervals_resample_patients() -> None:
    scores = LESION.score(said(truth(30)), resamples=200)
    score = scores["fscore"]
    assert score.low < score.value < score.high  # type: ignore[operator]
    assert score.groups == 10


def test_the_ensemble_of_masks_is_their_union() -> None:
    """KDML, arXiv 2212.02931: M = M1 or M2, each at a half."""
    targets = truth(8)
    first, second = said(targets, seed=1), said(targets, seed=2)
    joined = LESION.decide(LESION.activate(LESION.combine_logits([first.logits, second.logits])))
    alone = [LESION.decide(LESION.activate(one.logits)) for one in (first, second)]
    np.testing.assert_array_equal(joined, alone[0] | alone[1])


def test_an_ensemble_of_equals_is_each_of_them() -> None:
    one = said(truth(8, classes=2), outputs=3)
    joined = LAYERS.activate(LAYERS.combine_logits([one.logits, one.logits]))
    np.testing.assert_allclose(joined, LAYERS.activate(one.logits), atol=1e-6)


def test_an_image_with_an_unknown_pixel_does_not_count() -> None:
    predictions = said(truth(8))
    predictions.targets[3, 0, 0] = -1
    assert LESION.score(predictions, resamples=0)["fscore"].images == 7


def test_what_is_found_of_a_class_in_an_image() -> None:
    targets = np.zeros((2, 4, 4), np.int8)
    targets[0, 0, :4] = 1
    decisions = np.zeros_like(targets)
    decisions[0, 0, :3] = 1
    holds, share = LESION.found(decisions, targets, 0)
    assert holds.tolist() == [True, False]
    assert share.tolist() == [0.75, 0.0]
    assert LESION.rightness(decisions, targets).tolist() == [pytest.approx(6 / 7), 1.0]


def test_masks_survive_the_disk_in_their_small_integers(tmp_path) -> None:  # type: ignore[no-untyped-def]
    predictions = said(truth(4))
    predictions.save(tmp_path / "masks.npz")
    again = Predictions.load(tmp_path / "masks.npz")
    assert again.targets.dtype == np.int8
    np.testing.assert_array_equal(again.targets, predictions.targets)


def test_a_threshold_chosen_on_validation_images_gives_their_best_f_score() -> None:
    from edgekd.tasks._cuts import with_thresholds

    masks = truth(60)
    timid = said(masks, noise=1.0)
    timid.logits[...] -= 2.5  # never above a half where it should be
    task = with_thresholds(LESION, timid, "f1", "student")
    cut = task.learned.thresholds[0]
    assert cut < 0.4
    assert task.value("fscore", timid) > LESION.value("fscore", timid) + 0.1
    others = [
        LESION.taught(task.learned.model_copy(update={"thresholds": (other,)}))
        for other in np.linspace(0.02, 0.98, 25)
    ]
    best = max(other.value("fscore", timid) for other in others)
    assert task.value("fscore", timid) >= best - 1e-9
    decided = task.decide(task.activate(timid.logits))
    assert (decided == (task.activate(timid.logits)[:, 0] > cut)).all()
    assert task.value("brier", timid) == LESION.value("brier", timid)


def test_several_classes_of_pixels_need_no_threshold() -> None:
    from edgekd.errors import RecipeError
    from edgekd.tasks._cuts import with_thresholds

    with pytest.raises(RecipeError, match=r"task\.thresholds"):
        with_thresholds(LAYERS, said(truth(4, classes=2), outputs=3), "f1", "student")
