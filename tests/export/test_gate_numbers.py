"""With one class per image the gate's numbers are those of plain formulas on decisions.

The oracles loop over images and groups and take only the bootstrap's weights from edgekd.
"""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import binomtest

from edgekd.bundle import Check, Gate
from edgekd.export.gate import gate
from edgekd.export.golden import GoldenResult
from edgekd.recipe import GateSpec
from edgekd.results import Predictions
from edgekd.stats import group_weights
from edgekd.tasks.base import Task
from edgekd.tasks.classification import Classification
from edgekd.tasks.grading import Grading

GOLDEN = GoldenResult(images=8, pixels=0.0, logits=0.2, scale=5.0, flips=1, changed=0.125)
BOUND = GateSpec().max_drop_bound / 100
CASES = [(0, 900, 1, 0.05), (1, 900, 3, 0.5), (2, 400, 4, 0.0), (3, 60, 1, 2.0), (4, 7, 2, 0.5)]


def drawn(seed: int, count: int, size: int, noise: float) -> tuple[Predictions, Predictions]:
    """Two models on `count` images in groups of `size`, a tenth unlabelled, a third class rare."""
    random = np.random.default_rng(seed)
    targets = random.choice(3, size=count, p=[0.6, 0.35, 0.05])
    logits = random.normal(size=(count, 3)) + 2.5 * np.eye(3)[targets]
    targets[random.random(count) < 0.1] = -1
    ids, groups = [str(i) for i in range(count)], [str(i // size) for i in range(count)]
    other = logits + random.normal(0, noise, logits.shape)
    return (
        Predictions(ids, groups, targets, logits.astype(np.float32)),
        Predictions(ids, groups, targets, other.astype(np.float32)),
    )


class Oracle:
    """Right or wrong, before and after, of each labelled image."""

    def __init__(self, reference: Predictions, candidate: Predictions) -> None:
        rows = [row for row, target in enumerate(reference.targets) if target >= 0]
        self.targets = [int(reference.targets[row]) for row in rows]
        self.groups = [reference.groups[row] for row in rows]
        self.before, self.after = (
            [int(said.logits[row].argmax() == said.targets[row]) for row in rows]
            for said in (reference, candidate)
        )

    def of(self, label: int | None) -> tuple[list[int], list[int], list[str]]:
        rows = [i for i, target in enumerate(self.targets) if label in (None, target)]
        return ([self.before[i] for i in rows], [self.after[i] for i in rows],
                [self.groups[i] for i in rows])  # fmt: skip

    def loss(self, label: int | None = None) -> tuple[float, float, float]:
        """Mean loss and its bootstrap interval."""
        before, after, groups = self.of(label)
        weights = group_weights(groups)
        losses = weights @ np.subtract(before, after) / weights.sum(axis=1)
        low, high = np.quantile(losses[np.isfinite(losses)], [0.025, 0.975])
        return sum(before) / len(before) - sum(after) / len(after), low, high

    def counts(self, label: int | None = None) -> tuple[int, int, int, int]:
        """Groups lost and won, all groups, and the flips that their balances are made of."""
        balance: dict[str, int] = defaultdict(int)
        for was, now, group in zip(*self.of(label), strict=True):
            balance[group] += now - was
        values = balance.values()
        return (sum(v < 0 for v in values), sum(v > 0 for v in values), len(balance),
                sum(abs(v) for v in values))  # fmt: skip

    def upper(self, label: int | None = None) -> float:
        """Tango's bound times the share of a changed group's images that changes."""
        lost, won, units, flips = self.counts(label)
        size = len(self.of(label)[0]) / units
        share = min((flips / size + 1) / (lost + won + 1), 1.0)
        return max(self.loss(label)[0], share * tango(lost, won, units))


def tango(lost: int, won: int, n: int) -> float:
    """The root of Tango's score equation (1998, equations 2 and 4)."""

    def score(d: float) -> float:
        b = -lost - won + (2 * n - lost + won) * d
        q = (math.sqrt(b * b + 8 * n * won * d * (1 - d)) - b) / (4 * n)
        return (lost - won - n * d) + 1.959963984540054 * math.sqrt(n * (2 * q + d * (1 - d)))

    return float(brentq(score, max((lost - won) / n, 0.0) + 1e-12, 1.0 - 1e-12, xtol=1e-14))


def judged(task: Task, pair: tuple[Predictions, Predictions]) -> Gate:
    return gate(task, *pair, golden=GOLDEN, limits=GateSpec(), precision="int8")


def check(result: Gate, name: str) -> Check:
    return next(entry for entry in result.checks if entry.name == name)


@pytest.fixture(params=CASES, ids=lambda case: f"{case[1]}-images-noise-{case[3]}")
def pair(request: pytest.FixtureRequest) -> tuple[Predictions, Predictions]:
    return drawn(*request.param)


def test_non_inferiority_is_the_loss_of_accuracy(pair) -> None:
    found = check(judged(Classification(classes="abc"), pair), "non-inferiority")
    point, low, high = Oracle(*pair).loss()
    assert (found.value, found.low, found.high) == pytest.approx((point, low, high), abs=1e-12)
    expected = "refused" if point > 0.005 else "inconclusive" if high >= BOUND else "passed"
    assert found.verdict == expected


def test_evidence_is_tangos_bound_over_groups(pair) -> None:
    found = check(judged(Classification(classes="abc"), pair), "evidence")
    oracle = Oracle(*pair)
    lost, won, units, _ = oracle.counts()
    assert found.detail.split(":")[0] == f"{lost} groups lost, {won} won, of {units}"
    assert found.value == pytest.approx(oracle.loss()[0], abs=1e-12)
    assert found.high == pytest.approx(oracle.upper(), abs=1e-9)
    assert found.verdict == ("passed" if oracle.upper() < BOUND else "inconclusive")


@pytest.mark.parametrize("primary", ["macc", "qwk", "macro_f1"])
def test_evidence_over_classes_joins_their_bounds(pair, primary: str) -> None:
    found = check(judged(Grading(classes="abc", primary=primary), pair), "evidence")
    oracle = Oracle(*pair)
    labels = sorted(set(oracle.targets))
    points, uppers = ([f(label) for label in labels] for f in (
        lambda label: oracle.loss(label)[0], oracle.upper))  # fmt: skip
    reach = math.sqrt(sum((u - p) ** 2 for u, p in zip(uppers, points, strict=True)))
    joined = (sum(points) + reach) / len(labels)
    assert found.high == pytest.approx(max(oracle.upper(), joined), abs=1e-9)
    rarest = min(oracle.counts(label)[2] for label in labels)
    assert f"the rarest class has {rarest} groups" in found.detail


def test_the_sensitivity_of_each_class(pair) -> None:
    result, oracle = judged(Classification(classes="abc"), pair), Oracle(*pair)
    for label, name in enumerate("abc"):
        found, positives = check(result, f"sensitivity:{name}"), oracle.targets.count(label)
        if not positives:
            assert found.detail == "no positives"
            continue
        loss = oracle.loss(label)
        assert (found.value, found.low, found.high) == pytest.approx(loss, abs=1e-12)
        verdict = "reported"
        if positives < 50:
            verdict = "inconclusive"
        elif loss[1] > BOUND:
            verdict = "refused"
        elif max(loss[2], oracle.upper(label)) < BOUND:
            verdict = "passed"
        assert found.verdict == verdict


def test_mcnemar_is_the_exact_binomial_test(pair) -> None:
    found, oracle = check(judged(Classification(classes="abc"), pair), "mcnemar"), Oracle(*pair)
    flips = [was - now for was, now in zip(oracle.before, oracle.after, strict=True)]
    lost, won = flips.count(1), flips.count(-1)
    p = binomtest(lost, lost + won).pvalue if lost + won else 1.0
    assert found.value == pytest.approx(p)
    assert f"{lost} right before and wrong now, {won} the reverse" in found.detail


def test_the_cases_show_every_verdict() -> None:
    verdicts = {judged(Classification(classes="abc"), drawn(*case)).verdict for case in CASES}
    assert verdicts == {"refused", "inconclusive", "passed"}
