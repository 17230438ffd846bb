"""Training images of rare classes several times, so that classes come in less unequal numbers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgekd.data.base import UNLABELLED

Indices = npt.NDArray[np.int64]

SHARE = 0.5  # of the largest class's count, where nothing else is asked for


def rebalanced(indices: Indices, targets: Indices, seed: int) -> Indices:
    """The images with every class at the mean class count, sorted; some stand there repeatedly.

    `indices` and `targets` are (N,); with N labelled images of C classes the count is round(N / C).
    Of a larger class that many are drawn without replacement. All images of a smaller one are
    repeated as often as they fit, and the rest is drawn without replacement. Unlabelled images stay
    as they are and do not count. The same seed gives the same images.
    """
    labelled = targets != UNLABELLED
    classes = np.unique(targets[labelled])
    if not len(classes):
        return np.asarray(indices.copy())
    count = round(int(labelled.sum()) / len(classes))
    generator = np.random.default_rng(seed)
    pieces = [indices[~labelled]]
    for target in classes:
        members = indices[targets == target]
        whole, rest = divmod(count, len(members))
        pieces += [np.tile(members, whole), generator.choice(members, size=rest, replace=False)]
    return np.asarray(np.sort(np.concatenate(pieces)))


def topped_up(indices: Indices, targets: Indices, *, share: float = SHARE, seed: int) -> Indices:
    """The images with every class at `share` of the largest class's count or above, sorted.

    `indices` and `targets` are (N,). All images of a class below that count are repeated as often
    as they fit into it, and the rest is drawn without replacement; the others stand there once, as
    do unlabelled images, which do not count. The same seed gives the same images. The share is
    ours: DSP-KD (Bioengineering 11(1):70, 2024) tops up rare classes and does not say how far.
    """
    labelled = targets != UNLABELLED
    classes, counts = np.unique(targets[labelled], return_counts=True)
    if not len(classes):
        return np.asarray(np.sort(indices))
    wanted = round(share * int(counts.max()))
    generator = np.random.default_rng(seed)
    pieces = [indices]
    for target, count in zip(classes, counts, strict=True):
        whole, rest = divmod(max(wanted - int(count), 0), int(count))
        members = indices[targets == target]
        pieces += [np.tile(members, whole), generator.choice(members, size=rest, replace=False)]
    return np.asarray(np.sort(np.concatenate(pieces)))
