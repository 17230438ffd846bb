"""What a grey DICOM picture looks like, against the formulas of PS3.3 in plain loops.

The oracles import nothing from edgekd, and compute pixel by pixel in Python's own floats.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from edgekd.image import decode
from tests.dicom_files import encoded, table

RANDOM = np.random.default_rng(0)
DEEP = RANDOM.integers(0, 4096, (9, 7)).astype(np.uint16)  # 12 bits
SIGNED = RANDOM.integers(-2048, 2048, (9, 7)).astype(np.int16)


def linear(x: float, center: float, width: float) -> float:
    """C.11.2.1.2.1 with ymin = 0 and ymax = 255."""
    if x <= center - 0.5 - (width - 1) / 2:
        return 0.0
    if x > center - 0.5 + (width - 1) / 2:
        return 255.0
    return ((x - (center - 0.5)) / (width - 1) + 0.5) * 255.0


def linear_exact(x: float, center: float, width: float) -> float:
    """C.11.2.1.3.2."""
    if x <= center - width / 2:
        return 0.0
    if x > center + width / 2:
        return 255.0
    return ((x - center) / width + 0.5) * 255.0


def sigmoid(x: float, center: float, width: float) -> float:
    """C.11.2.1.3.1."""
    return 255.0 / (1.0 + math.exp(min(-4.0 * (x - center) / width, 700.0)))


def entry(x: float, entries: list[int], first: int) -> int:
    """C.11.1.1.1: what lies outside gets the first or the last entry."""
    return entries[min(max(round(x) - first, 0), len(entries) - 1)]


def each(pixels: np.ndarray, value) -> np.ndarray:  # type: ignore[no-untyped-def]
    """uint8 (H, W) of a function of one stored value."""
    return np.array([[round(value(int(x))) for x in row] for row in pixels], dtype=np.uint8)


def shown(pixels: np.ndarray, **elements: object) -> np.ndarray:
    """One channel of the decoded picture; the three are the same."""
    picture = decode(encoded(pixels, **elements))
    assert picture.dtype == np.uint8
    assert (picture[:, :, 0] == picture[:, :, 1]).all()
    assert (picture[:, :, 0] == picture[:, :, 2]).all()
    return picture[:, :, 0]


@pytest.mark.parametrize("curve", [linear, linear_exact, sigmoid])
@pytest.mark.parametrize(("center", "width"), [(2048, 4096), (40.5, 400), (1000, 1.5), (-300, 800)])
@pytest.mark.parametrize("kind", ["unsigned", "signed", "rescaled", "falling"])
def test_a_window_is_the_standards(curve, center: float, width: float, kind: str) -> None:  # type: ignore[no-untyped-def]
    pixels = DEEP if kind == "unsigned" else SIGNED
    rescale = {"rescaled": (0.5, -1024.25), "falling": (-2.0, 100.0)}.get(kind)
    slope, intercept = rescale or (1.0, 0.0)
    elements = {"RescaleSlope": slope, "RescaleIntercept": intercept} if rescale else {}
    found = shown(
        pixels, BitsStored=12, WindowCenter=center, WindowWidth=width,
        VOILUTFunction=curve.__name__.upper(), **elements,
    )  # fmt: skip
    expected = each(pixels, lambda x: curve(x * slope + intercept, center, width))
    # the table is made by the same formula in another order: a tie may round the other way
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert (found == expected).mean() > 0.98


def test_linear_is_the_default_and_the_first_of_several_windows_counts() -> None:
    found = shown(DEEP, BitsStored=12, WindowCenter=[2000, 10], WindowWidth=[1001, 20])
    assert (found == each(DEEP, lambda x: linear(x, 2000, 1001))).all()


def test_a_window_of_width_1_is_a_threshold() -> None:
    pixels = np.array([[99, 100, 101]], np.uint16)
    assert shown(pixels, WindowCenter=100.5, WindowWidth=1).tolist() == [[0, 0, 255]]


def test_without_a_window_the_held_values_are_spread() -> None:
    low, high = int(SIGNED.min()), int(SIGNED.max())
    expected = each(SIGNED, lambda x: (x - low) / (high - low) * 255.0)
    assert (shown(SIGNED, BitsStored=12) == expected).all()


def test_padding_is_left_out_of_the_range_and_black() -> None:
    pixels = np.array([[-2000, 100, 300], [-1500, 200, 300]], np.int16)
    padded = shown(pixels, PixelPaddingValue=-2000, PixelPaddingRangeLimit=-1500)
    assert padded.tolist() == [[0, 0, 255], [0, 128, 255]]
    assert shown(pixels, PixelPaddingValue=-2000)[1].tolist()[0] == 0  # -1500 is the lowest now
    assert shown(pixels, PixelPaddingValue=-2000)[0, 1] > 0


def test_8_bits_are_shown_as_they_are() -> None:
    pixels = RANDOM.integers(90, 110, (6, 5)).astype(np.uint8)
    assert (shown(pixels) == pixels).all()
    spread = shown(pixels, RescaleSlope=2, RescaleIntercept=0)  # now they mean something else
    assert (spread.min(), spread.max()) == (0, 255)


def test_fewer_than_8_bits_fill_the_range() -> None:
    assert shown(np.array([[0, 5, 15]], np.uint8), BitsStored=4).tolist() == [[0, 85, 255]]


def test_monochrome1_is_inverted() -> None:
    elements = {"BitsStored": 12, "WindowCenter": 2000, "WindowWidth": 3000}
    plain = shown(DEEP, **elements)
    assert (shown(DEEP, PhotometricInterpretation="MONOCHROME1", **elements) == 255 - plain).all()


def test_a_flat_picture_is_black_or_white() -> None:
    flat = np.full((3, 3), 700, np.uint16)
    assert (shown(flat) == 0).all()
    assert (shown(flat, PhotometricInterpretation="MONOCHROME1") == 255).all()
    assert (shown(flat, PixelPaddingValue=700) == 0).all()  # nothing but padding


@pytest.mark.parametrize(
    ("bits", "first", "count"), [(8, 0, 4096), (12, 100, 300), (16, -500, 2000)]
)
def test_a_voi_table_is_looked_up(bits: int, first: int, count: int) -> None:
    """Of 8-bit entries there may be more than 256: the place in the table is not their type."""
    entries = RANDOM.integers(0, 2**bits, count)
    found = shown(SIGNED if first < 0 else DEEP, BitsStored=12,
                  VOILUTSequence=table(entries, first, bits, signed=first < 0),
                  WindowCenter=1, WindowWidth=2)  # fmt: skip
    pixels = SIGNED if first < 0 else DEEP
    expected = each(pixels, lambda x: entry(x, list(entries), first) / (2**bits - 1) * 255.0)
    assert (found == expected).all()


@pytest.mark.parametrize("pixels", [DEEP, SIGNED, DEEP.astype(np.uint8)])
def test_a_modality_table_comes_before_the_window(pixels: np.ndarray) -> None:
    entries = np.sort(RANDOM.integers(0, 65536, 5000))
    bits = {} if pixels.dtype == np.uint8 else {"BitsStored": 12}
    found = shown(pixels, ModalityLUTSequence=table(entries, -1000, 16, signed=True),
                  WindowCenter=30000, WindowWidth=50000, **bits)  # fmt: skip
    value = [int(x) for x in entries]
    expected = each(pixels, lambda x: linear(entry(x, value, -1000), 30000, 50000))
    assert (found == expected).all()


def test_an_enhanced_object_has_its_window_per_frame() -> None:
    window, rescale, item = Dataset(), Dataset(), Dataset()
    window.WindowCenter, window.WindowWidth = 50, 350
    rescale.RescaleSlope, rescale.RescaleIntercept = 2, -1024
    item.FrameVOILUTSequence = Sequence([window])
    shared = Dataset()
    shared.PixelValueTransformationSequence = Sequence([rescale])
    found = shown(DEEP, BitsStored=12, NumberOfFrames=1,
                  PerFrameFunctionalGroupsSequence=Sequence([item]),
                  SharedFunctionalGroupsSequence=Sequence([shared]))  # fmt: skip
    assert (found == each(DEEP, lambda x: linear(2 * x - 1024, 50, 350))).all()


def test_unused_high_bits_are_not_part_of_the_value() -> None:
    overlay = DEEP | np.uint16(0xA000)  # bits 13 and 15 once held an overlay
    elements = {"BitsStored": 12, "WindowCenter": 2000, "WindowWidth": 3000}
    assert (shown(overlay, **elements) == shown(DEEP, **elements)).all()
