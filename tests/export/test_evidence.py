"""How much a test set can show: groups, and rare classes."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.bundle import Gate
from edgekd.export.evidence import Loss, loss_of, macro_upper, tango_upper
from edgekd.export.gate import gate
from edgekd.export.golden import GoldenResult
from edgekd.recipe import GateSpec
from edgekd.results import Predictions
from edgekd.tasks.classification import Classification


def judged(primary: str, counts: list[int]) -> Gate:
    """The gate of an int8 model that decides like the fp32 one on `counts` images per class."""
    targets = np.repeat(np.arange(len(counts)), counts)
    ids = [str(i) for i in range(len(targets))]
    logits = (4.0 * np.eye(len(counts))[targets]).astype(np.float32)
    same = Predictions(ids, ids, targets, logits)
    golden = GoldenResult(images=8, pixels=0.0, logits=0.01, scale=4.0, flips=0, changed=0.0)
    task = Classification(classes=[str(i) for i in range(len(counts))], primary=primary)
    return gate(task, same, same, golden=golden, limits=GateSpec(), precision="int8")


def test_a_rare_class_leaves_the_gate_open_where_the_primary_score_averages_over_classes() -> None:
    counts = [300, 100, 80, 50, 40, 24, 6]
    assert judged("accuracy", counts).verdict == "passed"
    found = judged("macc", counts)
    assert found.verdict == "inconclusive"
    assert "the rarest class has 6 groups" in next(
        check.detail for check in found.checks if check.name == "evidence"
    )
    assert judged("macc", [150] * 7).verdict == "passed"


def decisions(units: int, size: int, lost: int, won: int) -> Loss:
    """`units` groups of `size` images; one image of a changed group flips."""
    before, after = np.ones(units * size, bool), np.ones(units * size, bool)
    after[np.arange(lost) * size] = False
    before[np.arange(lost, lost + won) * size] = False
    return loss_of(before, after, [str(i // size) for i in range(units * size)])


def test_with_one_image_per_group_the_bound_is_tangos() -> None:
    assert decisions(300, 1, 2, 1).upper == tango_upper(2, 1, 300)
    assert decisions(300, 1, 0, 0).upper == tango_upper(0, 0, 300)


def test_an_unseen_change_may_take_a_whole_group() -> None:
    assert decisions(100, 5, 0, 0).upper == tango_upper(0, 0, 100)


def test_changed_groups_teach_how_much_of_a_group_changes() -> None:
    found = decisions(1000, 4, 20, 20)
    assert found.point == 0.0
    # 40 groups changed a quarter of themselves, and one is put beside them that changes whole
    assert found.upper == pytest.approx((40 / 4 + 1) / 41 * tango_upper(20, 20, 1000))


def test_the_bound_never_lies_below_what_was_seen() -> None:
    for size in (1, 3, 10):
        found = decisions(50, size, 25, 0)
        assert found.upper >= found.point == pytest.approx(25 / (50 * size))


def test_the_joined_bound_of_one_class_is_its_own() -> None:
    one = decisions(300, 1, 2, 1)
    assert macro_upper([one]) == pytest.approx(one.upper)


def test_the_joined_bound_is_below_the_mean_of_the_bounds_and_above_the_point() -> None:
    classes = [decisions(100, 1, 1, 0), decisions(80, 1, 0, 0), decisions(200, 1, 3, 1)]
    point = sum(one.point for one in classes) / 3
    assert point < macro_upper(classes) < sum(one.upper for one in classes) / 3
