"""Pixel data to arrays: what a frame claims is held against the header before it is decoded."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.errors import DataError, MissingOnHost

Integers = npt.NDArray[Any]

# What reads the syntaxes that pydicom and Pillow do not, by UID
LIBJPEG, LS, OPENJPEG = "pylibjpeg-libjpeg", "pyjpegls", "pylibjpeg-openjpeg"
JPEG = "1.2.840.10008.1.2.4."
JPEG_EXTENDED = JPEG + "51"
RLE = "1.2.840.10008.1.2.5"
PACKAGES = {
    **dict.fromkeys((JPEG + "51", JPEG + "57", JPEG + "70"), LIBJPEG),
    **dict.fromkeys((JPEG + "80", JPEG + "81"), LS),
    **dict.fromkeys((JPEG + "90", JPEG + "91", JPEG + "201", JPEG + "202", JPEG + "203"), OPENJPEG),
}
SIZE_MARKERS = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}  # T.81 B.2.2; T.87 C.1.1
BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD9)})  # without a length
J2K_START = b"\xff\x4f\xff\x51"  # T.800 A.4.1 and A.5.1


@dataclass(frozen=True)
class Layout:
    """How the header says that pixels are stored. Names are those of pydicom's options."""

    rows: int
    columns: int
    samples_per_pixel: int
    bits_allocated: int
    bits_stored: int
    pixel_representation: int  # 1: signed
    photometric_interpretation: str
    planar_configuration: int
    pixel_vr: str

    @property
    def size(self) -> int:
        """Bytes of the uncompressed picture; 4:2:2 keeps two thirds (C.7.6.3.1.2)."""
        samples = 2 if self.photometric_interpretation == "YBR_FULL_422" else self.samples_per_pixel
        return self.rows * self.columns * samples * self.bits_allocated // 8


def find_decoder(syntax: str, layout: Layout, name: str) -> Any:
    """pydicom's decoder of a transfer syntax.

    Raises MissingOnHost that names the package which this machine lacks, DataError for a syntax
    that nothing here can read.
    """
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID, UID_dictionary

    # a UID that is not in the dictionary may be anything: it is not repeated
    spoken = UID(syntax).name if syntax in UID_dictionary else "private or unknown"
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise DataError(f"{name}: its transfer syntax ({spoken}) cannot be read") from None
    able = set(decoder.available_plugins)
    if syntax == JPEG_EXTENDED and layout.bits_stored > 8:
        able.discard("pillow")  # it says that it can, and fails on 12 bits
    if decoder.is_encapsulated and not able:
        package = PACKAGES.get(syntax, "python-gdcm")
        needs = f"pylibjpeg {package}" if package.startswith("pylibjpeg") else package
        raise MissingOnHost(f"{name}: compressed as {spoken}: that needs the package '{package}'",
                            hint=f"pip install {needs}")  # fmt: skip
    return decoder


def decode_frame(decoder: Any, data: bytes, layout: Layout, name: str) -> tuple[Integers, str]:
    """Pixels (H, W) or (H, W, 3) in the machine's byte order, and their photometric interpretation.

    `data` is the value of the element: the plain pixels, or the items of compressed ones. Raises
    DataError if the frame is of another size than the header says, and whatever breaks in a
    decoder for a damaged one.
    """
    if decoder.is_encapsulated:
        _check_frame(decoder.UID, data, layout, name)
    pixels, facts = decoder.as_array(
        data, index=0, raw=True, pixel_keyword="PixelData", number_of_frames=1, **vars(layout)
    )
    shape = (layout.rows, layout.columns) + ((3,) if layout.samples_per_pixel == 3 else ())
    if pixels.shape != shape or pixels.dtype.kind not in "ui" or pixels.dtype.itemsize > 2:
        raise DataError(f"{name}: its pixel data is not what its header says")
    pixels = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("="))
    return pixels, str(facts["photometric_interpretation"])


def _check_frame(syntax: str, data: bytes, layout: Layout, name: str) -> None:
    from pydicom.encaps import get_frame, parse_basic_offsets

    stream = io.BytesIO(data)
    if len(parse_basic_offsets(stream)) > 1:
        raise DataError(f"{name}: holds several frames, its header says one")
    stream.seek(0)
    frame = get_frame(stream, 0, number_of_frames=1)
    if syntax == RLE:
        _check_runs(frame, layout, name)
        return
    found = compressed_size(frame)
    if found is None:
        raise DataError(f"{name}: its compressed picture is damaged")
    if found != (layout.columns, layout.rows):
        raise DataError(
            f"{name}: its compressed picture has {found[0]}x{found[1]} pixels, its header says "
            f"{layout.columns}x{layout.rows}"
        )


def compressed_size(frame: bytes) -> tuple[int, int] | None:
    """Width and height that a JPEG, JPEG-LS or JPEG 2000 picture claims, or None."""
    if frame[:2] == b"\xff\xd8":
        return _size_of_jpeg(frame)
    start = _code_stream(frame)
    if frame[start : start + 4] != J2K_START or len(frame) < start + 24:
        return None
    right, bottom, left, top = struct.unpack_from(">4I", frame, start + 8)
    return right - left, bottom - top


def _size_of_jpeg(frame: bytes) -> tuple[int, int] | None:
    place = 2
    while place + 9 <= len(frame) and frame[place] == 0xFF:
        marker = frame[place + 1]
        if marker in SIZE_MARKERS:
            height, width = struct.unpack_from(">2H", frame, place + 5)
            return width, height
        if marker == 0xFF:  # fill
            place += 1
        elif marker in BARE_MARKERS:
            place += 2
        else:
            place += 2 + struct.unpack_from(">H", frame, place + 2)[0]
    return None


def _code_stream(frame: bytes) -> int:
    """Where a JPEG 2000 code stream begins: at once, or in a box, as some writers have it."""
    place = 0
    while frame[place : place + 2] != J2K_START[:2] and place + 8 <= len(frame):
        length, kind = struct.unpack_from(">I4s", frame, place)  # T.800 I.4
        if kind != b"jp2c" and length < 8:
            break
        place += 8 if kind == b"jp2c" else length
    return place


def _check_runs(frame: bytes, layout: Layout, name: str) -> None:
    """Walk the runs (PS3.5 annex G) without writing any: two bytes can stand for 128."""
    count, *starts = struct.unpack_from("<16I", frame)
    if count != layout.samples_per_pixel * layout.bits_allocated // 8:
        raise DataError(f"{name}: its compressed picture is not what its header says")
    ends = [*starts[1:count], len(frame)]
    for start, end in zip(starts, ends, strict=False):
        place, left = start, layout.rows * layout.columns + 1024  # a little padding is tolerated
        while place < min(end, len(frame)) and left >= 0:
            run = frame[place]
            place += run + 2 if run < 128 else 2 if run > 128 else 1
            left -= run + 1 if run < 128 else 257 - run if run > 128 else 0
        if left < 0:
            raise DataError(f"{name}: its compressed picture is larger than its header says")
