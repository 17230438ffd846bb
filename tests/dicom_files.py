"""DICOM files drawn in the tests: written by pydicom, or taken apart and damaged by hand."""

from __future__ import annotations

import io
import re
import warnings
from typing import Any

import numpy as np
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, UltrasoundImageStorage, generate_uid

# Planted where a patient, a study or a maker would stand; must never be seen again.
SECRET = "Zyxomma"
PLANTED = {
    "PatientName": f"{SECRET}^Petiolatum", "PatientID": f"{SECRET}-4711",
    "OtherPatientIDs": f"{SECRET}-other", "PatientBirthDate": "19330107",
    "PatientAddress": f"{SECRET} lane", "PatientComments": f"{SECRET} comment",
    "ReferringPhysicianName": f"{SECRET}^Referrer", "PerformingPhysicianName": f"{SECRET}^Doer",
    "InstitutionName": f"{SECRET} clinic", "StationName": f"{SECRET}STN",
    "StudyDescription": f"{SECRET} study", "SeriesDescription": f"{SECRET} series",
    "AccessionNumber": f"{SECRET}ACC", "StudyID": f"{SECRET}ID", "StudyDate": "19771231",
    "ContentDate": "19771230", "StudyTime": "112233.445", "DeviceSerialNumber": f"{SECRET}SN",
    "ImageComments": f"{SECRET} image", "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.778899001",
    "SeriesInstanceUID": "1.2.826.0.1.3680043.8.498.778899002",
    "FrameOfReferenceUID": "1.2.826.0.1.3680043.8.498.778899003",
    "WindowCenterWidthExplanation": f"{SECRET} window",
}  # fmt: skip
INSTANCE = "1.2.826.0.1.3680043.8.498.778899004"
# What would betray them; a number only by itself, since a random one may hold any digits.
SECRETS = re.compile(
    rf"(?i){SECRET}|Petiolatum|(?<![\d.])(19330107|19771231|19771230|112233\.445)(?!\d)|498\.7788990"
)


def header(pixels: np.ndarray | None, **elements: Any) -> Dataset:
    """A data set for stored values: MONOCHROME2 (H, W) or RGB (H, W, 3), unless said otherwise."""
    found = Dataset()
    found.SOPClassUID = UltrasoundImageStorage
    found.SOPInstanceUID = generate_uid()
    if pixels is not None:
        colours = pixels.ndim == 3
        found.SamplesPerPixel = 3 if colours else 1
        found.PhotometricInterpretation = "RGB" if colours else "MONOCHROME2"
        found.Rows, found.Columns = pixels.shape[:2]
        found.BitsAllocated = found.BitsStored = 8 * pixels.dtype.itemsize
        found.PixelRepresentation = int(pixels.dtype.kind == "i")
        if colours:
            found.PlanarConfiguration = 0
    for keyword, value in elements.items():
        setattr(found, keyword, value)
    if "HighBit" not in elements and pixels is not None:
        found.HighBit = found.BitsStored - 1
    return found


def encoded(
    pixels: np.ndarray | None,
    *,
    syntax: str = ExplicitVRLittleEndian,
    data: bytes | None = None,
    has_preamble: bool = True,
    **elements: Any,
) -> bytes:
    """The bytes of a file; `data` in place of the plain pixels, `None` for no pixels at all."""
    found = header(pixels, **elements)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = found.SOPClassUID
    meta.MediaStorageSOPInstanceUID = found.SOPInstanceUID
    is_little = syntax != "1.2.840.10008.1.2.2"
    if data is None and pixels is not None:
        data = pixels.astype(pixels.dtype.newbyteorder("<" if is_little else ">")).tobytes()
    if data is not None:
        found.PixelData = data + b"\0" * (len(data) % 2)
        found["PixelData"].VR = "OW" if pixels is None or pixels.dtype.itemsize == 2 else "OB"
        if syntax.startswith("1.2.840.10008.1.2.4.") or syntax == "1.2.840.10008.1.2.5":
            found["PixelData"].VR = "OB"
            found["PixelData"].is_undefined_length = True
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # values that are planted to be wrong
        if has_preamble:
            found.file_meta = meta
            dcmwrite(stream, found, enforce_file_format=True)
        else:
            dcmwrite(stream, found, implicit_vr=True, little_endian=True)
    return stream.getvalue()


def table(entries: np.ndarray, first: int, bits: int, signed: bool = False) -> Sequence:
    """A sequence with one lookup table; entries of 8 bits are packed."""
    item = Dataset()
    kind = "SS" if signed else "US"
    item.add_new(0x00283002, kind, [len(entries) % 65536, first, bits])
    item.add_new(0x00283006, "OW", entries.astype("u1" if bits == 8 else "<u2").tobytes())
    item.LUTExplanation = f"{SECRET} table"
    return Sequence([item])


def planted(pixels: np.ndarray, **elements: Any) -> bytes:
    """A file with something to hide in every corner, also where it breaks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that are not what they should be
        return _planted(pixels, elements)


def _planted(pixels: np.ndarray, elements: dict[str, Any]) -> bytes:
    request = Dataset()
    request.RequestedProcedureDescription = f"{SECRET} procedure"
    values = {**PLANTED, "SOPInstanceUID": INSTANCE, "RequestAttributesSequence": [request],
              **elements}  # fmt: skip
    found = header(pixels, **values)
    private = found.private_block(0x0009, f"{SECRET} MAKER", create=True)
    private.add_new(0x01, "LO", f"{SECRET} private")
    found["RequestAttributesSequence"].is_undefined_length = True
    found.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    found["PixelData"].VR = "OW"
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    found.file_meta.SourceApplicationEntityTitle = SECRET
    found.preamble = SECRET.encode().ljust(128, b" ")
    stream = io.BytesIO()
    dcmwrite(stream, found, enforce_file_format=True)
    return stream.getvalue()
