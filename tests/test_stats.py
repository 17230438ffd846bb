"""Intervals: grouped, paired, exact."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd import stats


def mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return weights @ values / weights.sum(axis=1)


def test_a_resample_draws_whole_groups() -> None:
    groups = ["a", "a", "b", "c", "c", "c"]
    weights = stats.group_weights(groups, 100)
    assert weights.shape == (100, 6)
    assert np.all(weights[:, 0] == weights[:, 1])
    assert np.all(weights[:, 3] == weights[:, 5])
    assert np.all(weights[:, [0, 2, 3]].sum(axis=1) == 3)


def test_resampling_is_deterministic() -> None:
    groups = [str(i) for i in range(20)]
    assert np.array_equal(stats.group_weights(groups, 10), stats.group_weights(groups, 10))


def test_the_bootstrap_interval_of_a_mean_agrees_with_theory() -> None:
    values = np.random.default_rng(0).normal(size=400)
    weights = stats.group_weights([str(i) for i in range(400)], 4000)
    low, high = stats.percentile_interval(mean(values, weights))
    half = 1.96 * values.std(ddof=1) / 20
    assert low == pytest.approx(values.mean() - half, abs=0.02)
    assert high == pytest.approx(values.mean() + half, abs=0.02)


def test_correlated_groups_widen_the_interval() -> None:
    values = np.repeat(np.random.default_rng(0).normal(size=40), 10)
    alone = stats.group_weights([str(i) for i in range(400)], 1000)
    grouped = stats.group_weights([str(i // 10) for i in range(400)], 1000)
    narrow = stats.percentile_interval(mean(values, alone))
    wide = stats.percentile_interval(mean(values, grouped))
    assert wide[1] - wide[0] > 2 * (narrow[1] - narrow[0])


def test_what_two_models_share_cancels_in_the_paired_difference() -> None:
    values = np.random.default_rng(0).normal(size=200)
    weights = stats.group_weights([str(i) for i in range(200)], 500)
    point, low, high = stats.paired_difference(mean, values + 0.1, values, weights)
    assert point == pytest.approx(0.1)
    assert low == pytest.approx(0.1)
    assert high == pytest.approx(0.1)


def test_mcnemar_is_the_exact_binomial_test() -> None:
    first = np.array([True] * 8 + [False] * 2 + [True] * 10)
    second = np.array([False] * 8 + [True] * 2 + [True] * 10)
    # 2 of 10 discordant pairs: 2 (C(10,0) + C(10,1) + C(10,2)) / 2^10
    assert stats.mcnemar(first, second) == pytest.approx(2 * (1 + 10 + 45) / 1024)
    assert stats.mcnemar(first, first) == 1.0


def test_the_interval_over_seeds_is_students() -> None:
    mean_value, low, high = stats.mean_interval([1.0, 2.0, 3.0])
    assert mean_value == 2.0
    assert (low, high) == pytest.approx((2 - 4.303 / 3**0.5, 2 + 4.303 / 3**0.5), abs=1e-3)
    assert np.isnan(stats.mean_interval([1.0])[1])
