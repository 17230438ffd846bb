"""Decoding: whatever a file holds, it becomes uint8 RGB or a DataError that names it."""

from __future__ import annotations

import contextlib
import io
import struct
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekd import image as module
from edgekd.errors import DataError
from edgekd.image import decode, resize, to_square
from edgekd.recipe_data import InputSpec


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


@pytest.mark.timeout(30)
def test_threads_leave_the_filters_of_warnings_as_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first in is the first out: with a `catch_warnings` each, the second restores 'ignore'."""
    turn = module.ImageOps.exif_transpose
    is_second_in, is_first_out = threading.Event(), threading.Event()

    def slow(picture: Image.Image) -> Image.Image:
        if picture.width == 1:
            assert is_second_in.wait(10)
        else:
            is_second_in.set()
            assert is_first_out.wait(10)
        return turn(picture)

    monkeypatch.setattr(module.ImageOps, "exif_transpose", slow)
    before = list(warnings.filters)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(decode, encoded(np.zeros((1, 1), np.uint8), "PNG"))
        second = pool.submit(decode, encoded(np.zeros((2, 2), np.uint8), "PNG"))
        assert first.result(20).shape == (1, 1, 3)
        is_first_out.set()
        assert second.result(20).shape == (2, 2, 3)
    assert warnings.filters == before


@pytest.mark.parametrize("shape", [(30, 40), (200, 7), (16, 16), (1, 300), (333, 500)])
def test_the_shorter_side_is_resized_before_the_crop(shape: tuple[int, int]) -> None:
    """Not by Pillow's `box`, which is close but gives other pixels than those trained with."""
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    height, width = (max(20, round(side * 20 / min(shape))) for side in shape)
    whole = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    top, left = (height - 16) // 2, (width - 16) // 2
    found = to_square(image, InputSpec(size=16, resize=20, fit="shorter"))
    np.testing.assert_array_equal(found, whole[top : top + 16, left : left + 16])


@pytest.mark.parametrize("shape", [(20_000, 1), (1, 20_000)])
def test_a_picture_that_resizing_would_make_huge_is_refused(shape: tuple[int, int]) -> None:
    image = np.zeros((*shape, 3), np.uint8)
    with pytest.raises(DataError, match=r"1x20000 pixels|20000x1 pixels") as caught:
        resize(image, InputSpec(size=224, fit="shorter"))
    assert "resized to 224, the limit is 178 million pixels" in caught.value.message
    assert resize(image, InputSpec(size=224)).shape == (224, 224, 3)
