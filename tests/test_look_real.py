"""Ultrasound of deid-data, as it was looked at: names go, and tissue stays."""

from pathlib import Path

import numpy as np
import pydicom
import pytest

import dicomdask

FOLDER = "pydicom__deid-data/deid_data/data/ultrasounds"
Place = tuple[int, int, int, int]
"""Top, left, bottom, right."""
TEXT: dict[str, tuple[Place, ...]] = {
    # name, record number, time, hospital; settings; the name of the view
    "RGB_IMAGE.dcm": ((0, 0, 57, 1024), (62, 930, 352, 1020), (736, 516, 766, 690)),
    # name, record number, birth date, hospital, time; settings
    "GREYSCALE_IMAGE.dcm": ((0, 0, 46, 1024), (52, 12, 116, 60), (136, 14, 258, 90)),
}
TISSUE: dict[str, Place] = {
    "RGB_IMAGE.dcm": (64, 376, 124, 640),
    "GREYSCALE_IMAGE.dcm": (90, 130, 660, 890),
}


@pytest.fixture(scope="module")
def looked(data: Path, tmp_path_factory: pytest.TempPathFactory):
    """Return the planes before and after, by the name of their file."""
    out = tmp_path_factory.mktemp("looked")
    found = {}
    for name in TEXT:
        store = str(out / f"{name}.zarr")
        source = data / FOLDER / name
        dicomdask.convert(
            str(source), store, options=["clean-pixels"], scheduler="synchronous"
        )
        ds = dicomdask.open_dataset(store)
        plane = ds.read(ds.volumes["volume_id"][0])
        after = np.moveaxis(plane, 0, -1) if plane.ndim == 3 else plane
        found[name] = pydicom.dcmread(source).pixel_array, after, ds
    return found


def cut(plane: np.ndarray, place: Place) -> np.ndarray:
    top, left, bottom, right = place
    return plane[top:bottom, left:right]


@pytest.mark.parametrize("name", TEXT)
def test_line_4_no_text_is_left(looked, name: str) -> None:
    before, after, _ = looked[name]
    for place in TEXT[name]:
        assert cut(before, place).max() > 150
        assert cut(after, place).max() < 40


@pytest.mark.parametrize("name", TEXT)
def test_line_4_tissue_and_scales_of_regions_stay(looked, name: str) -> None:
    before, after, ds = looked[name]
    assert np.array_equal(cut(before, TISSUE[name]), cut(after, TISSUE[name]))
    assert '"00186011"' in ds.volumes["header"][0]  # SequenceOfUltrasoundRegions


@pytest.mark.parametrize("name", TEXT)
def test_all_three_ways_are_told(looked, name: str) -> None:
    _, _, ds = looked[name]
    assert set(ds.redactions["way"]) == {"rule", "region", "detector"}
    assert list(ds.volumes["text_look"]) == ["detector"]
