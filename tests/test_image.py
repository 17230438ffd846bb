"""Decoding: whatever a file holds, it becomes uint8 RGB or a DataError that names it."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekd import image as module
from edgekd.errors import DataError
from edgekd.image import decode


def encoded(pixels: np.ndarray, kind: str = "TIFF") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def header_only(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc)

    claims = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", claims) + chunk(b"IDAT", b"")


@pytest.mark.parametrize(
    "error", [TypeError("x"), struct.error("x"), EOFError(), KeyError("x"), OverflowError("x")]
)
def test_whatever_breaks_inside_the_decoder_names_the_file(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(encoded(np.zeros((4, 4), np.uint8), "PNG"))

    def fail(picture: Image.Image) -> Image.Image:
        raise error

    monkeypatch.setattr(module.ImageOps, "exif_transpose", fail)
    with pytest.raises(DataError, match=r"broken\.png: cannot be read as an image: \S+"):
        decode(path)


def test_too_little_memory_is_not_the_files_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(picture: Image.Image) -> Image.Image:
        raise MemoryError

    monkeypatch.setattr(module.ImageOps, "exif_transpose", fail)
    with pytest.raises(MemoryError):
        decode(encoded(np.zeros((4, 4), np.uint8)))


@pytest.mark.parametrize("kind", ["TIFF", "PNG", "BMP", "JPEG"])
def test_damaged_bytes_are_a_picture_or_a_data_error(kind: str) -> None:
    random = np.random.default_rng(0)
    whole = encoded(random.integers(0, 256, (12, 12, 3), dtype=np.uint8), kind)
    for _ in range(200):
        damaged = np.frombuffer(whole, dtype=np.uint8).copy()
        places = random.integers(0, min(len(damaged), 300), 3)
        damaged[places] = random.integers(0, 256, 3)
        with contextlib.suppress(DataError):
            assert decode(damaged.tobytes()).dtype == np.uint8


def test_16_bit_grey_keeps_its_top_8_bits() -> None:
    grey = np.array([[0, 255, 256, 65535]], dtype=np.uint16)
    for kind in ("PNG", "TIFF"):
        assert decode(encoded(grey, kind))[0, :, 0].tolist() == [0, 0, 1, 255]
    big_endian = Image.frombytes("I;16B", (4, 1), grey.astype(">u2").tobytes())
    stream = io.BytesIO()
    big_endian.save(stream, "TIFF")
    assert decode(stream.getvalue())[0, :, 0].tolist() == [0, 0, 1, 255]


def test_32_bit_grey_is_taken_by_what_it_holds() -> None:
    assert decode(encoded(np.array([[0, 7, 255]], np.int32)))[0, :, 0].tolist() == [0, 7, 255]
    assert decode(encoded(np.array([[0, 256, 65535]], np.int32)))[0, :, 0].tolist() == [0, 1, 255]


def test_floating_point_pixels_are_refused_since_their_range_is_not_known() -> None:
    with pytest.raises(DataError, match="floating-point pixels, expected 8 or 16 bits"):
        decode(encoded(np.array([[0.0, 0.5, 1.0]], np.float32)))


@pytest.mark.parametrize(("width", "height"), [(13_350, 13_350), (20_000, 20_000)])
def test_a_picture_beyond_the_limit_is_refused_in_our_words(width: int, height: int) -> None:
    """The second is beyond Pillow's own limit too."""
    with pytest.raises(DataError, match="the limit is 178 million") as caught:
        decode(header_only(width, height))
    assert "DOS" not in caught.value.message


def test_a_large_picture_below_the_limit_is_decoded_without_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)  # Pillow warns from here, and fails at 100
    assert decode(encoded(np.zeros((8, 8), np.uint8))).shape == (8, 8, 3)
