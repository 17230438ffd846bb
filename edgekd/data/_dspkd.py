"""The protocol of DSP-KD, leak and all: copies of rare classes' images first, then the split.

DSP-KD (Bioengineering 11(1):70, 2024) tops up rare classes with transformed copies and splits all
files at random, 8:2. So an image may train and its copy test. There is no third part: what is
reported chooses the epoch too.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgekd.data._copied import Copied
from edgekd.data.base import DataSource
from edgekd.data.splits import Split
from edgekd.errors import RecipeError
from edgekd.recipe_data import DataSpec

DSPKD_PAPER = "dspkd_paper"
TESTED = 0.2  # of all images and copies

Indices = npt.NDArray[np.int64]


def dspkd_paper(members: Indices, spec: DataSpec) -> Split:
    """A fifth of these images and copies, drawn one by one, is held out.

    Raises RecipeError for subsets, of which the paper knows none.
    """
    if spec.subsets:
        raise RecipeError(f"data.subsets: {DSPKD_PAPER} splits all images, there are no subsets",
                          hint="data.split=8-1-1")  # fmt: skip
    order = np.random.default_rng(spec.drawn_by).permutation(members)
    count = round(TESTED * len(members))
    held = np.sort(order[:count])
    return Split(np.sort(order[count:]), held, held)


def leak(source: DataSource | None, split: Split) -> str:
    """How many test images have trained in another version, or another image of their group."""
    text = f"{DSPKD_PAPER}: leakage: copies were made before the split"
    if not isinstance(source, Copied):
        return text
    seen = []
    for column in (source.originals, np.asarray(source.groups())):
        seen.append(int(np.isin(column[split.test], column[split.train]).sum()))
    return (
        f"{text}: {seen[0]} of the {len(split.test)} test images have another version of "
        f"themselves in training, {seen[1]} a picture of the same group (patient, lesion)"
    )
