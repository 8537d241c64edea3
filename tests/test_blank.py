"""Blank pixels: inside the boxes nothing is left, outside of them nothing changes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from pydicom.dataset import FileDataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian

from dicomdask.errors import InputError
from dicomdask.model import Box
from dicomdask.pixels import FrameDecoder, blank, blank_frames, decode_frames
from tests.builders import make_instance

SHAPE = (9, 12)
sides = st.integers(-3, 15)
boxes_of_frames = st.lists(st.builds(Box, sides, sides, sides, sides), max_size=4)
monochrome = npst.arrays(
    st.sampled_from(["uint8", "int16", "uint16", "float32"]),
    SHAPE,
    elements=st.integers(0, 100),
)
colour = npst.arrays("uint8", (*SHAPE, 3))


def is_inside(row, column, boxes):
    return any(
        box.top <= row < box.bottom and box.left <= column < box.right for box in boxes
    )


def inside_of(boxes, shape=SHAPE):
    return np.array(
        [[is_inside(r, c, boxes) for c in range(shape[1])] for r in range(shape[0])]
    )


@given(monochrome, boxes_of_frames, st.sampled_from(["MONOCHROME1", "MONOCHROME2"]))
def test_monochrome_is_blanked_to_what_displays_darkest_outside(
    frame, boxes, photometric
):
    inside = inside_of(boxes)
    before = frame.copy()
    after = blank(frame, boxes, photometric)
    np.testing.assert_array_equal(frame, before)
    np.testing.assert_array_equal(after[~inside], frame[~inside])
    seen = frame if inside.all() else frame[~inside]
    expected = seen.max() if photometric == "MONOCHROME1" else seen.min()
    assert after.dtype == frame.dtype
    assert set(after[inside].tolist()) <= {expected}


@given(colour, boxes_of_frames, st.sampled_from(["RGB", "YBR_FULL_422", "YBR_RCT"]))
def test_colour_is_blanked_to_black(frame, boxes, photometric):
    inside = inside_of(boxes)
    after = blank(frame, boxes, photometric)
    np.testing.assert_array_equal(after[~inside], frame[~inside])
    assert not after[inside].any()


@given(colour, boxes_of_frames)
def test_a_palette_is_blanked_to_a_colour_of_its_own(frame, boxes):
    inside = inside_of(boxes)
    after = blank(frame, boxes, "PALETTE COLOR")
    np.testing.assert_array_equal(after[~inside], frame[~inside])
    seen = frame.reshape(-1, 3) if inside.all() else frame[~inside]
    colours = {tuple(map(int, colour)) for colour in seen}
    luma = {c: 299 * c[0] + 587 * c[1] + 114 * c[2] for c in colours}
    found = {tuple(map(int, colour)) for colour in after[inside]}
    assert len(found) <= 1
    assert all(luma[colour] == min(luma.values()) for colour in found)


def test_a_missing_number_is_not_what_floats_are_blanked_to():
    frame = np.array([[np.nan, 2.0, 3.0]], "float32")
    after = blank(frame, [Box(0, 2, 1, 3)], "MONOCHROME2")
    np.testing.assert_array_equal(after, [[np.nan, 2, 2]])


@pytest.mark.parametrize("box", [Box(-5, -5, 0, 0), Box(4, 4, 4, 9), Box(7, 3, 2, 9)])
def test_an_empty_box_blanks_nothing(box):
    frame = np.arange(108, dtype="uint8").reshape(SHAPE)
    np.testing.assert_array_equal(blank(frame, [box], "MONOCHROME2"), frame)


FORMS = {
    "monochrome": {"dtype": "u1"},
    "inverted": {"dtype": "u2", "bits": 12, "photometric": "MONOCHROME1"},
    "signed": {"dtype": "i2", "bits": 13},
    "signed bytes": {"dtype": "i1", "bits": 7},
    "wide": {"dtype": "i4", "bits": 27},
    "RGB": {"dtype": "u1", "samples": 3, "photometric": "RGB"},
    "planes": {"dtype": "u2", "samples": 3, "photometric": "RGB", "planar": 1},
    "YBR": {"dtype": "u1", "samples": 3, "photometric": "YBR_FULL", "planar": 1},
    "deep YBR": {"dtype": "u2", "samples": 3, "photometric": "YBR_FULL"},
    "palette": {"dtype": "u1", "photometric": "PALETTE COLOR"},
}


def native(data, *, dtype, bits=None, samples=1, photometric="MONOCHROME2", planar=0):
    """Return two frames of random values in each bit, used or not, and their order."""
    order = data.draw(st.sampled_from("<>"))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**31)))
    size = np.dtype(dtype).itemsize
    octets = rng.integers(0, 256, (2, *SHAPE, samples * size), dtype=np.uint8)
    values = octets.view(order + dtype)
    ds = make_instance(
        pixels=values[..., 0],
        Rows=SHAPE[0],
        Columns=SHAPE[1],
        NumberOfFrames=2,
        SamplesPerPixel=samples,
        PhotometricInterpretation=photometric,
        BitsStored=bits or 8 * size,
        HighBit=(bits or 8 * size) - 1,
        transfer_syntax=ExplicitVRBigEndian if order == ">" else ExplicitVRLittleEndian,
    )
    if samples == 3:
        ds.PlanarConfiguration = planar
    ds.PixelData = octets.tobytes()
    if photometric == "PALETTE COLOR":
        for colour in ("Red", "Green", "Blue"):
            keyword = f"{colour}PaletteColorLookupTable"
            setattr(ds, f"{keyword}Descriptor", [256, 0, 8])
            table = rng.integers(0, 256, 256, dtype=np.uint8)
            setattr(ds, f"{keyword}Data", table.tobytes())
    little = order == "<"
    return FileDataset(
        "",
        ds,
        file_meta=ds.file_meta,
        preamble=bytes(128),
        is_implicit_VR=False,
        is_little_endian=little,
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=30, deadline=None)
@given(data=st.data(), boxes=st.lists(boxes_of_frames, min_size=2, max_size=2))
def test_uncompressed_pixels_are_blanked_as_decoded_ones_are(form, data, boxes):
    ds = native(data, **FORMS[form])
    before, raw = decode_frames(ds), ds.PixelData
    found = blank_frames(ds, boxes)
    photometric = str(ds.PhotometricInterpretation)
    wanted = [blank(f, b, photometric) for f, b in zip(before, boxes, strict=True)]
    np.testing.assert_array_equal(decode_frames(found.dataset), np.stack(wanted))
    assert ds.PixelData == raw
    inside = [inside_of(some) for some in boxes]
    assert found.changed == tuple(n for n, mask in enumerate(inside) if mask.any())
    places = np.frombuffer(raw, "u1") != np.frombuffer(found.dataset.PixelData, "u1")
    size = FORMS[form].get("samples", 1) * np.dtype(FORMS[form]["dtype"]).itemsize
    assert places.sum() <= sum(int(mask.sum()) for mask in inside) * size


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@given(data=st.data(), boxes=st.lists(boxes_of_frames, min_size=2, max_size=2))
def test_bits_are_blanked_where_frames_share_a_byte(photometric, data, boxes):
    bits = data.draw(npst.arrays("u1", (2, 5, 7), elements=st.integers(0, 1)))
    ds = make_instance(
        pixels=bits,
        BitsAllocated=1,
        BitsStored=1,
        HighBit=0,
        PhotometricInterpretation=photometric,
    )
    ds.PixelData = np.packbits(bits, bitorder="little").tobytes() + b"\0"
    ds = FileDataset("", ds, file_meta=ds.file_meta, preamble=bytes(128))
    found = blank_frames(ds, boxes)
    wanted = [blank(f, b, photometric) for f, b in zip(bits, boxes, strict=True)]
    np.testing.assert_array_equal(decode_frames(found.dataset), np.stack(wanted))


def test_cells_of_twelve_bits_are_refused():
    ds = make_instance(
        pixels=np.zeros((4, 4), "u2"), BitsAllocated=12, BitsStored=12, HighBit=11
    )
    ds = FileDataset("", ds, file_meta=ds.file_meta, preamble=bytes(128))
    assert len(FrameDecoder(ds)) == 1
    with pytest.raises(InputError) as caught:
        blank_frames(ds, [[Box(0, 0, 1, 1)]])
    assert caught.value.code == "unclean-pixels"


def test_an_index_that_is_only_inside_a_box_is_not_what_it_is_blanked_to():
    values = np.full((1, 4, 4), 7, "u1")
    values[0, 1, 1] = 3
    ds = make_instance(pixels=values, PhotometricInterpretation="PALETTE COLOR")
    for colour in ("Red", "Green", "Blue"):  # all of one colour
        keyword = f"{colour}PaletteColorLookupTable"
        setattr(ds, f"{keyword}Descriptor", [256, 0, 8])
        setattr(ds, f"{keyword}Data", bytes([9]) * 256)
    ds = FileDataset("", ds, file_meta=ds.file_meta, preamble=bytes(128))
    found = blank_frames(ds, [[Box(1, 1, 2, 2)]]).dataset
    assert found.PixelData == bytes([7]) * 16
