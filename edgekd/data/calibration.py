"""Which training images the quantizer sees."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgekd.errors import DataError

Ints = npt.NDArray[np.int64]


def choose(strata: Ints, groups: Sequence[str], indices: Ints, count: int, *, seed: int) -> Ints:
    """Choose `count` of `indices` (training images), spread over classes, then over groups.

    Classes take turns and, inside a class, so do its groups, so that a rare class and a patient
    with one image both have their say; ranges taken from the common class alone would clip the
    rare one. `strata` (N,), the class with which an image takes its turn (Task.strata), and
    `groups` (N,) describe the whole source, `indices` (M,) point into it. Returns sorted indices,
    all of them if there are fewer than `count`. Deterministic.
    """
    if indices.size == 0:
        raise DataError("the training part has no images to calibrate on")
    generator = np.random.default_rng(seed)
    queues: dict[int, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index in generator.permutation(np.sort(indices)):
        queues[int(strata[index])][groups[index]].append(int(index))
    turns = {label: _in_turn(list(members.values())) for label, members in queues.items()}
    order = _in_turn([turns[label] for label in sorted(turns)])
    return np.sort(np.array(order[:count], dtype=np.int64))


def _in_turn(queues: list[list[int]]) -> list[int]:
    """One from each queue, again and again, until all are empty."""
    longest = max(map(len, queues), default=0)
    return [queue[turn] for turn in range(longest) for queue in queues if turn < len(queue)]
