"""Decoding and preprocessing, the same on the workstation and on the device (Pillow + numpy).

The network's input is float32 RGB in [0, 1]; mean and standard deviation are inside its graph.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from edgekd.errors import DataError
from edgekd.recipe_data import InputSpec

MAX_PIXELS = 178_000_000  # a whole-slide thumbnail fits; a decompression bomb does not
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp"})
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP")

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]


def decode(source: Path | bytes) -> UInt8:
    """Decode one picture to uint8 RGB (H, W, 3), upright by its EXIF orientation.

    16-bit greyscale keeps its top 8 bits; transparency is dropped. Raises DataError that names
    the file, also for floating-point pictures, whose range is not known.
    """
    name = "image" if isinstance(source, bytes) else str(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            stream = io.BytesIO(source) if isinstance(source, bytes) else source
            with Image.open(stream, formats=FORMATS) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    raise _too_large(name, f"{picture.width}x{picture.height} pixels")
                upright = ImageOps.exif_transpose(picture)
                if upright.mode == "F" or upright.mode.startswith("I"):
                    return np.repeat(_grey(upright, name)[:, :, None], 3, axis=2)
                return np.asarray(upright.convert("RGB"))
    except FileNotFoundError:
        raise DataError(f"{name}: no such image") from None
    except (DataError, MemoryError):
        raise
    except Image.DecompressionBombError:  # far beyond the limit: Pillow does not even say the size
        raise _too_large(name, "too many pixels") from None
    except Exception as error:  # a corrupt picture can raise nearly anything inside Pillow
        reason = str(error) or type(error).__name__
        raise DataError(f"{name}: cannot be read as an image: {reason}") from None


def _too_large(name: str, size: str) -> DataError:
    return DataError(f"{name}: {size}, the limit is {MAX_PIXELS // 1_000_000} million pixels")


def _grey(picture: Image.Image, name: str) -> UInt8:
    """Deep greyscale to 8 bits: 16-bit by its top half, 32-bit by the range that it holds."""
    pixels = np.asarray(picture)
    low, high = pixels.min(initial=0), pixels.max(initial=0)
    if picture.mode == "F":
        raise DataError(f"{name}: floating-point pixels, expected 8 or 16 bits per channel")
    if low < 0 or high > 65535:
        raise DataError(
            f"{name}: {picture.mode} pixels from {low} to {high}, expected an 8- or 16-bit picture"
        )
    deep = picture.mode.startswith("I;16") or high > 255
    return (pixels // 256 if deep else pixels).astype(np.uint8)


def resize(image: UInt8, spec: InputSpec) -> UInt8:
    """Resize to `spec.resize` (antialiased bilinear) without cropping."""
    side = spec.resize or spec.size
    height, width = image.shape[:2]
    if spec.fit == "stretch":
        target = (side, side)
    else:
        short = min(height, width)
        target = (max(side, round(width * side / short)), max(side, round(height * side / short)))
    if target == (width, height):
        return image
    return np.asarray(Image.fromarray(image).resize(target, Image.Resampling.BILINEAR))


def center_crop(image: UInt8, size: int) -> UInt8:
    """Cut the central `size` x `size` square."""
    top = (image.shape[0] - size) // 2
    left = (image.shape[1] - size) // 2
    return image[top : top + size, left : left + size]


def to_square(image: UInt8, spec: InputSpec) -> UInt8:
    """Everything but the change of type: uint8 (size, size, 3)."""
    return center_crop(resize(image, spec), spec.size)


def to_input(images: UInt8) -> Float32:
    """uint8 (..., H, W, 3) to float32 (..., 3, H, W) in [0, 1]."""
    planes: Float32 = np.ascontiguousarray(np.moveaxis(images, -1, -3), dtype=np.float32)
    return np.asarray(planes / np.float32(255.0))


def preprocess(image: UInt8, spec: InputSpec) -> Float32:
    """One decoded image to the network's input (3, size, size)."""
    return to_input(to_square(image, spec))
