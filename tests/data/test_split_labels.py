"""Splits of images with several classes each: each part gets its share of every class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekd.data._class_aware import class_aware, having
from edgekd.data._split_problems import split_problems
from edgekd.data.origin import digests, is_same_data
from edgekd.data.read import read_truth
from edgekd.data.splits import make_split, read_split, take_fraction, write_split
from edgekd.errors import DataError, RecipeError
from edgekd.recipe_data import InputSpec
from tests.data.labelled import Labelled, drawn

LABELS = drawn()


def counts(split: object) -> np.ndarray:
    return np.array([LABELS[part].sum(axis=0) for _, part in split.items()])  # type: ignore[attr-defined]


def test_each_part_gets_its_share_of_every_class_the_rarest_too() -> None:
    found = counts(make_split(Labelled(LABELS), "7-1-2", seed=0))
    wanted = np.array([[0.7], [0.1], [0.2]]) * LABELS.sum(axis=0)
    assert np.abs(found - wanted).max() <= 2


def test_both_images_of_a_patient_are_in_one_part() -> None:
    source = Labelled(LABELS, groups=[f"p{row // 2}" for row in range(len(LABELS))])
    split = make_split(source, "7-1-2", seed=0)
    assert not split_problems(source, split)
    wanted = np.array([[0.7], [0.1], [0.2]]) * LABELS.sum(axis=0)
    assert np.abs(counts(split) - wanted).max() <= 3


def test_a_seed_of_its_own_keeps_the_test_part_while_the_rest_is_split_anew() -> None:
    source = Labelled(LABELS)
    first, second = (make_split(source, "7-1-2", seed=s, test_seed=0) for s in (1, 2))
    assert (first.test == second.test).all()
    assert len(first.val) == pytest.approx(len(second.val), abs=3)
    assert first.val.tolist() != second.val.tolist()


def test_folds_test_every_image_once() -> None:
    source = Labelled(LABELS)
    parts = [make_split(source, "4-fold", seed=seed) for seed in (1, 2, 3, 4)]
    assert sorted(np.concatenate([part.test for part in parts])) == list(range(len(LABELS)))
    for part in parts:
        assert len(part.val) == pytest.approx(len(LABELS) * 0.75 / 8, abs=4)


def test_more_folds_than_patients_is_a_recipe_error() -> None:
    with pytest.raises(RecipeError, match="500-fold needs 2 folds or more"):
        make_split(Labelled(LABELS), "500-fold", seed=1)


def test_a_class_without_training_images_is_named() -> None:
    labels = LABELS.copy()
    labels[:, 2] = 0
    with pytest.raises(DataError, match="class 'c2' has no training image"):
        make_split(Labelled(labels), "7-1-2", seed=0)


def test_that_no_image_is_healthy_is_no_problem() -> None:
    labels = LABELS.copy()
    labels[:, 0] |= ~labels.any(axis=1)
    assert not split_problems(Labelled(labels), make_split(Labelled(labels), "7-1-2", seed=0))


def test_a_fraction_keeps_every_class() -> None:
    kept = take_fraction(Labelled(LABELS), np.arange(len(LABELS)), 0.1, seed=0)
    assert LABELS[kept].any(axis=0).all()
    assert len(kept) == pytest.approx(40, abs=4)


def test_a_label_that_changed_since_the_split_is_noticed(tmp_path: Path) -> None:
    source = Labelled(LABELS)
    write_split(tmp_path / "split.csv", source, make_split(source, "7-1-2", seed=0))
    read_split(tmp_path / "split.csv", source)
    changed = LABELS.copy()
    row = int(np.flatnonzero((changed[:, 2] == 1) & (changed[:, 0] == 0))[0])
    changed[row, 0] = 1  # its rarest class stays what it was
    with pytest.raises(DataError, match="had target c2"):
        read_split(tmp_path / "split.csv", Labelled(changed))
    recorded = digests(source, make_split(source, "7-1-2", seed=0))
    assert is_same_data(source, recorded)
    assert not is_same_data(Labelled(changed), recorded)
    assert source.fingerprint() != Labelled(changed).fingerprint()


def test_answers_are_held_against_all_labels() -> None:
    truth = read_truth(Labelled(LABELS), [3, 1], InputSpec(size=8), masks=False)
    assert (truth == LABELS[[3, 1]]).all()


def test_class_aware_drawing_lets_every_class_draw_equally_often() -> None:
    table = np.zeros((100, 3), dtype=bool)  # classes apart, so that each draw is of one class
    table[:90, 0], table[90:98, 1], table[98:, 2] = True, True, True
    order = class_aware(table, np.random.default_rng(0))
    drawn_of = table[order].sum(axis=0)
    assert drawn_of.sum() == 100
    assert drawn_of.max() - drawn_of.min() <= 1
    assert (order == class_aware(table, np.random.default_rng(0))).all()


def test_a_class_aware_class_shows_all_its_images_before_any_comes_again() -> None:
    table = np.array([[True, False]] * 6 + [[False, True]] * 2)
    order = class_aware(table, np.random.default_rng(1))
    assert sorted(order[order >= 6]) == [6, 6, 7, 7]


def test_only_images_that_show_a_class_of_the_group_are_taken() -> None:
    indices = np.arange(0, 400, 2)
    kept = having(LABELS[:, [1, 2]], indices, None, seed=0)
    assert kept.tolist() == [i for i in indices if LABELS[i, 1] or LABELS[i, 2]]


def test_others_are_drawn_where_a_class_would_have_no_image_without_it() -> None:
    indices = np.arange(400)
    kept = having(LABELS[:, [2]], indices, None, seed=0)
    shown = LABELS[kept, 2].sum()
    assert shown == LABELS[:, 2].sum()
    assert len(kept) == 2 * shown


def test_others_are_drawn_as_many_as_are_asked_for() -> None:
    indices = np.arange(400)
    shown = int(LABELS[:, [1, 2]].any(axis=1).sum())
    assert len(having(LABELS[:, [1, 2]], indices, 0.5, seed=0)) == shown + round(shown / 2)
    assert len(having(LABELS[:, [1, 2]], indices, 99.0, seed=0)) == 400
