"""Markers drawn at test time, planted wherever DICOM has room: none may come out.

One pile of files holds them in stored, rejected, skipped and broken inputs. It is
converted in this process and through a cluster; then every byte of the store, all that
was logged or warned, and all that Dask was told is searched.
"""

import base64
import binascii
import io
import json
import logging
import os
import re
import secrets
import struct
import subprocess
import sys
import traceback
import warnings
import zipfile
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import distributed
import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
import zarr
from distributed.protocol import pickle
from pydicom import DataElement, Dataset, FileMetaDataset, Sequence
from pydicom.data import get_testdata_file
from pydicom.datadict import DicomDictionary
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

import dicomdask
from dicomdask import header, pipeline, pixels, plan, storage
from dicomdask.errors import DicomDaskError, StoreError
from dicomdask.pseudonym import MAX_SHIFT_DAYS
from dicomdask.tasks import encode
from dicomdask.work import Work
from tests.builders import make_instance, make_series, to_bytes
from tests.conftest import SECRET

MARKER = re.compile(rb"Q[0-9A-F]{7}", re.IGNORECASE)
BASE64 = re.compile(rb"[A-Za-z0-9+/]{8,}={0,2}")
DIGITS = [
    re.compile(pattern)
    for pattern in (
        rb"(?=(\d{8}))",
        rb"(?=(\d{11}))",
        rb"(?=(\d{20}))",
        rb"\d{4}-\d\d-\d\d",
    )
]
"""Overlapping: a date may stand inside a longer number."""
HEX = re.compile(rb"(?:[0-9a-fA-F]{2}){8,}")
TEXT_VRS = {"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"}
OTHER_VRS = {"OB", "OW", "UN"}
NEEDED = {
    "SpecificCharacterSet",
    "Modality",
    "PhotometricInterpretation",
    "ImageType",
    "ConversionType",
    "BurnedInAnnotation",
    "PatientID",
    "ModalityLUTType",
    "PixelData",
    "FloatPixelData",
    "DoubleFloatPixelData",
}
"""What decides whether and how an instance is stored."""

LETTERS = {
    "ISO_IR 192": ("utf-8", "ΩΨΞΛ山川王田"),
    "GB18030": ("gb18030", "王李张刘陈杨赵黄"),
    "ISO_IR 166": ("tis_620", "กขคงจฉชซ"),
    "ISO_IR 144": ("iso8859_5", "ЛюкСтайн"),
    "ISO_IR 101": ("iso8859_2", "őłżąęšťž"),
    "ISO_IR 138": ("iso8859_8", "אבגדהוזח"),
    "ISO 2022 IR 87": ("iso2022_jp", "山田太郎花子次"),
}
SR = "1.2.840.10008.5.1.4.1.1.88.11"
PDF = "1.2.840.10008.5.1.4.1.1.104.1"
US = "1.2.840.10008.5.1.4.1.1.6.1"
MR = "1.2.840.10008.5.1.4.1.1.4"
PT = "1.2.840.10008.5.1.4.1.1.128"


# --- drawing and finding ------------------------------------------------------


class Markers:
    """Draws what must not come out, and finds it.

    `words` are ASCII markers, `texts` anything else that names somebody.
    """

    def __init__(self):
        self.words, self.texts = set(), set()
        self.dates = [
            f"{year}{1 + secrets.randbelow(12):02d}{1 + secrets.randbelow(28):02d}"
            for year in range(1903, 2000, 2 + MAX_SHIFT_DAYS // 365)
        ]

    def word(self):
        drawn = f"Q{secrets.token_hex(4)[:7].upper()}"
        self.words.add(drawn.encode())
        return drawn

    def letters(self, charset):
        alphabet = LETTERS[charset][1]
        drawn = "".join(secrets.choice(alphabet) for _ in range(12))
        self.texts.add(drawn)
        return drawn

    def digits(self, n):
        return str(secrets.randbelow(9 * 10 ** (n - 1)) + 10 ** (n - 1))

    def uid(self):
        drawn = f"1.2.826.0.1.3680043.8.498.{self.digits(20)}"
        self.texts.add(drawn.rsplit(".", 1)[1])
        return drawn

    def date(self):
        """Return one of a few dates, so far apart that none is another one shifted."""
        drawn = secrets.choice(self.dates)
        self.texts |= {drawn, f"{drawn[:4]}-{drawn[4:6]}-{drawn[6:]}"}
        return drawn

    def number(self):
        """Return a number that can stand in any text VR for decimals."""
        drawn = self.digits(11)
        self.texts.add(drawn)
        return drawn

    def find(self, data):
        """Return what is in some bytes, in any of the usual encodings."""
        views = [data, data.replace(b"\0", b"")]
        views += [_unbase64(token) for token in BASE64.findall(data)]
        views += [binascii.unhexlify(token) for token in HEX.findall(data)]
        joined = b"\n".join(views)
        found = {match.upper() for match in MARKER.findall(joined)} & self.words
        digits = {match.decode() for n in DIGITS for match in n.findall(joined)}
        found |= digits & self.texts
        letters = (text for text in self.texts if not text.isascii())
        return found | {
            text for text in letters if any(code in joined for code in _coded(text))
        }

    def find_in_text(self, text):
        """Return what is in a text, JSON escapes resolved."""
        plain = text.encode("utf-8", "surrogateescape")
        escaped = re.compile(r"\\u([0-9a-fA-F]{4})")
        resolved = escaped.sub(lambda found: chr(int(found[1], 16)), text)
        return self.find(plain) | self.find(resolved.encode("utf-8", "replace"))


def _unbase64(token):
    return b"".join(
        base64.b64decode(token[start : start + (len(token) - start) // 4 * 4])
        for start in range(4)
        if b"=" not in token[start : start + (len(token) - start) // 4 * 4]
    ) + (base64.b64decode(token) if len(token) % 4 == 0 else b"")


@cache
def _coded(text):
    """Return a text in each encoding that has its letters."""
    codes = ["utf-8", "utf-16-le", "utf-16-be"]
    for charset, (code, alphabet) in LETTERS.items():
        if charset != "ISO_IR 192" and set(text) <= set(alphabet):
            codes.append(code)
    return [text.encode(code) for code in codes]


def test_the_search_finds_what_it_looks_for():
    markers = Markers()
    word, name = markers.word(), markers.letters("ISO_IR 192")
    for code in ("utf-8", "utf-16-le", "utf-16-be", "latin-1"):
        assert markers.find(b"ab" + word.encode(code) + b"yz") == {word.encode()}
    assert markers.find(word.lower().encode())
    for lead in (b"", b"a", b"ab"):
        coded = base64.b64encode(lead + word.encode() + b"zz")
        assert markers.find(b'{"InlineBinary":"' + coded + b'"}')
    assert markers.find(b"00" + word.encode().hex().encode())
    for code in ("utf-8", "utf-16-le", "utf-16-be"):
        assert markers.find(name.encode(code)) == {name}
    assert markers.find_in_text(json.dumps({"name": name})) == {name}
    for charset, (code, _) in LETTERS.items():
        text = markers.letters(charset)
        assert text in markers.find(b"x" + text.encode(code)), charset
    date, uid = markers.date(), markers.uid()
    assert markers.find(date.encode()) == {date}
    assert markers.find(uid.encode()) == {uid.rsplit(".", 1)[1]}
    assert markers.find(b"nothing, QA00000G, Q0000000") == set()


# --- planting -----------------------------------------------------------------


def put(ds, tag, vr, value):
    ds[tag] = DataElement(tag, vr, value, already_converted=vr != "PN")


def plant_texts(ds, markers, shared):
    """Put a marker into every public text attribute; the same one in each slice."""
    for tag, (vr, *_, keyword) in DicomDictionary.items():
        if vr in TEXT_VRS and tag >> 16 >= 8 and keyword and keyword not in NEEDED:
            if tag not in shared:
                shared[tag] = markers.word()
            put(ds, tag, vr, shared[tag])
        elif vr in OTHER_VRS and tag >> 16 >= 8 and keyword not in {*NEEDED, ""}:
            if tag not in shared:
                shared[tag] = markers.word().encode()
            put(ds, tag, vr, shared[tag])


def plant_people(ds, markers, people):
    """Name a patient, a study and dates in a way that stays a valid series."""
    for keyword, value in people.items():
        setattr(ds, keyword, value)
    uid = markers.uid()
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid
    referenced = Dataset()
    referenced.ReferencedSOPInstanceUID = markers.uid()
    referenced.ReferencedSOPClassUID = MR
    ds.SourceImageSequence = Sequence([referenced])


def draw_people(markers):
    study, birth = markers.date(), markers.date()
    return {
        "PatientID": markers.word(),
        "IssuerOfPatientID": markers.word(),
        "PatientName": f"{markers.word()}^{markers.word()}",
        "AccessionNumber": markers.word(),
        "PatientBirthDate": birth,
        "StudyDate": study,
        "SeriesDate": study,
        "ContentDate": study,
        "AcquisitionDateTime": f"{study}101112.000000+0100",
        "StudyInstanceUID": markers.uid(),
        "SeriesInstanceUID": markers.uid(),
        "FrameOfReferenceUID": markers.uid(),
    }


def plant_structures(ds, markers):
    """Put markers into private blocks, UN, overlays, curves, icons and documents."""
    block = ds.private_block(0x0029, markers.word(), create=True)
    block.add_new(1, "LO", markers.word())
    block.add_new(2, "OB", markers.word().encode())
    block.add_new(3, "UN", markers.word().encode())
    item = Dataset()
    item.PatientComments = markers.word()
    block.add_new(4, "SQ", Sequence([item]))
    for group in (0x6000, 0x6002, 0x601E):
        put(ds, (group << 16) + 0x0022, "LO", markers.word())
        put(ds, (group << 16) + 0x1500, "LO", markers.word())
        put(ds, (group << 16) + 0x3000, "OW", markers.word().encode())
        put(ds, (group << 16) + 0x4000, "LT", markers.word())
    put(ds, 0x50000022, "LO", markers.word())
    put(ds, 0x50003000, "OW", markers.word().encode())
    put(ds, 0x00420011, "OB", markers.word().encode())
    put(ds, 0xFFFAFFFA, "SQ", Sequence([item]))
    icon = make_instance(PatientComments=markers.word())
    icon.PixelData = (markers.word().encode() * 48)[:384]
    del icon.file_meta
    ds.IconImageSequence = [icon]
    put(ds, 0xFFFCFFFC, "OB", markers.word().encode())


def explicit(tag, vr, value):
    value += b" " * (len(value) % 2)
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode())
    long = vr in {"OB", "OW", "UN", "SQ", "UT", "UC", "UR"}
    return head + struct.pack("<xxI" if long else "<H", len(value)) + value


def implicit(tag, value):
    value += b" " * (len(value) % 2)
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value


def hidden_sequence(markers):
    """Return a sequence whose VR is UN, of a known and of an unknown attribute."""
    inner = implicit(0x00104000, markers.word().encode())
    inner += implicit(0x00181210, markers.word().encode())
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
    return explicit(0x00289110, "UN", item) + explicit(0x00289145, "UN", item)


def nest(ds, depth):
    for _ in range(depth):
        inner = ds
        ds = Dataset()
        ds.DerivationImageSequence = [inner]
        ds.ReferencedImageSequence = [inner]
    return ds


def plant_nested(ds, markers, shared):
    inner = Dataset()
    plant_texts(inner, markers, shared)
    inner.StudyDate, inner.SOPInstanceUID = markers.date(), markers.uid()
    inner.private_block(0x0031, markers.word(), create=True).add_new(
        1, "LO", markers.word()
    )
    outer = nest(inner, 2)
    ds.DerivationImageSequence = [outer]
    ds.RequestAttributesSequence = [outer]
    ds.AnatomicRegionSequence = [outer]


def plant_file_meta(ds, markers):
    ds.file_meta.SourceApplicationEntityTitle = markers.word()
    ds.file_meta.SendingApplicationEntityTitle = markers.word()
    ds.file_meta.ImplementationVersionName = markers.word()
    ds.file_meta.PrivateInformationCreatorUID = markers.uid()
    ds.file_meta.PrivateInformation = markers.word().encode()


def file_of(ds, markers):
    """Return a file with markers in the preamble and behind its last element."""
    preamble = b"".join(markers.word().encode() for _ in range(16))
    return preamble + to_bytes(ds)[128:] + markers.word().encode() * 3


def plant_everything(ds, markers, people, shared):
    plant_texts(ds, markers, shared[0])
    plant_nested(ds, markers, shared[1])
    plant_structures(ds, markers)
    plant_people(ds, markers, people)
    plant_file_meta(ds, markers)
    return ds


# --- the pile -----------------------------------------------------------------


class Pile:
    """Writes files with marked names; remembers what each is there for."""

    def __init__(self, root, markers):
        self.root, self.markers, self.count = root, markers, {}

    def write(self, purpose, data, *, suffix=".dcm"):
        self.count[purpose] = self.count.get(purpose, 0) + 1
        folder = self.root / self.markers.word() / self.markers.letters("ISO_IR 192")
        folder.mkdir(parents=True)
        path = folder / f"{purpose} {self.markers.word()}{suffix}"
        path.write_bytes(data)
        return path


def write_stored(pile):
    """Write what is stored: everything planted, in several kinds of pixels."""
    markers = pile.markers
    people, shared = draw_people(markers), ({}, {})
    for ds in make_series(3):
        plant_everything(ds, markers, people, shared)
        pile.write("stored", file_of(ds, markers))
    for charset in LETTERS:
        write_charset(pile, charset)
    write_hidden(pile)
    write_high_bits(pile)
    write_compressed(pile)
    write_padded(pile)
    write_pet(pile)


def single(markers, **elements):
    ds = make_instance(**elements)
    plant_people(ds, markers, draw_people(markers))
    plant_file_meta(ds, markers)
    return ds


def write_charset(pile, charset):
    markers = pile.markers
    ds = single(markers)
    names = ["", charset] if charset.startswith("ISO 2022") else charset
    ds.SpecificCharacterSet = names
    name = markers.letters(charset)
    ds.PatientName = f"{markers.word()}={name}" if "2022" in charset else name
    for keyword in ("SeriesDescription", "PatientComments", "StudyDescription"):
        setattr(ds, keyword, markers.letters(charset))
    ds.ImageComments = markers.letters(charset) + markers.word()
    data = file_of(ds, markers)
    assert name.encode(LETTERS[charset][0]) in data
    pile.write("stored", data)


def write_hidden(pile):
    ds = single(pile.markers)
    del ds.PixelData
    elements = hidden_sequence(pile.markers)
    tail = explicit(0x7FE00010, "OW", np.arange(192, dtype=np.int16).tobytes())
    pile.write("stored", to_bytes(ds) + elements + tail)


def write_high_bits(pile):
    """Write 12 bits in 16: a text stands in the 4 bits that are not used."""
    text = pile.markers.word().encode() * 12
    nibbles = np.frombuffer(binascii.hexlify(text), "S1").astype("U1")
    high = np.array([int(one, 16) for one in nibbles], np.uint16)
    low = np.arange(192, dtype=np.uint16) * 21
    ds = single(
        pile.markers,
        Modality="MR",
        SOPClassUID=MR,
        pixels=(low | high << 12).reshape(16, 12),
    )
    ds.BitsStored, ds.HighBit = 12, 11
    del ds.RescaleSlope, ds.RescaleIntercept
    pile.write("stored", file_of(ds, pile.markers))


def segments(markers, *codes, odd=0):
    """Return JPEG segments that hold a marker each, of odd length if `odd`."""
    words = [(code, markers.word().encode()) for code in codes]
    if odd:
        words[-1] = (words[-1][0], words[-1][1] + b" ")
    return b"".join(
        struct.pack(">HH", code, 2 + len(word)) + word for code, word in words
    )


def write_compressed(pile):
    """Write JPEG streams with comments and bytes behind their end."""
    markers = pile.markers
    for uid, place, codes in (
        (JPEGLSLossless, 2, (0xFFE1, 0xFFED, 0xFFFE)),
        (JPEG2000Lossless, None, (0xFF64, 0xFF64)),
        (RLELossless, None, ()),
    ):
        for tail, purpose in ((8, "stored"), (64, "any")):
            rng = np.random.default_rng(1)
            values = rng.integers(0, 4096, (64, 64)).astype(np.uint16)
            ds = single(markers, pixels=values)
            ds.compress(uid, generate_instance_uid=False)
            stream = next(generate_frames(ds.PixelData, number_of_frames=1))
            if codes:
                stream = stream.rstrip(b"\0")
            behind = (markers.word().encode() * 8)[:tail]
            at = place or 4 + struct.unpack_from(">H", stream, 4)[0]
            put_in = segments(markers, *codes, odd=len(stream) % 2)
            stream = stream[:at] + put_in + stream[at:] + behind
            ds.PixelData = encapsulate([stream])
            pile.write(purpose, file_of(ds, markers))
    write_lossy(pile)


def write_lossy(pile):
    """Write a real lossy JPEG, comments and all."""
    ds = pydicom.dcmread(get_testdata_file("JPEG-lossy.dcm"))
    plant_people(ds, pile.markers, draw_people(pile.markers))
    plant_structures(ds, pile.markers)
    plant_file_meta(ds, pile.markers)
    stream = next(generate_frames(ds.PixelData, number_of_frames=1))
    comments = segments(pile.markers, 0xFFE0, 0xFFEF, 0xFFFE)
    ds.PixelData = encapsulate([stream[:2] + comments + stream[2:]])
    pile.write("any", file_of(ds, pile.markers))


def write_padded(pile):
    """Write markers behind the NUL that ends a value, and behind the pixels."""
    markers = pile.markers
    ds = single(markers)
    ds.PixelData = ds.PixelData + markers.word().encode() * 2
    pile.write("stored", file_of(ds, markers))
    for tag, value in (
        (0x00180015, b"CHEST"),
        (0x00181210, b"B30f"),
        (0x00200052, b"1.2.3"),
        (0x00080070, b"SIEMENS"),
        (0x00080023, b"20200229"),
        (0x00281050, b"40"),
        (0x00200013, b"1"),
        (0x00080008, b"ORIGINAL\\PRIMARY\\AXIAL"),
    ):
        vr = pydicom.datadict.dictionary_VR(tag)
        ds = single(markers)
        if tag in ds:
            del ds[tag]
        padded = explicit(tag, vr, value + b"\0" + markers.word().encode())
        pile.write("any", with_element(ds, tag, padded))


def with_element(ds, tag, raw):
    """Return a file with a hand-made element in its place."""
    before, after = Dataset(), Dataset()
    for element in ds:
        (before if element.tag < tag else after).add(element)
    before.file_meta = ds.file_meta
    buffer = io.BytesIO()
    after_file = pydicom.FileDataset(buffer, {}, file_meta=FileMetaDataset())
    after_file.update(after)
    tail = io.BytesIO()
    pydicom.dcmwrite(
        tail, after, implicit_vr=False, little_endian=True, enforce_file_format=False
    )
    return to_bytes(before) + raw + tail.getvalue()


def write_pet(pile):
    """Write two slices whose slopes differ."""
    people = draw_people(pile.markers)
    for number in (1, 2):
        ds = make_instance(instance=number, Modality="PT", SOPClassUID=PT)
        plant_people(ds, pile.markers, people)
        ds.RescaleSlope, ds.Units = 0.5 * number, "BQML"
        pile.write("stored", file_of(ds, pile.markers))


def write_rejected(pile):
    markers = pile.markers
    kinds = (
        {"Modality": "US", "SOPClassUID": US},
        {"ImageType": ["DERIVED", "SECONDARY"]},
        {"BurnedInAnnotation": "YES"},
        {"PhotometricInterpretation": "RGB"},
        {"StudyInstanceUID": None},
    )
    for elements in kinds:
        people, shared = draw_people(markers), ({}, {})
        ds = make_instance()
        plant_everything(ds, markers, people, shared)
        for keyword, value in elements.items():
            if value is None:
                delattr(ds, keyword)
            else:
                setattr(ds, keyword, value)
        pile.write("rejected", file_of(ds, markers))
    write_conflict(pile)
    lone = make_instance(ConversionType=markers.word(), ModalityLUTSequence=[Dataset()])
    plant_people(lone, markers, draw_people(markers))
    lone.ModalityLUTSequence[0].LUTExplanation = markers.word()
    pile.write("rejected", file_of(lone, markers))


def write_conflict(pile):
    """Write two pairs that share SOP Instance UIDs: one of equal pixels, one not."""
    for purpose, step in (("duplicate", 0), ("rejected", 1)):
        ds = single(pile.markers)
        pile.write("stored" if not step else purpose, file_of(ds, pile.markers))
        ds.PatientComments = pile.markers.word()
        ds.PixelData = (np.frombuffer(ds.PixelData, np.int16) + step).tobytes()
        pile.write(purpose, file_of(ds, pile.markers))


def write_skipped(pile):
    for sop_class, modality in ((SR, "SR"), (PDF, "DOC")):
        ds = single(pile.markers, SOPClassUID=sop_class, Modality=modality)
        del ds.PixelData, ds.Rows, ds.Columns
        ds.file_meta.MediaStorageSOPClassUID = sop_class
        content = Dataset()
        content.TextValue = pile.markers.word()
        content.PersonName = pile.markers.word()
        ds.ContentSequence = [content]
        put(ds, 0x00420011, "OB", b"%PDF " + pile.markers.word().encode() + b" ")
        ds.DocumentTitle = pile.markers.word()
        pile.write("skipped", to_bytes(ds))


DAMAGED = (
    (0x00281053, "DS"),
    (0x00281052, "DS"),
    (0x00280030, "DS"),
    (0x00200032, "DS"),
    (0x00200013, "IS"),
    (0x00280008, "IS"),
    (0x00280010, "US"),
    (0x00080020, "DA"),
    (0x00080030, "TM"),
    (0x0008002A, "DT"),
    (0x00101010, "AS"),
    (0x0020000D, "UI"),
    (0x00080018, "UI"),
    (0x00080060, "CS"),
    (0x00280004, "CS"),
    (0x00080005, "CS"),
    (0x00189087, "FD"),
    (0x00409096, "SQ"),
    (0x00289110, "SQ"),
    (0x00280120, "UN"),
)


def write_broken(pile):
    markers = pile.markers
    for tag, vr in DAMAGED:
        ds = single(markers)
        if tag in ds:
            del ds[tag]
        raw = explicit(tag, vr, markers.word().encode() + b"Z")
        pile.write("any", with_element(ds, tag, raw))
    whole = file_of(single(markers, PatientComments=markers.word()), markers)
    for stop in (100, 140, 300, 600, len(whole) - 300, len(whole) - 40):
        pile.write("any", whole[:stop])
    pile.write("any", whole[:400] + markers.word().encode() * 9 + whole[400:])
    bare = whole[132:200] + markers.word().encode() * 40
    pile.write("broken", bare)
    pile.write("broken", markers.word().encode() * 99, suffix=".txt")
    pile.write("broken", b"")
    pile.write("broken", zipped(markers, whole), suffix=".zip")
    no_uid = single(markers)
    no_uid.file_meta.TransferSyntaxUID = f"1.2.3.{markers.number()}"
    pile.write("broken", file_of_unknown(no_uid))
    name = os.fsencode(pile.root) + b"/\xe9\xff" + markers.word().encode()
    with open(name, "wb") as file:
        file.write(file_of(single(markers), markers))


def file_of_unknown(ds):
    """Return a file of a transfer syntax that nobody knows."""
    buffer = io.BytesIO()
    pydicom.dcmwrite(
        buffer, ds, implicit_vr=False, little_endian=True, enforce_file_format=False
    )
    return buffer.getvalue()


def zipped(markers, data):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(markers.word(), data)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def pile(tmp_path_factory):
    made = Pile(tmp_path_factory.mktemp("pile"), Markers())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_stored(made)
        write_rejected(made)
        write_skipped(made)
        write_broken(made)
    return made


def test_many_markers_are_planted(pile):
    raw = b"".join(path.read_bytes() for path in pile.root.rglob("*") if path.is_file())
    assert len(pile.markers.words & set(MARKER.findall(raw))) >= 4000
    digits = {text.encode() for text in pile.markers.texts if text.isdecimal()}
    assert len(digits & set(re.findall(rb"\d+", raw))) >= 120


# --- converting ---------------------------------------------------------------


class Told:
    """All that a run told: logs, warnings, errors and what went to Dask."""

    def __init__(self):
        self.text, self.graphs, self.keys = [], [], []

    def note(self, *texts):
        self.text.extend(map(str, texts))


@contextmanager
def listening(told):
    """Hear every log, every warning and every bag."""

    class Handler(logging.Handler):
        def emit(self, record):
            formatter = logging.Formatter("%(name)s %(message)s")
            told.note(formatter.format(record), record.__dict__)

    handler, root = Handler(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    patch = pytest.MonkeyPatch()
    for name in ("index_bag", "resolve_bag", "plan_bag", "encode_bag"):
        patch.setattr(pipeline, name, telling(getattr(pipeline, name), told))
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        told.note(*caught)
    finally:
        patch.undo()
        root.removeHandler(handler)
        root.setLevel(level)


def telling(build, told):
    def call(elements, **options):
        bag = build(elements, **options)
        graph = dict(bag.dask)
        told.keys += [str(key) for key in graph]
        told.graphs.append(pickle.dumps(graph))
        told.note(graph, bag)
        return bag

    return call


@pytest.fixture(scope="module")
def run(pile, tmp_path_factory, key_file):
    """Convert the pile in this process."""
    store, told = tmp_path_factory.mktemp("out") / "a.zarr", Told()
    with listening(told):
        told.summary = dicomdask.convert(
            str(pile.root),
            str(store),
            key_file=str(key_file),
            scheduler="synchronous",
            progress=told.note,
        )
    told.note(told.summary, dicomdask.open_dataset(str(store)))
    told.store, told.work = store, Path(f"{store}.work")
    return told


def all_bytes(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
    }


def decoded(folder):
    """Yield all that is in a store or in parts once it is decoded."""
    for path in folder.rglob("*.parquet"):
        table = pq.read_table(path)
        rows = table.to_pylist()
        text = json.dumps(rows, ensure_ascii=False, default=repr)
        yield path.name, text.encode()
        for row in rows:
            for value in row.values():
                yield path.name, value.encode() if isinstance(value, str) else b""
        yield path.name, repr(table.schema.metadata).encode()
    for path in folder.rglob("*.json"):
        text = json.dumps(json.loads(path.read_bytes()), ensure_ascii=False)
        yield path.name, text.encode()


def arrays_of(store):
    group = zarr.open_group(store / "volumes", mode="r", use_consolidated=False)
    members = dict(group.members(max_depth=None))
    return {
        name: member[...]
        for name, member in members.items()
        if isinstance(member, zarr.Array)
    }


def assert_clean(markers, named):
    """Search all contents at once, and only if something is there one by one."""
    named = [(os.fsencode(name), content) for name, content in named]
    everything = b"\n".join(part for pair in named for part in pair)
    if markers.find(everything):
        leaks = [(name, markers.find(name + b"\n" + data)) for name, data in named]
        assert [(name, found) for name, found in leaks if found] == []
        pytest.fail("a marker is spread over two objects")


# --- the searches -------------------------------------------------------------


def test_the_pile_is_stored_rejected_and_skipped(run, pile):
    counts = run.summary.commit.counts
    assert counts["inputs"] == sum(pile.count.values()) + 1  # the strange name
    assert counts["stored"] >= pile.count["stored"]
    assert counts["rejected"] >= pile.count["rejected"] + pile.count["broken"]
    assert counts["skipped"] >= pile.count["skipped"]
    assert counts["duplicate"] == 1


def test_what_is_meant_to_be_stored_is(run, pile, key):
    inputs = dicomdask.open_dataset(str(run.store)).inputs
    found = dict(zip(inputs["source_key"], inputs["code"], strict=True))
    wrong = {
        path.parent.name: found[key_of(path, key)]
        for path in pile.root.rglob("stored *")
        if found[key_of(path, key)] not in {"stored", "duplicate"}
    }
    assert not wrong


def key_of(path, key):
    return plan.source_key(str(path), key)


def test_no_byte_of_the_store(run, pile):
    assert_clean(pile.markers, all_bytes(run.store).items())


def test_no_decoded_byte_of_the_store(run, pile):
    assert_clean(pile.markers, decoded(run.store))
    for name, values in arrays_of(run.store).items():
        assert not pile.markers.find(values.tobytes()), name


def test_no_text_in_unused_bits(run, pile):
    instances = dicomdask.open_dataset(str(run.store)).volumes
    [row] = [row for _, row in instances.iterrows() if row["Modality"] == "MR"]
    values = dicomdask.open_dataset(str(run.store)).read(row["volume_id"])
    expected = np.arange(192, dtype=np.uint16).reshape(16, 12) * 21
    assert np.array_equal(values.reshape(16, 12), expected)
    for name, array in arrays_of(run.store).items():
        bits = np.abs(array.astype(np.int64)).reshape(-1)
        halves = [bits >> shift & 15 for shift in (0, 4, 8, 12)]
        for half in halves:
            paired = half[: len(half) // 2 * 2].reshape(-1, 2)
            text = (paired[:, 0] << 4 | paired[:, 1]).astype(np.uint8).tobytes()
            assert not pile.markers.find(text), name


def test_no_receipt_and_no_part(run, pile):
    for name in ("receipts", "parts", "log"):
        folder = run.work / name
        assert all_bytes(folder)
        assert_clean(pile.markers, all_bytes(folder).items())
        assert_clean(pile.markers, decoded(folder))


def test_no_log_no_warning_no_graph(run, pile):
    names = {key.split("-")[0] for key in run.keys}
    assert names == {"('index", "('resolve", "('plan", "('encode"}
    assert not pile.markers.find_in_text("\n".join((*run.text, *run.keys)))
    for graph in run.graphs:
        assert not pile.markers.find(graph)


def test_task_keys_name_functions_and_numbers_only(run):
    names = re.compile(r"\('[a-z]+-[0-9a-f]{32}', \d+\)")
    assert run.keys
    assert [key for key in run.keys if not names.fullmatch(key)] == []


CREDENTIALS = ("planted-wJalrXUtnFEMI-K7MDENG", "planted-token-of-the-store-8c1f")
"""What the environment of the cluster holds besides."""


def assert_keyless(*contents):
    raw = bytes.fromhex(SECRET)
    for content in contents:
        assert not [one for one in CREDENTIALS if one.encode() in content]
        assert SECRET.encode() not in content
        assert raw not in content
        assert base64.b64encode(SECRET.encode())[:-4] not in content


def test_the_key_is_nowhere(run):
    assert_keyless(*all_bytes(run.store).values(), *all_bytes(run.work).values())
    assert_keyless(*(content for _, content in decoded(run.store)))
    assert_keyless(*(content for _, content in decoded(run.work)))
    assert_keyless(*run.graphs, *(text.encode() for text in (*run.text, *run.keys)))


# --- faults -------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError, OSError, KeyError, RuntimeError])
@pytest.mark.parametrize(
    "place", ["header.read_instance", "pixels.decode", "deid.clean_header"]
)
def test_an_error_that_holds_a_value(
    error, place, series, tmp_path, convert, monkeypatch
):
    markers, told = Markers(), Told()
    word = markers.word()
    room, name = place.split(".")

    def fail(*_):
        logging.getLogger("pydicom").error(word)
        warnings.warn(word, stacklevel=1)
        raise error(f"{word} is no good")

    home = {
        "header": header,
        "pixels": pixels.FrameDecoder,
        "deid": encode.deid,
    }[room]
    monkeypatch.setattr(home, name, fail)
    store = tmp_path / "store.zarr"
    with listening(told):
        try:
            told.note(convert(series, store).commit)
        except DicomDaskError:
            told.note(traceback.format_exc())
    assert told.text
    assert not markers.find_in_text("\n".join(told.text))
    assert_clean(markers, all_bytes(store).items() if store.exists() else ())
    work = Work(f"{store}.work")
    parts = work.manifest_parts()
    outcomes = [one for part in parts for one in work.read_outcomes(part)]
    assert not markers.find_in_text(repr(outcomes))


def test_an_error_of_storage_while_writing(series, tmp_path, convert, monkeypatch):
    markers, original = Markers(), storage.write
    folder = tmp_path / markers.word()
    series.rename(folder)

    def fail(url, data):
        if "/c/" in url:
            raise OSError(28, "No space left on device")
        original(url, data)

    monkeypatch.setattr(storage, "write", fail)
    told = Told()
    with listening(told), pytest.raises(StoreError, match="no space") as raised:
        convert(folder, tmp_path / "store.zarr")
    told.note(raised.value)
    assert not markers.find_in_text("\n".join(told.text))


# --- a cluster ----------------------------------------------------------------


@pytest.fixture(scope="module")
def clustered(pile, tmp_path_factory, key_file):
    """Convert the pile with the command, through two workers; keep all they say."""
    out = tmp_path_factory.mktemp("cluster")
    store, told = out / "a.zarr", Told()
    options = {"file": {"token": CREDENTIALS[1]}}
    environment = {
        **os.environ,
        "AWS_SECRET_ACCESS_KEY": CREDENTIALS[0],
        "DICOMDASK_STORAGE_OPTIONS": json.dumps(options),
        "PYTHONWARNINGS": "always",
        "DASK_LOGGING__DISTRIBUTED": "debug",
        "DASK_DISTRIBUTED__ADMIN__LOG_LENGTH": "100000",
    }
    log = out / "scheduler.log"
    with log.open("wb") as file:
        scheduler = subprocess.Popen(
            [sys.executable, "-c", CLUSTER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            env=environment,
        )
        try:
            address = scheduler.stdout.readline().decode().strip()
            code = "from dicomdask.cli import main; main()"
            command = [sys.executable, "-c", code, "convert"]
            options = ["--key-file", str(key_file), "--scheduler", address, "-v"]
            options.append("--insecure-scheduler")
            told.done = subprocess.run(
                [*command, str(pile.root), str(store), *options],
                capture_output=True,
                env=environment,
                check=False,
            )
            told.story, _ = scheduler.communicate(b"\n", timeout=60)
        finally:
            scheduler.kill()
            scheduler.wait()
    told.log = log.read_bytes()
    told.store, told.work = store, Path(f"{store}.work")
    return told


CLUSTER = """
import sys, distributed
if __name__ == "__main__":
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None
    ) as cluster, distributed.Client(cluster) as client:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.readline()
        scheduler = cluster.scheduler
        print("TRANSITIONS", list(scheduler.transition_log))
        print("EVENTS", {key: list(value) for key, value in
            scheduler._broker._topics.items()} if hasattr(scheduler, "_broker")
            else dict(scheduler.events))
        print("LOGS", client.get_worker_logs(), client.get_scheduler_logs())
        print("STREAM", client.get_task_stream())
"""


def test_a_cluster_is_told_nothing(clustered, pile):
    assert clustered.done.returncode == 8, clustered.done.stderr.decode()
    assert b"encode-" in clustered.story
    for text in (
        clustered.done.stdout,
        clustered.done.stderr,
        clustered.story,
        clustered.log,
    ):
        assert not pile.markers.find(text)
        assert_keyless(text)


def test_a_cluster_writes_the_same_bytes(clustered, run):
    def content(store):
        found = all_bytes(store)
        return {name: found[name] for name in found if "commits" not in name}

    assert content(clustered.store) == content(run.store)


def test_no_byte_of_what_a_cluster_wrote(clustered, pile):
    assert_clean(pile.markers, all_bytes(clustered.store).items())
    for name in ("receipts", "parts"):
        assert_clean(pile.markers, all_bytes(clustered.work / name).items())
        assert_clean(pile.markers, decoded(clustered.work / name))
    assert_keyless(*all_bytes(clustered.store).values())
    assert_keyless(*all_bytes(clustered.work).values())


def test_a_task_that_fails_on_a_worker_names_no_value(pile, tmp_path):
    """What Dask logs of a failing task are its key and its arguments."""
    bag = pipeline.encode_bag([[("00000", 0, 1)]], work_url=str(tmp_path / "none"))
    with (
        distributed.Client(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
        ) as client,
        pytest.raises(StoreError, match="not a work directory"),
    ):
        client.compute(bag.to_delayed()[0]).result()
