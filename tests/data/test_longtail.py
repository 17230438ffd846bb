"""Which classes are head, medium and tail."""

from __future__ import annotations

import pytest

from edgekd.data._longtail import groups_of, terciles
from edgekd.errors import RecipeError


def test_head_begins_at_a_hundred_images_and_tail_ends_below_twenty() -> None:
    counts = [5000, 101, 100, 99, 21, 20, 19, 1, 0]
    assert groups_of(counts) == ("head",) * 3 + ("medium",) * 3 + ("tail",) * 3


def test_the_order_of_the_classes_is_kept() -> None:
    assert groups_of([3, 400, 50]) == ("tail", "head", "medium")
    assert terciles([3, 400, 50]) == ("tail", "head", "medium")


def test_thresholds_are_the_callers() -> None:
    assert groups_of([9, 10, 4, 3], head=10, tail=4) == ("medium", "head", "medium", "tail")
    assert groups_of([9, 10], head=10, tail=10) == ("tail", "head")  # nothing between


@pytest.mark.parametrize(("head", "tail"), [(20, 100), (10, -1)])
def test_a_class_in_two_groups_is_refused(head: int, tail: int) -> None:
    with pytest.raises(RecipeError, match=f"head is from {head} images on and tail below {tail}"):
        groups_of([1, 2], head=head, tail=tail)


def test_terciles_are_by_rank_whatever_the_numbers() -> None:
    assert terciles([7, 1, 3, 2, 9, 8]) == ("medium", "tail", "medium", "tail", "head", "head")
    assert terciles([700, 100, 300, 200, 900, 800]) == terciles([7, 1, 3, 2, 9, 8])


@pytest.mark.parametrize(
    ("classes", "sizes"),
    [(3, [1, 1, 1]), (10, [4, 3, 3]), (11, [4, 4, 3]), (12, [4, 4, 4]), (2, [1, 1, 0])],
)
def test_thirds_that_cannot_be_equal_are_larger_by_one_at_the_head(
    classes: int, sizes: list[int]
) -> None:
    found = terciles(range(classes, 0, -1))
    assert [found.count(name) for name in ("head", "medium", "tail")] == sizes
    assert list(found) == sorted(found)  # head, medium, tail happen to be in this order


def test_of_equally_frequent_classes_the_first_ranks_higher() -> None:
    assert terciles([5, 5, 5]) == ("head", "medium", "tail")
