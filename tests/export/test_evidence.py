"""How much a test set can show: groups, and rare classes."""

from __future__ import annotations

import numpy as np

from edgekd.bundle import Gate
from edgekd.export.evidence import macro_upper, tango_upper
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
    golden = GoldenResult(images=8, pixels=0.0, logits=0.01, scale=4.0, flips=0)
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


def test_the_joined_bound_of_one_class_is_its_own() -> None:
    assert macro_upper([(2, 1, 300)]) == tango_upper(2, 1, 300)


def test_the_joined_bound_is_below_the_mean_of_the_bounds_and_above_the_point() -> None:
    classes = [(1, 0, 100), (0, 0, 80), (3, 1, 200)]
    bounds = [tango_upper(*counts) for counts in classes]
    point = sum((lost - won) / units for lost, won, units in classes) / 3
    assert point < macro_upper(classes) < sum(bounds) / 3
