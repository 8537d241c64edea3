"""Relations that hold between instances after de-identification."""

import copy
import io
import os
from datetime import date, timedelta

import pytest
from pydicom import DataElement, Dataset, dcmread

from dicomdask.deid import clean_header, header_json
from dicomdask.errors import InputError
from dicomdask.policy import load_policy, vocabulary
from dicomdask.pseudonym import Key
from tests.builders import make_instance, to_bytes

KEY = Key(b"0123456789abcdef")
RESEARCH = load_policy("research")


def clean(ds, key=KEY):
    return clean_header(ds, RESEARCH, key)


def days(text):
    return date(int(text[:4]), int(text[4:6]), int(text[6:8]))


def test_same_patient_same_pseudonym():
    one, two = (clean(make_instance(study=study)) for study in (1, 2))
    assert one.PatientID == two.PatientID == one.PatientName
    assert one.StudyInstanceUID != two.StudyInstanceUID


def test_patients_differ_by_number_issuer_and_study():
    cleaned = [
        clean(make_instance(patient=1)),
        clean(make_instance(patient=2)),
        clean(make_instance(IssuerOfPatientID="other")),
        clean(make_instance(PatientID="")),
        clean(make_instance(PatientID="", study=2)),
        clean(make_instance(), Key(b"another key of 16")),
    ]
    assert len({ds.PatientID for ds in cleaned}) == len(cleaned)


def test_missing_patient_id_gets_the_pseudonym_of_the_study():
    absent, empty = (clean(make_instance(PatientID=value)) for value in (None, ""))
    assert absent.PatientID == empty.PatientID


def test_other_key_other_uids_and_dates():
    one, two = (clean(make_instance(), k) for k in (KEY, Key(b"another key of 16")))
    assert one.SOPInstanceUID != two.SOPInstanceUID
    assert one.StudyDate != two.StudyDate


def test_references_resolve():
    first = make_instance(instance=1)
    item = Dataset()
    item.ReferencedSOPClassUID = first.SOPClassUID
    item.ReferencedSOPInstanceUID = first.SOPInstanceUID
    second = clean(make_instance(instance=2, ReferencedImageSequence=[item]))
    [reference] = second.ReferencedImageSequence
    assert reference.ReferencedSOPInstanceUID == clean(first).SOPInstanceUID
    assert reference.ReferencedSOPClassUID == first.SOPClassUID


def test_accession_numbers_join():
    one, two, other = (
        clean(make_instance(patient=p, AccessionNumber=number))
        for p, number in ((1, "A1"), (2, "A1 "), (1, "A2"))
    )
    assert one.AccessionNumber == two.AccessionNumber != other.AccessionNumber
    assert not clean(make_instance(AccessionNumber="")).AccessionNumber


def test_intervals_are_exact_across_midnight_and_leap_days():
    ds = make_instance(
        StudyDate="20200228",
        SeriesDate="20200301",
        AcquisitionDateTime="20200228235959.999999+0100",
        FrameReferenceDateTime="20200229000000.000001+0100",
    )
    cleaned = clean(ds)
    assert days(cleaned.SeriesDate) - days(cleaned.StudyDate) == timedelta(days=2)
    before, after = cleaned.AcquisitionDateTime, cleaned.FrameReferenceDateTime
    assert days(after) - days(before) == timedelta(days=1)
    assert (before[8:], after[8:]) == ("235959.999999+0100", "000000.000001+0100")
    assert days(cleaned.StudyDate) < date(2020, 2, 28)


def test_shift_is_the_same_for_all_studies_of_a_patient():
    one = clean(make_instance(StudyDate="20200101"))
    two = clean(make_instance(StudyDate="20210101", study=2))
    assert (days(two.StudyDate) - days(one.StudyDate)).days == 366


@pytest.mark.parametrize("text", ["20200230", "2020", "SMITH", "00010101"])
def test_dates_that_cannot_be_shifted_go(text):
    data = to_bytes(make_instance()).replace(b"20200229", f"{text:8}".encode())
    assert "StudyDate" not in clean(dcmread(io.BytesIO(data)))


@pytest.mark.parametrize("text", ["10:11:12", "SMITH", "99", "101112.1234567"])
def test_times_that_do_not_parse_go(text):
    ds = make_instance()
    ds["StudyTime"] = DataElement(0x00080030, "TM", text, already_converted=True)
    assert "StudyTime" not in clean(ds)


def test_input_is_not_changed():
    built, file = make_instance(), to_bytes(make_instance())
    before = copy.deepcopy(built)
    clean(built)
    assert built == before
    read = dcmread(io.BytesIO(file))
    clean(read)
    assert all(read.get_item(tag).is_raw for tag in (0x00100010, 0x00080020))
    assert read == dcmread(io.BytesIO(file))


def test_file_and_dataset_give_the_same_header():
    ds = make_instance(ImageType=["ORIGINAL", "SMITH"], PixelPaddingValue=-1)
    read = dcmread(io.BytesIO(to_bytes(ds)))
    assert header_json(clean(ds)) == header_json(clean(read))


def identifying_texts(ds):
    for element in ds.iterall():
        if element.VR == "PN" or element.keyword in {
            "PatientID",
            "InstitutionName",
            "InstitutionAddress",
            "AccessionNumber",
            "StudyDescription",
            "SeriesDescription",
            "StationName",
            "DeviceSerialNumber",
        }:
            yield from (str(part) for part in [element.value] if part)


@pytest.mark.skipif(
    "DICOMDASK_TEST_DATA" not in os.environ, reason="DICOMDASK_TEST_DATA is not set"
)
@pytest.mark.filterwarnings("ignore")
def test_real_files_leak_no_identifying_text():
    count = 0
    for folder, _, names in os.walk(os.environ["DICOMDASK_TEST_DATA"]):
        for name in names:
            count += check_file(os.path.join(folder, name))
    assert count > 0


def check_file(path):
    try:
        ds = dcmread(path, stop_before_pixels=True)
    except Exception:  # noqa: BLE001
        return 0
    try:
        header = header_json(clean(ds))
    except InputError:
        return 1
    kept = set(values(header))
    leaks = [text for text in texts_of(ds) if any(holds(v, text) for v in kept)]
    assert not leaks, path
    return 1


def texts_of(ds):
    """Return the identifying texts of a file that no vocabulary holds."""
    known = frozenset.union(vocabulary().common, *vocabulary().terms.values())
    try:
        texts = set(identifying_texts(ds))
    except Exception:  # noqa: BLE001
        return set()
    return {text for text in texts if len(text) >= 4 and text.upper() not in known}


def holds(value, text):
    return text == value if text.isdigit() else text in value


def values(header):
    for tag, element in header.items():
        if tag == "00080104":  # a code's meaning comes from the public dictionary
            continue
        for value in element.get("Value", ()):
            if element["vr"] == "SQ":
                yield from values(value)
            elif isinstance(value, str):
                yield value
