"""Every class at the mean class count, or at half of the largest one's and above."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from edgekd.data._rebalance import rebalanced, topped_up
from edgekd.data.base import UNLABELLED

Indices = np.ndarray[Any, np.dtype[np.int64]]


def of_counts(*counts: int) -> tuple[Indices, Indices]:
    """Indices that are not the places, and targets not in the order of the classes."""
    targets = np.repeat(np.arange(len(counts)), counts)
    return 3 * np.arange(len(targets)) + 7, np.random.default_rng(0).permutation(targets)


def counts_of(drawn: Indices, indices: Indices, targets: Indices) -> list[int]:
    target_of = dict(zip(indices.tolist(), targets.tolist(), strict=True))
    found = Counter(target_of[index] for index in drawn.tolist())
    return [found[target] for target in range(max(target_of.values()) + 1)]


def test_every_class_comes_to_the_mean_class_count() -> None:
    indices, targets = of_counts(60, 25, 4, 11)
    drawn = rebalanced(indices, targets, seed=1)
    assert counts_of(drawn, indices, targets) == [25, 25, 25, 25]
    assert len(drawn) == len(indices)


@pytest.mark.parametrize(("counts", "mean"), [((5, 2, 3), 3), ((7, 1), 4), ((4, 3), 4), ((9,), 9)])
def test_the_mean_is_rounded(counts: tuple[int, ...], mean: int) -> None:
    indices, targets = of_counts(*counts)
    assert set(counts_of(rebalanced(indices, targets, seed=0), indices, targets)) == {mean}


def test_a_larger_class_loses_images_and_repeats_none() -> None:
    indices, targets = of_counts(60, 10, 20)
    large = set(indices[targets == 0].tolist())
    drawn = [index for index in rebalanced(indices, targets, seed=2).tolist() if index in large]
    assert len(drawn) == len(set(drawn)) == 30


def test_a_smaller_class_is_repeated_whole_and_the_rest_drawn_once() -> None:
    indices, targets = of_counts(60, 8, 22)
    small = indices[targets == 1].tolist()
    times = Counter(rebalanced(indices, targets, seed=3).tolist())
    assert sorted(times[index] for index in small) == [3, 3, 4, 4, 4, 4, 4, 4]  # 30 of 8


def test_a_class_of_the_mean_stays_as_it_is() -> None:
    indices, targets = of_counts(30, 20, 10)
    drawn = set(rebalanced(indices, targets, seed=4).tolist())
    assert drawn >= set(indices[targets == 1].tolist())


def test_balanced_classes_stay_as_they_are() -> None:
    indices, targets = of_counts(12, 12, 12)
    np.testing.assert_array_equal(rebalanced(indices, targets, seed=5), indices)


def test_unlabelled_images_stay_and_do_not_count() -> None:
    indices, targets = of_counts(30, 10, 60)
    hidden = indices[targets == 2]
    drawn = rebalanced(indices, np.where(targets == 2, UNLABELLED, targets), seed=6)
    times = Counter(drawn.tolist())
    assert all(times[index] == 1 for index in hidden.tolist())
    assert counts_of(drawn, indices, targets) == [20, 20, 60]
    only = np.full(len(indices), UNLABELLED)
    np.testing.assert_array_equal(rebalanced(indices, only, seed=6), indices)


def test_the_seed_decides() -> None:
    indices, targets = of_counts(60, 25, 5)
    first = rebalanced(indices, targets, seed=7)
    np.testing.assert_array_equal(first, rebalanced(indices, targets, seed=7))
    assert not np.array_equal(first, rebalanced(indices, targets, seed=8))
    np.testing.assert_array_equal(first, np.sort(first))


def test_a_class_of_one_image_is_shown_again_and_again() -> None:
    indices, targets = of_counts(19, 1)
    drawn = rebalanced(indices, targets, seed=9)
    assert Counter(drawn.tolist())[int(indices[targets == 1][0])] == 10


def test_topped_up_classes_come_to_half_of_the_largest_and_larger_ones_stay() -> None:
    indices, targets = of_counts(60, 25, 4, 31)
    drawn = topped_up(indices, targets, seed=1)
    assert counts_of(drawn, indices, targets) == [60, 30, 30, 31]
    np.testing.assert_array_equal(drawn, np.sort(drawn))


@pytest.mark.parametrize(("share", "wanted"), [(0.25, 15), (1.0, 60), (0.01, 4)])
def test_how_far_classes_are_topped_up_can_be_chosen(share: float, wanted: int) -> None:
    indices, targets = of_counts(60, 4)
    drawn = topped_up(indices, targets, share=share, seed=1)
    assert counts_of(drawn, indices, targets) == [60, wanted]


def test_every_image_stays_and_none_has_two_copies_more_than_another_of_its_class() -> None:
    indices, targets = of_counts(60, 8)
    times = Counter(topped_up(indices, targets, seed=3).tolist())
    assert set(times) == set(indices.tolist())
    assert sorted(times[i] for i in indices[targets == 1].tolist()) == [3, 3, 4, 4, 4, 4, 4, 4]


def test_the_seed_decides_which_images_have_a_copy_more() -> None:
    indices, targets = of_counts(60, 8)
    first = topped_up(indices, targets, seed=7)
    np.testing.assert_array_equal(first, topped_up(indices, targets, seed=7))
    assert not np.array_equal(first, topped_up(indices, targets, seed=8))


def test_unlabelled_images_get_no_copies_and_do_not_count() -> None:
    indices, targets = of_counts(30, 10, 90)
    hidden = np.where(targets == 2, UNLABELLED, targets)
    times = Counter(topped_up(indices, hidden, seed=6).tolist())
    assert all(times[index] == 1 for index in indices[targets == 2].tolist())
    assert sum(times.values()) == 30 + 15 + 90
    only = np.full(len(indices), UNLABELLED)
    np.testing.assert_array_equal(topped_up(indices, only, seed=6), indices)
