"""Dark hairs in skin photographs: found by their shape, filled in from the skin around them.

In the manner of DullRazor (Lee et al., Computers in Biology and Medicine 27(6):533-543, 1997), as
it is commonly written with OpenCV: grey values, a black-hat filter, which answers to dark lines
that are thinner than its kernel, a threshold, and inpainting (Telea, J Graphics Tools 9(1), 2004).
DSP-KD (Bioengineering 11(1):70, 2024) removes hair from noisy images and gives no numbers; that an
image with little hair stays as it is, is ours. OpenCV is the extra `hair`.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np

from edgekd.data._wrapped import Wrapped, chain
from edgekd.data.base import DataSource, Image, Mask, Sample
from edgekd.errors import DataError
from edgekd.plugins import missing_package

FORMAT = 1  # raise it when other pixels come out
KERNEL, LARGE_KERNEL = 9, 17  # of the black-hat filter, a cross of so many pixels
LARGE = 600  # pixels of the larger side, above which the larger kernel is taken
DARKER = 10  # grey levels that a hair is darker than its surroundings
RADIUS = 6  # pixels around a hair that it is filled in from
LEAST = 0.02  # of all pixels: an image with less hair is left as it is
REMOVED = "hair removed"


def hair_mask(image: Image) -> Mask:
    """Where an image uint8 RGB (H, W, 3) shows dark hairs: (H, W), 1 there and 0 elsewhere.

    Raises DataError for anything else than such an image, MissingOnHost without OpenCV.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise DataError(f"hair is looked for in RGB images: expected uint8 (H, W, 3), got "
                        f"{image.dtype} {image.shape}")  # fmt: skip
    cv2 = _opencv()
    side = LARGE_KERNEL if max(image.shape[:2]) > LARGE else KERNEL
    kernel = cv2.getStructuringElement(cv2.MORPH_CROSS, (side, side))
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    lines = cv2.GaussianBlur(cv2.morphologyEx(grey, cv2.MORPH_BLACKHAT, kernel), (3, 3), 0)
    return np.asarray(lines > DARKER, dtype=np.uint8)


def without_hair(image: Image) -> tuple[Image, float]:
    """The image without its hair, and what part of its pixels that is.

    An image with 2 % or less comes back as it is. Raises what `hair_mask` does.
    """
    mask = hair_mask(image)
    share = float(mask.mean())
    if share <= LEAST:
        return image, share
    cv2 = _opencv()
    return np.asarray(cv2.inpaint(image, mask, RADIUS, cv2.INPAINT_TELEA), dtype=np.uint8), share


class HairRemoved(Wrapped):
    """The same images without hair. `shares` says of those that were read how much they had."""

    def __init__(self, inner: DataSource) -> None:
        super().__init__(inner)
        self.shares: dict[int, float] = {}

    def __getitem__(self, index: int) -> Sample:
        sample = self.inner[index]
        image, self.shares[int(index)] = without_hair(sample.image)
        return replace(sample, image=image)

    def fingerprint(self) -> str:
        """Another one than that of the images with their hair."""
        text = f"{REMOVED} {FORMAT} {self.inner.fingerprint()}"
        return hashlib.sha256(text.encode()).hexdigest()


def hairless(source: DataSource) -> HairRemoved | None:
    """The step at which hair is removed from a source's images, if it is."""
    return next((one for one in chain(source) if isinstance(one, HairRemoved)), None)


def _opencv() -> Any:
    try:
        import cv2
    except ImportError:
        raise missing_package("cv2", "removing hair") from None
    cv2.setNumThreads(1)  # its threads do not survive the forks of training's workers
    return cv2
