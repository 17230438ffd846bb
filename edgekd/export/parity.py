"""Does an artifact compute what the network computed: on the golden pictures, on the test images.

The checks of the gate that look at numbers instead of decisions.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from edgekd.bundle import Check, Verdict
from edgekd.export.golden import GoldenResult
from edgekd.results import Predictions
from edgekd.tasks.base import Task

PARITY = 1e-3  # of the largest logit; fp32 kernels differ by about 1e-6, a wrong layer by far more
PIXELS = 2.0 / 255.0  # libjpeg builds differ by a grey level or two

CheckVerdict = Verdict | Literal["reported"]


def agrees(golden: GoldenResult) -> bool:
    """Whether logits and decisions on the golden pictures are those stored, within rounding.

    With one class per picture no decision may be another. Of the pixels of masks some always lie
    at the threshold, where rounding decides: up to 1e-3 of them may.
    """
    return golden.is_finite and golden.relative <= PARITY and golden.changed <= PARITY


def parity(golden: GoldenResult, is_exact: bool) -> Check:
    """Logits on the golden pictures: fp32 must agree, int8 must be finite and is reported."""
    verdict: CheckVerdict = "passed" if agrees(golden) else "refused"
    if not is_exact and golden.is_finite:
        verdict = "reported"
    detail = f"largest logit difference as a part of the largest logit; {golden.flips} of " + (
        f"{golden.images} golden pictures decided otherwise"
        if golden.is_finite
        else f"{golden.images} golden pictures; some logits are not finite"
    )
    value = golden.relative if np.isfinite(golden.relative) else None
    return Check(name="parity", verdict=verdict, value=value,
                 limit=PARITY if is_exact else None, detail=detail)  # fmt: skip


def preprocessing(golden: GoldenResult) -> Check:
    """The golden pictures still become the pixels that were stored at export."""
    return Check(
        name="preprocessing",
        verdict="passed" if golden.pixels <= PIXELS else "refused",
        value=golden.pixels,
        limit=PIXELS,
        detail="largest pixel difference of the golden pictures, decoded and resized again",
    )


def parity_on_test(task: Task, reference: Predictions, candidate: Predictions) -> Check:
    """Logits on the test images: equal within rounding, or only reported.

    An image is decided otherwise if anything in its decision is another: a label, a pixel.
    """
    scale = max(float(np.abs(reference.logits).max(initial=0.0)), 1e-6)
    gap = float(np.abs(candidate.logits - reference.logits).max(initial=0.0)) / scale
    flips = np.count_nonzero(task.decided_otherwise(reference.logits, candidate.logits))
    return Check(name="parity-test", verdict="passed" if gap <= PARITY else "reported",
                 value=gap, limit=PARITY,
                 detail=f"the same on {len(reference.ids)} test images; {flips} decided otherwise",
                 )  # fmt: skip
