"""Several classes per image, seen as one number per image."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.data._labels import kinds_of, membership, rarest, texts
from edgekd.data.base import UNLABELLED, Labels
from edgekd.errors import DataError
from tests.data.plain import Plain


def labels(*rows: tuple[int, ...]) -> Labels:
    return np.array(rows, dtype=np.int8)


class Several(Plain):
    """Labels as given, in memory."""

    has_labels = True

    def __init__(self, table: Labels) -> None:
        super().__init__(rarest(table).tolist(), classes=table.shape[1])
        self._table = table

    def labels(self) -> Labels:
        return self._table

    def kinds(self) -> tuple[str, ...]:
        return kinds_of(self.classes)


def test_an_image_counts_for_the_rarest_class_that_it_shows() -> None:
    table = labels((1, 1, 0), (1, 0, 1), (1, 1, 1), (1, 1, 0), (1, 0, 0))
    assert rarest(table).tolist() == [1, 2, 2, 1, 0]  # 5, 3 and 2 images


def test_of_equally_rare_classes_the_first_counts() -> None:
    assert rarest(labels((1, 1, 1), (0, 1, 0), (1, 0, 1))).tolist() == [0, 1, 0]


def test_an_image_without_any_class_is_of_a_kind_of_its_own() -> None:
    assert rarest(labels((0, 0), (0, 1))).tolist() == [2, 1]
    assert kinds_of(("drusen", "scar")) == ("drusen", "scar", "none")


def test_an_image_of_which_nothing_is_known_has_no_kind() -> None:
    assert rarest(labels((-1, -1), (1, 0), (0, 1))).tolist() == [UNLABELLED, 0, 1]


def test_what_is_not_known_neither_counts_nor_hides_what_is_known() -> None:
    # the first class is shown once and unknown twice, the second shown twice
    assert rarest(labels((1, 1), (-1, 1), (-1, 0))).tolist() == [0, 1, 2]


def test_a_class_that_no_image_shows_is_of_no_image() -> None:
    assert rarest(labels((1, 0), (1, 0))).tolist() == [0, 0]
    assert rarest(labels((0, 0), (0, 0))).tolist() == [2, 2]


def test_the_order_of_the_images_does_not_matter() -> None:
    random = np.random.default_rng(0)
    table = (random.uniform(size=(200, 6)) < np.array([0.5, 0.3, 0.3, 0.1, 0.02, 0])).astype(
        np.int8
    )
    order = random.permutation(200)
    np.testing.assert_array_equal(rarest(table[order]), rarest(table)[order])


def test_by_an_independent_count() -> None:
    random = np.random.default_rng(1)
    table = random.choice(np.array([-1, 0, 1], np.int8), size=(120, 5), p=[0.2, 0.6, 0.2])
    counts = [sum(1 for row in table if row[column] == 1) for column in range(5)]
    for row, kind in zip(table, rarest(table), strict=True):
        shown = [column for column in range(5) if row[column] == 1]
        if shown:
            expected = min(shown, key=lambda column: (counts[column], column))
        else:
            expected = UNLABELLED if all(value == -1 for value in row) else 5
        assert kind == expected


def test_data_with_one_class_per_image_has_no_labels() -> None:
    source = Plain([0, 1, 0])
    assert not source.has_labels
    with pytest.raises(DataError, match="Plain has one class per image, no labels"):
        source.labels()


def test_an_image_belongs_to_all_classes_that_it_shows_and_else_to_none() -> None:
    source = Several(labels((1, 1, 0), (0, 0, 0), (-1, 0, 1), (-1, -1, -1)))
    assert membership(source).astype(int).tolist() == [
        [1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]
    ]  # fmt: skip


def test_with_one_class_per_image_it_belongs_to_that() -> None:
    assert membership(Plain([1, 0, UNLABELLED, 1])).astype(int).tolist() == [
        [0, 1], [1, 0], [0, 0], [0, 1]
    ]  # fmt: skip


def test_labels_in_words_change_with_every_part() -> None:
    rows = [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)]
    assert len(set(texts(Several(labels(*rows))))) == len(rows)
    found = texts(Several(labels((1, 1), (0, 0), (1, -1))))
    assert found == ["c0+c1", "none", "c0+?c1"]
    assert texts(Plain([1, 0, UNLABELLED])) == ["c1", "c0", ""]


def test_the_fingerprint_holds_labels_that_leave_the_kinds_as_they_are() -> None:
    first, second = (Several(labels((1, last), (0, 1), (0, 1))) for last in (0, -1))
    assert first.targets().tolist() == second.targets().tolist()
    assert first.fingerprint() != second.fingerprint()
