"""How a DICOM header says that its picture is to be shown. Sections are those of PS3.3."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import Any, cast, get_args

import numpy as np

from edgekd.dicom.frame import Layout
from edgekd.dicom.header import Header
from edgekd.dicom.values import Curve, Grey, Table, Window
from edgekd.errors import DataError

PALETTE = ((0x00281101, 0x00281201), (0x00281102, 0x00281202), (0x00281103, 0x00281203))
TABLE = (0x00283002, 0x00283006)  # descriptor and data of an item
INTERPRETATIONS = {
    "MONOCHROME1": 1, "MONOCHROME2": 1, "PALETTE COLOR": 1,
    "RGB": 3, "YBR_FULL": 3, "YBR_FULL_422": 3, "YBR_ICT": 3, "YBR_RCT": 3,
}  # fmt: skip


def layout_of(header: Header, vr: str, name: str) -> Layout:
    """How the pixels are stored (C.7.6.3). Raises DataError for what is not 8 to 16 bits."""
    elements = header.elements
    kind = str(elements.get("PhotometricInterpretation") or "").strip()
    if kind not in INTERPRETATIONS:  # not repeated: it may be anything
        raise DataError(f"{name}: a photometric interpretation that is not read; known: "
                        f"{', '.join(INTERPRETATIONS)}")  # fmt: skip
    samples = integer(elements, "SamplesPerPixel", name, 1)
    if samples != INTERPRETATIONS[kind]:
        raise DataError(f"{name}: {samples} samples per pixel, {kind} has {INTERPRETATIONS[kind]}")
    allocated = integer(elements, "BitsAllocated", name)
    stored = integer(elements, "BitsStored", name, allocated)
    high = integer(elements, "HighBit", name, stored - 1)
    if allocated not in (8, 16) or not 1 <= stored <= allocated or high != stored - 1:
        raise DataError(f"{name}: {stored} of {allocated} bits with high bit {high}, expected 8 to "
                        "16 bits, the high bit one below the bits that are stored")  # fmt: skip
    signed = integer(elements, "PixelRepresentation", name, 0)
    planes = integer(elements, "PlanarConfiguration", name, 0)
    if signed not in (0, 1) or planes not in (0, 1) or (signed and samples == 3):
        raise DataError(f"{name}: pixel representation {signed}, planar configuration {planes} and "
                        f"{samples} samples do not go together")  # fmt: skip
    if kind.startswith("YBR") and stored != 8:
        raise DataError(f"{name}: {kind} of {stored} bits, expected 8")
    return Layout(
        rows=integer(elements, "Rows", name),
        columns=integer(elements, "Columns", name),
        samples_per_pixel=samples,
        bits_allocated=allocated,
        bits_stored=stored,
        pixel_representation=signed,
        photometric_interpretation=kind,
        planar_configuration=planes,
        pixel_vr=vr or "OW",
    )


def grey_of(header: Header, layout: Layout, name: str) -> Grey:
    """Modality transform, window or table, padding and inversion of a grey picture."""
    is_signed = bool(layout.pixel_representation)
    slope, intercept = 1.0, 0.0
    modality: Table | None = None
    voi: Table | Window | None = None
    for place in _places(header.elements):
        if (item := _first_item(place, "ModalityLUTSequence")) is not None:
            modality = _table(item, *TABLE, header.order, is_signed, name)
            break
        if (found := _number(place, "RescaleSlope", name)) is not None:
            slope, intercept = found, _number(place, "RescaleIntercept", name) or 0.0
            break
    if slope == 0:
        raise DataError(f"{name}: its rescale slope is 0")
    bits = layout.bits_stored
    lowest, highest = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if is_signed else (0, 2**bits)
    is_below_0 = modality is None and min(lowest * slope, highest * slope) + intercept < 0
    for place in _places(header.elements):
        if (item := _first_item(place, "VOILUTSequence")) is not None:
            voi = _table(item, *TABLE, header.order, is_below_0, name)
            break
        if (window := _window(place, name)) is not None:
            voi = window
            break
    return Grey(
        bits=bits, slope=slope, intercept=intercept, modality=modality, voi=voi,
        padding=_padding(header, is_signed),
        is_inverted=layout.photometric_interpretation == "MONOCHROME1",
    )  # fmt: skip


def palette_of(header: Header, layout: Layout, name: str) -> tuple[Table, Table, Table]:
    """The tables of a PALETTE COLOR picture (C.7.6.3.1.5). Raises DataError for segmented ones."""
    if any(tag not in header.elements for pair in PALETTE for tag in pair):
        raise DataError(f"{name}: PALETTE COLOR without its three tables (segmented ones are not "
                        "read)")  # fmt: skip
    signed = bool(layout.pixel_representation)
    red, green, blue = (
        _table(header.elements, *pair, header.order, signed, name) for pair in PALETTE
    )
    return red, green, blue


def integer(elements: Any, keyword: str, name: str, default: int | None = None) -> int:
    """A whole number of the header. Raises DataError if it is not there, or there are several."""
    value = elements.get(keyword)
    if value is None or value == "":
        value = default
    try:
        return int(value)
    except (TypeError, ValueError):
        raise DataError(f"{name}: expected one whole number in its element {keyword}") from None


def _places(elements: Any) -> Iterator[Any]:
    """Where the standard lets these elements stand: enhanced objects have them per frame."""
    for group in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        if (item := _first_item(elements, group)) is not None:
            for inner in ("FrameVOILUTSequence", "PixelValueTransformationSequence"):
                if (found := _first_item(item, inner)) is not None:
                    yield found
    yield elements


def _first_item(place: Any, keyword: str) -> Any:
    items = place.get(keyword)
    return items[0] if items else None


def _number(place: Any, keyword: str, name: str) -> float | None:
    """The first value of a number; None if there is none."""
    value = place.get(keyword)
    if value is not None and not isinstance(value, (str, int, float)):
        value = value[0] if len(value) else None
    if value is None or value == "":
        return None
    number = float(value)
    if not math.isfinite(number):
        raise DataError(f"{name}: {keyword} is not a finite number")
    return number


def _window(place: Any, name: str) -> Window | None:
    center, width = _number(place, "WindowCenter", name), _number(place, "WindowWidth", name)
    if center is None and width is None:
        return None
    curve = str(place.get("VOILUTFunction") or "LINEAR").strip().upper()
    if curve not in get_args(Curve):
        raise DataError(f"{name}: a window function that is not read; known: "
                        f"{', '.join(get_args(Curve))}")  # fmt: skip
    if center is None or width is None or width < (1 if curve == "LINEAR" else 0) or width == 0:
        raise DataError(f"{name}: its window has no center or no width")
    return Window(center, width, cast(Curve, curve))


def _table(place: Any, descriptor: int, data: int, order: str, is_signed: bool, name: str) -> Table:
    """A table from the raw bytes: pydicom would guess the types of what is ambiguous."""
    described, held = place.get_item(descriptor), place.get_item(data)
    if described is None or held is None or len(described.value or b"") != 6:
        raise DataError(f"{name}: a lookup table is not complete")
    if described.VR in ("US", "SS"):
        is_signed = described.VR == "SS"
    count, first, bits = struct.unpack(f"{order}H{'h' if is_signed else 'H'}H", described.value)
    count = count or 65536  # C.11.1.1.1
    entries = bytes(held.value or b"")
    if not 8 <= bits <= 16:
        raise DataError(f"{name}: a lookup table of {bits} bits, expected 8 to 16")
    if len(entries) >= 2 * count:
        kind = f"{order}u2"
    elif len(entries) >= count and bits == 8 and order == "<":
        kind = "u1"
    else:
        raise DataError(f"{name}: a lookup table has {len(entries)} bytes for {count} entries")
    return Table(np.frombuffer(entries, kind, count).astype(np.uint16), first, bits)


def _padding(header: Header, is_signed: bool) -> tuple[int, int] | None:
    """Pixel Padding Value and Range Limit (C.7.5.1.1.2), as stored."""
    kind = f"{header.order}{'h' if is_signed else 'H'}"
    found = [header.elements.get_item(tag) for tag in (0x00280120, 0x00280121)]
    ends = [struct.unpack(kind, one.value)[0] for one in found if one is not None and one.value]
    return (min(ends), max(ends)) if ends else None
