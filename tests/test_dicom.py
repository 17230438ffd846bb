"""DICOM files: every kind of pixels becomes the right RGB, and whatever is wrong is refused."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

from edgekd import image as image_module
from edgekd.dicom import frame as frame_module
from edgekd.dicom.frame import compressed_size
from edgekd.dicom.header import HEADER_BYTES
from edgekd.errors import DataError, EdgekdError, MissingOnHost
from edgekd.image import decode, is_picture, starts_like_dicom
from tests.dicom_files import SECRETS, encoded, header

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


# what is stored -----------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", [IMPLICIT, "1.2.840.10008.1.2.1", DEFLATED, BIG_ENDIAN])
def test_plain_pixels_of_every_transfer_syntax(syntax: str) -> None:
    for pixels in (COLOURS, GREY[..., None].repeat(3, -1)):
        stored = pixels if pixels is COLOURS else GREY
        assert (decode(encoded(stored, syntax=syntax)) == pixels).all()
    deep = GREY.astype(np.uint16) * 16
    found = decode(encoded(deep, syntax=syntax, WindowCenter=2048, WindowWidth=4096))
    assert (found == decode(encoded(deep, WindowCenter=2048, WindowWidth=4096))).all()


def test_colour_by_plane() -> None:
    planes = COLOURS.transpose(2, 0, 1).tobytes()
    assert (decode(encoded(COLOURS, data=planes, PlanarConfiguration=1)) == COLOURS).all()


def test_deep_colour_keeps_its_top_8_bits() -> None:
    deep = COLOURS.astype(np.uint16)
    assert (decode(encoded(deep * 256 + 77)) == COLOURS).all()
    assert (decode(encoded(deep * 16 + 7, BitsStored=12)) == COLOURS).all()


def ybr(pixels: np.ndarray) -> np.ndarray:
    """RGB to YBR_FULL: the equations of C.7.6.3.1.2, in float64."""
    red, green, blue = (pixels[:, :, channel].astype(np.float64) for channel in range(3))
    planes = (
        0.2990 * red + 0.5870 * green + 0.1140 * blue,
        -0.1687 * red - 0.3313 * green + 0.5000 * blue + 128,
        0.5000 * red - 0.4187 * green - 0.0813 * blue + 128,
    )
    return np.stack(planes, -1).round().clip(0, 255).astype(np.uint8)


def test_ybr_full() -> None:
    found = decode(encoded(ybr(COLOURS), PhotometricInterpretation="YBR_FULL"))
    assert np.abs(found.astype(int) - COLOURS).max() <= 2  # rounded twice


def test_ybr_full_422() -> None:
    pairs = np.repeat(COLOURS[:, ::2], 2, axis=1)  # two neighbours share their colour
    y, b, r = (ybr(pairs)[:, :, channel] for channel in range(3))
    data = np.stack([y[:, ::2], y[:, 1::2], b[:, ::2], r[:, ::2]], -1).tobytes()
    stored = {"PhotometricInterpretation": "YBR_FULL_422", "data": data}
    assert np.abs(decode(encoded(pairs, **stored)).astype(int) - pairs).max() <= 2


@pytest.mark.parametrize("bits", [8, 16])
def test_palette_color(bits: int) -> None:
    tables = RANDOM.integers(0, 2**bits, (3, 200))
    elements = {}
    for name, entries in zip(("Red", "Green", "Blue"), tables, strict=True):
        key = f"{name}PaletteColorLookupTable"
        elements[f"{key}Descriptor"] = [200, 10, bits]
        elements[f"{key}Data"] = entries.astype("u1" if bits == 8 else "<u2").tobytes()
    found = decode(encoded(GREY, PhotometricInterpretation="PALETTE COLOR", **elements))
    for channel in range(3):
        expected = [[int(tables[channel, min(max(int(x) - 10, 0), 199)]) >> (bits - 8)
                     for x in row] for row in GREY]  # fmt: skip
        assert (found[:, :, channel] == expected).all()


def test_a_palette_that_is_missing_is_said() -> None:
    refused(encoded(GREY, PhotometricInterpretation="PALETTE COLOR"), "without its three tables")


def test_jpeg_baseline() -> None:
    frames = encapsulate([jpeg(SMOOTH, quality=100, subsampling=0)])
    stored = {"data": frames, "syntax": JPEG, "PhotometricInterpretation": "YBR_FULL_422"}
    assert np.abs(decode(encoded(SMOOTH, **stored)).astype(int) - SMOOTH).max() <= 3
    grey = decode(encoded(SMOOTH[:, :, 0], data=encapsulate([jpeg(SMOOTH[:, :, 0])]), syntax=JPEG))
    assert np.abs(grey.astype(int) - SMOOTH).max() <= 6


@pytest.mark.parametrize("kind", ["YBR_RCT", "RGB"])
def test_jpeg_2000_lossless(kind: str) -> None:
    frame = jpeg(SMOOTH, "JPEG2000", no_jp2=True, mct=int(kind == "YBR_RCT"))
    stored = {"data": encapsulate([frame]), "syntax": J2K, "PhotometricInterpretation": kind}
    assert (decode(encoded(SMOOTH, **stored)) == SMOOTH).all()


def test_rle() -> None:
    data = encapsulate([rle([packed(COLOURS[:, :, channel].tobytes()) for channel in range(3)])])
    assert (decode(encoded(COLOURS, data=data, syntax=RLE)) == COLOURS).all()
    deep = GREY.astype(np.uint16) * 200
    halves = [packed((deep >> shift).astype(np.uint8).tobytes()) for shift in (8, 0)]
    found = decode(encoded(deep, data=encapsulate([rle(halves)]), syntax=RLE))
    assert (found == decode(encoded(deep))).all()


# which files are DICOM ----------------------------------------------------------------------


def test_a_file_without_a_preamble_is_known_by_its_ending(tmp_path: Path) -> None:
    data = encoded(GREY, has_preamble=False)
    (tmp_path / "old.dcm").write_bytes(data)
    (tmp_path / "old.bin").write_bytes(data)
    assert (decode(tmp_path / "old.dcm")[:, :, 0] == GREY).all()
    with pytest.raises(DataError, match=r"old\.bin: cannot be read as an image"):
        decode(tmp_path / "old.bin")


def test_content_goes_before_the_ending(tmp_path: Path) -> None:
    (tmp_path / "really.png").write_bytes(encoded(GREY))
    (tmp_path / "really.dcm").write_bytes(jpeg(GREY, "PNG"))
    for name in ("really.png", "really.dcm"):
        assert (decode(tmp_path / name)[:, :, 0] == GREY).all()


def test_which_files_of_a_folder_are_pictures(tmp_path: Path) -> None:
    names = ("a.dcm", "b.DICOM", "IM0001", "1.2.840.113619.7", "DICOMDIR", ".hidden.dcm", "x.bin")
    for name in names:
        (tmp_path / name).write_bytes(encoded(GREY))
    (tmp_path / "README").write_text("no picture")
    (tmp_path / "folder").mkdir()
    (tmp_path / "lost.dcm").symlink_to(tmp_path / "none")  # to be missed, not passed over
    found = sorted(path.name for path in tmp_path.iterdir() if is_picture(path))
    assert found == ["1.2.840.113619.7", "IM0001", "a.dcm", "b.DICOM", "lost.dcm"]
    assert not starts_like_dicom(tmp_path / "none")


@pytest.mark.timeout(30)
def test_a_named_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "IM0001")
    assert not is_picture(tmp_path / "IM0001")
    assert not starts_like_dicom(tmp_path / "IM0001")


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
