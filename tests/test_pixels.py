"""Decoding: equality with pydicom, and nothing made up where bytes are missing."""

import dataclasses
import io
import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import apply_color_lut, apply_rescale
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from dicomdask.errors import InputError
from dicomdask.header import read_dataset, read_instance
from dicomdask.model import Instance, SourceFile
from dicomdask.pixels import (
    check_pixels,
    decode_frames,
    modality_parameters,
    reference_frame,
    stored_dtype,
)
from tests.builders import make_instance, to_bytes

STORAGE = "1.2.840.10008.5.1.4.1.1"
RAW = [
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
]
PACKED = [RLELossless, JPEG2000Lossless, JPEGLSLossless]
RGB = {"samples_per_pixel": 3, "photometric_interpretation": "RGB"}
BIG = {"size": 10**6, "bits_stored": None}
STORABLE = ("multiframe", "enhanced-multiframe", "mosaic")


@contextmanager
def quietly() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def read(data: bytes, **fields: Any) -> Instance:
    instance = read_instance(io.BytesIO(data), SourceFile("a.dcm", len(data), "e"))
    return dataclasses.replace(instance, **fields)


def code_of(instance: Instance, **options: Any) -> str | None:
    try:
        check_pixels(instance, **options)
    except InputError as error:
        return error.code
    return None


def decode_code(data: bytes) -> str:
    with quietly(), pytest.raises(InputError) as caught:
        decode_frames(read_dataset(data))
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return caught.value.code


def ramp(dtype: str, shape: tuple[int, ...] = (16, 12)) -> np.ndarray:
    info = np.iinfo(dtype)
    values = np.linspace(info.min, info.max, int(np.prod(shape)))
    return values.astype(dtype).reshape(shape)


def packed(syntax: str, pixels: np.ndarray | None = None) -> Dataset:
    # OpenJPEG wants 32 rows and columns.
    ds = make_instance(pixels=ramp("i2", (40, 36)) if pixels is None else pixels)
    ds.compress(syntax, generate_instance_uid=False)
    return ds


# --- what the header says ---------------------------------------------------------


def test_plain_slice_may_be_stored() -> None:
    check_pixels(read(to_bytes(make_instance())))


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"sop_class_uid": f"{STORAGE}.66.4"}, "segmentation"),
        ({"sop_class_uid": f"{STORAGE}.66.7"}, "segmentation"),
        ({"sop_class_uid": f"{STORAGE}.2.1"}, "functional-groups"),
        ({"sop_class_uid": f"{STORAGE}.4.4"}, "functional-groups"),
        ({"sop_class_uid": f"{STORAGE}.77.1.6"}, "enhanced-multiframe"),
        ({"number_of_frames": 2, "size": 10**6, "modality": "NM"}, "multiframe"),
        ({"number_of_frames": 10**9, "size": 10**6}, "too-large"),
        ({"number_of_frames": -2}, "bad-image"),
        ({"is_mosaic": True}, "mosaic"),
        ({"has_modality_lut": True}, None),
        ({"pixel_keyword": "FloatPixelData"}, "bit-depth"),
        ({"pixel_keyword": "FloatPixelData", "bits_allocated": 32, **BIG}, None),
        ({"pixel_keyword": "DoubleFloatPixelData", "bits_allocated": 64, **BIG}, None),
        ({"samples_per_pixel": 4, "photometric_interpretation": "ARGB"}, "colour"),
        ({"samples_per_pixel": 4, "photometric_interpretation": "CMYK"}, "colour"),
        ({"samples_per_pixel": 3, "photometric_interpretation": "HSV"}, "colour"),
        ({"samples_per_pixel": 3, "photometric_interpretation": "YBR_FULL"}, None),
        ({"samples_per_pixel": 2, "photometric_interpretation": "RGB"}, "bad-image"),
        ({"photometric_interpretation": "PALETTE COLOR"}, None),
        ({"photometric_interpretation": "YBR_FULL_422"}, "bad-image"),
        ({"photometric_interpretation": "RGB"}, "bad-image"),
        ({"photometric_interpretation": None}, "bad-image"),
        ({"photometric_interpretation": "GREY"}, "bad-image"),
        ({"samples_per_pixel": None}, "bad-image"),
        ({"samples_per_pixel": 0}, "bad-image"),
        ({"rows": None}, "bad-image"),
        ({"columns": 0}, "bad-image"),
        ({"bits_allocated": None}, "bad-image"),
        ({"bits_stored": None}, "bad-image"),
        ({"pixel_representation": 2}, "bad-image"),
        ({"rescale_slope": float("nan")}, "bad-image"),
        ({"rescale_intercept": float("inf")}, "bad-image"),
        ({"bits_allocated": 1, "bits_stored": 1, "high_bit": 0}, None),
        ({"bits_allocated": 12, "bits_stored": 12, "high_bit": 11}, None),
        ({"bits_allocated": 24}, "bit-depth"),
        ({"bits_stored": 12}, "bit-depth"),
        ({"high_bit": 14}, "bit-depth"),
        ({"high_bit": None}, None),
        ({"bits_allocated": 64}, "bit-depth"),
        ({"bits_stored": 17}, "bit-depth"),
        ({"bits_stored": 0}, "bit-depth"),
        ({"transfer_syntax_uid": "1.2.840.10008.1.2.4.94"}, "no-decoder"),
        ({"transfer_syntax_uid": "1.2.840.10008.1.2.4.100"}, "no-decoder"),
        ({"transfer_syntax_uid": "nonsense"}, "no-decoder"),
        ({"size": 383}, "truncated"),
        ({"size": 384 * 3, **RGB}, None),
        ({"size": 384 * 3 - 1, **RGB}, "truncated"),
        ({"pixel_keyword": None}, "truncated"),
    ],
    ids=str,
)
def test_refused_by_the_header(fields: dict[str, Any], code: str | None) -> None:
    assert code_of(read(to_bytes(make_instance()), **fields)) == code


def test_limit_counts_decoded_bytes() -> None:
    instance = read(to_bytes(make_instance()))
    assert code_of(instance, limit=384) is None
    assert code_of(instance, limit=383) == "too-large"
    claimed = dataclasses.replace(instance, rows=65535, columns=65535)
    assert code_of(claimed, limit=10**9) == "too-large"


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4"])
@pytest.mark.parametrize("syntax", RAW)
def test_dtype_is_predicted(dtype: str, syntax: str) -> None:
    pixels = ramp(dtype)
    if syntax == ExplicitVRBigEndian:
        pixels = pixels.astype(pixels.dtype.newbyteorder(">"))
    ds = make_instance(pixels=pixels, transfer_syntax=syntax)
    if dtype in {"u1", "i1"}:
        ds["PixelData"].VR = "OB"
    data = to_bytes(ds)
    frames = decode_frames(read_dataset(data))
    assert frames.shape == (1, 16, 12)
    assert frames.dtype.isnative
    assert frames.dtype == np.dtype(stored_dtype(read(data)))
    np.testing.assert_array_equal(frames[0], pixels)
    np.testing.assert_array_equal(frames[0], reference_frame(data, 0))


def test_dtype_of_floats_and_of_nonsense() -> None:
    instance = read(to_bytes(make_instance()))
    one = dataclasses.replace(instance, pixel_keyword="FloatPixelData")
    assert stored_dtype(one) == "float32"
    for fields in ({"pixel_representation": 3}, {"bits_allocated": None}):
        with pytest.raises(InputError, match="contradict"):
            stored_dtype(dataclasses.replace(instance, **fields))


# --- values -----------------------------------------------------------------------


@pytest.mark.parametrize("signed", [0, 1])
def test_line_19_junk_in_unused_bits_does_not_reach_values(signed: int) -> None:
    values = np.arange(192, dtype="u2").reshape(16, 12) * 21 % 4096
    junk = values | 0xA000
    ds = make_instance(
        pixels=junk, BitsStored=12, HighBit=11, PixelRepresentation=signed
    )
    data = to_bytes(ds)
    frames = decode_frames(read_dataset(data))
    wanted = values.astype("i4") - 4096 * (signed * (values >= 2048))
    np.testing.assert_array_equal(frames[0], wanted)
    np.testing.assert_array_equal(
        frames[0], pydicom.dcmread(io.BytesIO(data)).pixel_array
    )


@pytest.mark.parametrize("syntax", PACKED)
@pytest.mark.parametrize("dtype", ["u1", "u2", "i2"])
def test_line_25_lossless_syntaxes(syntax: str, dtype: str) -> None:
    pixels = ramp(dtype, (40, 36))
    data = to_bytes(packed(syntax, pixels))
    instance = read(data)
    check_pixels(instance)
    frames = decode_frames(read_dataset(data))
    np.testing.assert_array_equal(frames[0], pixels)
    assert frames.dtype == np.dtype(stored_dtype(instance))
    np.testing.assert_array_equal(frames[0], reference_frame(data, 0))


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless])
def test_line_19_sign_of_the_stream_follows_the_header(syntax: str) -> None:
    pixels = np.arange(1440, dtype="u2").reshape(40, 36) * 21 % 4096
    ds = make_instance(pixels=pixels, BitsStored=12, HighBit=11)
    ds.compress(syntax, generate_instance_uid=False)
    ds.PixelRepresentation = 1
    data = to_bytes(ds)
    frames = decode_frames(read_dataset(data))
    wanted = pixels.astype("i2") - 4096 * (pixels >= 2048)
    np.testing.assert_array_equal(frames[0], wanted)
    np.testing.assert_array_equal(
        frames[0], pydicom.dcmread(io.BytesIO(data)).pixel_array
    )


def test_line_19_frames_and_odd_lengths() -> None:
    pixels = np.arange(3 * 5 * 3, dtype="u1").reshape(3, 5, 3)
    ds = make_instance(pixels=pixels)
    ds.PixelData += b"\0"
    data = to_bytes(ds)
    np.testing.assert_array_equal(decode_frames(read_dataset(data)), pixels)
    np.testing.assert_array_equal(reference_frame(data, 2), pixels[2])


def test_bytes_behind_the_claimed_frames_are_left_alone() -> None:
    ds = make_instance(pixels=ramp("i2"))
    ds.PixelData *= 2
    with quietly():
        frames = decode_frames(read_dataset(to_bytes(ds)))
    np.testing.assert_array_equal(frames, ramp("i2")[np.newaxis])


@pytest.mark.parametrize(
    ("slope", "intercept"),
    [("2.5", "-3"), ("0", "7"), ("1e-3", "0.1"), (None, None), ("", "5"), ("2", "")],
)
def test_line_18_modality_parameters_equal_apply_rescale(
    slope: str | None, intercept: str | None
) -> None:
    ds = make_instance(RescaleSlope=slope, RescaleIntercept=intercept)
    a, b = modality_parameters(ds)
    values = ramp("i2").astype(np.float64) * a + b
    if "" in {slope, intercept}:
        assert (a, b) == (1.0, 0.0)
    else:
        np.testing.assert_array_equal(values, apply_rescale(ramp("i2"), ds))


def test_line_18_one_missing_parameter_is_no_rescale() -> None:
    assert modality_parameters(make_instance(RescaleSlope=None)) == (1.0, 0.0)
    assert modality_parameters(make_instance(RescaleIntercept=None)) == (1.0, 0.0)


def test_parameter_that_cannot_be_read_is_refused() -> None:
    data = to_bytes(make_instance(RescaleSlope="2.5125"))
    ds = read_dataset(data.replace(b"2.5125", b"2.51.5"))
    with quietly(), pytest.raises(InputError) as caught:
        modality_parameters(ds)
    assert caught.value.code == "bad-image"
    assert "2.51" not in str(caught.value)


# --- damage -----------------------------------------------------------------------


@pytest.mark.parametrize("syntax", RAW)
@pytest.mark.parametrize("n", [2, 100, 382, 384])
def test_line_20_uncompressed_pixels_that_are_cut(syntax: str, n: int) -> None:
    ds = make_instance(pixels=ramp("i2"), transfer_syntax=syntax)
    ds.PixelData = ds.PixelData[:-n]
    assert decode_code(to_bytes(ds)) == "truncated"


@pytest.mark.parametrize("syntax", RAW[:3])
def test_line_20_file_that_is_cut_in_its_pixels(syntax: str) -> None:
    data = to_bytes(make_instance(pixels=ramp("i2"), transfer_syntax=syntax))
    assert decode_code(data[:-2]) == "truncated"


@pytest.mark.parametrize("syntax", PACKED)
@pytest.mark.parametrize("n", [8, 9, 60])
def test_line_20_compressed_file_that_is_cut(syntax: str, n: int) -> None:
    assert decode_code(to_bytes(packed(syntax))[:-n]) == "truncated"


@pytest.mark.parametrize("syntax", PACKED)
@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9])
def test_line_20_stream_that_is_cut(syntax: str, keep: float) -> None:
    ds = packed(syntax, np.random.default_rng(1).integers(0, 999, (64, 64), "u2"))
    (stream,) = generate_frames(ds.PixelData, number_of_frames=1)
    ds.PixelData = encapsulate([stream[: int(len(stream) * keep)]])
    wanted = {"truncated", "bad-pixels"} if syntax == RLELossless else {"truncated"}
    assert decode_code(to_bytes(ds)) in wanted


@pytest.mark.parametrize("syntax", PACKED)
def test_line_20_frames_that_are_missing(syntax: str) -> None:
    ds = packed(syntax)
    ds.NumberOfFrames = 2
    assert decode_code(to_bytes(ds)) in {"truncated", "bad-pixels"}


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless])
def test_stream_of_another_size_is_refused(syntax: str) -> None:
    ds = packed(syntax)
    ds.Rows, ds.Columns = ds.Columns, ds.Rows
    assert decode_code(to_bytes(ds)) == "bad-image"


@pytest.mark.parametrize("syntax", PACKED)
def test_garbage_is_bad_pixels(syntax: str) -> None:
    ds = packed(syntax)
    ds.PixelData = encapsulate([b"\xff\xd8" + bytes(range(64)) + b"\xff\xd9"])
    assert decode_code(to_bytes(ds)) == "bad-pixels"


def test_line_38_jpeg_bomb_is_refused_by_its_frame_header() -> None:
    ds = packed(JPEG2000Lossless)
    (stream,) = generate_frames(ds.PixelData, number_of_frames=1)
    large = stream[:8] + struct.pack(">2I", 65535, 65535) + stream[16:]
    ds.PixelData = encapsulate([large])
    assert decode_code(to_bytes(ds)) == "bad-image"


def test_missing_decoder_missing_pixels_and_colour() -> None:
    ds = make_instance()
    ds.file_meta.TransferSyntaxUID = pydicom.uid.UID("1.2.840.10008.1.2.4.100")
    for dataset, code in (
        (ds, "no-decoder"),
        (make_instance(PixelData=None), "truncated"),
        (make_instance(SamplesPerPixel=4), "colour"),
        (make_instance(Rows=None), "bad-pixels"),
    ):
        with pytest.raises(InputError) as caught:
            decode_frames(dataset)
        assert caught.value.code == code


def test_reference_frame_keeps_messages_to_itself() -> None:
    data = to_bytes(make_instance(pixels=ramp("i2")))
    with quietly(), pytest.raises(InputError) as caught:
        reference_frame(data[:-10], 0)
    assert caught.value.code == "bad-pixels"
    with pytest.raises(InputError):
        reference_frame(data, 16)


# --- real files -------------------------------------------------------------------


def dev_files() -> list[Path]:
    root = os.environ.get("DICOMDASK_TEST_DATA")
    if not root:
        pytest.skip("DICOMDASK_TEST_DATA is not set")
    return sorted(path for path in Path(root).rglob("*") if path.is_file())


def pydicom_frames(data: bytes, syntax: str) -> np.ndarray | None:
    """Return what pydicom alone makes of a file; RGB where it is colour."""
    try:
        ds = pydicom.dcmread(io.BytesIO(data), force=True)
        ds.file_meta.TransferSyntaxUID = syntax
        pixels = ds.pixel_array
        is_palette = ds.PhotometricInterpretation == "PALETTE COLOR"
        if is_palette:
            pixels = apply_color_lut(pixels, ds)
        plane = 3 if is_palette or ds.SamplesPerPixel > 1 else 2
        return pixels.reshape(-1, *pixels.shape[-plane:])
    except Exception:  # noqa: BLE001
        return None


BEYOND_PYDICOM = {
    "CTImage.dcm_JPEGProcess6_8TransferSyntax_1.2.840.10008.1.2.4.53.dcm",
    "CTImage.dcm_JPEGProcess10_12TransferSyntax_1.2.840.10008.1.2.4.55.dcm",
    *("liver_deflate.dcm", "liver_nonbyte_aligned_deflate.dcm"),
    *("liver_rle.dcm", "liver_nonbyte_aligned_rle.dcm", "JPEG-lossy.dcm"),
}
"""What pydicom names no decoder for, or whose scan it finds damaged."""
WRONG_IN_PYDICOM = {"OBXXXX1A_expb.dcm", "OBXXXX1A_expb_2frame.dcm"}
"""Palettes of big endian files, which pydicom reads as little endian."""


def test_line_25_real_files_decode_as_pydicom_does() -> None:
    n, beyond = 0, set()
    for path in dev_files():
        data = path.read_bytes()
        with quietly():
            try:
                instance = read(data)
                dataset = read_dataset(data)
            except InputError:
                continue
            wanted = pydicom_frames(data, instance.transfer_syntax_uid)
            try:
                frames = decode_frames(dataset)
            except InputError:
                assert wanted is None, path.name
                continue
        n += 1
        if wanted is None:
            beyond.add(path.name)
        elif path.name not in WRONG_IN_PYDICOM:
            np.testing.assert_array_equal(frames, wanted, err_msg=path.name)
        code = code_of(instance)
        if code is None or code in STORABLE:
            assert frames.dtype == np.dtype(stored_dtype(instance)), path.name
    assert n > 600
    assert beyond == BEYOND_PYDICOM


@pytest.mark.parametrize(
    ("name", "twin"),
    [
        ("OBXXXX1A_expb", "OBXXXX1A"),
        ("OBXXXX1A_expb_2frame", "OBXXXX1A_2frame"),
        ("liver_deflate", "liver"),
        ("liver_rle", "liver"),
        ("liver_nonbyte_aligned_deflate", "liver_nonbyte_aligned"),
        ("liver_nonbyte_aligned_rle", "liver_nonbyte_aligned"),
    ],
)
def test_line_25_what_pydicom_cannot_do_equals_its_twin(name: str, twin: str) -> None:
    found = [
        decode_frames(read_dataset(path.read_bytes()))
        for wanted in (name, twin)
        for path in dev_files()
        if path.name == f"{wanted}.dcm"
    ]
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize(("retired", "near"), [(53, 51), (55, 51)])
def test_line_25_retired_jpegs_show_what_the_extended_one_does(
    retired: int, near: int
) -> None:
    images = {
        number: decode_frames(read_dataset(path.read_bytes()))[0].astype(int)
        for number in (retired, near)
        for path in dev_files()
        if path.name.startswith("CTImage")
        and path.name.endswith(f"1.2.840.10008.1.2.4.{number}.dcm")
    }
    assert np.abs(images[retired] - images[near]).mean() < 20
