"""A DICOM file to one picture, and nothing else of it.

No message repeats a text of the file, nor what pydicom says of it: either may hold a patient's
name.
"""

from __future__ import annotations

import logging
from typing import BinaryIO

import numpy as np

from edgekd.dicom.frame import Layout, decode_frame, find_decoder
from edgekd.dicom.header import FLOATING, UNDEFINED, Header, Pixels, read_header
from edgekd.dicom.values import Integers, UInt8, show_grey, show_palette
from edgekd.dicom.view import grey_of, integer, layout_of, palette_of
from edgekd.errors import DataError, EdgekdError
from edgekd.plugins import missing_package

SUFFIXES = frozenset({".dcm", ".dicom"})
MARK = slice(128, 132)
FIRST_GROUPS = (b"\x02\x00", b"\x08\x00")  # a data set begins with one of these
SLACK = 16 << 20  # bytes that compressed pixels may be longer than twice the plain ones
BAND = 256  # rows whose colours are converted at once


def is_dicom(head: bytes, suffix: str = "") -> bool:
    """Whether a file that begins with `head` (132 bytes) is DICOM.

    By its mark; a file from before there was one only if its name ends in .dcm or .dicom.
    """
    return head[MARK] == b"DICM" or (suffix.lower() in SUFFIXES and head[:2] in FIRST_GROUPS)


def read_dicom(file: BinaryIO, name: str, most_pixels: int) -> UInt8:
    """The picture of a DICOM file as RGB (H, W, 3).

    Raises DataError that names the file: no picture, several frames, more than `most_pixels`, or
    anything that is not as its header says; MissingOnHost where a package is needed.
    """
    try:
        import pydicom.pixels  # noqa: F401
    except ModuleNotFoundError:
        raise missing_package("pydicom", f"{name}: DICOM") from None
    # What it logs of a file may quote the file. For good: threads share the logger
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    try:
        return _read(file, name, most_pixels)
    except (EdgekdError, MemoryError):
        raise
    except Exception as error:  # a damaged file can raise nearly anything, with its own words in it
        raise DataError(f"{name}: damaged or not DICOM ({type(error).__name__})") from None


def _read(file: BinaryIO, name: str, most_pixels: int) -> UInt8:
    file.seek(0)
    header = read_header(file, file.read(132)[MARK] == b"DICM", name)
    frames = integer(header.elements, "NumberOfFrames", name, 1)
    if frames > 1:
        raise DataError(
            f"{name}: holds {frames} frames, expected one picture",
            hint="save the frame that you mean as a file of its own",
        )
    width, height = (integer(header.elements, key, name, 0) for key in ("Columns", "Rows"))
    if width * height > most_pixels:
        raise DataError(f"{name}: {width}x{height} pixels, the limit is "
                        f"{most_pixels // 1_000_000} million pixels")  # fmt: skip
    pixels = header.find_pixels()
    if pixels is None:
        raise DataError(f"{name}: DICOM without a picture (a report, a directory or the like)")
    if pixels.tag in FLOATING:
        raise DataError(f"{name}: floating-point pixels, expected 8 to 16 bits")
    layout = layout_of(header, pixels.vr, name)
    if width < 1 or height < 1:
        raise DataError(f"{name}: {width}x{height} pixels")
    decoder = find_decoder(header.syntax, layout, name)
    data = _pixel_data(header, pixels, layout, decoder.is_encapsulated, name)
    values, kind = decode_frame(decoder, data, layout, name)
    if layout.samples_per_pixel == 3:
        return _colours(values, kind, layout)
    if kind == "PALETTE COLOR":
        return show_palette(values, palette_of(header, layout, name))
    return np.repeat(show_grey(values, grey_of(header, layout, name))[:, :, None], 3, axis=2)


def _pixel_data(
    header: Header, pixels: Pixels, layout: Layout, is_compressed: bool, name: str
) -> bytes:
    """The value of the element, once it is known to be about as long as it should."""
    expected = layout.size
    if is_compressed:
        most = 2 * expected + SLACK
        data = header.read(pixels, min(pixels.length, most + 1))
        if len(data) > most:
            raise DataError(f"{name}: more than {most} bytes for a picture of {expected}")
        return data
    if pixels.length not in (expected, expected + expected % 2):
        said = "no" if pixels.length == UNDEFINED else pixels.length
        raise DataError(
            f"{name}: {said} bytes of pixel data, expected {expected} for {layout.columns}x"
            f"{layout.rows} pixels of {layout.samples_per_pixel} x {layout.bits_allocated} bits"
        )
    data = header.read(pixels, expected)
    if len(data) < expected:
        raise DataError(f"{name}: cut off: {len(data)} of {expected} bytes of pixel data")
    return data


def _colours(values: Integers, kind: str, layout: Layout) -> UInt8:
    """RGB of the top 8 bits. JPEG 2000 decoders have undone YBR_ICT and YBR_RCT themselves."""
    if layout.bits_stored != 8:
        shift = layout.bits_stored - 8
        values = values >> shift if shift > 0 else values << -shift
    picture = values.astype(np.uint8, copy=False)
    if kind.startswith("YBR_FULL"):
        from pydicom.pixels import convert_color_space

        for top in range(0, len(picture), BAND):  # it works in float32
            band = picture[top : top + BAND]
            picture[top : top + BAND] = convert_color_space(band, "YBR_FULL", "RGB")
    return picture
