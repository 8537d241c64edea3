"""Plain data sets are what pydicom makes of them, element by element."""

import io
from typing import Any

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from dicomdask.header.plain import read_plain
from tests.builders import make_instance, to_bytes
from tests.test_pixels import dev_files, quietly

PLAIN = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
STATE = ("original_encoding", "original_character_set", "preamble", "filename")


def described(dataset: FileDataset) -> dict[str, Any]:
    """Return all that can be told of a data set before its elements are converted."""
    found = {name: getattr(dataset, name) for name in STATE}
    elements = [
        (type(one), tuple(one) if isinstance(one, RawDataElement) else one)
        for one in dataset.values()
    ]
    kept = sorted(vars(dataset))
    return found | {"meta": dataset.file_meta, "elements": elements, "kept": kept}


def by_pydicom(data: bytes) -> FileDataset:
    return pydicom.dcmread(io.BytesIO(data), force=True)


def is_plain(data: bytes) -> bool:
    """Tell whether a file is read as plain; then it is as pydicom reads it."""
    with quietly():
        found = read_plain(data)
        if found is not None:
            assert described(found) == described(by_pydicom(data))
    return found is not None


def test_real_files_are_read_as_by_pydicom() -> None:
    assert sum(is_plain(path.read_bytes()) for path in dev_files()) > 100


@pytest.mark.parametrize("syntax", PLAIN)
@pytest.mark.parametrize("charset", ["ISO_IR 144", "", None])
def test_plain_files_are(syntax: str, charset: str | None) -> None:
    ds = make_instance(transfer_syntax=syntax, SpecificCharacterSet=charset)
    ds.PatientName, ds.StudyDescription = "Ж", ""
    with quietly():
        assert is_plain(to_bytes(ds))


@pytest.mark.parametrize(
    "syntax", [DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian]
)
def test_other_syntaxes_are_left_to_pydicom(syntax: str) -> None:
    assert not is_plain(to_bytes(make_instance(transfer_syntax=syntax)))


def test_so_is_what_is_compressed_or_of_undefined_length() -> None:
    ds = make_instance()
    ds.compress(RLELossless)
    assert not is_plain(to_bytes(ds))
    ds = make_instance()
    ds.add_new(0x00081140, "SQ", [pydicom.Dataset()])
    ds["ReferencedImageSequence"].is_undefined_length = True
    assert not is_plain(to_bytes(ds))


@pytest.mark.parametrize("syntax", PLAIN)
def test_so_is_what_is_cut(syntax: str) -> None:
    data = to_bytes(make_instance(transfer_syntax=syntax))
    is_pixels = len(data) - 16 * 12 * 2
    for stop in (is_pixels + 10, 200, 140, 100, 0):
        assert not is_plain(data[:stop])


@given(
    syntax=st.sampled_from(PLAIN),
    changes=st.lists(st.tuples(st.integers(128, 900), st.integers(0, 255)), max_size=4),
    stop=st.integers(0, 1600),
)
@settings(max_examples=400, deadline=None)
def test_damaged_files_are_plain_only_if_pydicom_reads_them_alike(
    syntax: str, changes: list[tuple[int, int]], stop: int
) -> None:
    data = bytearray(to_bytes(make_instance(transfer_syntax=syntax)))
    for place, value in changes:
        data[place] = value
    try:
        is_plain(bytes(data[: stop or None]))
    except AssertionError:
        raise
    except Exception as ours:  # noqa: BLE001
        with quietly(), pytest.raises(type(ours)):
            by_pydicom(bytes(data[: stop or None]))
