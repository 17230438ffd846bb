"""The fourteen operations of RandAugment, and the few of them that make one copy of an image.

Torch-free, because a protocol may score such copies on a device. Each operation gives the pixels
that torchvision's gives for a Pillow picture: there, too, Pillow does the work. Operations and
ranges: Cubuk et al., RandAugment, CVPR Workshops 2020. How many are applied at once, one to three:
DSP-KD, Bioengineering 11(1):70 (2024), which names no strength; ours is 9 of 30, torchvision's
default.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image as Pillow
from PIL import ImageEnhance, ImageOps

from edgekd.data.base import Image

Picture = Pillow.Image

STRENGTH = 9 / 30  # of each operation's range
MOST = 3  # operations for one copy


def _affine(picture: Picture, *rows: float) -> Picture:
    """Each pixel takes that at (a x + b y + c, d x + e y + f); outside of the picture is black."""
    return picture.transform(picture.size, Pillow.Transform.AFFINE, rows, Pillow.Resampling.NEAREST)


def _shift(side: int, sign: int) -> int:
    return int(sign * STRENGTH * 150 / 331 * side)


# with the sign in which a symmetric operation is applied
OPERATIONS: dict[str, Callable[[Picture, int], Picture]] = {
    "identity": lambda picture, _: picture,
    "autocontrast": lambda picture, _: ImageOps.autocontrast(picture),
    "equalize": lambda picture, _: ImageOps.equalize(picture),
    "rotate": lambda picture, sign: picture.rotate(sign * STRENGTH * 30),
    "solarize": lambda picture, _: ImageOps.solarize(picture, math.ceil(255 * (1 - STRENGTH))),
    "color": lambda picture, sign: ImageEnhance.Color(picture).enhance(_factor(sign)),
    "posterize": lambda picture, _: ImageOps.posterize(picture, round(8 - STRENGTH * 4)),
    "contrast": lambda picture, sign: ImageEnhance.Contrast(picture).enhance(_factor(sign)),
    "brightness": lambda picture, sign: ImageEnhance.Brightness(picture).enhance(_factor(sign)),
    "sharpness": lambda picture, sign: ImageEnhance.Sharpness(picture).enhance(_factor(sign)),
    "shear-x": lambda picture, sign: _affine(picture, 1, sign * STRENGTH * 0.3, 0, 0, 1, 0),
    "shear-y": lambda picture, sign: _affine(picture, 1, 0, 0, sign * STRENGTH * 0.3, 1, 0),
    "translate-x": lambda picture, sign: _affine(
        picture, 1, 0, -_shift(picture.width, sign), 0, 1, 0
    ),
    "translate-y": lambda picture, sign: _affine(
        picture, 1, 0, 0, 0, 1, -_shift(picture.height, sign)
    ),
}


def _factor(sign: int) -> float:
    return 1 + sign * STRENGTH * 0.9


def drawn(seed: int, index: int, copy: int) -> list[tuple[str, int]]:
    """One to three operations with their signs: a function of the three numbers alone."""
    random = np.random.default_rng([seed, index, copy])
    names = random.choice(list(OPERATIONS), size=random.integers(1, MOST + 1))
    return [(str(name), int(random.choice([-1, 1]))) for name in names]


def transformed(image: Image, seed: int, index: int, copy: int) -> Image:
    """Copy number `copy` (from 1) of the image at `index`: uint8 (H, W, 3), as large as before."""
    picture = Pillow.fromarray(image)
    for name, sign in drawn(seed, index, copy):
        picture = OPERATIONS[name](picture, sign)
    return np.asarray(picture)
