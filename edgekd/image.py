"""Decoding and preprocessing, the same on the workstation and on the device (Pillow + numpy).

The network's input is float32 RGB in [0, 1]; mean and standard deviation are inside its graph.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import threading
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from edgekd.dicom.read import SUFFIXES as DICOM_SUFFIXES
from edgekd.dicom.read import is_dicom, read_dicom
from edgekd.errors import DataError, EdgekdError
from edgekd.recipe_data import InputSpec

MAX_PIXELS = 178_000_000  # a whole-slide thumbnail fits; a decompression bomb does not
SUFFIXES = DICOM_SUFFIXES | {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".gif"}
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF")  # of several frames or pages the first
# How files of these formats begin, and Pillow's module for them. Asked for a format that it has not
# loaded, Pillow imports all forty, which takes longer than a small model's whole first answer.
BEGINNINGS = (
    (b"\xff\xd8\xff", "JPEG", "JpegImagePlugin"), (b"\x89PNG\r\n", "PNG", "PngImagePlugin"),
    (b"II*\0", "TIFF", "TiffImagePlugin"), (b"MM\0*", "TIFF", "TiffImagePlugin"),
    (b"BM", "BMP", "BmpImagePlugin"), (b"RIFF", "WEBP", "WebPImagePlugin"),
    (b"GIF8", "GIF", "GifImagePlugin"),
)  # fmt: skip

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]


class _Silence:
    """No warnings while any thread is inside: the first one in switches them off, the last one on.

    Python's filters belong to the process. Were each thread to save and restore them by itself, one
    would restore what another had set, for good.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._held = contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._held.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")
            self._inside += 1

    def __exit__(self, *reason: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._held.close()


_SILENCE = _Silence()  # one for all threads, as the filters are


def decode(source: Path | bytes) -> UInt8:
    """Decode one picture to uint8 RGB (H, W, 3), upright by its EXIF orientation.

    16-bit greyscale keeps its top 8 bits; transparency is dropped. DICOM is known by its content
    and shown as it says itself (dicom/). Raises DataError that names the file, also for
    floating-point pictures, whose range is not known; MissingOnHost for DICOM that needs a package.
    """
    name = "image" if isinstance(source, bytes) else str(source)
    try:
        with _SILENCE:
            shown = _if_dicom(source, name)
            if shown is not None:
                return shown
            stream = io.BytesIO(source) if isinstance(source, bytes) else source
            with Image.open(stream, formats=_formats(source)) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    raise _too_large(name, f"{picture.width}x{picture.height} pixels")
                upright = ImageOps.exif_transpose(picture)
                if upright.mode == "F" or upright.mode.startswith("I"):
                    return np.repeat(_grey(upright, name)[:, :, None], 3, axis=2)
                return np.asarray(upright.convert("RGB"))
    except FileNotFoundError:
        raise DataError(f"{name}: no such image") from None
    except (EdgekdError, MemoryError):
        raise
    except Image.DecompressionBombError:  # far beyond the limit: Pillow does not even say the size
        raise _too_large(name, "too many pixels") from None
    except UnidentifiedImageError:  # for bytes, Pillow says where they lie in memory
        raise DataError(f"{name}: cannot be read as an image: it is none of {', '.join(FORMATS)} "
                        "and DICOM, or damaged") from None  # fmt: skip
    except Exception as error:  # a corrupt picture can raise nearly anything inside Pillow
        reason = str(error) or type(error).__name__
        raise DataError(f"{name}: cannot be read as an image: {reason}") from None


def _formats(source: Path | bytes) -> tuple[str, ...]:
    """What the file can be, loaded into Pillow: one format by its beginning, or any."""
    if isinstance(source, bytes):
        start = source[:8]
    else:
        with source.open("rb") as file:
            start = file.read(8)
    for beginning, name, module in BEGINNINGS:
        if start.startswith(beginning):
            importlib.import_module(f"PIL.{module}")
            return (name,)
    return FORMATS


def _if_dicom(source: Path | bytes, name: str) -> UInt8 | None:
    suffix = "" if isinstance(source, bytes) else source.suffix
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        return read_dicom(file, name, MAX_PIXELS) if is_dicom(file.read(132), suffix) else None


def is_picture(path: Path) -> bool:
    """Whether a file found in a folder is taken for a picture: by its ending.

    One without an ending, or with a number for one, is opened to see whether it is DICOM: the
    standard's own file names have no ending (PS3.10, 8.5), and archives name files by their UID. A
    DICOMDIR is the list of such files, and what begins with a dot was not meant.
    """
    if path.name.startswith(".") or path.name == "DICOMDIR":
        return False
    ending = path.suffix.lower()
    if ending in SUFFIXES:
        return True
    return (not ending or ending[1:].isdecimal()) and starts_like_dicom(path)


def starts_like_dicom(path: Path) -> bool:
    """Whether `decode` would read the file as DICOM; False too if it cannot be opened.

    What is no file is not opened: a named pipe would wait for a writer.
    """
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return is_dicom(file.read(132), path.suffix)
    except OSError:
        return False


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
    """Resize to `spec.resize` (antialiased bilinear) without cropping.

    Raises DataError for a picture so narrow that its shorter side at that size makes it huge.
    """
    height, width = resized_shape((image.shape[0], image.shape[1]), spec)
    if (height, width) == image.shape[:2]:
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def resize_to(mask: UInt8, height: int, width: int) -> UInt8:
    """A mask (H, W) in another size: each pixel takes the nearest one's class."""
    if mask.shape == (height, width):
        return mask
    return np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))


def resized_shape(shape: tuple[int, int], spec: InputSpec) -> tuple[int, int]:
    """Height and width that `resize` gives a picture of this height and width.

    Raises DataError for a picture so narrow that its shorter side at that size makes it huge.
    """
    side = spec.resize or spec.size
    height, width = shape
    tall, wide = side, side
    if spec.fit == "shorter":
        short = min(height, width)
        tall, wide = max(side, round(height * side / short)), max(side, round(width * side / short))
    if tall * wide > MAX_PIXELS:
        raise DataError(
            f"{width}x{height} pixels become {wide}x{tall} when the shorter side is "
            f"resized to {side}, the limit is {MAX_PIXELS // 1_000_000} million pixels",
            hint="crop the picture",
        )
    return tall, wide


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
