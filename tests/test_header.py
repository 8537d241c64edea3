"""Reading headers: what is an image, what is refused, and equality with pydicom."""

import dataclasses
import gzip
import io
import os
import struct
import tracemalloc
import warnings
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dicomdask.errors import CODES, InputError
from dicomdask.header import read_dataset, read_instance
from dicomdask.limits import MAX_HEADER_BYTES
from dicomdask.model import Instance, SourceFile
from tests.builders import ROOT, make_instance, to_bytes

SYNTAXES = [
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
]
OURS = {
    *("url", "size", "token", "header_digest", "transfer_syntax_uid"),
    *("number_of_frames", "pixel_keyword", "has_modality_lut", "is_mosaic"),
    "frame_facts",
    *("header_bytes", "etag"),
}
PADDING = {"pixel_padding_value", "pixel_padding_range_limit"}


def dev_files() -> list[Path]:
    root = os.environ.get("DICOMDASK_TEST_DATA")
    if not root:
        pytest.skip("DICOMDASK_TEST_DATA is not set")
    return sorted(path for path in Path(root).rglob("*") if path.is_file())


def read(data: bytes) -> Instance:
    return read_instance(io.BytesIO(data), SourceFile("a.dcm", len(data), "e", "t"))


def code_of(data: bytes) -> str:
    with pytest.raises(InputError) as caught:
        read(data)
    assert caught.value.reason in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return caught.value.code


def keyword(field: str) -> str:
    upper = {"id", "uid", "sop"}
    words = field.split("_")
    return "".join(w.upper() if w in upper else w.capitalize() for w in words)


def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    if vr in {b"UN", b"OB", b"SQ"}:
        return struct.pack("<HH2sHI", group, number, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", group, number, vr, len(value)) + value


def with_raw(ds: Dataset, group: int, number: int, vr: bytes, value: bytes) -> bytes:
    """Put an element, as raw bytes, into the place of an empty one (explicit VR)."""
    data = to_bytes(ds)
    head = struct.pack("<HH2sH", group, number, vr, 0)
    assert data.count(head) == 1
    return data.replace(head, element(group, number, vr, value))


# --- values -----------------------------------------------------------------------


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_fields_are_read_in_each_transfer_syntax(syntax: str) -> None:
    ds = make_instance(
        instance=3,
        transfer_syntax=syntax,
        EchoTime="4.5",
        EchoNumbers=[2, 3],
        ConvolutionKernel=["B30f", "x"],
        DiffusionBValue=800.0,
        DiffusionGradientOrientation=[0.0, 0.6, 0.8],
        BurnedInAnnotation="NO",
        PixelPaddingValue=-2000,
    )
    instance = read(to_bytes(ds))
    assert instance.url == "a.dcm"
    assert instance.token == "t"
    assert instance.transfer_syntax_uid == syntax
    assert instance.patient_id == "PAT0001"
    assert instance.sop_instance_uid == f"{ROOT}.1.1.1.3"
    assert instance.image_type == ("ORIGINAL", "PRIMARY", "AXIAL")
    assert instance.image_position_patient == (-10.0, -20.0, 5.0)
    assert instance.pixel_spacing == (0.5, 0.75)
    assert (instance.shape, instance.bits_stored) == ((16, 12), 16)
    assert instance.pixel_keyword == "PixelData"
    assert instance.number_of_frames == 1
    assert instance.echo_numbers == 2
    assert instance.convolution_kernel == ("B30f", "x")
    assert instance.diffusion_b_value == 800.0
    assert instance.diffusion_gradient_orientation == (0.0, 0.6, 0.8)
    assert instance.rescale_intercept == -1024.0
    assert instance.pixel_padding_value == -2000
    assert instance.imager_pixel_spacing == ()
    assert instance.inversion_time is None


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (b" 0.5\\0.75 ", (0.5, 0.75)),
        (b"5e-1\\7.5E-1\0", (0.5, 0.75)),
        (b"0,5\\0,75", (0.5, 0.75)),
        (b"1.5 ", (1.5,)),
        (b"    ", ()),
        (b"", ()),
    ],
)
def test_decimal_strings_are_read_leniently(
    text: bytes, wanted: tuple[float, ...]
) -> None:
    ds = make_instance(PixelSpacing="")
    assert read(with_raw(ds, 0x28, 0x30, b"DS", text)).pixel_spacing == wanted


@pytest.mark.parametrize("text", [b"abc ", b"1,024 ", b"1.2.3 ", b"1.0x"])
def test_number_that_cannot_be_read_is_nan_not_missing(text: bytes) -> None:
    ds = make_instance(RescaleSlope="")
    slope = read(with_raw(ds, 0x28, 0x1053, b"DS", text)).rescale_slope
    assert slope is not None
    assert np.isnan(slope)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [(b"7 ", 7), (b"7.0 ", 7), (b"7.5 ", None), (b"9999999999", None), (b"x ", None)],
)
def test_integer_strings(text: bytes, wanted: int | None) -> None:
    ds = make_instance(InstanceNumber="")
    instance = read(with_raw(ds, 0x20, 0x13, b"IS", text))
    assert instance.instance_number == wanted


@pytest.mark.parametrize(
    ("text", "wanted"), [(b"3 ", 3), (b"0 ", 1), (b"", 1), (b"-2", -2)]
)
def test_number_of_frames(text: bytes, wanted: int) -> None:
    ds = make_instance(NumberOfFrames="")
    assert read(with_raw(ds, 0x28, 0x8, b"IS", text)).number_of_frames == wanted


def test_unreadable_number_of_frames_is_a_bad_header() -> None:
    ds = make_instance(NumberOfFrames="")
    assert code_of(with_raw(ds, 0x28, 0x8, b"IS", b"1A")) == "bad-header"


@pytest.mark.parametrize(("dtype", "wanted"), [("i2", -2000), ("u2", 63536)])
@pytest.mark.parametrize("vr", [b"US", b"SS"])
def test_padding_has_the_sign_of_the_pixels(dtype: str, wanted: int, vr: bytes) -> None:
    ds = make_instance(pixels=np.zeros((4, 4), dtype))
    data = to_bytes(ds)
    place = data.index(struct.pack("<HH2s", 0x28, 0x1052, b"DS"))
    extra = element(0x28, 0x120, vr, struct.pack("<H", 63536))
    assert read(data[:place] + extra + data[place:]).pixel_padding_value == wanted


@pytest.mark.parametrize(
    ("charset", "text"),
    [("ISO_IR 192", "Žofie"), ("ISO_IR 100", "Zoé"), ("ISO_IR 144", "Ж-Я")],
)
def test_text_is_decoded_in_its_character_set(charset: str, text: str) -> None:
    ds = make_instance(SpecificCharacterSet=charset, PatientID=text)
    assert read(to_bytes(ds)).patient_id == text


def test_the_same_bytes_mean_what_their_own_header_says() -> None:
    told = {"ISO_IR 100": "é", "ISO_IR 144": "щ"}
    for charset in (*told, *told):
        ds = make_instance(SpecificCharacterSet=charset, PatientID=told[charset])
        data = to_bytes(ds)
        assert b"\xe9" in data
        assert read(data).patient_id == told[charset]
    little, big = ExplicitVRLittleEndian, ExplicitVRBigEndian
    for syntax, acquired in ((little, 1), (big, 256), (little, 1)):
        order = "little" if syntax == little else "big"
        ds = make_instance(transfer_syntax=syntax, BitsStored=acquired)
        assert acquired.to_bytes(2, order) == b"\1\0"
        assert read(to_bytes(ds)).bits_stored == acquired


def test_patient_id_keeps_all_its_values() -> None:
    assert read(to_bytes(make_instance(PatientID=["A", "B"]))).patient_id == "A\\B"


def test_modality_lut_and_mosaic_are_seen() -> None:
    item = Dataset()
    item.LUTDescriptor = [2, 0, 16]
    item["LUTDescriptor"].VR = "US"
    ds = make_instance(ModalityLUTSequence=[item])
    assert read(to_bytes(ds)).has_modality_lut
    ds["ModalityLUTSequence"].is_undefined_length = True
    assert read(to_bytes(ds)).has_modality_lut
    assert not read(to_bytes(make_instance(ModalityLUTSequence=[]))).has_modality_lut
    mosaic = make_instance(ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"])
    assert read(to_bytes(mosaic)).is_mosaic


@pytest.mark.parametrize("syntax", SYNTAXES[:3])
def test_nested_sequences_of_undefined_length_are_skipped(syntax: str) -> None:
    ds = make_instance(transfer_syntax=syntax)
    inner, outer = Dataset(), Dataset()
    inner.EchoTime = 7
    outer.ReferencedImageSequence = [inner, Dataset()]
    outer.EchoTime = 8
    ds.ReferencedSeriesSequence = [outer, inner]
    for element in (outer["ReferencedImageSequence"], ds["ReferencedSeriesSequence"]):
        element.is_undefined_length = True
        for item in element.value:
            item.is_undefined_length_sequence_item = True
    instance = read(to_bytes(ds))
    assert instance.echo_time is None
    assert instance.rows == 16


def test_deep_nesting_needs_no_recursion() -> None:
    ds = make_instance(ReferencedSeriesSequence=[])
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    sequence = struct.pack("<HH2sHI", 8, 0x1115, b"SQ", 0, 0xFFFFFFFF)
    ends = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    data = to_bytes(ds)
    empty = struct.pack("<HH2sHI", 8, 0x1115, b"SQ", 0, 0)
    assert empty in data
    deep = (sequence + item) * 20_000 + ends * 20_000
    assert read(data.replace(empty, deep)).rows == 16


# --- digest and what is read ------------------------------------------------------


def test_digest_is_of_the_header_only() -> None:
    one = make_instance(pixels=np.zeros((4, 4), "i2"))
    two = make_instance(pixels=np.ones((4, 4), "i2"))
    three = make_instance(pixels=np.ones((4, 4), "i2"), PatientID="else")
    first, second, third = (read(to_bytes(ds)) for ds in (one, two, three))
    assert len(first.header_digest) == 32
    assert first.header_digest == second.header_digest != third.header_digest


class Counting(io.BytesIO):
    n = 0

    def read(self, size: int | None = -1) -> bytes:
        block = super().read(size)
        self.n += len(block)
        return block


def test_only_the_header_is_read() -> None:
    data = to_bytes(make_instance(pixels=np.zeros((1024, 1024), "i2")))
    file = Counting(data)
    read_instance(file, SourceFile("a", len(data), "e"))
    assert file.n <= 1 << 15


@pytest.mark.parametrize("data", [bytes(1 << 20), b"A" * (1 << 20)])
def test_what_is_not_dicom_is_not_read_to_its_end(data: bytes) -> None:
    file = Counting(data)
    with pytest.raises(InputError):
        read_instance(file, SourceFile("a", len(data), "e"))
    assert file.n <= 1 << 15


# --- files without preamble or transfer syntax ------------------------------------


def bare(ds: Dataset, syntax: str) -> bytes:
    buffer = io.BytesIO()
    implicit = syntax == ImplicitVRLittleEndian
    little = syntax != ExplicitVRBigEndian
    ds = Dataset(ds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pydicom.dcmwrite(buffer, ds, implicit_vr=implicit, little_endian=little)
    return buffer.getvalue()


@pytest.mark.parametrize("syntax", SYNTAXES[:3])
def test_line_26_a_file_without_preamble_and_meta_is_read(syntax: str) -> None:
    data = bare(make_instance(transfer_syntax=syntax), syntax)
    assert data[128:132] != b"DICM"
    instance = read(data)
    assert instance.transfer_syntax_uid == syntax
    assert instance.columns == 12
    assert read_dataset(data).file_meta.TransferSyntaxUID == syntax


def test_line_26_file_meta_without_a_transfer_syntax() -> None:
    ds = make_instance()
    data = to_bytes(ds)
    place = data.index(b"\x02\0\x10\0UI")
    length = 8 + int.from_bytes(data[place + 6 : place + 8], "little")
    bare_meta = data[:place] + data[place + length :]
    assert read(bare_meta).transfer_syntax_uid == ExplicitVRLittleEndian
    dataset = read_dataset(bare_meta)
    assert dataset.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert dataset.PixelData == ds.PixelData


def test_bare_file_that_is_cut_is_a_bad_header() -> None:
    data = bare(make_instance(), ExplicitVRLittleEndian)
    assert code_of(data[:300]) == "bad-header"


def test_line_26_preamble_of_another_format_is_dicom() -> None:
    data = to_bytes(make_instance())
    for magic in (b"II*\0", b"PK\3\4", b"\x1f\x8b"):
        assert read(magic + data[len(magic) :]).rows == 16


# --- refusals ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4,
        b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(range(256)) * 4,
        b"An ordinary text, with letters.\n" * 40,
        b'{"PatientID": {"vr": "LO"}}' * 20,
        b"<!DOCTYPE html><html></html>" * 20,
        struct.pack("<i", 348) + bytes(340) + b"n+1\0" + bytes(500),
        gzip.compress(struct.pack("<i", 348) + bytes(340) + b"n+1\0" + bytes(500)),
        bytes(4096),
        b"\x08\0",
        b"\x08\0\x05\0\x04\0\0\0abcd" + bytes(range(256)) * 4,
        b"\x08\0\x05\0CS\x04\0abcd" + b"\xff" * 400,
    ],
    ids=[
        *("png", "jpeg", "text", "json", "html", "nifti", "nifti-gz", "zeros"),
        *("short", "implicit", "explicit"),
    ],
)
def test_line_26_other_formats_are_not_dicom(data: bytes) -> None:
    assert code_of(data) == "not-dicom"


@given(st.binary(min_size=1, max_size=2000))
@settings(max_examples=300, deadline=None)
def test_line_26_random_bytes_are_never_indexed(data: bytes) -> None:
    assert code_of(data) in {"not-dicom", "archive"}
    assert code_of(b"\x08\0\x05\0" + data) in {"not-dicom", "archive"}


@pytest.mark.parametrize(
    "data",
    [
        b"PK\3\4" + bytes(300),
        gzip.compress(bytes(300)),
        b"7z\xbc\xaf\x27\x1c" + bytes(300),
        bytes(257) + b"ustar" + bytes(300),
    ],
    ids=["zip", "gzip", "7z", "tar"],
)
def test_archives_are_named(data: bytes) -> None:
    assert code_of(data) == "archive"


def test_line_34_empty_file() -> None:
    assert code_of(b"") == "empty-file"


@pytest.mark.parametrize(
    "name",
    ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"],
)
def test_missing_uid(name: str) -> None:
    ds = make_instance(**{name: None})
    assert code_of(to_bytes(ds)) == "missing-uid"


def test_line_33_a_dicomdir_is_named() -> None:
    ds = make_instance(PixelData=None, DirectoryRecordSequence=[], Rows=None)
    assert code_of(to_bytes(ds)) == "dicomdir"
    uid = "1.2.840.10008.1.3.10"
    ds = make_instance(PixelData=None, Rows=None, SOPClassUID=uid)
    assert code_of(to_bytes(ds)) == "dicomdir"


@pytest.mark.parametrize(
    "uid",
    [
        "1.2.840.10008.5.1.4.1.1.88.11",  # basic text SR
        "1.2.840.10008.5.1.4.1.1.104.1",  # encapsulated PDF
        "1.2.840.10008.5.1.4.1.1.481.3",  # RT structure set
        "1.2.840.10008.5.1.4.1.1.11.1",  # presentation state
    ],
)
def test_line_33_object_without_pixels(uid: str) -> None:
    ds = make_instance(PixelData=None, Rows=None, SOPClassUID=uid)
    assert code_of(to_bytes(ds)) == "no-pixels"


def test_image_that_lost_its_pixels_is_not_skipped() -> None:
    assert (
        code_of(to_bytes(make_instance(PixelData=None, Rows=None))) == "missing-pixels"
    )
    assert read(to_bytes(make_instance(PixelData=None))).pixel_keyword is None


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_header_that_is_cut_anywhere_is_refused(syntax: str) -> None:
    data = to_bytes(make_instance(transfer_syntax=syntax, Rows=16))
    whole = read(data)
    for n in range(133, 700, 7):
        try:
            cut = read(data[:n])
        except InputError as error:
            assert error.code in {"bad-header", "missing-uid", "missing-pixels"}  # noqa: PT017
        else:
            assert cut.pixel_keyword is None or cut.rows == whole.rows


def test_length_beyond_the_file_is_a_bad_header() -> None:
    data = to_bytes(make_instance())
    place = data.index(struct.pack("<HH", 0x28, 0x1052))
    long = struct.pack("<HH2sHI", 0x28, 0x1051, b"UN", 0, 0x3FFFFFF)
    assert code_of(data[:place] + long + data[place:]) == "bad-header"


def deflated(body: bytes) -> bytes:
    data = to_bytes(make_instance(transfer_syntax=DeflatedExplicitVRLittleEndian))
    length = struct.unpack_from("<I", data, 140)[0]
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return data[: 144 + length] + packer.compress(body) + packer.flush()


def test_deflate_bomb_in_the_header_is_refused_in_bounded_memory() -> None:
    n = MAX_HEADER_BYTES + (1 << 20)
    head = struct.pack("<HH2sHI", 8, 0x5, b"UN", 0, n)
    bomb = deflated(head + bytes(n))
    tracemalloc.start()
    try:
        assert code_of(bomb) == "too-large"
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("n", [MAX_HEADER_BYTES, 0xFFFFFFF0])
def test_a_length_far_beyond_the_file_is_damage_and_not_a_large_header(n: int) -> None:
    data = to_bytes(make_instance())
    at = data.index(b"\x08\0\x05\0CS")
    long = struct.pack("<HH2sHI", 8, 0x5, b"UN", 0, n)
    assert code_of(data[:at] + long + data[at + 8 :]) == "bad-header"


def test_a_limit_counts_what_a_header_inflates_to() -> None:
    ds = make_instance(transfer_syntax=DeflatedExplicitVRLittleEndian)
    ds.private_block(0x0029, "NOISE", create=True).add_new(0x10, "OB", bytes(50_000))
    data = to_bytes(ds)
    source = SourceFile("a.dcm", len(data), "", "")
    length = read(data).header_bytes
    assert length > 10 * len(data)
    for limit, code in ((length + 100, ""), (length - 100, "too-large")):
        found = ""
        try:
            read_instance(io.BytesIO(data), source, limit=limit)
        except InputError as error:
            found = error.code
        assert found == code


def test_deflate_bomb_in_the_pixels_is_refused_in_bounded_memory() -> None:
    n = 64 << 20
    head = struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OW", 0, n)
    bomb = deflated(head + bytes(n))
    tracemalloc.start()
    try:
        with pytest.raises(InputError) as caught:
            read_dataset(bomb, limit=16 << 20)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert caught.value.code == "too-large"


# --- hostile bytes ----------------------------------------------------------------


@given(
    st.sampled_from(SYNTAXES),
    st.lists(st.tuples(st.integers(0, 900), st.binary(max_size=6)), max_size=8),
    st.integers(0, 1100),
)
@settings(max_examples=400, deadline=None)
def test_hostile_headers_raise_nothing_but_input_errors(
    syntax: str, edits: list[tuple[int, bytes]], cut: int
) -> None:
    data = bytearray(to_bytes(make_instance(transfer_syntax=syntax)))
    for place, value in edits:
        data[132 + place : 132 + place + len(value)] = value
    data = data[: 132 + cut] if cut < 1000 else data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for reader in (read, read_dataset):
            try:
                reader(bytes(data))
            except InputError as error:
                assert error.code in CODES  # noqa: PT017
                assert "PAT0001" not in str(error)  # noqa: PT017


# --- real files -------------------------------------------------------------------


def numbers(value: object) -> tuple[float, ...]:
    if value is None or value == "":
        return ()
    many = value if isinstance(value, list | pydicom.multival.MultiValue) else [value]
    return tuple(float(part) for part in many)


def texts(value: object) -> tuple[str, ...]:
    if value is None or str(value).strip(" \0") == "":
        return ()
    many = value if isinstance(value, pydicom.multival.MultiValue) else [value]
    return tuple(str(part).strip(" \0") for part in many)


def wanted(ds: Dataset, field: dataclasses.Field) -> object:
    """Return what an independent reader gives for a field."""
    value, kind = ds.get(keyword(field.name)), str(field.type)
    if "tuple[float" in kind:
        return numbers(value)
    if "tuple[str" in kind:
        return texts(value)
    if "str" in kind:
        words = texts(value)
        return (words[0] or None) if words else None
    values = numbers(value)
    if field.name in PADDING and values:
        signed = ds.get("PixelRepresentation") == 1
        low = int(values[0]) % 2**16
        return low - 2**16 if signed and low >= 2**15 else low
    return values[0] if values else None


def test_real_files_equal_pydicom_or_are_refused() -> None:
    n = 0
    for path in dev_files():
        data = path.read_bytes()
        try:
            instance = read(data)
        except InputError as error:
            assert error.code in CODES  # noqa: PT017
            assert error.reason in CODES.values()  # noqa: PT017
            continue
        n += 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ds = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True, force=True)
            for field in dataclasses.fields(Instance):
                if field.name not in OURS:
                    assert getattr(instance, field.name) == wanted(ds, field), (
                        path.name,
                        field.name,
                    )
            assert instance.number_of_frames == int(ds.get("NumberOfFrames") or 1)
            assert instance.has_modality_lut == bool(ds.get("ModalityLUTSequence"))
            syntax = ds.file_meta.get("TransferSyntaxUID")
            assert instance.transfer_syntax_uid == syntax or syntax is None
    assert n > 0


def test_real_files_that_are_refused_hold_no_image() -> None:
    for path in dev_files():
        data = path.read_bytes()
        try:
            read(data)
        except InputError as error:
            code = error.code
        else:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                ds = pydicom.dcmread(io.BytesIO(data), force=True)
            except Exception:  # noqa: BLE001
                continue
            whole = "PixelData" in ds and ds.get("SOPClassUID") is not None
        assert not whole or code in {"missing-uid", "missing-pixels", "bad-header"}, (
            path.name
        )
