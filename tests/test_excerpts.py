"""Excerpts: what is read from one is what is read from the whole header."""

import io
from collections.abc import Callable
from typing import Any

import pydicom
import pytest
from pydicom import Dataset

from dicomdask.errors import InputError
from dicomdask.pixels import FrameDecoder, excerpt, read_meaning, tags_of
from dicomdask.pixels.form import read_form
from dicomdask.tasks.said import read_said
from tests.builders import make_instance, to_bytes
from tests.test_pixels import dev_files, quietly


def meaning(dataset: Dataset) -> Any:
    return read_meaning(dataset, FrameDecoder(dataset), 0)


READERS: dict[str, Callable[[Dataset], Any]] = {
    "form": read_form,
    "meaning": meaning,
    "said": read_said,
}


def parsed(data: bytes) -> Dataset:
    return pydicom.dcmread(io.BytesIO(data), force=True)


def converted(data: bytes) -> Dataset:
    """Return a data set of which no excerpt can be taken: all is in another form."""
    dataset = parsed(data)
    for _ in dataset:
        pass
    return dataset


def outcome(read: Callable[[Dataset], Any], dataset: Dataset) -> Any:
    try:
        return read(dataset)
    except InputError as error:
        return error.code
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return type(error)


@pytest.mark.parametrize("name", READERS)
def test_real_files_say_the_same_by_excerpt_and_as_a_whole(name: str) -> None:
    read, n_read = READERS[name], 0
    for path in dev_files():
        data = path.read_bytes()
        with quietly():
            try:
                whole = converted(data)
            except Exception:  # noqa: BLE001
                continue
            told = outcome(read, parsed(data))
            assert told == outcome(read, whole), path.name
        n_read += 1
    assert n_read > 0


def test_what_is_remembered_is_of_these_elements_and_no_others() -> None:
    windows = [("2", "40", "400"), ("3", "40", "400"), ("2", "40", "400")]
    for slope, center, width in (*windows, ("2", "41", "400"), ("2", "40", "401")):
        ds = make_instance(RescaleSlope=slope, WindowCenter=center, WindowWidth=width)
        told = meaning(parsed(to_bytes(ds)))
        assert told.slope == float(slope)
        assert center in told.display
        assert width in told.display
    for rows in (16, 8, 16):
        ds = make_instance(NumberOfFrames=16 // rows)
        ds.Rows = rows
        assert read_form(parsed(to_bytes(ds))).rows == rows
    names = [read_said(parsed(to_bytes(make_instance(StationName=n)))) for n in "ABA"]
    assert [one.device[-1] for one in names] == ["A", "B", "A"]


def test_an_excerpt_tells_character_sets_apart() -> None:
    told = {"ISO_IR 100": "é", "ISO_IR 144": "щ"}
    for charset in (*told, *told):
        ds = make_instance(SpecificCharacterSet=charset, StationName=told[charset])
        assert read_said(parsed(to_bytes(ds))).device[-1] == told[charset]


def test_there_is_no_excerpt_of_what_was_changed_or_is_long() -> None:
    with quietly():
        data = to_bytes(make_instance(StationName="A", InstitutionName="B" * 2000))
    name, site = tags_of(["StationName"]), tags_of(["InstitutionName"])
    dataset = parsed(data)
    assert excerpt(dataset, site) is None
    assert excerpt(dataset, name, tags_of(["Modality"])) is None
    assert excerpt(dataset, name) is not None
    dataset.StationName = "C"
    assert excerpt(dataset, name) is None
    with quietly():
        assert read_said(dataset).device[-1] == "C"
