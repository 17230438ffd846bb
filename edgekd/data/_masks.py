"""Reading masks: one byte per pixel that names its class, from the formats in which they come."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ExifTags import Base

from edgekd.data.base import UNKNOWN_PIXEL, DataSource, Mask
from edgekd.errors import DataError
from edgekd.image import _SILENCE, FORMATS, MAX_PIXELS, decode, starts_like_dicom
from edgekd.log import progress

LYING = (5, 6, 7, 8)  # EXIF orientations whose rows are columns


def read_grey(path: Path) -> Mask:
    """The grey values of a picture (H, W); a palette's colours are turned into grey.

    Deeper pixels are taken as they are up to 255; of those beyond, pictures of two values become 0
    and 255. Raises DataError that names the file.
    """
    with _opened(path) as picture:
        if picture.mode == "F" or picture.mode.startswith("I"):
            return _shallow(np.asarray(picture), path)
        return np.asarray(picture.convert("L"))


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
    if (values > 0).sum() > 1:
        raise DataError(
            f"{path}: {len(values)} grey values ({_some(values)}), expected 0 and one other",
            hint="a lossless file (PNG, TIFF), or data.params.threshold=128",
        )
    return (grey > 0).astype(np.uint8)


def read_classes(path: Path, values: Mapping[int, int]) -> Mask:
    """A mask of several classes, by the class of each value; 255 is unknown unless it is a class.

    A picture with a palette is read by its indices: its colours are for the eye. Raises DataError
    that names the file and a value that is of no class.
    """
    with _opened(path) as picture:
        if picture.mode in ("P", "L", "1"):
            found = np.asarray(picture, dtype=np.uint8)
        elif picture.mode == "F" or picture.mode.startswith("I"):
            found = _shallow(np.asarray(picture), path)
        else:
            colours = np.asarray(picture.convert("RGB"))
            if (colours != colours[:, :, :1]).any():
                raise DataError(f"{path}: a picture in colours, expected a grey value per class")
            found = colours[:, :, 0]
    table = np.full(256, UNKNOWN_PIXEL, dtype=np.uint8)
    for value, index in values.items():
        table[value] = index
    strangers = np.setdiff1d(found, [*values, UNKNOWN_PIXEL])
    if len(strangers):
        raise DataError(
            f"{path}: the values {_some(strangers)} are of no class, expected {_some([*values])}",
            hint="data.params.values={CLASS: VALUE, ...}",
        )
    return np.asarray(table[found])


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of an image as `decode` gives it, by its header where that says it.

    Raises DataError that names the file.
    """
    if not starts_like_dicom(path):
        with contextlib.suppress(Exception), _SILENCE, Image.open(path, formats=FORMATS) as picture:
            lies = picture.getexif().get(Base.Orientation) in LYING
            return (picture.width, picture.height) if lies else (picture.height, picture.width)
    shape = decode(path).shape
    return shape[0], shape[1]


def check_size(mask: Mask, image: tuple[int, int], path: Path) -> Mask:
    """The mask, if it shows what an image (H, W) shows: in its size, or evenly enlarged or reduced.

    Raises DataError for another shape: the two do not belong together.
    """
    height, width = mask.shape
    if abs(height * image[1] - width * image[0]) > max(height, width, *image):
        raise DataError(f"{path}: {width}x{height} pixels, its image has {image[1]}x{image[0]}: "
                        "they are not of one picture")  # fmt: skip
    return mask


def checked_mask(source: DataSource, index: int) -> Mask:
    """The mask of an image of a source, whoever wrote that, with classes of the source only.

    Raises DataError that names the file (else the id) for a value that is neither a class nor 255,
    and what the source raises.
    """
    mask = source.mask(index)
    most = max(2, len(source.classes))
    strangers = mask[(mask >= most) & (mask != UNKNOWN_PIXEL)]
    if strangers.size:
        files = source.mask_files()
        raise DataError(f"{files[index] if files else source.ids()[index]}: value "
                        f"{strangers.min()} in the mask, expected 0 to {most - 1}",
                        hint="255 is for pixels of unknown class")  # fmt: skip
    return mask


def classes_shown(count: int, mask: Callable[[int], Mask], classes: int) -> npt.NDArray[np.bool_]:
    """Which classes each of `count` masks shows (N, K); of a single class, whether it does (N, 1).

    Reads all masks. Raises DataError for the first that cannot be read, with the number of others.
    """
    shown = np.zeros((count, max(2, classes)), dtype=np.bool_)
    errors: list[DataError] = []
    with progress() as bar:
        task = bar.add_task("reading masks", total=count, note="")
        for index in range(count):
            try:
                found = np.bincount(mask(index).reshape(-1), minlength=256)
                shown[index] = found[: shown.shape[1]] > 0
            except DataError as error:
                errors.append(error)
            bar.update(task, advance=1)
    if errors:
        more = f" (and {len(errors) - 1} more masks)" if len(errors) > 1 else ""
        raise DataError(f"{errors[0].message}{more}", hint=errors[0].hint)
    return shown[:, 1:] if classes == 1 else shown


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The picture, upright as `decode` turns images. Raises DataError that names the file."""
    try:
        with _SILENCE, Image.open(path, formats=FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise DataError(f"{path}: {picture.width}x{picture.height} pixels, the limit is "
                                f"{MAX_PIXELS // 1_000_000} million")  # fmt: skip
            upright = ImageOps.exif_transpose(picture)
            if upright.mode in ("RGBA", "LA") and upright.getchannel("A").getextrema()[0] != 255:
                # is a pixel meant by its colour or by its transparency?
                raise DataError(f"{path}: a mask with transparent pixels",
                                hint="save it without, black for background")  # fmt: skip
            yield upright
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: no such mask") from None
    except UnidentifiedImageError:
        raise DataError(f"{path}: cannot be read as a mask: it is no picture") from None
    except MemoryError:
        raise
    except Exception as error:  # a corrupt picture can raise nearly anything inside Pillow
        reason = str(error) or type(error).__name__
        raise DataError(f"{path}: cannot be read as a mask: {reason}") from None


def _shallow(pixels: npt.NDArray[np.generic], path: Path) -> Mask:
    """16-bit, 32-bit and floating-point values that mean classes, as bytes."""
    values = np.unique(pixels)
    whole = np.isin(values, np.arange(256))
    if whole.all():
        return pixels.astype(np.uint8)
    if len(values) <= 2 and values[0] >= 0 and (len(values) < 2 or values[0] == 0):
        return np.where(pixels == 0, 0, 255).astype(np.uint8)
    raise DataError(f"{path}: values from {values[0]} to {values[-1]}, expected 0 to 255",
                    hint="save it as an 8-bit picture")  # fmt: skip


def _some(values: npt.NDArray[np.generic] | list[int]) -> str:
    return ", ".join(str(value) for value in values[:6]) + (", ..." if len(values) > 6 else "")
