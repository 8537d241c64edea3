"""Markers drawn at test time, planted everywhere: none may come out."""

import io
import json
import secrets
import struct

import pytest
from pydicom import DataElement, Dataset, Sequence, dcmread
from pydicom.datadict import DicomDictionary

from dicomdask.deid import clean_header, header_json
from dicomdask.deid.clean import MAX_DEPTH
from dicomdask.errors import InputError
from dicomdask.policy import load_policy
from dicomdask.pseudonym import Key
from tests.builders import make_instance, to_bytes

KEY = Key(b"0123456789abcdef")
POLICIES = [load_policy("research"), load_policy("basic")]
TEXT_VRS = {"AE", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT", "CS"}
CHARSETS = {
    "ISO_IR 192": ("utf-8", "Ω山"),
    "GB18030": ("gb18030", "王"),
    "ISO_IR 166": ("tis_620", "ก"),
    "ISO_IR 144": ("iso8859_5", "Люк"),
    "ISO_IR 101": ("iso8859_2", "ő"),
}


class Markers:
    """Draw unique markers and look for them."""

    def __init__(self):
        self.drawn = []

    def draw(self):
        self.drawn.append(f"Q{secrets.token_hex(4).upper()}")
        return self.drawn[-1]

    def check(self, ds):
        for policy in POLICIES:
            try:
                text = json.dumps(
                    header_json(clean_header(ds, policy, KEY)), ensure_ascii=False
                )
            except InputError as error:
                text = f"{error!r} {error.__context__!r} {error.__cause__!r}"
            leaked = [marker for marker in self.drawn if marker in text]
            assert self.drawn
            assert not leaked


@pytest.fixture
def markers():
    return Markers()


def raw(ds):
    return dcmread(io.BytesIO(to_bytes(ds)))


def put(ds, tag, vr, value):
    ds[tag] = DataElement(tag, vr, value, already_converted=True)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("depth", [0, 3])
def test_every_text_attribute_of_the_dictionary(markers, depth):
    ds = Dataset()
    for tag, (vr, *_, keyword) in DicomDictionary.items():
        if vr in TEXT_VRS and tag >> 16 >= 8 and tag != 0x00080005 and keyword:
            put(ds, tag, vr, markers.draw())
    markers.check(nest(ds, depth))


def nest(ds, depth):
    for _ in range(depth):
        ds = make_instance(PixelData=None, DerivationImageSequence=[ds])
    return ds


@pytest.mark.parametrize(
    "keyword",
    [
        "ConvolutionKernel",
        "WindowCenterWidthExplanation",
        "RetrieveURL",
        "DocumentTitle",
        "ManufacturerModelName",
        "SoftwareVersions",
        "SequenceName",
        "StationName",
        "DeviceSerialNumber",
        "BodyPartExamined",
        "ImageType",
        "ProtocolName",
        "CodeMeaning",
        "StackID",
    ],
)
def test_free_text_in_a_file(markers, keyword):
    ds = make_instance(**{keyword: markers.draw()})
    markers.check(raw(ds))
    markers.check(raw(nest(ds, 3)))


@pytest.mark.parametrize("charset", CHARSETS)
def test_character_sets(markers, charset):
    encoding, letters = CHARSETS[charset]
    ds = make_instance(SpecificCharacterSet=charset)
    for keyword in ("PatientName", "PatientComments", "SeriesDescription"):
        setattr(ds, keyword, letters + markers.draw())
    ds.PatientID = letters + markers.draw()
    markers.drawn.append(letters)
    assert letters.encode(encoding) in to_bytes(ds)
    markers.check(raw(ds))


def test_iso_2022_escapes(markers):
    ds = make_instance(SpecificCharacterSet=["", "ISO 2022 IR 87"])
    ds.PatientName = f"{markers.draw()}=山田^{markers.draw()}"
    ds.ConvolutionKernel = f"山{markers.draw()}"
    markers.drawn.append("山")
    markers.check(raw(ds))


def test_private_overlays_curves_icons_and_documents(markers):
    ds = make_instance()
    block = ds.private_block(0x0029, markers.draw(), create=True)
    block.add_new(1, "LO", markers.draw())
    block.add_new(2, "OB", markers.draw().encode() + b" ")
    item = Dataset()
    item.PatientComments = markers.draw()
    block.add_new(3, "SQ", Sequence([item]))
    for tag, vr in ((0x60000022, "LO"), (0x60001500, "LO"), (0x60024000, "LT")):
        put(ds, tag, vr, markers.draw())
    put(ds, 0x00100012, "LT", markers.draw())  # Name to Use
    put(ds, 0x60003000, "OW", markers.draw().encode() + b" ")
    put(ds, 0x50000022, "LO", markers.draw())
    put(ds, 0x00420011, "OB", markers.draw().encode() + b" ")
    icon = make_instance(PatientComments=markers.draw(), ManufacturerModelName="Aera")
    del icon.file_meta
    ds.IconImageSequence = [icon]
    markers.check(raw(ds))
    assert "IconImageSequence" not in clean_header(raw(ds), POLICIES[0], KEY)


def explicit(tag, vr, value):
    value += b" " * (len(value) % 2)
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode())
    long = vr in {"OB", "OW", "UN", "SQ", "UT", "UC", "UR"}
    return head + (struct.pack("<xxI" if long else "<H", len(value))) + value


def implicit(tag, value):
    value += b" " * (len(value) % 2)
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value


def with_bytes(*elements):
    """Return a dataset read from a file that ends with hand-made elements."""
    ds = make_instance(PixelData=None)
    return dcmread(io.BytesIO(to_bytes(ds) + b"".join(elements)))


DAMAGED = [
    (0x00281050, "DS"),
    (0x00281050, "LO"),
    (0x00281053, "UN"),
    (0x00280034, "IS"),
    (0x00280103, "LO"),
    (0x00281055, "UN"),
    (0x00281054, "LO"),
    (0x00282110, "CS"),
    (0x00289999, "UN"),
    (0x00289110, "SQ"),
    (0x00289110, "UN"),
    (0x00321064, "SQ"),
    (0x00400244, "DA"),
    (0x00400254, "OB"),
    (0x00400555, "UN"),
    (0x00409096, "LT"),
    (0x00880140, "UI"),
    (0x20500020, "CS"),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("tag", "vr"), DAMAGED)
def test_damaged_bytes_in_any_element(markers, tag, vr):
    ds = with_bytes(explicit(tag, vr, markers.draw().encode()))
    markers.check(ds)
    if tag >> 16 != 0x0028 or vr != "LO" or tag != 0x00280103:
        assert clean_header(ds, POLICIES[0], KEY).Rows == 16


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("names", ["implicit", "explicit"])
def test_sequence_hidden_in_un(markers, names):
    text = markers.draw().encode()
    inner = (
        implicit(0x00104000, text) + implicit(0x00181210, text)
        if names == "implicit"
        else explicit(0x00104000, "LT", text) + explicit(0x00181210, "SH", text)
    )
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
    markers.check(with_bytes(explicit(0x00289110, "UN", item)))


def test_known_sequence_hidden_in_un_is_still_cleaned():
    uid = b"1.2.3.4\0"
    inner = implicit(0x00081155, uid)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
    ds = with_bytes(explicit(0x00289145, "UN", item))
    cleaned = clean_header(ds, POLICIES[0], KEY)
    found = cleaned[0x00289145].value[0].ReferencedSOPInstanceUID
    assert found == KEY.uid("1.2.3.4")


def test_very_deep_nesting_ends(markers):
    ds = Dataset()
    ds.PatientComments, ds.Rows = markers.draw(), 1
    markers.check(nest(ds, 40))
    cleaned = clean_header(nest(ds, 40), POLICIES[0], KEY)
    depth = 0
    while "DerivationImageSequence" in cleaned:
        cleaned, depth = cleaned.DerivationImageSequence[0], depth + 1
    assert depth == MAX_DEPTH


@pytest.mark.parametrize("tag", [0x00189087, 0x00280010, 0x00189073, 0x00280120])
def test_letters_are_no_number(markers, tag):
    word = markers.draw().encode()[:8]
    ds = with_bytes(explicit(tag, "UN", word))
    found = clean_header(ds, POLICIES[0], KEY).get_item(tag)
    assert found is None or found.value == 16  # Rows as they are in the file
    markers.check(ds)
