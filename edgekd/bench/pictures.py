"""The pictures on which decoding and preprocessing are timed: the bundle's golden ones."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from edgekd.errors import BundleError

SIDES = (640, 480)


def golden_pictures(folder: Path) -> list[bytes]:
    """The encoded golden pictures of a bundle in order, or one drawn picture if it has none."""
    names = folder / "golden" / "images.json"
    if not names.is_file():
        return [drawn_picture()]
    try:
        listed = json.loads(names.read_text(encoding="utf-8"))
        return [(names.parent / Path(name).name).read_bytes() for name in listed]
    except (OSError, ValueError, TypeError) as error:
        raise BundleError(f"{names}: the golden images cannot be read: {error}") from None


def drawn_picture() -> bytes:
    """A 640 x 480 JPEG with shading, edges and grain, the same on every call."""
    width, height = SIDES
    y, x = np.mgrid[0:height, 0:width]
    spot = ((x - width / 2) ** 2 + (y - height / 2) ** 2 < (height / 4) ** 2) * 90.0
    base = np.stack([200 - spot, 150 - spot + x / 20, 130 - spot + y / 20], axis=-1)
    grain = np.random.default_rng(0).normal(0, 6, base.shape)
    stream = io.BytesIO()
    pixels = (base + grain).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(stream, "JPEG", quality=90)
    return stream.getvalue()
