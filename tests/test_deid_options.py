"""Every row of table E.1-1 with every option, repeating groups and private elements.

What is expected is read from the columns of the table, not from the policy.
"""

import io

import pydicom
import pytest
from pydicom import DataElement, Dataset, Sequence
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicomdask.deid import clean_header, header_json
from dicomdask.deid.words import clean_text, identity_words
from dicomdask.policy import OPTION_CODES, load_policy, table_rows, vocabulary
from dicomdask.policy.data import safe_private
from dicomdask.policy.decide import SHARED_DATES
from dicomdask.pseudonym import Key
from dicomdask.standard import build
from tests.builders import make_instance

KEY = Key(b"0123456789abcdef")
BINARY = {"OB", "OD", "OF", "OL", "OV", "OW", "UN"}
TEXT = {"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"}
DATES = {"DA", "DT", "TM"}
SAMPLES = {
    **dict.fromkeys(TEXT, "CHEST Zaphod"),
    "AS": "042Y",
    "DA": "20200229",
    "DT": "20200229235959.5",
    "TM": "235959.5",
    "DS": "4242.25",
    "IS": "4242",
    "UI": "1.2.3.4242",
    "US": 4242,
    "UL": 4242,
    "FD": 4242.25,
    "OB": b"Zaphod",
    "UN": b"Zaphod",
}
NUMBERS = {"DS": 4242.25, "IS": 4242, "US": 4242, "UL": 4242, "FD": 4242.25}
ROWS = [
    row
    for row in table_rows()
    if row.tag.isalnum()
    and not {"x", "p"} & set(row.tag)
    and keyword_for_tag(int(row.tag, 16))
    and int(row.tag, 16) >> 16 >= 8
]
KEPT_ALWAYS = {"PatientID", "PatientName", "AccessionNumber"}


def element_of(tag):
    vr = dictionary_VR(tag)
    if vr == "SQ":
        item = Dataset()
        item.PatientComments, item.Rows = "Zaphod", 7
        return DataElement(tag, vr, Sequence([item]))
    return DataElement(tag, vr, SAMPLES[vr], already_converted=True)


def found_at(tag, policy):
    inner = Dataset()
    inner[tag] = element_of(tag)
    return header_json(clean_header(inner, policy, KEY)).get(f"{tag:08X}")


@pytest.mark.parametrize("option", OPTION_CODES)
def test_every_row_with_every_option(option):
    basic, policy = load_policy("basic"), load_policy("basic", options=[option])
    for row in ROWS:
        tag, code = int(row.tag, 16), row.options.get(option)
        found = found_at(tag, policy)
        if code is None or row.keyword in KEPT_ALWAYS:
            assert found == found_at(tag, basic), row.keyword
        elif dictionary_VR(tag) in BINARY:
            assert found is None, row.keyword
        elif code == "K":
            check_kept(row, found)
        else:
            check_cleaned(row, found)


def check_kept(row, found):
    vr = dictionary_VR(int(row.tag, 16))
    if vr == "SQ":
        assert found["Value"] == [{"00280010": {"vr": "US", "Value": [7]}}], row.keyword
    elif row.keyword == "TimezoneOffsetFromUTC":
        assert found is None
    elif vr == "PN":
        assert found["Value"] == [{"Alphabetic": SAMPLES[vr]}], row.keyword
    else:
        wanted = NUMBERS.get(vr, SAMPLES[vr])
        assert found == {"vr": vr, "Value": [wanted]}, row.keyword


def check_cleaned(row, found):
    vr = dictionary_VR(int(row.tag, 16))
    if vr in DATES:
        if row.keyword in SHARED_DATES:
            assert found is None
        elif vr == "TM":
            assert found["Value"] == ["235959.5"]
        else:
            assert found["Value"][0][:8] < "20200229", row.keyword
    elif row.keyword == "TimezoneOffsetFromUTC":
        assert found is None
    elif vr == "SQ":
        assert found["Value"] == [{"00280010": {"vr": "US", "Value": [7]}}], row.keyword
    elif vr in TEXT:
        name = {"Alphabetic": "CHEST"} if vr == "PN" else "CHEST"
        assert found["Value"] == [name], row.keyword
    else:
        assert found is None, row.keyword


def test_each_option_changes_something_and_has_its_code():
    codes = {load_policy("basic", options=[one]).codes[1][0] for one in OPTION_CODES}
    of_header = {f"11310{n}" for n in range(3, 10)} | {"113110", "113111", "113112"}
    assert of_header <= codes <= of_header | OF_PIXELS
    columns = {name for row in table_rows() for name in row.options}
    found = {name for name, (code, _) in OPTION_CODES.items() if code not in OF_PIXELS}
    assert columns == found


OF_PIXELS = {"113101", "113102"}
"""Clean Pixel Data, Clean Recognizable Visual Features: no columns of the table."""


def test_every_option_of_one_kind_at_once():
    names = [name for name in OPTION_CODES if "full-dates" not in name]
    policy = load_policy("research", options=names)
    ds = make_instance(
        DeviceSerialNumber="SN 12",
        DateOfLastCalibration="20200101",
        InstitutionName="Clinic",
        PatientAge="093Y",
        SeriesDescription="T2 AX BRAIN Zaphod",
    )
    cleaned = clean_header(ds, policy, KEY)
    assert cleaned.DeviceSerialNumber == "SN 12"
    assert "DateOfLastCalibration" not in cleaned  # shared by many patients
    assert cleaned.InstitutionName == "Clinic"
    assert cleaned.PatientAge == "089Y"
    assert cleaned.SeriesDescription == "T2 AX BRAIN"
    assert cleaned.SOPInstanceUID == ds.SOPInstanceUID
    assert cleaned.PatientID != ds.PatientID
    assert len(cleaned.DeidentificationMethodCodeSequence) == len(names) + 1


@pytest.mark.parametrize("group", [0x5000, 0x501E, 0x6000, 0x6002, 0x601E])
@pytest.mark.parametrize("option", [*OPTION_CODES, None])
def test_repeating_groups_go(group, option):
    policy = load_policy("basic", options=[option] if option else [])
    ds = Dataset()
    for element, vr, value in (
        (0x0022, "LO", "Zaphod"),
        (0x3000, "OW", b"Zaphod"),
        (0x4000, "LT", "Zaphod"),
        (0x0010, "US", 4),
    ):
        ds[group, element] = DataElement((group, element), vr, value)
    header = header_json(clean_header(ds, policy, KEY))
    assert not [tag for tag in header if tag.startswith(f"{group:04X}")]
    assert policy.decision((group << 16) + 0x3000, "OW").action == "X"


SAFE = load_policy("research", options=["retain-safe-private"])


def private(group, creator, *elements):
    ds = make_instance()
    block = ds.private_block(group, creator, create=True)
    for offset, vr, value in elements:
        block.add_new(offset, vr, value)
    return ds


def test_the_private_list_is_that_of_the_standard():
    creators = {row.creator for row in safe_private()}
    assert {"SIEMENS MR HEADER", "GEMS_PARM_01", "Philips Imaging DD 001"} <= creators
    assert len(safe_private()) == 130
    assert all(row.group % 2 for row in safe_private())


FRAMED = """
   .. table:: Safe Private Attributes

      +-------------+------------+----+----+---------+
      | **Data      | **Private  |**VR|**VM|**Meaning|
      | Element**   | Creator**  |**  |**  |**       |
      +=============+============+====+====+=========+
      | (7FD1,xx0A) | SIEMENS    | OB | 1  | Padding |
      |             | SYNGO      |    |    |         |
      |             | ULTRA-     |    |    |         |
      |             | SOUND      |    |    |         |
      +-------------+------------+----+----+---------+
      | (0119,xx11) | SIEMENS    |    | 1-n|         |
      |             | Ultrasound |    |    |         |
      +-------------+------------+----+----+---------+

   2. Another | note
"""


def test_the_private_list_is_read_from_the_text_of_the_standard():
    assert list(build.private_rows(FRAMED)) == [
        ("7fd1", "0a", "SIEMENS SYNGO ULTRA-SOUND", "OB", "1"),
        ("0119", "11", "SIEMENS Ultrasound", "", "1-n"),
    ]
    assert list(build.private_rows("no table")) == []


def test_safe_private_elements_stay_with_their_creator():
    ds = private(0x0019, "SIEMENS MR HEADER", (0x0C, "IS", 1000), (0x0A, "IS", 3))
    cleaned = clean_header(ds, SAFE, KEY)
    assert cleaned[0x00190010].value == "SIEMENS MR HEADER"
    assert cleaned[0x0019100C].value == 1000
    assert 0x0019100A not in cleaned
    assert 0x0019100C not in clean_header(ds, load_policy("research"), KEY)


@pytest.mark.parametrize(
    ("creator", "offset", "vr", "value"),
    [
        ("ACME", 0x0C, "IS", 1000),
        ("SIEMENS MR HEADER ", 0x99, "IS", 1000),
        ("SIEMENS MR HEADER", 0x0D, "CS", "ZAPHOD"),
        ("SIEMENS MR HEADER", 0x0C, "LO", "Zaphod"),
        ("SIEMENS MR HEADER", 0x0C, "UN", b"Zaphod"),
    ],
)
def test_other_private_elements_go(creator, offset, vr, value):
    cleaned = clean_header(private(0x0019, creator, (offset, vr, value)), SAFE, KEY)
    assert not [element for element in cleaned if element.tag.is_private]


def test_safe_private_elements_deep_inside():
    outer = make_instance()
    inner = private(0x2001, "Philips Imaging DD 001", (0x03, "FL", 800.0))
    del inner.file_meta, inner.PixelData
    outer.DerivationImageSequence = [inner]
    item = clean_header(outer, SAFE, KEY).DerivationImageSequence[0]
    assert item[0x20011003].value == 800.0


SC2000 = "SIEMENS Ultrasound SC2000"


def in_private_sequence(tag, creator, inner):
    """Return a data set as it is read: with the VR SQ, and with UN."""
    ds = make_instance()
    ds.add_new((tag >> 16, 0x0010), "LO", creator)
    ds.add_new(tag, "SQ", [inner])
    for uid in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        ds.file_meta.TransferSyntaxUID = uid
        buffer = io.BytesIO()
        ds.save_as(buffer, enforce_file_format=True)
        yield pydicom.dcmread(io.BytesIO(buffer.getvalue()))


def test_safe_private_sequences_are_looked_into():
    inner = private(0x0129, SC2000, (0x07, "UI", "1.2.3.4"), (0x08, "OB", b"Zaphod"))
    del inner.file_meta, inner.PixelData
    inner.PatientComments = "Zaphod"
    inner.private_block(0x0029, "ACME", create=True).add_new(1, "LO", "Zaphod")
    for ds in in_private_sequence(0x01291006, SC2000, inner):
        cleaned = clean_header(ds, SAFE, KEY)
        [item] = cleaned[0x01291006].value
        assert cleaned[0x01290010].value == SC2000
        assert item[0x01291007].value == KEY.uid("1.2.3.4")
        assert item.Rows == inner.Rows
        assert 0x01291008 not in item  # nobody can tell what is in bytes
        assert "Zaphod" not in str(cleaned)
        assert 0x01291006 not in clean_header(ds, load_policy("research"), KEY)
    for ds in in_private_sequence(0x01291006, "ACME", inner):
        assert 0x01291006 not in clean_header(ds, SAFE, KEY)


def test_what_is_listed_as_no_sequence_is_none():
    ds = private(0x0129, SC2000, (0x07, "SQ", [Dataset()]), (0x00, "LO", "Zaphod"))
    cleaned = clean_header(ds, SAFE, KEY)
    assert not [element for element in cleaned if element.tag.is_private]


@pytest.mark.parametrize(
    ("vr", "value", "stays"),
    [
        ("FD", 2.5, True),
        ("FD", [90.0, 97.0], False),
        ("LO", "Zaphod", False),
        ("DS", "2.5", False),
        ("UN", b"Zaphod", False),
    ],
)
def test_of_what_is_listed_without_a_vr_one_number_stays(vr, value, stays):
    cleaned = clean_header(private(0x0119, SC2000, (0x11, vr, value)), SAFE, KEY)
    assert (0x01191011 in cleaned) == stays


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("CHEST W/O CONTRAST 5.0 mm", "CHEST W/O CONTRAST 5.0 mm"),
        ("t2_tse_ax_320", "t2 tse ax 320"),
        ("MR. Zaphod Brain", "MR. Brain"),
        ("Brain (Dr. House) 12/03/1970", "Brain"),
        ("12 03 1970", ""),
        ("415 555 2671", ""),
        ("AX T1-FLAIR", "AX T1-FLAIR"),
        ("id B1234567 b800", "b800"),
        ("ΩΨ head", "head"),
        ("", ""),
    ],
)
def test_descriptions_keep_the_words_that_name_nobody(text, wanted):
    assert clean_text(text, frozenset()) == wanted


def test_a_word_that_names_somebody_in_the_same_header_goes():
    policy = load_policy("research", options=["clean-descriptors"])
    ds = make_instance(PatientName="Brain^Chest", SeriesDescription="AX BRAIN CHEST")
    assert clean_header(ds, policy, KEY).SeriesDescription == "AX"
    assert identity_words(["Brain^A-12"]) == {"BRAIN", "12"}


def test_text_that_is_kept_is_read_in_its_character_set():
    policy = load_policy("basic", options=["retain-institution-identity"])
    name = "Spital Zürich"
    ds = make_instance(SpecificCharacterSet="ISO_IR 100", InstitutionName=name)
    assert clean_header(ds, policy, KEY).InstitutionName == name


def test_every_tag_of_the_options_is_known():
    assert (
        tag_for_keyword("PatientAge")
        in load_policy("basic", options=["retain-patient-characteristics"]).actions
    )
    assert vocabulary().knows("Modality", "CS")


def test_safe_private_numbers_are_no_more_than_listed():
    ds = private(0x0025, "GEMS_SERS_01", (0x07, "SL", [20817, 21313]))
    assert 0x00251007 not in clean_header(ds, SAFE, KEY)
    ds = private(0x0025, "GEMS_SERS_01", (0x07, "SL", 124))
    assert clean_header(ds, SAFE, KEY)[0x00251007].value == 124
