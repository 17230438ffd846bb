"""DICOM files: every kind of pixels becomes the right RGB."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from pydicom.encaps import encapsulate

from edgekd.errors import DataError
from edgekd.image import decode, is_picture, starts_like_dicom
from tests.dicom_files import encoded
from tests.dicom_pixels import (
    BIG_ENDIAN,
    COLOURS,
    DEFLATED,
    GREY,
    IMPLICIT,
    J2K,
    JPEG,
    RANDOM,
    RLE,
    SMOOTH,
    jpeg,
    packed,
    refused,
    rle,
)

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
