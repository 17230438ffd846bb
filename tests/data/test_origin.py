"""Digests of a split: the same for a copy, other for other images, and no id to be read."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edgekd.data.origin import check_same_split, digests, is_same_data
from edgekd.data.splits import Split
from edgekd.errors import DataError
from tests.data.plain import Plain


def split(train: list[int], val: list[int], test: list[int]) -> Split:
    return Split(*(np.array(part, dtype=np.int64) for part in (train, val, test)))


PARTS = split([0, 1], [2], [3])


def test_the_order_of_the_files_means_nothing() -> None:
    one = Plain(targets=[0, 1, 0, 1], ids=["a", "b", "c", "d"])
    other = Plain(targets=[1, 0, 1, 0], ids=["d", "c", "b", "a"])
    assert digests(one, PARTS) == digests(other, split([3, 2], [1], [0]))


def test_ids_and_labels_are_hashed_never_written() -> None:
    source = Plain(targets=[0, 1, 0, 1], ids=["doe-john", "b", "c", "d"])
    assert "doe" not in json.dumps(digests(source, PARTS))
    assert all(len(value) == 64 for value in digests(source, PARTS).values())


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        (Plain(targets=[0, 1, 0, 0], ids=["a", "b", "c", "d"]), PARTS),
        (Plain(targets=[0, 1, 0, 1], ids=["a", "b", "c", "e"]), PARTS),
        (Plain(targets=[0, 1, 0, 1], ids=["a", "b", "c", "d"]), split([0, 3], [2], [1])),
        (Plain(targets=[0, 1, 0, 1], ids=["a", "b", "c", "d"]), split([0], [2], [3])),
    ],
)
def test_another_label_image_or_part_is_noticed(source: Plain, parts: Split) -> None:
    known = digests(Plain(targets=[0, 1, 0, 1], ids=["a", "b", "c", "d"]), PARTS)
    with pytest.raises(DataError, match="not the data the bundle was split from"):
        check_same_split(source, parts, known)


def test_the_whole_data_set_is_recognised_without_a_split() -> None:
    source = Plain(targets=[0, 1, 0, 1], ids=["a", "b", "c", "d"])
    assert is_same_data(source, digests(source, PARTS))
    assert not is_same_data(Plain(targets=[0, 1], ids=["a", "b"]), digests(source, PARTS))
    assert not is_same_data(source, {})
