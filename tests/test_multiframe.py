"""Objects of many frames: as the single-frame instances they stand for.

A line number in a name is that of the list of what right means for pixels and volumes.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import zarr
from pydicom import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian

import dicomdask
from dicomdask.pseudonym import Key
from dicomdask.tasks import sources
from dicomdask.verify import verify as verify_dataset
from dicomdask.work import Work
from tests.builders import make_instance, make_series, to_bytes
from tests.conftest import SECRET, Convert
from tests.test_mosaics import make_mosaic, some_slices

KEY = Key(SECRET.encode())

ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
NIFTI = "icometrix__dicom2nifti/tests/data"


def item(**elements: Any) -> Dataset:
    """Return an item of a sequence."""
    ds = Dataset()
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


def groups(**sequences: Dataset) -> Dataset:
    """Return functional groups: macros of one item, by keyword."""
    return item(**{name: Sequence([one]) for name, one in sequences.items()})


def frame_group(position: tuple[float, ...], **macros: Dataset) -> Dataset:
    return groups(
        PlanePositionSequence=item(ImagePositionPatient=list(position)), **macros
    )


def make_enhanced(
    pixels: np.ndarray,
    frames: list[Dataset],
    *,
    sop_class: str = ENHANCED_CT,
    shared: Dataset | None = None,
    **elements: Any,
) -> Dataset:
    """Return an object of many axial frames, 0.5 x 0.75 mm, that `frames` place."""
    plane = groups(
        PlaneOrientationSequence=item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
        PixelMeasuresSequence=item(PixelSpacing=[0.5, 0.75], SliceThickness=2.5),
    )
    if shared is not None:
        plane.update(shared)
    gone = dict.fromkeys(
        (
            *("PixelSpacing", "SliceThickness", "ImagePositionPatient"),
            *("ImageOrientationPatient", "RescaleSlope", "RescaleIntercept"),
        )
    )
    return make_instance(
        pixels=pixels,
        SOPClassUID=sop_class,
        SharedFunctionalGroupsSequence=Sequence([plane]),
        PerFrameFunctionalGroupsSequence=Sequence(frames),
        **{**gone, **elements},
    )


def rescale(slope: float, intercept: float) -> Dataset:
    return item(RescaleSlope=slope, RescaleIntercept=intercept, RescaleType="HU")


def content(**elements: Any) -> Dataset:
    return item(FrameContentSequence=Sequence([item(**elements)]))[
        "FrameContentSequence"
    ].value[0]


def random_pixels(n: int) -> np.ndarray:
    return np.random.default_rng(n).integers(-900, 900, (n, 16, 12)).astype(np.int16)


def convert_one(convert: Convert, folder: Path, *datasets: Dataset, **options: Any):
    source = folder / "in"
    source.mkdir()
    for number, ds in enumerate(datasets):
        (source / f"{number}.dcm").write_bytes(to_bytes(ds))
    convert(source, folder / "o.zarr", **options)
    return dicomdask.open_dataset(str(folder / "o.zarr"))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_line_14_enhanced_ct_with_known_groups(
    tmp_path: Path, convert: Convert, syntax: str
):
    n = 5
    pixels = random_pixels(n)
    order = [3, 0, 4, 1, 2]
    frames = [
        frame_group(
            (-10.0, -20.0, 2.5 * z),
            PixelValueTransformationSequence=rescale(1 + z, -1000.0 - z),
            FrameContentSequence=item(StackID="1", InStackPositionNumber=z + 1),
        )
        for z in order
    ]
    swapped = pixels.byteswap() if syntax == ExplicitVRBigEndian else pixels
    ds = make_enhanced(pixels, frames, transfer_syntax=syntax)
    ds.PixelData = swapped.tobytes()
    dataset = convert_one(convert, tmp_path, ds)
    [volume] = dataset.volumes.to_dict("records")
    assert volume["kind"] == "volume"
    assert list(volume["shape"]) == [5, 16, 12]
    assert list(volume["spacing_mm"]) == [2.5, 0.5, 0.75]
    assert list(volume["warnings"]) == []
    affine = np.reshape(volume["affine"], (4, 4))
    assert (affine @ (4, 0, 0, 1))[:3] == pytest.approx((-10, -20, 10))
    array = dataset.read(volume["volume_id"])
    values = dataset.read(volume["volume_id"], values="modality")
    rows = dataset.frames.sort_values("z").to_dict("records")
    assert len(dataset.instances) == 1
    for z, row in enumerate(rows):
        k = order.index(z)
        np.testing.assert_array_equal(array[z], pixels[k])
        np.testing.assert_array_equal(values[z], pixels[k] * (1.0 + z) - 1000.0 - z)
        assert row["frame_number"] == k + 1
        assert (row["slope"], row["intercept"]) == (1 + z, -1000 - z)
        assert list(row["ImagePositionPatient"]) == [-10, -20, 2.5 * z]
        assert '"00289145"' in row["header"]
    assert volume["SliceThickness"] == 2.5
    assert list(volume["PixelSpacing"]) == [0.5, 0.75]


# --- as the instances they stand for --------------------------------------------------


def legacy_twin(datasets: list[Dataset], converter: type) -> Dataset:
    """Return the series as highdicom's legacy converter joins it."""
    first = datasets[0]
    return converter(
        datasets,
        series_instance_uid=first.SeriesInstanceUID + ".9",
        series_number=9,
        sop_instance_uid=first.SeriesInstanceUID + ".9.1",
        instance_number=1,
    )


def read_folder(folder: Path, n: int) -> list[Dataset]:
    if not folder.is_dir():
        pytest.skip(f"DICOMDASK_TEST_DATA has no folder {folder.name}")
    found = [pydicom.dcmread(path) for path in sorted(folder.iterdir())[:n]]
    for ds in found:  # what a legacy-converted object must have
        ds.setdefault("PatientID", "1")
        ds.setdefault("StudyTime", "101112")
    return found


TWINS = {
    "head CT": ("Slicer__Slicer/Testing/Data/Input/CTHeadAxialDicom", "CT", 12),
    "siemens MR": (f"{NIFTI}/siemens/anatomical/001", "MR", 10),
    "philips MR": (f"{NIFTI}/philips/anatomical/001", "MR", 10),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TWINS)
def test_line_14_a_legacy_converted_object_equals_its_series(
    data: Path, tmp_path: Path, convert: Convert, name: str
):
    folder, modality, n = TWINS[name]
    from highdicom import legacy  # noqa: PLC0415

    series = read_folder(data / folder, n)
    converter = getattr(legacy, f"LegacyConvertedEnhanced{modality}Image")
    twin = legacy_twin(series, converter)
    one, other = tmp_path / "series", tmp_path / "twin"
    one.mkdir(), other.mkdir()
    single = convert_one(convert, one, *series)
    joined = convert_one(convert, other, twin)
    assert_same_volumes(single, joined)
    report = verify(other / "o.zarr")
    assert report.n_frames == len(series)
    assert not report.problems


SAME = ("kind", "shape", "dimensions", "dtype", "spacing_mm", "tilt_degrees", "affine")


def assert_same_volumes(single: Any, joined: Any):
    assert len(single.volumes) == len(joined.volumes) > 0
    pairs = zip(
        sorted(single.volumes.to_dict("records"), key=lambda row: list(row["affine"])),
        sorted(joined.volumes.to_dict("records"), key=lambda row: list(row["affine"])),
        strict=True,
    )
    for a, b in pairs:
        for name in SAME:
            assert np.array_equal(a[name], b[name]), name
        assert {*b["warnings"]} <= {*a["warnings"]}
        for values in ("stored", "modality"):
            np.testing.assert_array_equal(
                single.read(a["volume_id"], values=values),
                joined.read(b["volume_id"], values=values),
            )


def verify(store: Path) -> Any:
    return verify_dataset(str(store), work=Work(f"{store}.work"), key=KEY)


@pytest.mark.parametrize(
    ("name", "shape"),
    {
        "hyperfine/anatomical/001": (8, 138, 112),
        "philips_enhanced/anatomical/001": (8, 256, 256),
        "siemens_multiframe/anatomical/001": (8, 256, 256),
    }.items(),
)
def test_line_14_real_enhanced_objects_are_volumes(
    data: Path, tmp_path: Path, convert: Convert, name: str, shape: tuple[int, ...]
):
    folder = data / NIFTI / name
    store = tmp_path / "o.zarr"
    convert(folder, store)
    dataset = dicomdask.open_dataset(str(store))
    [volume] = dataset.volumes.to_dict("records")
    assert tuple(volume["shape"]) == shape
    assert list(volume["warnings"]) == []
    [path] = folder.iterdir()
    source = pydicom.dcmread(path)
    affine = np.reshape(volume["affine"], (4, 4))
    array = dataset.read(volume["volume_id"])
    for row in dataset.frames.to_dict("records"):
        group = source.PerFrameFunctionalGroupsSequence[row["frame_number"] - 1]
        place = group.PlanePositionSequence[0].ImagePositionPatient
        assert (affine @ (row["z"], 0, 0, 1))[:3] == pytest.approx(place, abs=1e-3)
        plane = source.pixel_array[row["frame_number"] - 1]
        np.testing.assert_array_equal(array[row["z"]], plane)
    assert not verify(store).problems


# --- splitting ------------------------------------------------------------------------


def mr_frame(z: int, t: int, **macros: Dataset) -> Dataset:
    told = item(TemporalPositionIndex=t + 1, StackID="1", InStackPositionNumber=z + 1)
    return frame_group((0.0, 0.0, 3.0 * z), FrameContentSequence=told, **macros)


def enhanced_mr(pixels: np.ndarray, frames: list[Dataset], **elements: Any) -> Dataset:
    elements = {"Modality": "MR", "sop_class": ENHANCED_MR, **elements}
    return make_enhanced(pixels, frames, **elements)


def test_line_13_temporal_positions_of_one_object_are_an_axis(
    tmp_path: Path, convert: Convert
):
    pixels = random_pixels(12)
    places = [(z, t) for z in range(4) for t in range(3)]
    ds = enhanced_mr(pixels, [mr_frame(z, t) for z, t in places])
    dataset = convert_one(convert, tmp_path, ds)
    [volume] = dataset.volumes.to_dict("records")
    assert list(volume["shape"]) == [3, 4, 16, 12]
    assert volume["axis_keyword"] == "TemporalPositionIdentifier"
    assert list(volume["axis_values"]) == ["1", "2", "3"]
    array = dataset.read(volume["volume_id"])
    for plane, (z, t) in zip(pixels, places, strict=True):
        np.testing.assert_array_equal(array[t, z], plane)


MACROS = {
    "EchoTime": lambda t: {"MREchoSequence": item(EffectiveEchoTime=10.0 * (t + 1))},
    "DiffusionBValue": lambda t: {
        "MRDiffusionSequence": item(DiffusionBValue=500.0 * t)
    },
    "TriggerTime": lambda t: {
        "CardiacSynchronizationSequence": item(NominalCardiacTriggerDelayTime=40.0 * t)
    },
}


@pytest.mark.parametrize("keyword", MACROS)
def test_line_13_soft_keys_of_functional_groups(
    tmp_path: Path, convert: Convert, keyword: str
):
    pixels = random_pixels(6)
    places = [(z, t) for t in (1, 0) for z in range(3)]
    frames = [frame_group((0.0, 0.0, 3.0 * z), **MACROS[keyword](t)) for z, t in places]
    dataset = convert_one(convert, tmp_path, enhanced_mr(pixels, frames))
    [volume] = dataset.volumes.to_dict("records")
    assert list(volume["shape"]) == [2, 3, 16, 12]
    assert volume["axis_keyword"] == keyword
    array = dataset.read(volume["volume_id"])
    for plane, (z, t) in zip(pixels, places, strict=True):
        np.testing.assert_array_equal(array[t, z], plane)


def test_line_13_a_dimension_index_is_a_soft_key(tmp_path: Path, convert: Convert):
    pixels = random_pixels(6)
    frames = [
        frame_group(
            (0.0, 0.0, 3.0 * z),
            FrameContentSequence=item(DimensionIndexValues=[1, z + 1, t + 1]),
        )
        for t in range(2)
        for z in range(3)
    ]
    pointers = [0x00209056, 0x00209057, 0x00189999]
    ds = enhanced_mr(pixels, frames)
    ds.DimensionIndexSequence = Sequence(
        [item(DimensionIndexPointer=tag) for tag in pointers]
    )
    dataset = convert_one(convert, tmp_path, ds)
    [volume] = dataset.volumes.to_dict("records")
    assert volume["axis_keyword"] == "DimensionIndexValues"
    array = dataset.read(volume["volume_id"])
    np.testing.assert_array_equal(array, pixels.reshape(2, 3, 16, 12))


def test_line_12_two_orientations_of_one_object_are_two_volumes(
    tmp_path: Path, convert: Convert
):
    pixels = random_pixels(4)
    turned = item(ImageOrientationPatient=[0, 1, 0, 0, 0, -1])
    frames = [
        frame_group((0.0, 0.0, 3.0)),
        frame_group((1.0, 0.0, 0.0), PlaneOrientationSequence=turned),
        frame_group((0.0, 0.0, 6.0)),
        frame_group((5.0, 0.0, 0.0), PlaneOrientationSequence=turned),
    ]
    dataset = convert_one(convert, tmp_path, make_enhanced(pixels, frames))
    assert sorted(dataset.volumes["spacing_mm"].map(lambda s: s[0])) == [3, 4]
    assert len(dataset.instances) == 2  # one a volume
    assert len(dataset.inputs) == 1
    assert not verify(tmp_path / "o.zarr").problems


def test_line_14_an_object_is_stored_whole_or_not_at_all(
    tmp_path: Path, convert: Convert
):
    frames = [frame_group((0.0, 0.0, float(z))) for z in (0, 1, 2)]
    askew = item(ImageOrientationPatient=[0, 1, 0, 0, 1, -1])
    frames += [frame_group((0.0, 0.0, 0.0), PlaneOrientationSequence=askew)] * 2
    bad = make_enhanced(random_pixels(5), frames, instance=2)
    good = make_enhanced(
        random_pixels(2), [frame_group((0.0, 0.0, z)) for z in (50.0, 52.0)], instance=3
    )
    dataset = convert_one(convert, tmp_path, bad, good)
    codes = dataset.inputs.groupby("code").size().to_dict()
    assert codes == {"bad-geometry": 1, "stored": 1}
    assert list(dataset.volumes["n_frames"]) == [2]


@pytest.mark.parametrize("n", [0, 2, 4])
def test_line_14_groups_that_are_not_as_many_as_frames(
    tmp_path: Path, convert: Convert, n: int
):
    frames = [frame_group((0.0, 0.0, float(z))) for z in range(n)]
    ds = make_enhanced(random_pixels(3), frames)
    source = tmp_path / "in"
    source.mkdir()
    (source / "0.dcm").write_bytes(to_bytes(ds))
    convert(source, tmp_path / "o.zarr")
    inputs = dicomdask.open_dataset(str(tmp_path / "o.zarr")).inputs
    assert list(inputs["code"]) == ["functional-groups"]


# --- size -----------------------------------------------------------------------------


def test_line_38_frames_are_read_in_pieces(
    tmp_path: Path, convert: Convert, monkeypatch: pytest.MonkeyPatch
):
    """Each task reads its own frames: the header, and the ranges where they lie."""
    n, nbytes = 40, 16 * 12 * 2
    monkeypatch.setattr("dicomdask.tasks.sources.BATCH_BYTES", 5 * nbytes)
    monkeypatch.setattr("dicomdask.layout.SHARD_FRAMES", 16)
    read: list[int] = []
    fetch = sources._fetch

    def note(portion: sources.Portion) -> bytes:
        data = fetch(portion)
        read.append(len(data) - portion.header_bytes)
        return data

    monkeypatch.setattr(sources, "_fetch", note)
    pixels = random_pixels(n)
    order = np.random.default_rng(0).permutation(n)
    frames = [frame_group((0.0, 0.0, float(z))) for z in order]
    dataset = convert_one(convert, tmp_path, make_enhanced(pixels, frames))
    [volume] = dataset.volumes.to_dict("records")
    array = dataset.read(volume["volume_id"])
    np.testing.assert_array_equal(array[order], pixels)
    assert max(read) == 5 * nbytes
    assert sum(read) == n * nbytes
    assert len(dataset.instances) == 1
    assert len(dataset.frames) == n


def test_line_38_tables_grow_with_frames_not_with_their_square(
    tmp_path: Path, convert: Convert
):
    sizes = []
    for n in (100, 200):
        folder = tmp_path / str(n)
        folder.mkdir()
        frames = [
            frame_group(
                (0.0, 0.0, float(z)),
                PixelValueTransformationSequence=rescale(1.0 + z, 0.0),
            )
            for z in range(n)
        ]
        dataset = convert_one(
            convert, folder, make_enhanced(np.zeros((n, 4, 4), np.int16), frames)
        )
        texts = [*dataset.instances["header"], *dataset.frames["header"]]
        texts += list(dataset.volumes["header"])
        sizes.append(sum(map(len, texts)))
    assert sizes[1] < 2.1 * sizes[0]


# --- lineage --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["enhanced", "padded", "mosaic"])
def test_line_35_verify_sees_two_slices_that_changed_places(
    tmp_path: Path, convert: Convert, kind: str
):
    store = tmp_path / "o.zarr"
    if kind == "enhanced":
        frames = [frame_group((0.0, 0.0, 2.0 * z)) for z in range(4)]
        convert_one(convert, tmp_path, make_enhanced(random_pixels(4), frames))
    elif kind == "padded":
        series = [ds for k, ds in enumerate(make_series(5)) if k != 3]
        convert_one(convert, tmp_path, *series, on_irregular="pad")
    else:
        convert_one(convert, tmp_path, make_mosaic(some_slices(4)))
    report = verify(store)
    assert report.n_frames == 4
    assert not report.problems
    array = zarr.open_array(next(store.glob("volumes/*/*/*/0")), mode="r+")
    array[:2] = array[:2][::-1]
    problems = verify(store).problems
    assert sum("voxels differ" in one for one in problems) == 2


def test_line_35_verify_sees_a_missing_slice_that_is_filled(
    tmp_path: Path, convert: Convert
):
    series = [ds for k, ds in enumerate(make_series(5)) if k != 2]
    convert_one(convert, tmp_path, *series, on_irregular="pad")
    store = tmp_path / "o.zarr"
    array = zarr.open_array(next(store.glob("volumes/*/*/*/0")), mode="r+")
    array[2, 3, 4] = 7
    assert "missing slice z=2 is not empty" in " ".join(verify(store).problems)
