"""From stored values to what a screen shows: lookup tables, windows, palettes (numpy only).

Section numbers are those of the DICOM standard, part 3. Pictures have at most 16 bits per sample,
so every step is worked out once for each value that a pixel can have, in float64, and the picture
is then looked up. pydicom's own `apply_voi_lut` and `apply_modality_lut` are not used: in 3.0 they
compute the place in a table in the type of its entries or of the pixels, and wrap around.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

UInt8 = npt.NDArray[np.uint8]
Float64 = npt.NDArray[np.float64]
Integers = npt.NDArray[Any]  # uint8, int8, uint16 or int16
Curve = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]


@dataclass(frozen=True)
class Table:
    """A lookup table (C.11.1.1, C.11.2.1.1, C.7.6.3.1.5)."""

    entries: npt.NDArray[np.uint16]  # (N,)
    first: int  # the value that the first entry is for
    bits: int  # of each entry: the largest is 2^bits - 1


@dataclass(frozen=True)
class Window:
    """The values to be shown: `width` of them around `center`."""

    center: float
    width: float
    curve: Curve = "LINEAR"


@dataclass(frozen=True)
class Grey:
    """All that a grey picture says of how its stored values are to be shown."""

    bits: int  # stored
    slope: float = 1.0
    intercept: float = 0.0
    modality: Table | None = None  # in place of slope and intercept
    voi: Table | Window | None = None
    padding: tuple[int, int] | None = None  # stored values that are no picture, both inclusive
    is_inverted: bool = False  # MONOCHROME1: the lowest value is white


def look_up(table: Table, values: Float64) -> Float64:
    """Entries for values; those outside of the table get its first or last (C.11.1.1.1)."""
    places = np.clip(np.rint(values) - table.first, 0, len(table.entries) - 1)
    return np.asarray(table.entries[places.astype(np.int64)], dtype=np.float64)


def windowed(values: Float64, window: Window) -> Float64:
    """Values through a window, to [0, 1]: C.11.2.1.2.1, C.11.2.1.3.1 and C.11.2.1.3.2."""
    center, width = window.center, window.width
    if window.curve == "SIGMOID":
        power = np.clip(-4.0 * (values - center) / width, -700.0, 700.0)  # exp(710) overflows
        return np.asarray(1.0 / (1.0 + np.exp(power)))
    if window.curve == "LINEAR":
        center, width = center - 0.5, width - 1.0
    shown = (values - center) / max(width, 1e-9) + 0.5  # a width of 0 is a threshold
    shown = np.where(values <= center - width / 2.0, 0.0, shown)
    return np.asarray(np.where(values > center + width / 2.0, 1.0, shown))


def show_grey(pixels: Integers, grey: Grey) -> UInt8:
    """Stored values (H, W) to 8 bits (H, W).

    Without a window or table of its own, a picture of more than 8 bits is shown from the smallest
    to the largest value that it holds, padding left out. One of 8 unsigned bits that mean nothing
    else is shown as it is: like the same picture in a PNG.
    """
    codes, values = _codes(pixels)
    shown = look_up(grey.modality, values) if grey.modality else _rescaled(values, grey)
    if isinstance(grey.voi, Window):
        share = windowed(shown, grey.voi)
    elif isinstance(grey.voi, Table):
        share = look_up(grey.voi, shown) / (2**grey.voi.bits - 1)
    else:
        low, high = _range(codes, values, shown, grey, pixels.dtype.kind == "i")
        share = (shown - low) / (high - low) if high > low else np.zeros_like(shown)
    table = np.rint(255.0 * np.clip(share, 0.0, 1.0)).astype(np.uint8)
    if grey.is_inverted:
        table = 255 - table
    return table[codes]


def show_palette(pixels: Integers, tables: tuple[Table, Table, Table]) -> UInt8:
    """Stored values (H, W) to RGB (H, W, 3); of 16-bit entries the top 8 bits."""
    codes, values = _codes(pixels)
    picture = np.empty((*pixels.shape, 3), dtype=np.uint8)
    for channel, table in enumerate(tables):
        entries = look_up(table, values).astype(np.uint16) >> (table.bits - 8)
        picture[:, :, channel] = np.minimum(entries, 255).astype(np.uint8)[codes]
    return picture


def _codes(pixels: Integers) -> tuple[Integers, Float64]:
    """The pixels as places in a table, and the stored value that each place stands for."""
    size = pixels.dtype.itemsize
    unsigned = np.dtype(f"u{size}")
    values = np.arange(256**size, dtype=unsigned).view(pixels.dtype)
    return pixels.view(unsigned), values.astype(np.float64)


def _rescaled(values: Float64, grey: Grey) -> Float64:
    return np.asarray(values * grey.slope + grey.intercept)


def _range(
    codes: Integers, values: Float64, shown: Float64, grey: Grey, is_signed: bool
) -> tuple[float, float]:
    means_itself = grey.modality is None and (grey.slope, grey.intercept) == (1.0, 0.0)
    if grey.bits <= 8 and means_itself and not is_signed:
        return 0.0, float(2**grey.bits - 1)
    held = np.zeros(len(values), dtype=bool)
    held[codes] = True
    if grey.padding is not None:
        held &= (values < grey.padding[0]) | (values > grey.padding[1])
    if not held.any():
        return 0.0, 0.0
    return float(shown[held].min()), float(shown[held].max())
