"""Intervals and tests on scores: grouped bootstrap, paired bootstrap, McNemar.

Images of one patient or lesion are not independent, so every resampling draws whole groups.
A resample is a vector of weights per sample; scores are computed for all resamples at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

RESAMPLES = 2000
LEVEL = 0.95


def group_weights(groups: Sequence[str], resamples: int = RESAMPLES, *, seed: int = 0) -> Array:
    """Draw groups with replacement and return how often each sample occurs: (resamples, N)."""
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    count = int(index.max()) + 1 if index.size else 0
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(count, np.full(count, 1.0 / count), size=resamples)
    return drawn[:, index].astype(np.float64)


def percentile_interval(values: Array, level: float = LEVEL) -> tuple[float, float]:
    """Percentile bootstrap interval of the finite values (NaN, NaN if there are none)."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return float("nan"), float("nan")
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(finite, [tail, 1.0 - tail])
    return float(low), float(high)


def paired_difference(
    metric: Callable[[Array, Array], Array],
    candidate: Array,
    reference: Array,
    weights: Array,
) -> tuple[float, float, float]:
    """Difference `candidate - reference` of a metric with its paired bootstrap interval.

    `metric(predictions, weights)` maps (N, ...) predictions and (R, N) weights to (R,) values.
    Both models see the same resamples, so what they share cancels.
    """
    once = np.ones((1, weights.shape[1]))
    point = float(metric(candidate, once)[0] - metric(reference, once)[0])
    low, high = percentile_interval(metric(candidate, weights) - metric(reference, weights))
    return point, low, high


def mcnemar(first_right: npt.NDArray[np.bool_], second_right: npt.NDArray[np.bool_]) -> float:
    """Exact two-sided McNemar p-value for the decisions of two models on the same images."""
    from scipy.stats import binomtest

    only_first = int(np.sum(first_right & ~second_right))
    only_second = int(np.sum(~first_right & second_right))
    if only_first + only_second == 0:
        return 1.0
    return float(binomtest(only_first, only_first + only_second, 0.5).pvalue)


def mean_interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float, float]:
    """Mean and Student-t interval over seeds; the interval is NaN for fewer than two values."""
    from scipy.stats import t

    array = np.asarray(values, dtype=np.float64)
    mean = float(array.mean())
    if array.size < 2:
        return mean, float("nan"), float("nan")
    error = float(array.std(ddof=1)) / float(np.sqrt(array.size))
    half = float(t.ppf(0.5 + level / 2.0, array.size - 1)) * error
    return mean, mean - half, mean + half
