"""Modality LUTs and what a screen shows, against pydicom's chain and by hand."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, Sequence
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import ExplicitVRBigEndian

import dicomdask
from dicomdask.errors import InputError
from dicomdask.header import read_dataset
from dicomdask.model import Meaning
from dicomdask.pixels import FrameDecoder, read_meaning
from dicomdask.values import Display, Lut, Transform, lut_text, parse_lut
from tests.builders import make_instance, make_series, to_bytes, write_series

STORED = np.arange(-600, 600, dtype="i2").reshape(40, 30)


def lut_item(
    entries: Any, first: int = 0, bits: int = 16, vr: str = "US", n: int | None = None
) -> Dataset:
    """Return an item of a Modality or VOI LUT Sequence."""
    item = Dataset()
    n = len(entries) % 2**16 if n is None else n
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [n, first, bits])
    if vr == "OW":
        item.add_new("LUTData", vr, np.asarray(entries, "<u2").tobytes())
    else:
        item.add_new("LUTData", vr, [int(entry) for entry in entries])
    return item


def read(ds: Dataset) -> tuple[Transform, np.ndarray, list[str]]:
    """Return transform, stored values and warnings as a task finds them."""
    meaning, stored = meaning_of(ds)
    scale = meaning.slope or 1.0, meaning.intercept or 0.0
    transform = Transform.of(*scale, meaning.modality_lut, meaning.display)
    return transform, stored, list(meaning.warnings)


def meaning_of(ds: Dataset) -> tuple[Meaning, np.ndarray]:
    dataset = read_dataset(to_bytes(ds))
    decoder = FrameDecoder(dataset)
    stored = decoder.decode(0)
    return read_meaning(dataset, decoder, 0), stored


def pydicom_of(ds: Dataset) -> Dataset:
    return pydicom.dcmread(io.BytesIO(to_bytes(ds)))


def shown_by_pydicom(ds: Dataset, index: int = 0) -> np.ndarray:
    """Return pydicom's chain, scaled to 0..1 by the range that it maps to."""
    source = pydicom_of(ds)
    values = apply_voi_lut(
        apply_modality_lut(source.pixel_array, source), source, index
    )
    if source.get("VOILUTSequence"):
        bits = source.VOILUTSequence[index].LUTDescriptor[2]
        return values / (2**bits - 1)
    low, high = 0.0, 2.0**source.BitsStored - 1
    if source.get("ModalityLUTSequence"):
        high = 2.0 ** source.ModalityLUTSequence[0].LUTDescriptor[2] - 1
    elif source.PixelRepresentation:
        half = 2.0 ** (source.BitsStored - 1)
        low, high = -half, half - 1
    if "RescaleSlope" in source:
        slope, intercept = float(source.RescaleSlope), float(source.RescaleIntercept)
        low, high = low * slope + intercept, high * slope + intercept
    return (values - low) / (high - low)


# --- modality LUT -----------------------------------------------------------------


@pytest.mark.parametrize("vr", ["US", "OW"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("first", [-100, 0, 250])
def test_line_18_a_modality_lut_is_applied_as_pydicom_does(
    vr: str, bits: int, first: int
) -> None:
    entries = np.random.default_rng(1).integers(0, 2**bits, 500)
    ds = make_instance(pixels=STORED)
    ds.ModalityLUTSequence = Sequence([lut_item(entries, first, bits, vr)])
    transform, stored, _ = read(ds)
    source = pydicom_of(ds)
    wanted = apply_modality_lut(source.pixel_array, source)
    np.testing.assert_array_equal(transform.to_modality(stored), wanted)


@given(
    st.integers(1, 400), st.integers(-700, 700), st.integers(8, 16), st.integers(0, 9)
)
@settings(max_examples=50, deadline=None)
def test_line_18_a_lut_by_hand(n: int, first: int, bits: int, seed: int) -> None:
    entries = np.random.default_rng(seed).integers(0, 2**bits, n)
    lut = parse_lut(lut_text(Lut(first, bits, entries.astype("u2"))))
    found = lut.apply(STORED)
    for value, entry in zip(STORED.ravel(), found.ravel(), strict=True):
        assert entry == entries[min(max(int(value) - first, 0), n - 1)]


def test_line_18_a_lut_of_a_big_endian_file() -> None:
    entries = np.arange(600)[::-1]
    ds = make_instance(pixels=STORED.astype(">i2"), transfer_syntax=ExplicitVRBigEndian)
    item = lut_item(entries)
    item.add_new("LUTData", "OW", entries.astype(">u2").tobytes())
    ds.ModalityLUTSequence = Sequence([item])
    transform, stored, _ = read(ds)
    assert transform.to_modality(stored)[-1, -1] == 0
    assert transform.to_modality(stored)[0, 0] == 599


def test_line_18_entries_of_a_byte_each() -> None:
    ds = make_instance(pixels=STORED)
    item = lut_item([0])
    item.LUTDescriptor = [4, 0, 8]
    item.add_new("LUTData", "OW", bytes([9, 7, 5, 3]))
    ds.ModalityLUTSequence = Sequence([item])
    transform, _, _ = read(ds)
    found = transform.to_modality(np.arange(5))
    assert found.tolist() == [9, 7, 5, 3, 3]


@pytest.mark.parametrize(
    "item",
    [
        lut_item([1, 2, 3], n=9),
        lut_item([1, 2, 3], bits=17),
        lut_item([1, 2, 999], bits=8),
        Dataset(),
    ],
    ids=["short", "deep", "wide", "empty"],
)
def test_line_18_a_damaged_lut_is_refused(item: Dataset) -> None:
    ds = make_instance(pixels=STORED)
    ds.ModalityLUTSequence = Sequence([item])
    with pytest.raises(InputError) as caught:
        meaning_of(ds)
    assert caught.value.code == "modality-lut"


def test_line_18_real_world_values_are_recorded_and_not_applied() -> None:
    ds = make_instance()
    item, unit = Dataset(), Dataset()
    unit.CodeValue, unit.CodingSchemeDesignator = "mm2/s", "UCUM"
    item.RealWorldValueSlope, item.RealWorldValueIntercept = 0.5, 3.0
    item.RealWorldValueFirstValueMapped, item.RealWorldValueLastValueMapped = 0, 4095
    item.MeasurementUnitsCodeSequence = Sequence([unit])
    item.LUTExplanation = "Smith"
    ds.RealWorldValueMappingSequence = Sequence([item])
    text = str(meaning_of(ds)[0].real_world_values)
    assert "mm2/s" in text
    assert '"slope": 0.5' in text
    assert "Smith" not in text
    unit.CodingSchemeDesignator = "99SMITH"
    assert "mm2" not in str(meaning_of(ds)[0].real_world_values)
    assert meaning_of(make_instance())[0].real_world_values is None


# --- display ----------------------------------------------------------------------

WINDOWS = {"WindowCenter": [40, -100.5, 3], "WindowWidth": [400, 50.25, 1]}


@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize("scale", [("1", "-24"), ("0.25", "7.5"), (None, None)])
def test_line_24_windows_are_applied_as_pydicom_does(
    function: str | None, index: int, scale: tuple[str | None, str | None]
) -> None:
    ds = make_instance(
        pixels=STORED, RescaleSlope=scale[0], RescaleIntercept=scale[1], **WINDOWS
    )
    if function:
        ds.VOILUTFunction = function
    transform, stored, warnings = read(ds)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        wanted = shown_by_pydicom(ds, index)
    found = transform.to_display(stored, (0, 1), index)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert warnings == []


def test_line_24_a_window_after_a_modality_lut() -> None:
    ds = make_instance(
        pixels=STORED, RescaleSlope=None, RescaleIntercept=None, **WINDOWS
    )
    ds.ModalityLUTSequence = Sequence([lut_item(range(0, 900, 3), -100)])
    transform, stored, _ = read(ds)
    wanted = shown_by_pydicom(ds)
    np.testing.assert_allclose(transform.to_display(stored, (0, 1)), wanted, atol=1e-6)


@pytest.mark.parametrize("index", [0, 1])
def test_line_24_voi_luts_come_before_windows(index: int) -> None:
    ds = make_instance(pixels=STORED, RescaleIntercept=0, **WINDOWS)
    rng = np.random.default_rng(2)
    items = [lut_item(rng.integers(0, 4096, 700), f, 12, "OW") for f in (-300, 50)]
    ds.VOILUTSequence = Sequence(items)
    transform, stored, _ = read(ds)
    with pytest.warns(UserWarning, match="float"):
        wanted = shown_by_pydicom(ds, index)
    found = transform.to_display(stored, (0, 1), index)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    with pytest.raises(ValueError, match="there is no window 2; the volume has 2"):
        transform.to_display(stored, (0, 1), 2)


def test_line_22_monochrome1_is_inverted_once() -> None:
    ds = make_instance(pixels=STORED, **WINDOWS)
    plain, stored, _ = read(ds)
    ds.PhotometricInterpretation = "MONOCHROME1"
    inverted, again, _ = read(ds)
    np.testing.assert_array_equal(stored, again)
    for window in (0, 1, (10.0, 20.0)):
        one = plain.to_display(stored, (0, 1), window)
        other = inverted.to_display(stored, (0, 1), window)
        np.testing.assert_allclose(one + other, 1, atol=1e-6)


@pytest.mark.parametrize(
    ("elements", "n"),
    [
        ({"WindowCenter": 40, "WindowWidth": 0}, 1),
        ({"WindowCenter": 40, "WindowWidth": -5}, 1),
        ({"WindowCenter": 40, "WindowWidth": 0.5}, 1),
        ({"WindowCenter": [40, 50], "WindowWidth": 300}, 2),
        ({"WindowCenter": 40, "WindowWidth": 300, "VOILUTFunction": "CURVE"}, 1),
    ],
    ids=str,
)
def test_line_24_a_window_that_is_not_valid_shows_least_to_largest(
    elements: dict[str, Any], n: int
) -> None:
    transform, stored, warnings = read(make_instance(pixels=STORED, **elements))
    assert warnings == ["invalid-window"]
    assert len(transform.display.windows) == n
    span = transform.span(-600, 599)
    assert span == (-1624, -425)
    found = transform.to_display(stored, span, n - 1)
    np.testing.assert_allclose(found, (STORED + 600.0) / 1199, atol=1e-6)


def test_line_24_a_damaged_voi_lut_is_warned_of() -> None:
    ds = make_instance(pixels=STORED, **WINDOWS)
    ds.VOILUTSequence = Sequence([lut_item([1, 2], n=7)])
    transform, _, warnings = read(ds)
    assert warnings == ["invalid-voi-lut"]
    assert not transform.display.luts


windows = st.tuples(st.floats(-1e5, 1e5), st.floats(1, 1e5))


@given(windows, st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]), st.booleans())
@settings(max_examples=100, deadline=None)
def test_what_is_shown_lies_between_black_and_white(
    window: tuple[float, float], function: str, inverted: bool
) -> None:
    display = Display((window,), function, (), inverted)
    again = Display.from_text(display.to_text())
    found = again.apply(STORED, (0, 1))
    assert ((found >= 0) & (found <= 1)).all()
    steps = np.diff(found.ravel())
    assert ((steps <= 0) if inverted else (steps >= 0)).all()


def test_an_explicit_window_must_be_valid() -> None:
    for window in ((0.0, 0.0), (float("nan"), 5.0), (0.0, -1.0)):
        with pytest.raises(ValueError, match="a window is"):
            Display().apply(STORED, (0, 1), window)


# --- the whole way ----------------------------------------------------------------


@pytest.fixture
def shown(tmp_path: Path, convert: Any) -> Any:
    """Return what makes a dataset of slices, and opens it."""

    def run(datasets: Any) -> Any:
        folder, store = tmp_path / "in", tmp_path / "store.zarr"
        write_series(folder, iter(list(datasets)))
        convert(folder, store, trust_pixels=("OT",))
        return dicomdask.open_dataset(str(store))

    return run


def test_line_24_windows_that_vary_by_slice(shown: Any) -> None:
    slices = list(make_series(4))
    for number, one in enumerate(slices):
        one.WindowCenter, one.WindowWidth = 40 + number, 300
    ds = shown(slices)
    row = ds.volumes.iloc[0]
    assert pd.isna(row["display"])
    found = ds.read(row["volume_id"], values="display")
    for z, one in enumerate(slices):
        np.testing.assert_allclose(found[z], shown_by_pydicom(one), atol=1e-6)
        lone = ds.read(row["volume_id"], z=z, y=slice(2, 9), values="display")
        np.testing.assert_array_equal(lone, found[z, 2:9])
    many = ds.read_many(
        [(row["volume_id"], (slice(1, 3), slice(0, 9), slice(0, 9)))], values="display"
    )
    np.testing.assert_array_equal(many[0], found[1:3, :9, :9])


def test_line_24_a_dataset_shows_least_to_largest_of_the_whole_volume(
    shown: Any,
) -> None:
    slices = list(make_series(3, WindowCenter=40, WindowWidth=0))
    ds = shown(slices)
    row = ds.volumes.iloc[0]
    assert "invalid-window" in row["warnings"]
    stored = ds.read(row["volume_id"]).astype(float)
    wanted = (stored - stored.min()) / (stored.max() - stored.min())
    found = ds.read(row["volume_id"], z=1, values="display")
    np.testing.assert_allclose(found, wanted[1], atol=1e-6)
    bright = ds.read(row["volume_id"], z=1, values="display", window=(-1000.0, 10.0))
    assert set(np.unique(bright)) >= {0, 1}
    with pytest.raises(ValueError, match="a window is for"):
        ds.read(row["volume_id"], window=0)
    with pytest.raises(ValueError, match="there is no window 1"):
        ds.read(row["volume_id"], values="display", window=1)


@pytest.mark.parametrize("same", [True, False])
def test_line_18_modality_luts_are_stored_beside_the_pixels(
    shown: Any, same: bool
) -> None:
    slices = list(make_series(4))
    for number, one in enumerate(slices):
        shift = 0 if same else number
        entries = [(3 * i + shift) % 5000 for i in range(2000)]
        one.ModalityLUTSequence = Sequence([lut_item(entries, -900)])
    ds = shown(slices)
    row = ds.volumes.iloc[0]
    assert pd.notna(row["modality_lut"]) == same
    found = ds.read(row["volume_id"], values="modality")
    for z, one in enumerate(slices):
        source = pydicom_of(one)
        wanted = apply_modality_lut(source.pixel_array, source)
        np.testing.assert_array_equal(found[z], wanted)


@pytest.mark.parametrize(("dtype", "keyword"), [("f4", "Float"), ("f8", "DoubleFloat")])
def test_line_19_float_pixels(shown: Any, dtype: str, keyword: str) -> None:
    values = np.random.default_rng(0).normal(0, 1e3, (3, 16, 12)).astype(dtype)
    values[1, 2, 3], values[2, 0, 0], values[0, 0, 0] = np.nan, np.inf, -0.0
    slices = list(make_series(3))
    for one, plane in zip(slices, values, strict=True):
        setattr(one, f"{keyword}PixelData", plane.tobytes())
        one.BitsAllocated = 8 * values.itemsize
        del one.PixelData, one.BitsStored, one.HighBit, one.PixelRepresentation
    ds = shown(slices)
    row = ds.volumes.iloc[0]
    found = ds.read(row["volume_id"])
    np.testing.assert_array_equal(found, values, strict=True)
    told = row["statistics"]
    finite = values[np.isfinite(values)].astype(float)
    assert (told["n_nonfinite"], told["n_values"]) == (2, finite.size)
    assert (told["min"], told["max"]) == (finite.min(), finite.max())
    assert told["mean"] == pytest.approx(finite.mean(), rel=1e-12, abs=1e-12)
    assert told["std"] == pytest.approx(finite.std(), rel=1e-12)
    levels = [np.percentile(finite, one) for one in told["percentile_levels"]]
    np.testing.assert_array_equal(told["percentiles"], levels)
    assert told["histogram"].tolist() == np.histogram(finite, 64)[0].tolist()


def test_line_25_lossy_is_flagged(shown: Any) -> None:
    slices = list(make_series(2, LossyImageCompression="01"))
    assert "lossy" in shown(slices).volumes.iloc[0]["warnings"]
