"""Pixels for the tests of DICOM, and how they are stored; what a refusal must not say."""

from __future__ import annotations

import contextlib
import io
import struct
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from edgekd.errors import DataError, EdgekdError
from edgekd.image import decode
from tests.dicom_files import SECRETS

RANDOM = np.random.default_rng(1)
GREY = RANDOM.integers(0, 256, (6, 10)).astype(np.uint8)
COLOURS = RANDOM.integers(0, 256, (6, 10, 3)).astype(np.uint8)
SMOOTH = np.stack(np.mgrid[0:16, 0:24], -1).sum(-1)[..., None].repeat(3, -1).astype(np.uint8) * 5
IMPLICIT, DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99"
BIG_ENDIAN, RLE = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.5"
JPEG, JPEG_12, LOSSLESS, JPEG_LS, J2K, HTJ2K = (
    f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 70, 80, 90, 201)
)


def jpeg(pixels: np.ndarray, kind: str = "JPEG", **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def packed(plane: bytes) -> bytes:
    """Literal runs of PS3.5 annex G."""
    pieces = [plane[start : start + 128] for start in range(0, len(plane), 128)]
    runs = b"".join(bytes([len(piece) - 1]) + piece for piece in pieces)
    return runs + b"\0" * (len(runs) % 2)


def rle(planes: list[bytes]) -> bytes:
    starts = [64]
    for plane in planes[:-1]:
        starts.append(starts[-1] + len(plane))
    return struct.pack("<16I", len(planes), *starts, *[0] * (15 - len(planes))) + b"".join(planes)


def refused(data: bytes, match: str, kind: type[EdgekdError] = DataError) -> str:
    with pytest.raises(kind, match=match) as caught:
        decode(data)
    assert not SECRETS.search(f"{caught.value.message} {caught.value.hint}")
    return caught.value.message


@contextlib.contextmanager
def at_most(count: int) -> Iterator[None]:
    """No more bytes than these are held at any time."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < count
    finally:
        tracemalloc.stop()
