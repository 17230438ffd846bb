"""The few elements of a DICOM file that a picture needs; all others are stepped over.

Names, dates, UIDs and private elements are never read. No length is trusted: reads end with the
file and within a budget, and what is deflated is inflated only as far as it is needed.
"""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass
from typing import Any, BinaryIO

from edgekd.errors import DataError

HEADER_BYTES = 16 << 20  # more in front of the pixels is no picture's header
BLOCK = 1 << 20
UNDEFINED = 0xFFFFFFFF  # the length of compressed pixel data

IMPLICIT = "1.2.840.10008.1.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"

TRANSFER_SYNTAX = 0x00020010
AFTER_IMAGE = 0x00290000  # what describes the pixels stands in group 0028
PIXEL_DATA = 0x7FE00010
FLOATING = (0x7FE00008, 0x7FE00009)
WANTED = (
    0x00280002, 0x00280004, 0x00280006, 0x00280008,  # samples, interpretation, planes, frames
    0x00280010, 0x00280011,  # rows, columns
    0x00280100, 0x00280101, 0x00280102, 0x00280103,  # bits, and whether signed
    0x00280120, 0x00280121,  # padding
    0x00281050, 0x00281051, 0x00281056, 0x00283010,  # window, its function, VOI table
    0x00281052, 0x00281053, 0x00283000,  # rescale, modality table
    0x00281101, 0x00281102, 0x00281103, 0x00281201, 0x00281202, 0x00281203,  # palette
)  # fmt: skip
GROUPS = (0x52009229, 0x52009230)  # shared and per-frame functional groups of enhanced objects


@dataclass(frozen=True)
class Pixels:
    """Where the pixel data stands, and what the file says of it."""

    tag: int
    vr: str  # empty where it is implied
    length: int
    offset: int


@dataclass
class Header:
    """The wanted elements (a pydicom Dataset) and the place up to which the file was read."""

    elements: Any
    syntax: str
    stream: BinaryIO  # the data set; inflated as far as HEADER_BYTES
    deflated_from: tuple[BinaryIO, int] | None = None

    @property
    def order(self) -> str:
        """The byte order, as `struct` has it."""
        return ">" if self.syntax == BIG_ENDIAN else "<"

    def find_pixels(self) -> Pixels | None:
        """Read on to the pixel data; None if there is none."""
        found: list[Pixels] = []

        def is_there(tag: int, vr: str | None, length: int) -> bool:
            if tag == PIXEL_DATA or tag in FLOATING:
                found.append(Pixels(int(tag), vr or "", length, self.stream.tell()))
            return tag >= FLOATING[0]

        self.elements.update(_elements(self.stream, self.syntax, GROUPS, is_there))
        return found[-1] if found else None

    def read(self, pixels: Pixels, count: int) -> bytes:
        """At most `count` bytes from where the pixel data begins."""
        if self.deflated_from is not None:
            file, start = self.deflated_from
            file.seek(start)
            return _inflated(file, pixels.offset + count)[pixels.offset :]
        file = self.stream.file if isinstance(self.stream, _Bounded) else self.stream
        file.seek(pixels.offset)
        return file.read(count)


def read_header(file: BinaryIO, has_preamble: bool, name: str) -> Header:
    """Read group 0028. Raises DataError for a header that is too long, and what pydicom raises."""
    stream: Any = _Bounded(file, name)
    stream.seek(132 if has_preamble else 0)
    meta = _elements(stream, "", (TRANSFER_SYNTAX,), lambda tag, *_: tag >> 16 != 2)
    syntax = str(meta.get("TransferSyntaxUID") or IMPLICIT)
    deflated_from = None
    if syntax == DEFLATED:
        deflated_from = (file, file.tell())
        stream = io.BytesIO(_inflated(file, HEADER_BYTES))
    elements = _elements(stream, syntax, WANTED, lambda tag, *_: tag >= AFTER_IMAGE)
    return Header(elements, syntax, stream, deflated_from)


def _elements(stream: Any, syntax: str, tags: tuple[int, ...], stop_when: Any) -> Any:
    from pydicom.filereader import read_dataset

    is_implicit, is_little = syntax == IMPLICIT, syntax != BIG_ENDIAN
    return read_dataset(
        stream, is_implicit, is_little, stop_when=stop_when, specific_tags=list(tags)
    )


def _inflated(file: BinaryIO, most: int) -> bytes:
    """At most `most` bytes of what is deflated from here on (PS3.5 A.5)."""
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    data = bytearray()
    while len(data) < most and not engine.eof and (block := file.read(BLOCK)):
        data += engine.decompress(block, most - len(data))
    return bytes(data)


class _Bounded:
    """A file whose reads end where it ends, so that a false length allocates nothing."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.file = file
        self._name = name
        self._size = file.seek(0, io.SEEK_END)
        self._left = HEADER_BYTES

    def read(self, count: int = -1) -> bytes:
        held = max(0, self._size - self.file.tell())
        count = held if count < 0 else min(count, held)
        self._left -= count
        if self._left < 0:
            raise DataError(f"{self._name}: more than {HEADER_BYTES >> 20} MiB before its pixels")
        return self.file.read(count)

    def seek(self, place: int, whence: int = io.SEEK_SET) -> int:
        return self.file.seek(place, whence)

    def tell(self) -> int:
        return self.file.tell()
