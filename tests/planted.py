"""Objects of many kinds, with a new marker wherever DICOM has room."""

import warnings
from collections.abc import Callable

import numpy as np
from pydicom import Dataset

from tests.builders import make_instance, to_bytes
from tests.markers import (
    Markers,
    draw_people,
    file_of,
    plant_everything,
)

_STORAGE = "1.2.840.10008.5.1.4.1.1."
PRIVATE = {
    "Siemens": (
        (0x0029, "SIEMENS CSA HEADER"),
        (0x0051, "SIEMENS MR HEADER"),
        (0x0019, "SIEMENS MR HEADER"),
        (0x0021, "SIEMENS MEDCOM HEADER"),
    ),
    "Philips": (
        (0x2001, "Philips Imaging DD 001"),
        (0x2005, "Philips MR Imaging DD 001"),
        (0x7053, "Philips PET Private Group"),
    ),
    "GE": (
        (0x0009, "GEMS_IDEN_01"),
        (0x0043, "GEMS_PARM_01"),
        (0x0019, "GEMS_ACQU_01"),
        (0x0025, "GEMS_SERS_01"),
    ),
}


def plant_kinds(markers: Markers) -> dict[str, bytes]:
    """Return the file of each kind of object."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {kind: make(markers) for kind, make in KINDS.items()}


def _planted(ds: Dataset, markers: Markers, **elements: object) -> bytes:
    plant_everything(ds, markers, draw_people(markers), ({}, {}))
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    if "SOPClassUID" in elements:
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    return _file(ds, markers)


def _file(ds: Dataset, markers: Markers) -> bytes:
    """Return a file; bytes behind the last element go with pixels only."""
    if "PixelData" in ds:
        return file_of(ds, markers)
    return markers.word().encode() * 16 + to_bytes(ds)[128:]


def _ct(markers: Markers) -> bytes:
    return _planted(make_instance(), markers)


def _us(markers: Markers) -> bytes:
    frames = np.zeros((3, 16, 12), np.uint8)
    ds = make_instance(pixels=frames, PixelRepresentation=0)
    uid = _STORAGE + "3.1"
    return _planted(ds, markers, Modality="US", SOPClassUID=uid, NumberOfFrames=3)


def _sc(markers: Markers) -> bytes:
    ds = make_instance(ConversionType="WSD")
    return _planted(ds, markers, Modality="OT", SOPClassUID=_STORAGE + "7")


def _seg(markers: Markers) -> bytes:
    ds = make_instance(pixels=np.ones((16, 12), np.uint8), PixelRepresentation=0)
    item = Dataset()
    item.SegmentNumber, item.SegmentLabel = 1, markers.word()
    item.SegmentDescription = markers.word()
    uid = _STORAGE + "66.4"
    return _planted(
        ds, markers, Modality="SEG", SOPClassUID=uid, SegmentSequence=[item]
    )


def _enhanced_mr(markers: Markers) -> bytes:
    frames = np.zeros((2, 16, 12), np.int16)
    ds = make_instance(pixels=frames)
    items = []
    for _ in range(2):
        item, content = Dataset(), Dataset()
        content.FrameComments, content.FrameLabel = markers.word(), markers.word()
        content.FrameAcquisitionDateTime = f"{markers.date()}101112"
        item.FrameContentSequence = [content]
        items.append(item)
    uid = _STORAGE + "4.1"
    planted = {"Modality": "MR", "SOPClassUID": uid, "NumberOfFrames": 2}
    return _planted(ds, markers, **planted, PerFrameFunctionalGroupsSequence=items)


def _sr(markers: Markers) -> bytes:
    ds = make_instance()
    for keyword in ("PixelData", "Rows", "Columns"):
        delattr(ds, keyword)
    items = []
    for kind, keyword in (
        *(("TEXT", "TextValue"), ("PNAME", "PersonName"), ("UIDREF", "UID")),
        *(("DATE", "Date"), ("NUM", "TextValue")),
    ):
        item = Dataset()
        item.ValueType, item.RelationshipType = kind, "CONTAINS"
        draw = {"UID": markers.uid, "Date": markers.date}.get(keyword, markers.word)
        setattr(item, keyword, draw())
        items.append(item)
    uid = _STORAGE + "88.33"
    planted = {"Modality": "SR", "SOPClassUID": uid, "ValueType": "CONTAINER"}
    return _planted(ds, markers, **planted, ContentSequence=items)


def _pdf(markers: Markers) -> bytes:
    ds = make_instance()
    for keyword in ("PixelData", "Rows", "Columns"):
        delattr(ds, keyword)
    uid = _STORAGE + "104.1"
    data = Dataset()
    data.EncapsulatedDocument = b"%PDF " + markers.word().encode() + b" "
    planted = {"Modality": "DOC", "SOPClassUID": uid}
    return _planted(ds, markers, **planted, **_values(data))


def _values(ds: Dataset) -> dict[str, object]:
    return {element.keyword: element.value for element in ds}


def _private(maker: str) -> Callable[[Markers], bytes]:
    def make(markers: Markers) -> bytes:
        uid = _STORAGE + "4"
        ds = make_instance(Modality="MR", SOPClassUID=uid)
        for group, creator in PRIVATE[maker]:
            block = ds.private_block(group, creator, create=True)
            for offset in range(0x01, 0xA0, 2):
                vr = ("LO", "LT", "SH", "OB", "UN", "PN")[offset // 2 % 6]
                word = markers.word()
                value = word.encode() if vr in {"OB", "UN"} else word
                block.add_new(offset, vr, value)
        return _planted(ds, markers, Modality="MR", SOPClassUID=uid)

    return make


KINDS: dict[str, Callable[[Markers], bytes]] = {
    "CT": _ct,
    "enhanced MR": _enhanced_mr,
    "US cine": _us,
    "secondary capture": _sc,
    "structured report": _sr,
    "PDF": _pdf,
    "segmentation": _seg,
    **{f"MR of {maker}": _private(maker) for maker in PRIVATE},
}
