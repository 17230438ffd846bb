"""How much a test set can show at all: an exact-style bound that also holds without any flip.

A bootstrap resamples what was seen. Where no decision flipped it says [0, 0], on ten images as
on ten thousand. Tango's score interval for the difference of paired proportions (Tango, Stat Med
1998; 17:891-908) is the usual interval for non-inferiority of paired yes/no outcomes; it does not
collapse at zero and is close to the bootstrap when there are many flips.

Where a decision can be right in part (the share of an image's labels, the overlap of its masks), a
change by a part counts as that part of a flip. That errs on the safe side: of all changes c in
[-1, 1] with a given mean loss and mean gain, whole flips vary most (c^2 <= |c|), and theirs is the
variance in Tango's score. The bound is then on the mean loss of rightness, and it does not collapse
where all changes are small: an image that is lost as a whole may just not have been seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Rightness = npt.NDArray[np.bool_] | Floats  # of each image: right or wrong, or how right in [0, 1]

Z95 = 1.959963984540054  # two-sided 95 %


def tango_upper(lost: float, won: float, units: int, z: float = Z95) -> float:
    """Upper 95 % bound on (lost - won) / units, the rate of units that got worse on balance.

    Of `units` pairs, `lost` were right before and are wrong now, `won` the reverse; both are sums
    of parts where decisions are right in part. The bound d solves the score equation
    (lost - won - units d) = -z sqrt(units (2 q + d (1 - d))), where q is the constrained
    maximum-likelihood estimate of the rate of `won`. Returns 1 for no units.

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


def _score(lost: float, won: float, units: int, d: float) -> float:
    a = 2.0 * units
    b = -lost - won + (2.0 * units - lost + won) * d
    c = -won * d * (1.0 - d)
    q = (math.sqrt(max(b * b - 4.0 * a * c, 0.0)) - b) / (2.0 * a)
    variance = units * (2.0 * q + d * (1.0 - d))
    if variance <= 0:
        return 0.0
    return (lost - won - units * d) / math.sqrt(variance)


def group_changes(
    before: Rightness, after: Rightness, groups: Sequence[str]
) -> tuple[float, float, int]:
    """How many groups lost right decisions on balance, won some, and how many there are.

    `before` and `after` (N,) say how right each image is: booleans, or numbers in [0, 1]. The group
    (patient, lesion) is the unit: its images may all flip together, so counting images would claim
    evidence that is not there. A group that changes by less than one image counts as that part.
    """
    change = _change(before, after, groups)
    whole = np.minimum(np.abs(change), 1.0)
    return float(whole[change < 0].sum()), float(whole[change > 0].sum()), len(change)


def _change(before: Rightness, after: Rightness, groups: Sequence[str]) -> Floats:
    """What each group gained on balance, in images."""
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    change = np.bincount(index, weights=after.astype(float) - before, minlength=len(names))
    return change.astype(np.float64)  # bincount of no groups is int


@dataclass(frozen=True)
class Loss:
    """What the paired decisions on some images show about a loss of right ones."""

    point: float  # mean loss of an image, as seen: for whole decisions the share of the images
    upper: float  # upper 95 % bound of that mean
    lost: float  # groups that got worse on balance, by parts where decisions are right in part
    won: float
    units: int  # groups


def loss_of(before: Rightness, after: Rightness, groups: Sequence[str]) -> Loss:
    """The loss of right decisions on some images with a bound that counts groups.

    Tango's bound is on the share of groups that got worse on balance. How much of its images a
    changed group loses is learned from the changed groups, with one group that changes as a whole
    put beside them: without any change that share is 1, and for one image per group always.

    `before` and `after` (N,) as in `group_changes`. For numbers in [0, 1] the bound is on their
    mean loss, and for one image per group it is Tango's with the sums of the parts lost and won.
    """
    lost, won, units = group_changes(before, after, groups)
    change = _change(before, after, groups)
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
