"""Frames that are encoded anew: without loss, or not passed at all."""

import imagecodecs
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from libjpeg import decode as libjpeg_decode
from openjpeg import decode as openjpeg_decode
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from dicomdask.errors import InputError
from dicomdask.model import Box
from dicomdask.pixels import FrameDecoder, blank, blank_frames, decode_frames
from dicomdask.pixels.blanks import files, recode, sof3
from dicomdask.pixels.codecs import DEFLATED_FRAMES, decode_by_pydicom
from dicomdask.pixels.streams import read_stream
from tests.builders import make_instance
from tests.jpegs import Layout, make_jpeg, random_blocks

pytestmark = pytest.mark.filterwarnings("ignore")

BOX = Box(3, 5, 9, 17)
SHAPE = (21, 30)
LOSSLESS = {
    JPEGLSLossless: [8, 10, 12, 15, 16],
    JPEG2000Lossless: [8, 10, 12, 15, 16],
    HTJ2KLossless: [8, 10, 12, 15, 16],
    HTJ2KLosslessRPCL: [8, 12, 16],
    JPEGLosslessSV1: [8, 10, 12, 15, 16],
    JPEGLossless: [8, 12, 16],
    RLELossless: [8, 12, 16],
    DEFLATED_FRAMES: [8, 12, 16],
}
CASES = [
    (syntax, bits, signed, samples)
    for syntax, depths in LOSSLESS.items()
    for bits in depths
    for signed in (False, True)
    for samples in (1, 3)
    if not (signed and samples == 3)
]


def picture(bits, *, signed=False, samples=1, seed=1, n=2):
    """Return frames of a smooth picture with noise in the lowest bits."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    wave = (np.sin(x / 5) + np.cos(y / 7) + 2) / 4 * (2**bits - 40)
    values = wave[..., None] + rng.integers(0, 40, (n, *SHAPE, samples))
    values = values - (2 ** (bits - 1) if signed else 0)
    dtype = f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}"
    return values.astype(dtype).reshape(n, *SHAPE, *([samples] if samples > 1 else []))


def data_set(values, bits, **elements):
    samples = values.shape[3] if values.ndim == 4 else 1
    colour = {"SamplesPerPixel": 3, "PlanarConfiguration": 0} if samples == 3 else {}
    ds = make_instance(
        pixels=values,
        Rows=SHAPE[0],
        Columns=SHAPE[1],
        NumberOfFrames=len(values),
        BitsStored=bits,
        HighBit=bits - 1,
        PhotometricInterpretation="RGB" if samples == 3 else "MONOCHROME2",
        **colour,
        **elements,
    )
    return FileDataset(
        "", ds, file_meta=ds.file_meta, is_implicit_VR=False, preamble=bytes(128)
    )


def by_others(values, bits, syntax):
    """Return a data set that other encoders have compressed."""
    signed = values.dtype.kind == "i"
    ds = data_set(values, bits)
    ds.file_meta.TransferSyntaxUID = syntax
    if syntax == RLELossless:
        ds.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        ds.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
        return ds
    streams = [one_by_others(frame, bits, signed, syntax) for frame in values]
    ds.PixelData = encapsulate(streams)
    ds["PixelData"].VR = "OB"
    return ds


def one_by_others(frame, bits, signed, syntax):
    mask = frame.astype(np.int64) & (1 << bits) - 1
    unsigned = np.ascontiguousarray(mask.astype(f"u{frame.itemsize}"))
    if syntax == DEFLATED_FRAMES:
        return recode.deflated(frame.tobytes())
    if syntax in {JPEGLSLossless}:
        return imagecodecs.jpegls_encode(frame.view(unsigned.dtype))
    if syntax == JPEG2000Lossless:
        colour = frame.ndim == 3
        return imagecodecs.jpeg2k_encode(
            frame, level=0, codecformat="j2k", bitspersample=bits, mct=colour
        )
    if syntax in {JPEGLossless, JPEGLosslessSV1}:
        if frame.ndim == 3:
            return sof3.encode_sof3(unsigned, bits, b"RGB")
        return imagecodecs.ljpeg_encode(unsigned, bitspersample=bits)
    return imagecodecs.htj2k_encode(frame, reversible=True)


def decoded_by_others(stream, syntax):
    """Return what the decoder that is not the encoder's makes of a stream."""
    if syntax in {JPEGLSLossless, JPEGLSNearLossless, JPEGLossless, JPEGLosslessSV1}:
        return libjpeg_decode(stream)
    return openjpeg_decode(stream)


@pytest.mark.parametrize(("syntax", "bits", "signed", "samples"), CASES)
def test_every_depth_comes_back_outside_and_is_blank_inside(
    syntax, bits, signed, samples
):
    values = picture(bits, signed=signed, samples=samples)
    ds = by_others(values, bits, syntax)
    np.testing.assert_array_equal(decode_frames(ds), values)
    found = blank_frames(ds, [[BOX], []])
    wanted = [blank(values[0], [BOX], ds.PhotometricInterpretation), values[1]]
    np.testing.assert_array_equal(decode_frames(found.dataset), np.stack(wanted))
    assert found.changed == found.recoded == (0,)
    if syntax in {RLELossless, DEFLATED_FRAMES}:
        return
    stream = FrameDecoder(found.dataset).stream(0)
    others = decoded_by_others(stream, syntax).astype(np.int64)
    mask = (1 << bits) - 1
    np.testing.assert_array_equal(others & mask, wanted[0].astype(np.int64) & mask)
    old, new = read_stream(FrameDecoder(ds).stream(0)), read_stream(stream)
    kept = ("precision", "signed", "transformed", "components")
    assert {k: getattr(old, k) for k in kept} == {k: getattr(new, k) for k in kept}


@pytest.mark.parametrize(("syntax", "bits", "signed", "samples"), CASES)
def test_what_was_inside_a_box_leaves_no_trace(syntax, bits, signed, samples):
    values = picture(bits, signed=signed, samples=samples, n=1)
    other = values.copy()
    other[0, BOX.top : BOX.bottom, BOX.left : BOX.right] = values.max()
    pair = [by_others(one, bits, syntax) for one in (values, other)]
    assert pair[0].PixelData != pair[1].PixelData
    found = {bytes(blank_frames(ds, [[BOX]]).dataset.PixelData) for ds in pair}
    assert len(found) == 1


@pytest.mark.parametrize("mode", [0, 1, 2])
def test_jpeg_ls_keeps_the_order_of_its_components(mode):
    values = picture(8, samples=3)
    ds = data_set(values, 8)
    ds.PlanarConfiguration = int(mode == 0)
    ds.file_meta.TransferSyntaxUID = JPEGLSLossless
    ordered = np.moveaxis(values, -1, 1) if mode == 0 else values
    streams = [
        recode.jpeg_ls.encode_buffer(one.tobytes(), *SHAPE, 3, 8, 0, mode)
        for one in ordered
    ]
    ds.PixelData = encapsulate(list(map(bytes, streams)))
    np.testing.assert_array_equal(decode_frames(ds), values)
    after = FrameDecoder(blank_frames(ds, [[BOX], []]).dataset)
    wanted = blank(values[0], [BOX], "RGB")
    np.testing.assert_array_equal(after.decode(0), wanted)
    np.testing.assert_array_equal(libjpeg_decode(after.stream(0)), wanted)
    scan = after.stream(0).index(b"\xff\xda")
    parts = 1 if mode == 0 else 3
    assert after.stream(0)[scan + 4 : scan + 5] == bytes([parts])
    assert after.stream(0)[scan + 6 + 2 * parts] == mode


def test_htj2k_with_resolutions_first_is_written_so():
    ds = by_others(picture(12), 12, HTJ2KLosslessRPCL)
    stream = FrameDecoder(blank_frames(ds, [[BOX], []]).dataset).stream(0)
    main = stream[: stream.index(b"\xff\x90")]
    assert main[main.index(b"\xff\x52") + 5] == 2  # table A.16: RPCL
    assert b"\xff\x55" in main  # TLM: where each resolution is


def with_loss(frame, *, high):
    if high:
        return imagecodecs.htj2k_encode(frame, 0.01, reversible=False)
    return imagecodecs.jpeg2k_encode(frame, 35, codecformat="j2k", reversible=False)


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("high", [False, True])
def test_jpeg_2000_with_loss_is_written_without(samples, high):
    values = picture(8, samples=samples)
    ds = data_set(values, 8, LossyImageCompression="01")
    ds.file_meta.TransferSyntaxUID = HTJ2K if high else JPEG2000
    ds.PixelData = encapsulate([with_loss(frame, high=high) for frame in values])
    if samples == 3:
        ds.PhotometricInterpretation = "YBR_ICT"
    before = decode_frames(ds)
    assert not np.array_equal(before, values)
    found = blank_frames(ds, [[], [BOX]])
    wanted = [
        before[0],
        blank(before[1], [BOX], "RGB" if samples == 3 else "MONOCHROME2"),
    ]
    np.testing.assert_array_equal(decode_frames(found.dataset), np.stack(wanted))
    told = "YBR_RCT" if samples == 3 else "MONOCHROME2"
    assert found.dataset.PhotometricInterpretation == told
    assert found.dataset.LossyImageCompression == "01"
    assert found.changed == (1,)
    assert found.recoded == ((0, 1) if samples == 3 else (1,))
    streams = [
        read_stream(FrameDecoder(found.dataset).stream(n)) for n in found.recoded
    ]
    assert all(stream.reversible for stream in streams)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, HTJ2KLossless])
@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_colours_that_are_not_transformed_stay_so(syntax, photometric):
    values = picture(8, samples=3)
    ds = data_set(values, 8)
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PhotometricInterpretation = photometric
    encode = imagecodecs.jpeg2k_encode, {"codecformat": "j2k", "mct": False}
    if syntax == HTJ2KLossless:
        encode = imagecodecs.htj2k_encode, {"rgb": False, "planar": False}
    streams = [encode[0](v, reversible=True, **encode[1]) for v in values]
    ds.PixelData = encapsulate(streams)
    np.testing.assert_array_equal(FrameDecoder(ds).samples(1)[0], values[1])
    after = FrameDecoder(blank_frames(ds, [[], [BOX]]).dataset)
    wanted = values[1].copy()
    black = [0, 128, 128] if photometric == "YBR_FULL" else [0, 0, 0]
    wanted[BOX.top : BOX.bottom, BOX.left : BOX.right] = black
    np.testing.assert_array_equal(after.samples(1)[0], wanted)
    assert read_stream(after.stream(1)).transformed is False


@settings(deadline=None, max_examples=50)
@given(
    st.integers(2, 16),
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from([1, 3]),
    st.integers(0, 2**31),
)
def test_lossless_jpeg_is_read_by_two_decoders(bits, rows, columns, samples, seed):
    rng = np.random.default_rng(seed)
    shape = (rows, columns) if samples == 1 else (rows, columns, samples)
    values = rng.integers(0, 2**bits, shape).astype("u1" if bits <= 8 else "u2")
    stream = sof3.encode_sof3(values, bits, bytes(range(1, samples + 1)))
    np.testing.assert_array_equal(libjpeg_decode(stream).reshape(shape), values)
    if samples == 1:
        np.testing.assert_array_equal(imagecodecs.ljpeg_decode(stream), values)


ENCODERS = {
    JPEGLSLossless: (recode.jpeg_ls, "encode_buffer"),
    JPEG2000Lossless: (recode.imagecodecs, "jpeg2k_encode"),
    HTJ2KLossless: (recode.imagecodecs, "htj2k_encode"),
    JPEGLosslessSV1: (recode, "encode_sof3"),
    RLELossless: (recode.imagecodecs, "packbits_encode"),
    DEFLATED_FRAMES: (files, "deflated"),
}


def test_a_difference_of_half_the_range_has_no_more_bits():
    values = np.array([[0, 32768, 0, 1], [65535, 32767, 0, 32768]], "u2")
    stream = sof3.encode_sof3(values, 16, b"\1")
    np.testing.assert_array_equal(libjpeg_decode(stream), values)
    np.testing.assert_array_equal(imagecodecs.ljpeg_decode(stream), values)


class UnforeseenError(Exception):
    """An error that nobody thought of."""


def refused(ds, boxes=((BOX,), ())):
    with pytest.raises(InputError) as caught:
        blank_frames(ds, boxes)
    assert caught.value.__context__ is None
    assert str(caught.value) == caught.value.reason
    return caught.value.code


@pytest.mark.parametrize(
    "error", [UnforeseenError("SECRET"), MemoryError(), KeyError("SECRET")]
)
@pytest.mark.parametrize("syntax", ENCODERS)
def test_a_fault_in_an_encoder_passes_nothing(syntax, error, monkeypatch):
    ds = by_others(picture(8), 8, syntax)
    home, name = ENCODERS[syntax]

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(home, name, fail)
    assert refused(ds) == "unclean-pixels"


@pytest.mark.parametrize("syntax", ENCODERS)
def test_an_encoder_that_writes_something_else_is_found_out(syntax, monkeypatch):
    ds = by_others(picture(8), 8, syntax)
    original = FrameDecoder(ds).stream(0)
    name = "deflated" if syntax == DEFLATED_FRAMES else "recode"
    monkeypatch.setattr(files, name, lambda *_: original)
    assert refused(ds) == "unclean-pixels"


@pytest.mark.parametrize("syntax", set(ENCODERS) - {RLELossless, DEFLATED_FRAMES})
def test_another_decoder_has_to_agree(syntax, monkeypatch):
    ds = by_others(picture(8), 8, syntax)

    def other(form, data, plugin):
        values, photometric = decode_by_pydicom(form, data, plugin)
        return values ^ 1, photometric

    monkeypatch.setattr(recode, "decode_by_pydicom", other)
    assert refused(ds) == "unclean-pixels"


def test_pixels_that_were_not_blanked_in_place_are_found_out(monkeypatch):
    monkeypatch.setattr(files, "blank_native", lambda *_: None)
    assert refused(data_set(picture(8), 8)) == "unclean-pixels"


def jpeg_data_set(step=2):
    layout = Layout(*SHAPE, step=step)
    streams = [
        make_jpeg(layout, random_blocks(layout, n, largest=50)) for n in range(2)
    ]
    ds = data_set(picture(8), 8)
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    ds.PixelData = encapsulate(streams)
    return ds


@pytest.mark.parametrize("fault", ["as it was", "other", "fails"])
def test_a_jpeg_that_was_not_blanked_is_found_out(fault, monkeypatch):
    ds = jpeg_data_set()
    assert blank_frames(ds, [[BOX], []]).changed == (0,)

    def fail(*_):
        raise UnforeseenError("SECRET")

    streams = [get_frame(ds.PixelData, n, number_of_frames=2) for n in range(2)]
    edits = {"as it was": lambda *_: streams[0], "other": lambda *_: streams[1]}
    monkeypatch.setattr(files, "blank_jpeg", edits.get(fault, fail))
    assert refused(ds) == "unclean-pixels"


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("step", [1, 4, 7, 12, 28, 60])
def test_a_jpeg_is_blank_between_two_steps_of_its_values(step, photometric):
    ds = jpeg_data_set(step)
    ds.PhotometricInterpretation = photometric
    before = decode_frames(ds)
    after = decode_frames(blank_frames(ds, [[BOX], [BOX]]).dataset)
    for old, new in zip(before, after, strict=True):
        inside = np.zeros(SHAPE, bool)
        inside[:16, :24] = True  # the blocks that the box touches
        np.testing.assert_array_equal(new[~inside], old[~inside])
        assert len(np.unique(new[inside])) == 1
        box = np.zeros(SHAPE, bool)
        box[BOX.top : BOX.bottom, BOX.left : BOX.right] = True
        if photometric == "MONOCHROME1":
            assert new[0, 0] >= old[~box].max() - 1
        else:
            assert new[0, 0] <= old[~box].min() + 1


@pytest.mark.parametrize("boxes", [[], [[BOX]], [[BOX]] * 3])
def test_boxes_of_another_number_of_frames_are_refused(boxes):
    assert refused(data_set(picture(8), 8), boxes) == "unclean-pixels"


def test_a_high_bit_that_readers_disagree_about_is_refused():
    ds = data_set(picture(12), 12)
    ds.HighBit = 15
    assert refused(ds) == "unclean-pixels"
    ds.HighBit = None  # left to Bits Stored
    assert blank_frames(ds, [[BOX], []]).changed == (0,)


def test_nothing_to_blank_gives_the_data_set_itself():
    ds = data_set(picture(8), 8)
    found = blank_frames(ds, [[], [Box(5, 5, 5, 9), Box(-9, -9, 0, 0)]])
    assert found.dataset is ds
    assert found.changed == ()
