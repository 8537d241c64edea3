"""Colour: RGB exactly once, whatever it was written as; against pydicom and by hand."""

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.pixels import apply_color_lut, convert_color_space
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

import dicomdask
from dicomdask.errors import InputError
from dicomdask.header import read_dataset
from dicomdask.pixels import decode_frames, reference_frame
from dicomdask.verify import verify
from dicomdask.work import Work
from tests.builders import make_instance, to_bytes

SECONDARY = "1.2.840.10008.5.1.4.1.1.7"


def picture(rows: int = 40, columns: int = 36, dtype: str = "u1") -> np.ndarray:
    """Return a smooth picture in colour, shape (rows, columns, 3)."""
    y, x = np.mgrid[:rows, :columns]
    top = np.iinfo(dtype).max
    planes = (y / rows, x / columns, (x + y) % 16 / 16)
    return np.stack([plane * top for plane in planes], -1).astype(dtype)


def make_colour(rgb: np.ndarray, photometric: str = "RGB", **elements: Any) -> Dataset:
    """Return a secondary capture that holds samples as they are given."""
    planar = elements.get("PlanarConfiguration", 0)
    pixels = np.moveaxis(rgb, -1, 0) if planar else rgb
    ds = make_instance(pixels=np.zeros(rgb.shape[:2], rgb.dtype), **elements)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = SECONDARY
    ds.Modality = "OT"
    del ds.ImagePositionPatient, ds.ImageOrientationPatient, ds.FrameOfReferenceUID
    del ds.RescaleSlope, ds.RescaleIntercept, ds.SliceThickness, ds.PixelSpacing
    ds.SamplesPerPixel = 3
    ds.PhotometricInterpretation = photometric
    ds.PlanarConfiguration = planar
    order = ">" if ds.file_meta.TransferSyntaxUID == ExplicitVRBigEndian else "<"
    ds.PixelData = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    return ds


def decoded(ds: Dataset) -> np.ndarray:
    data = to_bytes(ds)
    (frame,) = decode_frames(read_dataset(data))
    return frame


def code_of(ds: Dataset) -> str:
    with pytest.raises(InputError) as caught:
        decoded(ds)
    return caught.value.code


# --- RGB and YBR ------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_line_23_both_planar_configurations_give_the_same(
    dtype: str, syntax: str
) -> None:
    rgb = picture(dtype=dtype)
    for planar in (0, 1):
        ds = make_colour(rgb, PlanarConfiguration=planar, transfer_syntax=syntax)
        found = decoded(ds)
        np.testing.assert_array_equal(found, rgb, strict=True)
        np.testing.assert_array_equal(reference_frame(to_bytes(ds), 0), rgb)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_line_23_lossless_syntaxes(syntax: str) -> None:
    rgb = picture()
    ds = make_colour(rgb)
    ds.compress(syntax, generate_instance_uid=False)
    np.testing.assert_array_equal(decoded(ds), rgb, strict=True)


@pytest.mark.parametrize("photometric", ["YBR_FULL", "YBR_FULL_422"])
def test_line_23_full_range_ybr_is_converted_once(photometric: str) -> None:
    ybr = convert_color_space(picture(), "RGB", "YBR_FULL")
    ds = make_colour(ybr, photometric)
    if photometric == "YBR_FULL_422":
        ybr[:, 1::2, 1:] = ybr[:, ::2, 1:]
        pairs = ybr.reshape(40, 18, 2, 3)
        chroma = pairs[:, :, 0, 1:]
        ds.PixelData = np.concatenate([pairs[..., 0], chroma], -1).tobytes()
    wanted = convert_color_space(ybr, "YBR_FULL", "RGB")
    np.testing.assert_array_equal(decoded(ds), wanted, strict=True)
    np.testing.assert_array_equal(reference_frame(to_bytes(ds), 0), wanted)


def test_line_23_ybr_of_16_bits_is_that_of_8_bits_with_more_of_them() -> None:
    rgb = picture()
    ybr = convert_color_space(rgb, "RGB", "YBR_FULL").astype("u2") * 256
    found = decoded(make_colour(ybr, "YBR_FULL")).astype(float) / 256
    assert np.abs(found - rgb).max() < 3


def test_line_23_partial_ybr_is_converted_by_the_formula_of_the_standard() -> None:
    rgb = picture().astype(float)
    red, green, blue = np.moveaxis(rgb, -1, 0)
    y = 0.2568 * red + 0.5041 * green + 0.0979 * blue + 16
    cb = -0.1482 * red - 0.2910 * green + 0.4392 * blue + 128
    cr = 0.4392 * red - 0.3678 * green - 0.0714 * blue + 128
    ybr = np.stack([y, cb, cr], -1).round().astype("u1")
    ybr[:, 1::2, 1:] = ybr[:, ::2, 1:]
    pairs = ybr.reshape(40, 18, 2, 3)
    ds = make_colour(ybr, "YBR_PARTIAL_422")
    ds.PixelData = np.concatenate([pairs[..., 0], pairs[:, :, 0, 1:]], -1).tobytes()
    found = decoded(ds).astype(float)
    assert np.abs(found[:, ::2] - rgb[:, ::2]).max() < 3


def test_line_23_odd_columns_have_no_pairs() -> None:
    assert code_of(make_colour(picture(4, 3), "YBR_FULL_422")) == "bad-image"


@pytest.mark.parametrize("cut", [1, 5, 4000])
def test_line_20_colour_that_is_cut(cut: int) -> None:
    ds = make_colour(picture())
    ds.PixelData = ds.PixelData[: -cut - cut % 2]
    assert code_of(ds) == "truncated"


# --- what a JPEG says of itself ---------------------------------------------------


def make_jpeg(
    markers: bytes, photometric: str, names: bytes, sampling: int = 0x11
) -> Dataset:
    """Return a file whose JPEG of 3 components has these markers and names."""
    path = pydicom.data.get_testdata_file("SC_jpeg_no_color_transform.dcm")
    ds = pydicom.dcmread(path)
    (stream,) = pydicom.encaps.generate_frames(ds.PixelData, number_of_frames=1)
    edited = bytearray(stream)
    frame = edited.index(b"\xff\xc0")
    scan = edited.index(b"\xff\xda")
    for number, name in enumerate(names):
        edited[frame + 10 + 3 * number] = name
        edited[scan + 5 + 2 * number] = name
    edited[frame + 11] = sampling
    edited[2:2] = markers
    ds.PixelData = pydicom.encaps.encapsulate([bytes(edited)])
    ds.PhotometricInterpretation = photometric
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    return ds


def adobe(transform: int) -> bytes:
    return b"\xff\xee\x00\x0eAdobe\x00\x64\0\0\0\0" + bytes([transform])


JFIF = b"\xff\xe0\x00\x10JFIF\0\1\1\0\0\1\0\1\0\0"
PLAIN = b"\1\2\3"


@pytest.mark.parametrize(
    ("markers", "photometric", "names", "is_ybr"),
    [
        (b"", "RGB", PLAIN, False),
        (b"", "YBR_FULL", PLAIN, True),
        (b"", "YBR_FULL_422", PLAIN, True),
        (b"", "YBR_FULL", b"RGB", False),
        (JFIF, "RGB", PLAIN, True),
        (JFIF, "YBR_FULL_422", PLAIN, True),
        (adobe(0), "RGB", PLAIN, False),
        (adobe(1), "YBR_FULL", PLAIN, True),
    ],
)
def test_line_23_jpegs_are_converted_once(
    markers: bytes, photometric: str, names: bytes, is_ybr: bool
) -> None:
    raw = decoded(make_jpeg(b"", "RGB", PLAIN))
    ds = make_jpeg(markers, photometric, names)
    wanted = convert_color_space(raw.copy(), "YBR_FULL", "RGB") if is_ybr else raw
    found = decoded(ds)
    np.testing.assert_array_equal(found, wanted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_array_equal(found, reference_frame(to_bytes(ds), 0))


@pytest.mark.parametrize(
    ("markers", "photometric", "names", "sampling"),
    [
        (adobe(1), "RGB", PLAIN, 0x11),
        (adobe(0), "YBR_FULL", PLAIN, 0x11),
        (b"", "RGB", PLAIN, 0x21),
        (adobe(1), "RGB", b"RGB", 0x11),
    ],
)
def test_line_23_a_jpeg_that_contradicts_its_header_is_refused(
    markers: bytes, photometric: str, names: bytes, sampling: int
) -> None:
    assert code_of(make_jpeg(markers, photometric, names, sampling)) == "bad-image"


# --- palettes ---------------------------------------------------------------------


def make_palette(
    indices: np.ndarray,
    luts: np.ndarray,
    first: int = 0,
    *,
    segmented: list[bytes] | None = None,
    bits: int = 16,
    **elements: Any,
) -> Dataset:
    """Return a palette image; `luts` has shape (3, entries)."""
    ds = make_instance(pixels=indices, **elements)
    ds.PhotometricInterpretation = "PALETTE COLOR"
    for number, colour in enumerate(("Red", "Green", "Blue")):
        name = f"{colour}PaletteColorLookupTable"
        vr = "SS" if ds.PixelRepresentation else "US"
        ds.add_new(f"{name}Descriptor", vr, [luts.shape[1] % 2**16, first, bits])
        if segmented:
            ds.add_new(f"Segmented{name}Data", "OW", segmented[number])
        else:
            data = luts[number].astype(f"u{bits // 8}").tobytes()
            ds.add_new(f"{name}Data", "OW", data + b"\0" * (len(data) % 2))
    return ds


luts = st.integers(0, 2**32).map(
    lambda seed: np.random.default_rng(seed).integers(0, 2**16, (3, 300))
)


@given(luts, st.integers(1, 300), st.integers(-40, 40), st.sampled_from([8, 16]))
@settings(max_examples=60, deadline=None)
def test_line_23_palettes_by_hand(
    luts: np.ndarray, n: int, first: int, bits: int
) -> None:
    luts = luts[:, :n] % 2**bits
    indices = np.arange(-100, 400, dtype="i2").reshape(20, 25)
    found = decoded(make_palette(indices, luts, first, bits=bits))
    assert found.dtype == np.dtype(f"u{bits // 8}")
    for y, x in np.ndindex(indices.shape):
        place = min(max(int(indices[y, x]) - first, 0), n - 1)
        assert found[y, x].tolist() == luts[:, place].tolist()


@pytest.mark.parametrize("bits", [8, 16])
def test_line_23_palettes_as_pydicom_applies_them(bits: int) -> None:
    luts = np.random.default_rng(3).integers(0, 2**bits, (3, 256))
    indices = np.arange(256, dtype="u1").reshape(16, 16)
    ds = make_palette(indices, luts, bits=bits)
    wanted = apply_color_lut(indices, pydicom.dcmread(io.BytesIO(to_bytes(ds))))
    np.testing.assert_array_equal(decoded(ds), wanted, strict=True)
    np.testing.assert_array_equal(reference_frame(to_bytes(ds), 0), wanted)


SEGMENTS = [0, 3, 10, 20, 30, 1, 5, 200, 0, 1, 7]
"""Three entries, a ramp of five to 200, one more."""


@pytest.mark.parametrize("bits", [8, 16])
def test_line_23_segmented_palettes(bits: int) -> None:
    words = np.array(SEGMENTS, f"u{bits // 8}")
    data = words.tobytes() + b"\0" * (words.nbytes % 2)
    luts = np.zeros((3, 9))
    indices = np.arange(9, dtype="u1").reshape(3, 3)
    ds = make_palette(indices, luts, segmented=[data] * 3, bits=bits)
    found = decoded(ds)
    assert found[..., 0].ravel().tolist() == [10, 20, 30, 64, 98, 132, 166, 200, 7]
    wanted = apply_color_lut(indices, pydicom.dcmread(io.BytesIO(to_bytes(ds))))
    np.testing.assert_array_equal(found, wanted, strict=True)


def test_line_23_indirect_segments_of_8_bits() -> None:
    data = bytes([0, 2, 5, 9, 1, 2, 19, 2, 2, 0, 0, 0, 0])
    luts = np.zeros((3, 8))
    indices = np.arange(8, dtype="u1").reshape(2, 4)
    ds = make_palette(indices, luts, segmented=[data + b"\0"] * 3, bits=8)
    found = decoded(ds)[..., 0].ravel().tolist()
    assert found == [5, 9, 14, 19, 5, 9, 14, 19]


@pytest.mark.parametrize(
    "change",
    [
        {"AlphaPaletteColorLookupTableDescriptor": [256, 0, 8]},
        {"RedPaletteColorLookupTableDescriptor": [256, 0, 12]},
        {"RedPaletteColorLookupTableDescriptor": [255, 0, 8]},
        {"RedPaletteColorLookupTableData": b"\0" * 30},
        {"GreenPaletteColorLookupTableData": b"\0" * 1000},
    ],
    ids=str,
)
def test_line_23_other_palettes_are_refused(change: dict[str, Any]) -> None:
    luts = np.zeros((3, 256))
    ds = make_palette(np.zeros((4, 4), "u1"), luts, bits=8)
    for keyword, value in change.items():
        setattr(ds, keyword, value)
    assert code_of(ds) in {"colour", "bad-pixels"}


def test_line_23_a_supplemental_palette_stays_monochrome() -> None:
    ds = make_palette(np.arange(16, dtype="u1").reshape(4, 4), np.zeros((3, 16)))
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.PixelPresentation = "COLOR"
    np.testing.assert_array_equal(decoded(ds), np.arange(16).reshape(4, 4))


# --- the whole way ----------------------------------------------------------------


@pytest.mark.parametrize("profile", ["slice", "balanced", "patch"])
def test_line_23_colour_is_stored_where_modalities_are_trusted(
    profile: str, tmp_path: Path, convert, key
) -> None:
    rgb = picture(300, 700)
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.dcm").write_bytes(to_bytes(make_colour(rgb)))
    luts = np.random.default_rng(0).integers(0, 2**16, (3, 256))
    indices = np.arange(64, dtype="u1").reshape(8, 8)
    other = make_palette(indices, luts, series=2, Modality="US")
    del other.ImagePositionPatient, other.ImageOrientationPatient
    (folder / "b.dcm").write_bytes(to_bytes(other))
    store = tmp_path / "store.zarr"
    convert(folder, store, trust_pixels=("OT", "US"), profile=profile)
    ds = dicomdask.open_dataset(str(store))
    by_shape = {tuple(row["shape"]): row for _, row in ds.volumes.iterrows()}
    assert set(by_shape) == {(3, 300, 700), (3, 8, 8)}
    for row in by_shape.values():
        assert list(row["dimensions"]) == ["c", "y", "x"]
    found = ds.read(by_shape[3, 300, 700]["volume_id"])
    np.testing.assert_array_equal(found, np.moveaxis(rgb, -1, 0))
    green = ds.read(by_shape[3, 300, 700]["volume_id"], c=1, y=slice(3, 9))
    np.testing.assert_array_equal(green, rgb[3:9, :, 1])
    small = ds.read(by_shape[3, 8, 8]["volume_id"])
    np.testing.assert_array_equal(small, luts[:, :64].reshape(3, 8, 8))
    scaled = ds.read(by_shape[3, 8, 8]["volume_id"], values="modality")
    assert scaled.shape == (3, 8, 8)
    report = verify(str(store), work=Work(f"{store}.work"), key=key)
    assert not report.problems
    assert report.n_frames == 2


def test_colour_is_rejected_where_nobody_looked(tmp_path, convert) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.dcm").write_bytes(to_bytes(make_colour(picture())))
    convert(folder, tmp_path / "store.zarr")
    ds = dicomdask.open_dataset(str(tmp_path / "store.zarr"))
    assert ds.inputs["code"].tolist() == ["burned-in-risk"]


def test_line_23_a_volume_in_colour_has_its_samples_before_its_slices(
    tmp_path, convert, key
) -> None:
    """As NGFF orders axes: t, c, then those of space."""
    rng = np.random.default_rng(5)
    frames = rng.integers(0, 255, (5, 40, 36, 3), np.uint8)
    for number, rgb in enumerate(frames):
        ds = make_colour(rgb, instance=number + 1)
        ds.Modality = "MR"
        ds.ImagePositionPatient = [0.0, 0.0, 3.0 * number]
        ds.ImageOrientationPatient = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
        ds.PixelSpacing = [0.5, 0.5]
        ds.RescaleIntercept, ds.RescaleSlope = -5, 1 + number
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{number}.dcm").write_bytes(to_bytes(ds))
    store = tmp_path / "o.zarr"
    convert(tmp_path / "in", store, trust_pixels=("MR",))
    dataset = dicomdask.open_dataset(str(store))
    (row,) = dataset.volumes.to_dict("records")
    assert "".join(row["dimensions"]) == "czyx"
    assert [*row["chunks"]][:1] == [*row["shards"]][:1] == [3]
    wanted = np.moveaxis(frames, -1, 0)
    name = row["volume_id"]
    np.testing.assert_array_equal(dataset.read(name), wanted)
    np.testing.assert_array_equal(dataset.read(name, z=2, c=1), wanted[1, 2])
    slopes = np.arange(1, 6)[:, None, None]
    scaled = dataset.read(name, values="modality", z=slice(1, 4))
    np.testing.assert_array_equal(scaled, (wanted * slopes - 5.0)[:, 1:4])
    assert dataset.read(name, values="display").shape == wanted.shape
    report = verify(str(store), work=Work(f"{store}.work"), key=key)
    assert (report.n_frames, report.problems) == (5, ())
