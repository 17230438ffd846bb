"""How much a test set can show at all: an exact-style bound that also holds without any flip.

A bootstrap resamples what was seen. Where no decision flipped it says [0, 0], on ten images as
on ten thousand. Tango's score interval for the difference of paired proportions (Tango, Stat Med
1998; 17:891-908) is the usual interval for non-inferiority of paired yes/no outcomes; it does not
collapse at zero and is close to the bootstrap when there are many flips.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Z95 = 1.959963984540054  # two-sided 95 %


def tango_upper(lost: int, won: int, units: int, z: float = Z95) -> float:
    """Upper 95 % bound on (lost - won) / units, the rate of units that got worse on balance.

    Of `units` pairs, `lost` were right before and are wrong now, `won` the reverse. The bound d
    solves the score equation (lost - won - units d) = -z sqrt(units (2 q + d (1 - d))), where q
    is the constrained maximum-likelihood estimate of the rate of `won`. Returns 1 for no units.

    >>> round(tango_upper(0, 0, 253), 4)  # z^2 / (n + z^2) where nothing flipped
    0.015
    """
    if units <= 0:
        return 1.0
    low, high = max((lost - won) / units, -1.0), 1.0
    for _ in range(60):  # the statistic falls with d: bisection to far below any use
        middle = (low + high) / 2
        if _score(lost, won, units, middle) > -z:
            low = middle
        else:
            high = middle
    return high


def _score(lost: int, won: int, units: int, d: float) -> float:
    a = 2.0 * units
    b = -lost - won + (2.0 * units - lost + won) * d
    c = -won * d * (1.0 - d)
    q = (math.sqrt(max(b * b - 4.0 * a * c, 0.0)) - b) / (2.0 * a)
    variance = units * (2.0 * q + d * (1.0 - d))
    if variance <= 0:
        return 0.0
    return (lost - won - units * d) / math.sqrt(variance)


def group_changes(
    before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_], groups: Sequence[str]
) -> tuple[int, int, int]:
    """How many groups lost right decisions on balance, won some, and how many there are.

    The group (patient, lesion) is the unit: its images may all flip together, so counting images
    would claim evidence that is not there.
    """
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    change = np.bincount(index, weights=after.astype(float) - before, minlength=len(names))
    return int(np.sum(change < 0)), int(np.sum(change > 0)), len(names)


@dataclass(frozen=True)
class Loss:
    """What the paired decisions on some images show about a loss of right ones."""

    point: float  # share of the images, as seen
    upper: float  # upper 95 % bound of that share
    lost: int  # groups that got worse on balance
    won: int
    units: int  # groups


def loss_of(
    before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_], groups: Sequence[str]
) -> Loss:
    """The loss of right decisions on some images with a bound that counts groups.

    Tango's bound is on the share of groups that got worse on balance. How much of its images a
    changed group loses is learned from the changed groups, with one group that changes as a whole
    put beside them: without any change that share is 1, and for one image per group always.
    """
    lost, won, units = group_changes(before, after, groups)
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    change = np.bincount(index, weights=after.astype(float) - before, minlength=units)
    size = len(before) / max(units, 1)
    share = min((np.abs(change).sum() / size + 1.0) / (lost + won + 1.0), 1.0) if units else 1.0
    point = float(before.mean() - after.mean()) if units else 0.0
    return Loss(point, max(point, float(share) * tango_upper(lost, won, units)), lost, won, units)


def macro_upper(classes: Sequence[Loss]) -> float:
    """Upper 95 % bound on the mean loss over classes.

    The bounds of the classes are joined by MOVER (Zou and Donner, Stat Med 2008; 27:1693-1702):
    mean + sqrt(sum (upper_c - point_c)^2) / C.
    """
    if not classes:
        return 1.0
    reach = sum((one.upper - one.point) ** 2 for one in classes)
    return (sum(one.point for one in classes) + math.sqrt(reach)) / len(classes)


def units_needed(bound: float, lost: int = 0, won: int = 0) -> int:
    """The smallest number of groups whose `tango_upper` is below `bound`, with these flips."""
    low, high = 1, 2
    while tango_upper(lost, won, high) >= bound:
        high *= 2
        if high > 1 << 40:
            return high
    while low < high:
        middle = (low + high) // 2
        if tango_upper(lost, won, middle) < bound:
            high = middle
        else:
            low = middle + 1
    return low
