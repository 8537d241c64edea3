"""Frames without comments: pixels decode as before, and nothing else is left."""

import io
import struct
import zlib

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    MPEG2MPML,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from dicomdask import header, pixels
from dicomdask.deid import clean_file
from dicomdask.deid.streams import clean_frame
from dicomdask.errors import InputError
from dicomdask.policy import load_policy
from dicomdask.pseudonym import Key
from tests.builders import make_instance, to_bytes

KEY = Key(b"0123456789abcdef")
RESEARCH = load_policy("research")
WORD = b"QDEADBEEF QDEADBEEF "


def cleaned(ds):
    data = ds if isinstance(ds, bytes) else to_bytes(ds)
    made = clean_file(header.read_dataset(data), RESEARCH, KEY)
    return made.data, pydicom.dcmread(io.BytesIO(made.data))


def image(uid=None, **elements):
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 4096, (32, 48)).astype(np.uint16)
    ds = make_instance(pixels=pixels, **elements)
    if uid:
        ds.compress(uid, generate_instance_uid=False)
    return ds, pixels


def segment(code, body):
    return struct.pack(">HH", code, len(body) + 2) + body


def frame_of(ds):
    return next(generate_frames(ds.PixelData, number_of_frames=1))


@pytest.mark.parametrize("uid", [JPEGLSLossless, JPEG2000Lossless, RLELossless])
def test_streams_without_comments_keep_every_byte(uid):
    ds, _ = image(uid)
    frame = frame_of(ds)
    kept = clean_frame(frame, uid, 32 * 48)
    if uid == JPEG2000Lossless:  # the encoder leaves its name
        frame = frame[frame.index(b"\xff\x90") :]
    assert kept.rstrip(b"\0").endswith(frame.rstrip(b"\0"))
    assert clean_frame(kept, uid, 32 * 48) == kept


def test_jpeg_ls_loses_application_data_and_comments():
    ds, pixels = image(JPEGLSLossless)
    frame = frame_of(ds).rstrip(b"\0")
    marks = b"".join(segment(code, WORD) for code in (0xFFE0, 0xFFE8, 0xFFEF, 0xFFFE))
    ds.PixelData = encapsulate([frame[:2] + marks + frame[2:] + WORD])
    data, read = cleaned(ds)
    assert b"QDEAD" not in data
    assert np.array_equal(read.pixel_array, pixels)
    assert frame_of(read).rstrip(b"\0") == frame


def test_jpeg_2000_loses_comments_in_all_headers_and_stays_right():
    ds, pixels = image(JPEG2000Lossless)
    frame = clean_frame(frame_of(ds), JPEG2000Lossless, 0)
    main = frame.index(b"\xff\x52")  # in front of COD
    tile = frame.index(b"\xff\x90")
    comment = segment(0xFF64, b"\0\1" + WORD)
    head = bytearray(frame[tile : tile + 12])
    length = struct.unpack_from(">I", head, 6)[0]
    if length:
        struct.pack_into(">I", head, 6, length + len(comment))
    tlm = segment(0xFF55, b"\0\x40" + struct.pack(">I", length))
    planted = (
        frame[:main]
        + comment
        + tlm
        + frame[main:tile]
        + bytes(head)
        + comment
        + frame[tile + 12 :]
    )
    ds.PixelData = encapsulate([planted + WORD])
    data, read = cleaned(ds)
    assert b"QDEAD" not in data
    assert np.array_equal(read.pixel_array, pixels)
    body = frame.index(b"\xff\x93")
    assert frame_of(read).rstrip(b"\0").endswith(frame[body:])


def test_a_jp2_file_loses_its_boxes():
    ds, pixels = image(JPEG2000Lossless)
    frame = clean_frame(frame_of(ds), JPEG2000Lossless, 0)
    boxes = b"\0\0\0\x0cjP  \r\n\x87\n" + struct.pack(">I4s", 28, b"xml ") + WORD
    jp2 = boxes + struct.pack(">I4s", len(frame) + 8, b"jp2c") + frame
    assert clean_frame(jp2, JPEG2000Lossless, 0) == frame
    ds.PixelData = encapsulate([jp2])
    assert np.array_equal(cleaned(ds)[1].pixel_array, pixels)


def test_lossy_jpeg_keeps_how_colours_are_coded_and_no_other_byte():
    ds = pydicom.dcmread(get_testdata_file("SC_rgb_jpeg_dcmtk.dcm"))
    before = ds.pixel_array
    frame = frame_of(ds)
    adobe = segment(0xFFEE, b"Adobe\0\x64QDEA\1" + b"QDEADBEEF")
    jfif = segment(0xFFE0, b"JFIF\0\1\2\0\0\1\0\1\3\3QDEADBEEFQDEADBEEFQDEADBEEF")
    made = clean_frame(
        frame[:2] + jfif + adobe + frame[2:], "1.2.840.10008.1.2.4.50", 0
    )
    assert b"QDEA" not in made
    assert b"Adobe\0\x64\0\0\0\0\1" in made
    assert b"JFIF" in made
    _, read = cleaned(ds_bytes(ds))
    assert np.array_equal(read.pixel_array, before)


def ds_bytes(ds):
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def test_rle_segments_end_with_their_plane():
    ds, pixels = image(RLELossless)
    frame = frame_of(ds)
    ds.PixelData = encapsulate([frame + WORD])
    data, read = cleaned(ds)
    assert b"QDEAD" not in data
    assert np.array_equal(read.pixel_array, pixels)


def test_deflated_frames_end_with_their_stream():
    packer = zlib.compressobj(wbits=-15)
    frame = packer.compress(bytes(3000)) + packer.flush()
    assert clean_frame(frame + WORD, "1.2.840.10008.1.2.8.1", 0) == frame
    with pytest.raises(InputError) as caught:
        clean_frame(frame[:-3], "1.2.840.10008.1.2.8.1", 0)
    assert caught.value.code == "truncated"


@pytest.mark.parametrize("uid", [JPEGLSLossless, JPEG2000Lossless, RLELossless])
@pytest.mark.parametrize("cut", [0, 1, 2, 10, 40, 100, -1, -2, -30])
def test_damaged_streams_are_refused_or_decode(uid, cut):
    frame = frame_of(image(uid)[0]).rstrip(b"\0")
    try:
        made = clean_frame(frame[:cut], uid, 32 * 48)
    except InputError as error:
        made, code = b"", error.code
    else:
        code = "bad-pixels"
    assert code in {"bad-pixels", "truncated"}
    assert len(made) <= len(frame) + 2


@pytest.mark.parametrize("marker", [0xFF64, 0xFF6F, 0xFF7F])
def test_jpeg_2000_loses_segments_that_no_decoder_knows(marker):
    frame = clean_frame(frame_of(image(JPEG2000Lossless)[0]), JPEG2000Lossless, 0)
    main = frame.index(b"\xff\x52")
    planted = frame[:main] + segment(marker, WORD) + frame[main:]
    assert clean_frame(planted, JPEG2000Lossless, 0) == frame


ONE_BIT = [
    f"{kind}{end}"
    for kind in ("liver", "liver_nonbyte_aligned")
    for end in ("_rle.dcm", "_deflate.dcm")
]


@pytest.mark.parametrize("name", ONE_BIT)
def test_compressed_segments_of_single_bits_keep_their_values(name, data):
    [path] = data.rglob(name)
    before = pixels.decode_frames(header.read_dataset(path.read_bytes()))
    made, _ = cleaned(path.read_bytes())
    after = pixels.decode_frames(header.read_dataset(made))
    assert before.any()
    assert np.array_equal(after, before)


@pytest.mark.parametrize("end", ["53", "55"])
def test_retired_jpegs_are_cleaned(end, data):
    [path] = data.rglob(f"CTImage.dcm_JPEG*.4.{end}.dcm")
    made, read = cleaned(path.read_bytes())
    assert read.file_meta.TransferSyntaxUID.endswith(end)
    source = header.read_dataset(path.read_bytes())
    before, after = map(pixels.decode_frames, (source, header.read_dataset(made)))
    assert np.array_equal(after, before)


@pytest.mark.parametrize("shape", [(4, 6), (3, 5)])
def test_encapsulated_pixels_that_are_not_compressed_are_unwrapped(shape):
    frames = np.arange(3 * shape[0] * shape[1], dtype=np.uint8).reshape(3, *shape)
    ds = make_instance(pixels=frames, NumberOfFrames=3, PixelRepresentation=0)
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
    ds.PixelData = encapsulate([frame.tobytes() + WORD for frame in frames])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.98"
    data, read = cleaned(ds_bytes(ds))
    assert b"QDEAD" not in data
    assert read.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert np.array_equal(read.pixel_array, frames)
    ds.NumberOfFrames = 4
    with pytest.raises(InputError) as caught:
        cleaned(ds_bytes(ds))
    assert caught.value.code == "truncated"


@pytest.mark.parametrize(
    "uid", [MPEG2MPML, "1.2.840.10008.1.2.4.110", "1.2.840.113619.5.2"]
)
def test_what_is_not_known_is_refused_by_name(uid):
    read = header.read_dataset(to_bytes(image(JPEG2000Lossless)[0]))
    read.file_meta.TransferSyntaxUID = uid
    with pytest.raises(InputError) as caught:
        clean_file(read, RESEARCH, KEY)
    assert caught.value.code == "unclean-stream"


# --- uncompressed -----------------------------------------------------------------


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, "1.2.840.10008.1.2.1"]
)
def test_uncompressed_pixels_are_trimmed_and_keep_their_values(syntax):
    ds, pixels = image()
    order = ">u2" if syntax == ExplicitVRBigEndian else "<u2"
    ds.PixelData = pixels.astype(order).tobytes() + WORD
    ds.file_meta.TransferSyntaxUID = syntax
    buffer = io.BytesIO()
    ds.save_as(
        buffer,
        implicit_vr=syntax == ImplicitVRLittleEndian,
        little_endian=syntax != ExplicitVRBigEndian,
        enforce_file_format=True,
    )
    data, read = cleaned(buffer.getvalue())
    assert b"QDEAD" not in data
    assert read.PixelData == pixels.tobytes()
    assert read.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"


@pytest.mark.parametrize("signed", [0, 1])
def test_unused_bits_say_nothing(signed):
    low = np.arange(32 * 48, dtype=np.uint16) % 4096
    high = np.frombuffer(WORD * 200, np.uint8)[: low.size].astype(np.uint16) << 12
    ds = make_instance(pixels=(low | high).reshape(32, 48))
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 12, 11, signed
    _, read = cleaned(ds)
    found = np.frombuffer(read.PixelData, np.uint16)
    wanted = np.where((low >= 2048) & bool(signed), low | 0xF000, low)
    assert np.array_equal(found, wanted)
    plain = low.astype(np.int16)
    assert (
        np.array_equal(
            read.pixel_array.reshape(-1), np.where(low >= 2048, plain - 4096, plain)
        )
        or not signed
    )


def test_pixels_that_need_no_cleaning_keep_their_bytes():
    ds = make_instance()
    assert cleaned(ds)[1].PixelData == ds.PixelData


def test_single_bits_are_trimmed():
    ds = make_instance(pixels=np.ones((5, 5), np.uint8))
    ds.BitsAllocated = ds.BitsStored = 1
    ds.HighBit, ds.PixelRepresentation = 0, 0
    ds.PixelData = b"\xff\xff\xff\xffQDEADBEEF "
    _, read = cleaned(ds)
    assert read.PixelData == b"\xff\xff\xff\x01"


def test_pixels_that_are_too_short_are_refused():
    ds = make_instance()
    ds.PixelData = ds.PixelData[:-2]
    with pytest.raises(InputError) as caught:
        cleaned(ds)
    assert caught.value.code == "truncated"


def test_palettes_stay_and_profiles_lose_their_words():
    ds = pydicom.dcmread(get_testdata_file("examples_palette.dcm"))
    _, read = cleaned(ds_bytes(ds))
    for name in ("Red", "Green", "Blue"):
        keyword = f"{name}PaletteColorLookupTableData"
        assert bytes(read[keyword].value) == bytes(ds[keyword].value)
    body = b"curv\0\0\0\0\0\0\0\0"
    head = bytearray(128)
    head[36:40] = b"acsp"
    head[48:56] = b"QDEADBEE"
    table = struct.pack(">I", 4)
    start = 132 + 48
    text = b"text\0\0\0\0" + WORD
    for name, at, length in (
        (b"rTRC", start, 12),
        (b"QDEA", start, 12),
        (b"cprt", start + 12, len(text)),
        (b"xxxx", start + 12, len(text)),
    ):
        table += struct.pack(">4sII", name, at, length)
    ds.ICCProfile = bytes(head) + table + body + text
    data, read = cleaned(ds_bytes(ds))
    assert b"QDEA" not in data
    assert body in read.ICCProfile
