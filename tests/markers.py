"""Markers drawn at test time: planted wherever DICOM has room, found however coded."""

import base64
import binascii
import re
import secrets
import struct
from functools import cache

from pydicom import DataElement, Dataset, Sequence
from pydicom.datadict import DicomDictionary

from dicomdask.pseudonym import MAX_SHIFT_DAYS
from tests.builders import make_instance, to_bytes

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
