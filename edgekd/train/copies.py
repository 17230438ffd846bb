"""Further copies of training images of rare classes: each a fixed picture of its own."""

from __future__ import annotations

from dataclasses import dataclass

from edgekd.data._randaugment import transformed
from edgekd.data.base import Image


@dataclass(frozen=True)
class Copies:
    """Makes copies with one to three random operations of RandAugment each.

    A copy is the same picture in every epoch, as if it were a file; the stage's own augmentation
    comes after it, as for any image. Its picture depends on (seed, index, copy) only.
    """

    seed: int

    def __call__(self, image: Image, index: int, copy: int) -> Image:
        """Copy number `copy` of the image uint8 (H, W, 3) at `index`; number 0 is the image."""
        return transformed(image, self.seed, index, copy) if copy else image
