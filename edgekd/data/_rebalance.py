"""As many training images of every class: mixed under- and over-sampling to the mean count."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgekd.data.base import UNLABELLED

Indices = npt.NDArray[np.int64]


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
