"""Table E.1-1 as the shipped policies hold it, and what a policy may be asked."""

import csv
import json
import pickle
from pathlib import Path

import pytest
from pydicom.datadict import tag_for_keyword

from dicomdask.errors import PolicyError
from dicomdask.policy import (
    FULL_DATES,
    POLICIES,
    describe,
    load_policy,
    patient_identity,
    table_rows,
    vocabulary,
)
from dicomdask.standard import build

MODIFIED = "113107"


def action(policy, keyword, vr="LO"):
    return policy.action(tag_for_keyword(keyword), vr, private=False)


def test_table_names_its_edition_and_has_every_row():
    lines = Path(build.TARGET).read_text(encoding="utf-8").splitlines()
    assert "PS3.15 2024e" in lines[0]
    assert tuple(next(csv.reader(lines[1:]))) == build.HEADER
    assert len(table_rows()) == 621
    assert len({row.tag for row in table_rows()}) == 621
    assert {"50xxxxxx", "60xx3000", "60xx4000", "private"} <= {
        row.tag for row in table_rows()
    }


def test_build_writes_rows_in_order_of_tags(tmp_path, monkeypatch):
    rows = [
        {"name": "B\n", "id": "00100020", "basicProfile": "Z"},
        {"name": "A", "id": "00080050", "basicProfile": "X", "rtnUIDsOpt": "K"},
    ]
    name = "confidentiality_profile_attributes.json"
    (tmp_path / name).write_text(json.dumps(rows))
    words = [{"id": "00100020", "keyword": "PatientID"}]
    (tmp_path / "attributes.json").write_text(json.dumps(words))
    monkeypatch.setattr(build, "TARGET", tmp_path / "table.csv")
    build.main(str(tmp_path))
    body = (tmp_path / "table.csv").read_text().splitlines()[2:]
    assert body == ["00080050,A,A,X,,K" + "," * 8, "00100020,PatientID,B,Z" + "," * 10]


def test_codes_are_exactly_what_is_applied():
    assert [c for c, _ in load_policy("research").codes] == ["113100", MODIFIED]
    assert [c for c, _ in load_policy("basic").codes] == ["113100"]
    assert load_policy("none").codes == ()


@pytest.mark.parametrize(
    ("name", "options", "wanted"),
    [
        ("policy.yaml", (), "a policy file that ends with .toml"),
        ("basic", ("retain-names",), FULL_DATES),
        ("none", (FULL_DATES,), "not supported with policy none"),
        ("research", (FULL_DATES,), "either modified or full"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(name, options, wanted):
    with pytest.raises(PolicyError, match=wanted):
        load_policy(name, options=options)


def test_digest_changes_with_everything_that_changes_outputs():
    policies = [
        *(load_policy(name) for name in POLICIES),
        load_policy("basic", options=[FULL_DATES]),
        load_policy("research", trusted_pixels=["US"]),
    ]
    assert len({policy.digest for policy in policies}) == len(policies)
    assert load_policy("research").digest == load_policy("research").digest


def test_policy_travels():
    policy = load_policy("research", trusted_pixels=["us"])
    assert pickle.loads(pickle.dumps(policy)) == policy
    assert policy.trusted_pixels == ("US",)


@pytest.mark.parametrize(
    ("keyword", "vr", "basic", "research"),
    [
        ("StudyDate", "DA", "Z", "C"),
        ("SeriesDate", "DA", "X", "C"),
        ("PatientBirthDate", "DA", "Z", "Z"),
        ("DateOfLastCalibration", "DA", "X", "X"),
        ("ContextGroupVersion", "DT", "Z", "X"),
        ("FrameOriginTimestamp", "OB", "X", "X"),
        ("EncapsulatedDocument", "OB", "X", "X"),
        ("PatientID", "LO", "D", "D"),
        ("AccessionNumber", "SH", "D", "D"),
        ("StudyID", "SH", "Z", "Z"),
        ("InstitutionName", "LO", "X", "X"),
        ("StudyInstanceUID", "UI", "U", "U"),
        ("ReferencedImageSequence", "SQ", "U", "U"),
        ("ContentSequence", "SQ", "U", "U"),
        ("IconImageSequence", "SQ", "X", "X"),
        ("Rows", "US", "K", "K"),
        ("RetrieveURL", "UR", "X", "X"),
        ("PixelData", "OW", "X", "X"),
    ],
)
def test_actions(keyword, vr, basic, research):
    assert action(load_policy("basic"), keyword, vr) == basic
    assert action(load_policy("research"), keyword, vr) == research


@pytest.mark.parametrize("tag", [0x60003000, 0x50003000, 0x00020010, 0x00080000, 0x1])
def test_overlays_curves_meta_and_lengths_go(tag):
    assert load_policy("research").action(tag, "OW", private=False) == "X"


def test_private_and_claimed_dates_go():
    policy = load_policy("research")
    assert policy.action(0x00280010, "US", private=True) == "X"
    assert policy.action(0x00290010, "LO", private=False) == "X"
    assert action(policy, "StudyDate", "LO") == "X"


def test_describe_tells_every_row():
    rows = describe(load_policy("research"))
    assert ("StudyDate", "C") in [row[:2] for row in rows]
    assert ("Rows", "K") in [row[:2] for row in rows]
    assert rows[-1] == ("*", "X", "not listed")


def test_identity_is_issuer_and_number_else_the_study():
    assert patient_identity(" 1 ", None, "1.2") == patient_identity("1", "", "3.4")
    assert patient_identity("1", "A", "1.2") != patient_identity("1", "B", "1.2")
    assert patient_identity("", None, "1.2") != patient_identity(None, None, "3.4")
    assert patient_identity("", "A", "1.2\0") == patient_identity(None, None, "1.2")
    assert patient_identity("1", None, "1.2") != patient_identity(None, None, "1")


@pytest.mark.parametrize(
    ("keyword", "vr", "text", "kept"),
    [
        ("ConvolutionKernel", "SH", "B30f", True),
        ("ConvolutionKernel", "SH", "Standard", True),
        ("ConvolutionKernel", "SH", "SMITH JOHN", False),
        ("ManufacturerModelName", "LO", "SOMATOM Definition AS+", True),
        ("ManufacturerModelName", "LO", "SIGNA SMITH", False),
        ("SoftwareVersions", "LO", "syngo MR E11", True),
        ("SoftwareVersions", "LO", "12.03.1970", False),
        ("SequenceName", "SH", "*fl3d1", True),
        ("SequenceName", "SH", "smith", False),
        ("BodyPartExamined", "CS", "chest", True),
        ("BodyPartExamined", "CS", "SMITH", False),
        ("SeriesDescription", "LO", "YES", False),
        ("DiffusionDirectionality", "CS", "BMATRIX", True),
        ("FrameType", "CS", "FMRI", True),
        ("ImageType", "CS", "HELIX", True),
        ("ApplicableSafetyStandardAgency", "CS", "IEC", True),
        ("VolumeBasedCalculationTechnique", "CS", "MAX_IP", True),
        ("RespiratorySignalSource", "CS", "BELT", True),
        ("PatientPosition", "CS", "BELT", False),
        ("ManufacturerModelName", "LO", "MAGNETOM Prisma Fit", True),
        ("ManufacturerModelName", "LO", "MAGNETOM Prisma Smith", False),
    ],
)
def test_vocabulary(keyword, vr, text, kept):
    assert vocabulary().allows(keyword, vr, text) is kept
