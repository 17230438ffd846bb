"""Which training images the quantizer sees."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.data.calibration import choose
from edgekd.errors import DataError

# 900 common images of 9 patients, 30 rare ones of 30; the last 100 indices are test images
TARGETS = np.array([0] * 900 + [1] * 30 + [0] * 100)
GROUPS = [f"common-{i % 9}" for i in range(900)] + [f"rare-{i}" for i in range(30)] + ["t"] * 100
TRAIN = np.arange(930)


def test_a_rare_class_is_seen_as_often_as_a_common_one():
    chosen = choose(TARGETS, GROUPS, TRAIN, 40, seed=0)
    assert np.bincount(TARGETS[chosen]).tolist() == [20, 20]


def test_groups_take_turns():
    chosen = choose(TARGETS, GROUPS, TRAIN, 36, seed=0)
    common = [GROUPS[i] for i in chosen if TARGETS[i] == 0]
    assert {common.count(name) for name in set(common)} == {2}


def test_only_training_images_each_once():
    chosen = choose(TARGETS, GROUPS, TRAIN, 300, seed=0)
    assert len(set(chosen.tolist())) == 300
    assert chosen.max() < 930
    assert len(choose(TARGETS, GROUPS, TRAIN, 5000, seed=0)) == 930


def test_the_seed_decides_and_the_order_of_indices_does_not():
    first = choose(TARGETS, GROUPS, TRAIN, 50, seed=3)
    assert np.array_equal(first, choose(TARGETS, GROUPS, TRAIN[::-1], 50, seed=3))
    assert not np.array_equal(first, choose(TARGETS, GROUPS, TRAIN, 50, seed=4))


def test_no_training_images_is_an_error():
    with pytest.raises(DataError, match="no images to calibrate"):
        choose(TARGETS, GROUPS, np.array([], dtype=np.int64), 8, seed=0)
