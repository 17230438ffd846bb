"""Reading masks: one byte per pixel that names its class, from the formats in which they come."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from edgekd.data.base import Mask
from edgekd.errors import DataError
from edgekd.image import FORMATS, MAX_PIXELS


def read_grey(path: Path) -> Mask:
    """The grey values of a picture (H, W); a palette's colours are turned into grey.

    Raises DataError that names the file.
    """
    try:
        with Image.open(path, formats=FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise DataError(f"{path}: {picture.width}x{picture.height} pixels, the limit is "
                                f"{MAX_PIXELS // 1_000_000} million")  # fmt: skip
            return np.asarray(picture.convert("L"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such mask") from None
    except UnidentifiedImageError:
        raise DataError(f"{path}: cannot be read as a mask: it is no picture") from None
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{path}: cannot be read as a mask: {error}") from None


def read_binary(path: Path, threshold: int | None = None) -> Mask:
    """A mask of one class: 1 where it is, 0 elsewhere.

    Files hold 0 and one other value (255, or 1). Grey values between, as JPEG and smooth resizing
    leave them, are refused unless `threshold` says from which value on a pixel counts. Raises
    DataError that names the file and the values.
    """
    grey = read_grey(path)
    if threshold is not None:
        return (grey >= threshold).astype(np.uint8)
    values = np.unique(grey)
    above = values[values > 0]
    if len(above) > 1:
        some = ", ".join(str(value) for value in values[:6])
        more = ", ..." if len(values) > 6 else ""
        raise DataError(
            f"{path}: {len(values)} grey values ({some}{more}), expected 0 and one other",
            hint="a lossless file (PNG, TIFF), or data.params.threshold=128",
        )
    return (grey > 0).astype(np.uint8)


def check_size(mask: Mask, image: tuple[int, int], path: Path) -> Mask:
    """The mask, if it shows what an image (H, W) shows: in its size, or evenly enlarged or reduced.

    Raises DataError for another shape: the two do not belong together.
    """
    height, width = mask.shape
    if abs(height * image[1] - width * image[0]) > max(height, width, *image):
        raise DataError(f"{path}: {width}x{height} pixels, its image has {image[1]}x{image[0]}: "
                        "they are not of one picture")  # fmt: skip
    return mask
