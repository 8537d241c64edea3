"""What is written without pydicom is read by pydicom as what was meant."""

import io

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import DataElement, Dataset, Sequence
from pydicom.multival import MultiValue
from pydicom.uid import ExplicitVRLittleEndian

from dicomdask.deid import clean_file
from dicomdask.deid.written import write_file
from dicomdask.policy import load_policy
from dicomdask.pseudonym import Key
from tests.builders import make_instance, to_bytes

TEXT = st.text("aZ9 éñλЖ山", max_size=9).map(str.strip)
VALUES = {
    0x00081030: ("LO", TEXT),
    0x00104000: ("LT", TEXT),
    0x00280010: ("US", st.integers(0, 65535)),
    0x00280106: ("SS", st.integers(-32768, 32767)),
    0x00189073: ("FD", st.floats(allow_nan=False)),
    0x00180050: ("DS", st.decimals(0, 99, places=3).map(str)),
    0x00200013: ("IS", st.integers(0, 99999).map(str)),
    0x00080008: ("CS", st.lists(st.sampled_from(["A", "BC", "DEF"]), min_size=2)),
    0x00209165: ("AT", st.integers(0x00080001, 0x7FFFFFFF)),
    0x00080018: ("UI", st.just("1.2.3")),
    0x00281201: ("OW", st.binary().map(lambda b: b + b[: len(b) % 2])),
}


@st.composite
def datasets(draw, depth=2):
    ds = Dataset()
    for tag in draw(st.sets(st.sampled_from(list(VALUES)))):
        vr, values = VALUES[tag]
        value = draw(st.none() | values)
        ds[tag] = DataElement(tag, vr, value, already_converted=vr != "AT")
    if depth:
        items = draw(st.lists(datasets(depth=depth - 1), max_size=2))
        ds[0x00082112] = DataElement(0x00082112, "SQ", Sequence(items))
    return ds


@pytest.mark.filterwarnings("ignore")
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=50)
@given(datasets())
def test_pydicom_reads_what_was_written(ds):
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3.4"
    ds.SpecificCharacterSet = "ISO_IR 192"
    read = pydicom.dcmread(io.BytesIO(write_file(ds, ExplicitVRLittleEndian)))
    assert texts(read) == texts(ds)
    assert read.file_meta.MediaStorageSOPInstanceUID == "1.2.3.4"
    assert read.preamble == bytes(128)


def texts(ds):
    found = {}
    for element in ds:
        if element.VR == "SQ":
            found[element.tag] = [texts(item) for item in element.value]
        elif element.VR == "OW":
            found[element.tag] = bytes(element.value or b"")
        else:
            parts = element.value
            is_many = isinstance(parts, list | MultiValue)
            parts = list(parts) if is_many else [parts]
            found[element.tag] = [
                "" if part is None else str(part).strip() for part in parts
            ]
    return found


def test_long_values_of_short_vrs_are_written_as_the_standard_says():
    ds = make_instance()
    ds.add_new(0x00183106, "DS", ["1.2345678901234"] * 5000)
    read = pydicom.dcmread(io.BytesIO(write_file(ds, ExplicitVRLittleEndian)))
    assert len(bytes(read.get_item(0x00183106).value).split(b"\\")) == 5000


LONG = {
    "PixelSpacing": ["0.666666686534882", "0.699987828731537"],
    "ImagePositionPatient": ["-92.1514204800838", "-153.6", "-1.26848431786451E-05"],
    "ImageOrientationPatient": ["1", "0.0000000000000000", "0", "0", "1", "0"],
    "SliceThickness": ["2.50000000000000000000"],
}


def test_decimals_of_more_digits_than_there_may_be_are_rounded_and_not_lost():
    dataset = pydicom.dcmread(io.BytesIO(to_bytes(make_instance())))
    for keyword, texts_ in LONG.items():
        tag = pydicom.tag.Tag(keyword)
        dataset[tag] = DataElement(tag, "DS", texts_, already_converted=True)
    dataset = pydicom.dcmread(io.BytesIO(to_bytes(dataset)))
    made = clean_file(dataset, load_policy("research"), Key(b"0123456789abcdef"))
    read = pydicom.dcmread(io.BytesIO(made.data))
    for keyword, texts_ in LONG.items():
        found = bytes(read.get_item(keyword).value).decode().strip().split("\\")
        assert max(map(len, found)) <= 16
        wanted = list(map(float, texts_))
        assert list(map(float, found)) == pytest.approx(wanted, rel=1e-9, abs=1e-15)
        for short, text in zip(found, texts_, strict=True):
            assert short == text or len(text) > 16
