"""Does an adapted graph compute what the imported file computed, for any number of pictures?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgekd.bundle import INPUT_NAME, OUTPUT_NAME
from edgekd.errors import BundleError
from edgekd.export.original import MOST, Original, open_session, reason

TOLERANCE = 1e-4  # of the largest logit; the same arithmetic in another order differs by 1e-6
BATCHES = (1, 2, MOST)  # 1 is what a device runs, the others prove that the axis is free


def prove_same(original: Original, path: Path, changes: Sequence[str]) -> None:
    """Run the adapted file at `path` singly and in batches. Raises BundleError at a difference."""
    images = original.random(MOST)
    # singly, so that a picture that depends on its neighbours is told from a wrong adaptation
    expected = np.concatenate([original.logits(image[None]) for image in images])
    scale = max(float(np.abs(expected).max()), 1e-6)
    session = open_session(path, str(path))
    for batch in BATCHES:
        try:
            parts = [session.run([OUTPUT_NAME], {INPUT_NAME: images[at : at + batch]})[0]
                     for at in range(0, len(images), batch)]  # fmt: skip
            found = np.concatenate(parts)
            gives = f"{len(images)} pictures give logits {found.shape}"
            problem = "" if found.shape == expected.shape else gives
        except Exception as error:  # the exception types of onnxruntime share no base class
            problem = reason(error)
        if problem:
            raise _fixed(original.file.path, batch, problem)
        gap = float(np.abs(found - expected).max()) / scale
        if not gap <= TOLERANCE:  # also true of NaN
            raise _differs(original.file.path, batch, gap, changes)


def _fixed(path: Path, batch: int, problem: str) -> BundleError:
    return BundleError(
        f"{path} cannot run {batch} pictures at once: {problem}",
        hint="export it again with a dynamic batch: dynamic_shapes=({0: 'batch'},) of "
        "torch.onnx.export, dynamic_axes={'input': {0: 'batch'}} with dynamo=False",
    )


def _differs(path: Path, batch: int, gap: float, changes: Sequence[str]) -> BundleError:
    if batch > 1:
        return BundleError(
            f"{path}: the logits of a picture depend on the others of its batch (by {gap:.1e} of "
            "the largest)",
            hint="export it in evaluation mode: model.eval()",
        )
    return BundleError(
        f"{path}: as it would stand in the bundle ({'; '.join(changes)}) its logits differ by "
        f"{gap:.1e} of the largest",
        hint="export it with opset 18, one float32 input and logits as its only output",
    )
