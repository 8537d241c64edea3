"""A pile of files full of markers: what is stored, rejected, skipped and broken."""

import binascii
import io
import os
import struct
import warnings
import zipfile

import numpy as np
import pydicom
from pydicom import Dataset, FileMetaDataset
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from tests.builders import make_instance, make_series, to_bytes
from tests.markers import (
    LETTERS,
    MR,
    PDF,
    PT,
    SR,
    US,
    Markers,
    draw_people,
    explicit,
    file_of,
    hidden_sequence,
    plant_everything,
    plant_file_meta,
    plant_people,
    plant_structures,
    put,
)


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


def write_pile(root):
    """Write all of it below a folder."""
    pile = Pile(root, Markers())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_stored(pile)
        write_rejected(pile)
        write_skipped(pile)
        write_broken(pile)
    return pile
