"""One case per keyword and action; every row of table E.1-1, at the top and nested."""

import pytest
from pydicom import DataElement, Dataset, Sequence
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.uid import CTImageStorage

from dicomdask.deid import clean_header, header_json
from dicomdask.deid.codes import is_public_code
from dicomdask.errors import InputError
from dicomdask.policy import CHARACTERISTICS, FULL_DATES, load_policy, table_rows
from dicomdask.pseudonym import Key
from tests.builders import make_instance

KEY = Key(b"0123456789abcdef")
LIVER = "Liver structure (body structure)"
RESEARCH = load_policy("research")
SAMPLES = {
    **dict.fromkeys(("AE", "LO", "SH", "ST", "LT", "UC", "UT", "PN", "CS"), "Zaphod"),
    "AS": "042Y",
    "DA": "20200229",
    "DT": "20200229235959.5",
    "TM": "235959.5",
    "DS": "4242.25",
    "IS": "4242",
    "UI": "1.2.3.4242",
    "UR": "http://Zaphod",
    "US": 4242,
    "UL": 4242,
    "FD": 4242.25,
    "OB": b"Zaphod",
    "UN": b"Zaphod",
}
PLAIN = [row for row in table_rows() if row.tag.isdigit() or row.tag.isalnum()]
ROWS = [
    row
    for row in PLAIN
    if "x" not in row.tag
    and row.tag != "private"
    and keyword_for_tag(int(row.tag, 16))
    and int(row.tag, 16) >> 16 >= 8
]


def clean(policy=RESEARCH, key=KEY, **elements):
    return clean_header(make_instance(**elements), policy, key)


def sample(tag):
    vr = dictionary_VR(tag)
    if vr == "SQ":
        item = Dataset()
        item.PatientComments, item.ReferencedSOPInstanceUID = "Zaphod", "1.2.3.4242"
        return DataElement(tag, vr, Sequence([item]))
    return DataElement(tag, vr, SAMPLES[vr], already_converted=True)


def nested(dataset, element, depth):
    for _ in range(depth):
        outer = Dataset()
        outer.DerivationImageSequence = [dataset]
        dataset = outer
    return dataset


@pytest.mark.parametrize("depth", [0, 3])
@pytest.mark.parametrize("policy", ["research", "basic"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.keyword)
def test_every_row_of_the_table(row, policy, depth):
    tag = int(row.tag, 16)
    inner = Dataset()
    inner[tag] = sample(tag)
    chosen = load_policy(policy)
    header = header_json(clean_header(nested(inner, tag, depth), chosen, KEY))
    for _ in range(depth):
        header = header.get("00089124", {"Value": [{}]})["Value"][0]
    check(header.get(f"{tag:08X}"), chosen.actions.get(tag, "X"), dictionary_VR(tag))


def check(found, action, vr):
    assert "Zaphod" not in str(found)
    assert "4242" not in str(found)
    if vr == "SQ":
        expected = action == "U"
        assert (found is not None) is expected
    elif action == "X":
        assert found is None
    elif action == "Z":
        assert found == {"vr": vr}
    elif action == "C":
        check_shifted(found, vr)
    else:
        assert found is not None


def check_shifted(found, vr):
    if vr == "TM":
        assert found["Value"] == ["235959.5"]
    elif vr in {"DA", "DT"}:
        value = found["Value"][0]
        assert value[:8] < "20200229"
        assert value[8:] == ("235959.5" if vr == "DT" else "")


@pytest.mark.parametrize(
    ("keyword", "value", "wanted"),
    [
        ("Rows", 16, 16),
        ("SliceThickness", "2.50", 2.5),
        ("InstanceNumber", "7", 7),
        ("ConvolutionKernel", "B30f", "B30f"),
        ("ConvolutionKernel", "John Smith", None),
        ("ImageType", ["ORIGINAL", "SMITH", "AXIAL"], ["ORIGINAL", "", "AXIAL"]),
        ("BodyPartExamined", "CHEST", "CHEST"),
        ("BodyPartExamined", "SMITH", None),
        (
            "WindowCenterWidthExplanation",
            ["WINDOW1", "WINDOW2"],
            ["WINDOW1", "WINDOW2"],
        ),
        ("Manufacturer", "SIEMENS", "SIEMENS"),
        ("SOPClassUID", CTImageStorage, CTImageStorage),
        ("TimezoneOffsetFromUTC", "+0100", "+0100"),
        ("TimezoneOffsetFromUTC", "Vienna", None),
        ("SeriesDescription", "AXIAL", None),
        ("PatientAge", "042Y", None),
        ("PatientBirthDate", "19700102", None),
    ],
)
def test_values(keyword, value, wanted):
    assert clean(**{keyword: value}).get(keyword) == wanted


@pytest.mark.parametrize(
    ("age", "wanted"),
    [("042Y", "042Y"), ("089Y", "089Y"), ("095Y", "089Y"), ("003D", "003D")],
)
def test_ages_are_capped_where_they_stay(age, wanted):
    policy = load_policy("research", options=[CHARACTERISTICS])
    assert clean(policy, PatientAge=age).PatientAge == wanted
    assert clean(policy, PatientAge=age, PatientSex="F").PatientSex == "F"


def test_basic_removes_dates_and_says_so():
    cleaned = clean(load_policy("basic"), SeriesDate="20200229")
    assert not cleaned.StudyDate
    assert not cleaned.StudyTime
    assert "SeriesDate" not in cleaned
    assert cleaned.LongitudinalTemporalInformationModified == "REMOVED"


def test_full_dates_stay():
    cleaned = clean(load_policy("basic", options=[FULL_DATES]))
    assert cleaned.StudyDate == "20200229"
    assert cleaned.LongitudinalTemporalInformationModified == "UNMODIFIED"


def test_what_was_done_is_said():
    cleaned = clean()
    assert cleaned.PatientIdentityRemoved == "YES"
    assert cleaned.LongitudinalTemporalInformationModified == "MODIFIED"
    items = cleaned.DeidentificationMethodCodeSequence
    assert [item.CodeValue for item in items] == ["113100", "113107"]
    assert len(cleaned.DeidentificationMethod) <= 64


def test_policy_none_keeps_all_but_pixels():
    ds = make_instance(SeriesDescription="knee")
    ds.private_block(0x0009, "ACME", create=True).add_new(1, "LO", "mine")
    cleaned = clean_header(ds, load_policy("none"), KEY)
    assert cleaned.SeriesDescription == "knee"
    assert cleaned.PatientID == "PAT0001"
    assert cleaned[0x00091001].value == "mine"
    assert "PixelData" not in cleaned
    assert "PatientIdentityRemoved" not in cleaned
    assert header_json(cleaned)["00100010"]["Value"] == [
        {"Alphabetic": "Family1^Given"}
    ]


def code(value, scheme, meaning="Zaphod"):
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = (
        value,
        scheme,
        meaning,
    )
    return item


@pytest.mark.parametrize(
    ("value", "scheme", "meaning"),
    [
        ("10200004", "SCT", LIVER),
        ("T-62000", "SRT", LIVER),
        ("113076", "DCM", "Segmentation"),
    ],
)
def test_public_codes_stay_with_the_meaning_of_the_dictionary(value, scheme, meaning):
    [item] = clean(AnatomicRegionSequence=[code(value, scheme)]).AnatomicRegionSequence
    assert (item.CodeValue, item.CodingSchemeDesignator) == (value, scheme)
    assert item.CodeMeaning == meaning


@pytest.mark.parametrize(
    ("value", "scheme"),
    [("12345678", "SCT"), ("SMITH", "UCUM"), ("121322", "99LOCAL"), ("SMITH", "DCM")],
)
def test_other_codes_go(value, scheme):
    assert "AnatomicRegionSequence" not in clean(
        AnatomicRegionSequence=[code(value, scheme)]
    )


def test_dataset_with_code_value_at_the_root_keeps_the_rest():
    cleaned = clean(CodeValue="SMITH", CodingSchemeDesignator="DCM")
    assert cleaned.Rows == 16
    assert "CodeValue" not in cleaned


def test_more_numbers_than_there_may_be_go():
    ds = make_instance()
    ds.add_new(0x00280120, "SS", [20817, 21313, 17236])
    ds.add_new(0x00189087, "FD", [1.0, 2.0])
    cleaned = clean_header(ds, RESEARCH, KEY)
    assert "PixelPaddingValue" not in cleaned
    assert "DiffusionBValue" not in cleaned


def test_numbers_that_json_lacks_are_dropped():
    ds = clean(DiffusionBValue=float("nan"), SpacingBetweenSlices="1")
    header = header_json(ds)
    assert header["00189087"] == {"vr": "FD"}
    assert header["00180088"] == {"vr": "DS", "Value": [1.0]}
    assert header["00280030"] == {"vr": "DS", "Value": [0.5, 0.75]}
    assert list(header) == sorted(header)


def test_damaged_identity_is_an_error_without_value_or_chain(monkeypatch):
    def broken(*args, **kwargs):
        raise ValueError("Zaphod")

    monkeypatch.setattr("dicomdask.deid.clean.decoded", broken)
    with pytest.raises(InputError) as caught:
        clean()
    assert caught.value.code == "deid-failed"
    assert caught.value.__context__ is None
    assert "Zaphod" not in str(caught.value)


def test_tag_of_a_table_row_resolves():
    assert tag_for_keyword("PatientID") in RESEARCH.actions


@pytest.mark.parametrize(
    "unit",
    """
    mm cm2 mm3 ml g g/ml kg/m2 /min {SUVbw}g/ml g/ml{SUVbw} cm2/ml{SUVbsa} {pixels}
    {ratio} % [hnsf'U] mm[Hg] ms 1 1/s mm2/s um2/ms 10*-6.mm2/s 10*6/ml ml/100ml/s
    mmol/l Bq/ml kBq/ml dB deg kV mA.s
    """.split(),  # noqa: SIM905
)
def test_units_of_measurements_stay(unit):
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = unit, "UCUM", "x"
    outer = Dataset()
    outer.MeasurementUnitsCodeSequence = [item]
    [cleaned] = clean_header(outer, RESEARCH, KEY).MeasurementUnitsCodeSequence
    assert cleaned.CodeValue == unit
    assert cleaned.CodeMeaning != "x"


@pytest.mark.parametrize(
    "unit",
    [
        "{Zaphod}",
        "g{Zaphod}",
        "Zaphod",
        "mm Zaphod",
        "12345678",
        "123",
        "am.as.d.h.d.a",
    ],
)
def test_other_units_go(unit):
    assert not is_public_code(unit, "UCUM")
