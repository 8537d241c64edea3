"""The technical attributes of CT, MR, DX, MG, US and PT stay, module by module."""

import csv
from collections import defaultdict

import pytest
from pydicom import Dataset
from pydicom.datadict import dictionary_VR, tag_for_keyword

from dicomdask.deid import clean_header, header_json
from dicomdask.policy import load_policy, retained, table_rows, vocabulary
from dicomdask.pseudonym import Key
from dicomdask.standard import build

KEY = Key(b"0123456789abcdef")
RESEARCH = load_policy("research")
TABLE = {row.keyword for row in table_rows()}
COMMON = """
    common-instance-reference device frame-of-reference general-acquisition
    general-equipment general-image general-reference general-series image-pixel
    specimen voi-lut
"""
X_RAY = """
    acquisition-context contrast-bolus display-shutter dx-anatomy-imaged dx-detector
    dx-image dx-positioning dx-series image-histogram intervention
    x-ray-acquisition-dose x-ray-collimator x-ray-filtration x-ray-generation
    x-ray-grid x-ray-tomography-acquisition
"""
MODULES = {
    "CT": "contrast-bolus ct-image image-plane multi-energy-ct-image synchronization",
    "MR": "contrast-bolus image-plane mr-image",
    "DX": X_RAY,
    "MG": X_RAY + " mammography-image mammography-series",
    "US": "cine contrast-bolus frame-extraction frame-pointers icc-profile multi-frame "
    "palette-color-lookup-table synchronization us-image us-region-calibration",
    "PT": "acquisition-context image-plane nm-pet-patient-orientation pet-image "
    "pet-isotope pet-multi-gated-acquisition pet-series synchronization",
}
"""The modules of PS3.3 annex A without those of patients, studies and trials, and
without overlays."""
ELSEWHERE = {
    "PixelData",
    "PixelDataProviderURL",
    "SpecificCharacterSet",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "EncapsulatedPixelDataValueTotalLength",
    "IconImageSequence",
    "DeviceID",
    "GridID",
    "LocalNamespaceEntityID",
    "UniversalEntityID",
    "NTPSourceAddress",
    "OverlaySubtype",
}
"""What is no header attribute, is written anew, or names a device, an institution or a
server and says nothing of a technique."""
CODES = {"CodeValue", "LongCodeValue", "CodingSchemeDesignator", "CodeMeaning"}
"""Public codes come through; other tests hold that."""
SAMPLES = {
    **dict.fromkeys(("US", "SS", "UL", "SL", "US or SS"), 3),
    **dict.fromkeys(("FL", "FD"), 2.5),
    **dict.fromkeys(("UI",), "1.2.3"),
    "DS": "2.5",
    "IS": "3",
    "CS": "YES",
    "AT": 0x00181063,
}


def attributes_by_module():
    lines = build.MODULES.read_text().splitlines()[1:]
    found = defaultdict(set)
    for row in csv.DictReader(lines):
        found[row["module"]].add(row["keyword"])
    return found


def stays(keyword):
    """Tell whether some value of an attribute outside the table stays."""
    tag = tag_for_keyword(keyword)
    if RESEARCH.actions.get(tag, "X") == "X":
        return False
    vr = dictionary_VR(tag)
    is_text = vr in {"LO", "SH", "ST", "LT", "UC", "UT", "UR"}
    return not is_text or keyword in CODES or vocabulary().knows(keyword, vr)


@pytest.mark.parametrize("modality", MODULES)
def test_most_of_what_the_standard_lets_stay_stays(modality):
    modules = attributes_by_module()
    names = {*COMMON.split(), *MODULES[modality].split()}
    assert names <= set(modules)
    allowed = set.union(*(modules[name] for name in names)) - TABLE - ELSEWHERE
    kept = {keyword for keyword in allowed if stays(keyword)}
    print(modality, len(kept), "of", len(allowed), sorted(allowed - kept))
    assert len(allowed) > 150
    assert len(kept) >= 0.95 * len(allowed), sorted(allowed - kept)


def test_kept_numbers_codes_and_uids_come_through():
    for one in retained():
        vr = dictionary_VR(tag_for_keyword(one.keyword))
        if vr in SAMPLES and one.option is None and one.group != "codes":
            ds = Dataset()
            ds.add_new(tag_for_keyword(one.keyword), vr.split(" ")[0], SAMPLES[vr])
            header = header_json(clean_header(ds, RESEARCH, KEY))
            assert f"{tag_for_keyword(one.keyword):08X}" in header, one.keyword


def test_no_list_holds_names_dates_or_what_the_table_decides():
    for one in retained():
        vr = dictionary_VR(tag_for_keyword(one.keyword))
        assert one.keyword not in TABLE, one.keyword
        assert vr not in {"PN", "DA", "DT", "TM", "AE", "AS", "UR"}, one.keyword
        free = vr in {"LO", "SH", "ST", "LT", "UC", "UT"}
        assert not free or one.group == "codes" or vocabulary().knows(one.keyword, vr)


def test_each_attribute_is_listed_once():
    listed = [one.keyword for one in retained()]
    assert len(listed) == len(set(listed))


def test_characteristics_outside_the_table_need_their_option():
    ds = Dataset()
    ds.PatientBodyMassIndex = "22.5"
    policy = load_policy("research", options=["retain-patient-characteristics"])
    assert "PatientBodyMassIndex" not in clean_header(ds, RESEARCH, KEY)
    assert clean_header(ds, policy, KEY).PatientBodyMassIndex == 22.5
