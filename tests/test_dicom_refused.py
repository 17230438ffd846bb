"""DICOM files that are damaged, lie or need what is not here: refused, and nothing is repeated."""

from __future__ import annotations

import contextlib
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

from edgekd import image as image_module
from edgekd.dicom import frame as frame_module
from edgekd.dicom.frame import compressed_size
from edgekd.dicom.header import HEADER_BYTES
from edgekd.errors import DataError, EdgekdError, MissingOnHost
from edgekd.image import decode
from tests.dicom_files import encoded, header
from tests.dicom_pixels import (
    COLOURS,
    DEFLATED,
    GREY,
    HTJ2K,
    IMPLICIT,
    J2K,
    JPEG,
    JPEG_12,
    JPEG_LS,
    LOSSLESS,
    RANDOM,
    RLE,
    SMOOTH,
    at_most,
    jpeg,
    packed,
    refused,
    rle,
)

# what is refused ----------------------------------------------------------------------------


def test_several_frames() -> None:
    two = encoded(GREY, data=GREY.tobytes() * 2, NumberOfFrames=2)
    with pytest.raises(DataError, match="image: holds 2 frames, expected one picture") as caught:
        decode(two)
    assert caught.value.hint == "save the frame that you mean as a file of its own"
    hidden = encapsulate([jpeg(GREY), jpeg(GREY)])
    refused(encoded(GREY, data=hidden, syntax=JPEG), "holds several frames, its header says one")


def test_no_pixel_data() -> None:
    refused(encoded(None), "DICOM without a picture")
    refused(encoded(None, Rows=4, Columns=4), "DICOM without a picture")
    assert "DICM" not in refused(encoded(None)[:132], "DICOM without a picture")


def test_floating_point_pixels() -> None:
    floats = np.zeros((4, 4), np.float32).tobytes()
    refused(encoded(None, Rows=4, Columns=4, FloatPixelData=floats), "floating-point pixels")


def test_cut_off_pixels() -> None:
    whole = encoded(COLOURS)
    assert refused(whole[:-100], "cut off: 80 of 180 bytes of pixel data")
    refused(encoded(COLOURS, data=COLOURS.tobytes()[:-6]), "174 bytes of pixel data, expected 180")
    refused(encoded(COLOURS, data=COLOURS.tobytes() * 2), "360 bytes of pixel data, expected 180")


@pytest.mark.parametrize("syntax", [IMPLICIT, DEFLATED])
@pytest.mark.parametrize(("rows", "columns"), [(65535, 65535), (13_350, 13_350)])
def test_oversized_ones_are_refused_before_anything_is_read(
    syntax: str, rows: int, columns: int
) -> None:
    data = encoded(GREY, syntax=syntax, Rows=rows, Columns=columns)
    with at_most(2_000_000):
        refused(data, f"{columns}x{rows} pixels, the limit is 178 million pixels")


@pytest.mark.parametrize(
    "elements",
    [
        {"BitsAllocated": 32, "BitsStored": 32},
        {"BitsAllocated": 1, "BitsStored": 1},
        {"BitsStored": 12},
        {"BitsAllocated": 12, "BitsStored": 12},
        {"HighBit": 3},
    ],
)
def test_wrong_bits(elements: dict[str, int]) -> None:
    refused(encoded(GREY, **elements), r"bits with high bit \d+, expected 8 to 16 bits")


@pytest.mark.parametrize(
    ("elements", "said"),
    [
        ({"Rows": 0}, "10x0 pixels"),
        ({"SamplesPerPixel": 3}, "3 samples per pixel, MONOCHROME2 has 1"),
        ({"PhotometricInterpretation": "ZYXOMMA"}, "a photometric interpretation that is not read"),
        ({"PhotometricInterpretation": "YBR_PARTIAL_422"}, "interpretation that is not read"),
        ({"PixelRepresentation": 7}, "pixel representation 7"),
        ({"WindowCenter": 5}, "its window has no center or no width"),
        ({"WindowCenter": 5, "WindowWidth": 0}, "its window has no center or no width"),
        ({"WindowCenter": 5, "WindowWidth": 0.5}, "its window has no center or no width"),
        (
            {"WindowCenter": 5, "WindowWidth": 9, "VOILUTFunction": "ZYXOMMA"},
            "a window function that is not read; known: LINEAR, LINEAR_EXACT, SIGMOID",
        ),
        ({"RescaleSlope": 0, "RescaleIntercept": 1}, "its rescale slope is 0"),
        ({"VOILUTSequence": Sequence([Dataset()])}, "a lookup table is not complete"),
    ],
)
def test_what_does_not_go_together(elements: dict[str, object], said: str) -> None:
    refused(encoded(GREY, **elements), said)


def test_text_where_a_number_should_be_is_not_repeated() -> None:
    """In plain, explicit bytes: pydicom's own error would quote the value."""
    data = encoded(GREY, WindowCenter="11", WindowWidth="12345678")
    said = refused(data.replace(b"12345678", b"Zyxomma "), "image: damaged or not DICOM")
    assert "ValueError" in said
    many = encoded(GREY).replace(struct.pack("<HH2sHH", 0x28, 0x10, b"US", 2, 6),
                                 struct.pack("<HH2sHH", 0x28, 0x10, b"LO", 2, 0x5A5A))  # fmt: skip
    refused(many, "expected one whole number in its element Rows")


def test_a_deflated_bomb_is_inflated_no_further_than_the_picture() -> None:
    plain = encoded(GREY)
    body = plain[plain.index(struct.pack("<HH2s", 0x08, 0x16, b"UI")) :]
    deflated = encoded(GREY, syntax=DEFLATED)
    meta = deflated[: 144 + struct.unpack_from("<I", deflated, 140)[0]]  # its length stands there

    def bomb(begin: bytes) -> bytes:
        engine = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        zeros = engine.compress(begin) + engine.compress(b"\0" * (100 << 20))
        return meta + zeros + engine.flush()

    behind = bomb(body)  # never looked at
    before = bomb(struct.pack("<HH2sHI", 0x09, 0x1001, b"OB", 0, 100 << 20))
    with at_most(4 * HEADER_BYTES):
        assert (decode(behind)[:, :, 0] == GREY).all()
        refused(before, "DICOM without a picture")


def test_a_length_that_lies_allocates_nothing() -> None:
    data = bytearray(encoded(GREY, WindowCenter=1, WindowWidth=2))
    place = data.index(struct.pack("<HH2s", 0x28, 0x1050, b"DS"))
    data[place + 4 : place + 8] = b"OB\0\0"
    data[place + 8 : place + 12] = struct.pack("<I", 0xFFFFFFF0)
    with at_most(2_000_000):
        refused(bytes(data), "DICOM without a picture")


def test_a_header_without_end(tmp_path: Path) -> None:
    long = encoded(GREY, RedPaletteColorLookupTableData=b"\0" * (HEADER_BYTES + 2))
    refused(long, "more than 16 MiB before its pixels")


def test_a_compressed_picture_of_another_size() -> None:
    large = encapsulate([jpeg(np.zeros((3000, 2000), np.uint8))])
    refused(encoded(GREY, data=large, syntax=JPEG), "has 2000x3000 pixels, its header says 10x6")
    wide = encapsulate([jpeg(np.zeros((6, 99), np.uint8), "JPEG2000", no_jp2=True)])
    refused(encoded(GREY, data=wide, syntax=J2K), "has 99x6 pixels, its header says 10x6")
    refused(encoded(GREY, data=encapsulate([b"none" * 9]), syntax=JPEG), "is damaged")


def test_a_bomb_of_runs_is_not_unpacked() -> None:
    bomb = rle([b"\x81\x00" * 100_000])  # 200 kB that stand for 12.8 MB
    refused(encoded(GREY, data=encapsulate([bomb]), syntax=RLE), "larger than its header says")
    two = rle([packed(GREY.tobytes())] * 2)
    refused(encoded(GREY, data=encapsulate([two]), syntax=RLE), "not what its header says")


def test_more_compressed_bytes_than_a_picture_could_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekd.dicom.read.SLACK", 1000)
    data = encapsulate([jpeg(GREY) + b"\0" * 5000])
    refused(encoded(GREY, data=data, syntax=JPEG), "more than 1120 bytes for a picture of 60")


@pytest.mark.parametrize("size", [0, 4, 140, 200, 330, 400])
def test_a_file_that_ends_anywhere(size: int) -> None:
    with pytest.raises(DataError):
        decode(encoded(COLOURS)[:size])


def test_damaged_bytes_are_a_picture_or_an_error_of_ours() -> None:
    whole = encoded(GREY, WindowCenter=100, WindowWidth=50)
    jpegs = encoded(SMOOTH, data=encapsulate([jpeg(SMOOTH)]), syntax=JPEG)
    for data in (whole, jpegs):
        for _ in range(150):
            damaged = np.frombuffer(data, dtype=np.uint8).copy()
            places = RANDOM.integers(132, len(data), 4)
            damaged[places] = RANDOM.integers(0, 256, 4)
            with contextlib.suppress(EdgekdError):
                assert decode(damaged.tobytes()).dtype == np.uint8


# what is missing ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("syntax", "package"),
    [(LOSSLESS, "pylibjpeg-libjpeg"), (JPEG_LS, "pyjpegls"), (HTJ2K, "pylibjpeg-openjpeg")],
)
def test_a_syntax_that_needs_a_package(
    syntax: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pydicom.pixels import get_decoder

    monkeypatch.setattr(get_decoder(syntax), "_available", {})
    data = encoded(GREY, data=encapsulate([jpeg(GREY)]), syntax=syntax)
    with pytest.raises(MissingOnHost, match=f"needs the package '{package}'") as caught:
        decode(data)
    assert "compressed as JPEG" in caught.value.message or "High-Throughput" in caught.value.message
    assert caught.value.exit_code == 4
    assert package in (caught.value.hint or "")


def test_12_bit_jpeg_is_not_left_to_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    from pydicom.pixels import get_decoder

    decoder = get_decoder(JPEG_12)
    pillow = {key: value for key, value in decoder._available.items() if key == "pillow"}
    assert pillow
    monkeypatch.setattr(decoder, "_available", pillow)
    deep = encoded(GREY.astype(np.uint16), BitsStored=12, data=encapsulate([jpeg(GREY)]),
                   syntax=JPEG_12)  # fmt: skip
    refused(deep, "needs the package 'pylibjpeg-libjpeg'", MissingOnHost)


def test_a_syntax_that_nothing_reads() -> None:
    mpeg = "1.2.840.10008.1.2.4.100"
    refused(encoded(GREY, data=encapsulate([b"no"]), syntax=mpeg), r"syntax \(MPEG2.*\) cannot be")
    private = encoded(GREY).replace(b"1.2.840.10008.1.2.1\0", b"1.2.826.0.1.77889900")
    refused(private, "private or unknown")


def test_without_pydicom_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    data = encoded(GREY)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    monkeypatch.setitem(sys.modules, "pydicom.pixels", None)
    with pytest.raises(MissingOnHost, match="image: DICOM needs the package 'pydicom'") as caught:
        decode(data)
    assert caught.value.hint == "pip install 'edgekd[dicom]'"
    assert decode(jpeg(GREY, "PNG")).shape == (6, 10, 3)


def test_the_size_in_a_code_stream() -> None:
    assert compressed_size(jpeg(SMOOTH)) == (24, 16)
    assert compressed_size(jpeg(SMOOTH, progressive=True)) == (24, 16)
    assert compressed_size(jpeg(SMOOTH, "JPEG2000", no_jp2=True)) == (24, 16)
    assert compressed_size(jpeg(SMOOTH, "JPEG2000")) == (24, 16)  # in its box
    assert compressed_size(b"\xff\xd8\xff\xff\xff\xc0\x00\x0b\x08\x00\x05\x00\x07") == (7, 5)
    hidden = b"\xff\xd8\xff\xfe\x00\x1a" + b"\xff\x4f\xff\x51" + b"\0" * 20 + jpeg(SMOOTH)[2:]
    assert compressed_size(hidden) == (24, 16)  # another code stream in a comment
    boxes = jpeg(SMOOTH, "JPEG2000")
    assert compressed_size(struct.pack(">I4s", 40, b"free") + hidden[6:38] + boxes) == (24, 16)
    for broken in (b"", b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8" + b"\xff" * 40, jpeg(GREY)[:30]):
        assert compressed_size(broken) is None


def test_packages_are_named_for_what_pydicom_does_not_read_alone() -> None:
    from pydicom.uid import UID_dictionary

    assert len(frame_module.PACKAGES) == 10
    assert set(frame_module.PACKAGES) <= set(UID_dictionary)
    assert {".dcm", ".dicom", ".png"} <= image_module.SUFFIXES
    assert header(GREY).Rows == 6
