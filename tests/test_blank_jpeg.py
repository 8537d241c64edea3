"""Blank units of sequential JPEGs: coefficients against a slow reader of our own."""

import contextlib
from itertools import pairwise

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from libjpeg import decode as libjpeg_decode

from dicomdask.errors import InputError
from dicomdask.pixels.blanks import scan
from dicomdask.pixels.blanks.dct import (
    blank_jpeg,
    coefficients,
    levels,
    pixels_of,
    read_frame,
    touched_units,
)
from dicomdask.pixels.blanks.huffman import Table, coded, codes_of
from dicomdask.pixels.blanks.scan import skip_coefficients
from tests.jpegs import (
    Layout,
    blanked,
    make_jpeg,
    random_blocks,
    read_jpeg,
    with_other_insides,
)

SAMPLINGS = [
    ((1, 1),),
    ((1, 1), (1, 1), (1, 1)),
    ((2, 1), (1, 1), (1, 1)),
    ((2, 2), (1, 1), (1, 1)),
    ((1, 2), (1, 1), (1, 1)),
    ((4, 1), (1, 1), (1, 1)),
    ((2, 2), (2, 1), (1, 2)),
]
layouts = st.builds(
    Layout,
    rows=st.integers(1, 50),
    columns=st.integers(1, 50),
    sampling=st.sampled_from(SAMPLINGS),
    precision=st.sampled_from([8, 12]),
    restart=st.integers(0, 5),
    interleaved=st.booleans(),
    tight=st.booleans(),
)
seeds = st.integers(0, 2**31)


def case(layout, seed):
    rng = np.random.default_rng(seed)
    touched = rng.random(layout.units) < rng.choice([0.1, 0.5, 0.9])
    return random_blocks(layout, seed), touched


@settings(max_examples=80, deadline=None)
@given(layouts, seeds, st.sampled_from([1, 40, 1 << 15]))
def test_touched_units_are_blank_and_all_other_coefficients_stay(layout, seed, ahead):
    blocks, touched = case(layout, seed)
    stream = make_jpeg(layout, blocks)
    for found, wanted in zip(read_jpeg(stream, layout), blocks, strict=True):
        np.testing.assert_array_equal(found, wanted)
    dc = [-500, 0, 7][: len(layout.sampling)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "_AHEAD", ahead)  # bytes that are looked up at once
        after = read_jpeg(blank_jpeg(stream, touched, dc), layout)
    wanted = blanked(layout, blocks, touched, dc)
    for found, expected in zip(after, wanted, strict=True):
        np.testing.assert_array_equal(found, expected)


@settings(max_examples=60, deadline=None)
@given(layouts.filter(lambda layout: not layout.tight), seeds)
def test_the_stream_is_that_of_an_encoder_with_the_same_tables(layout, seed):
    blocks, touched = case(layout, seed)
    dc = [-500, 0, 0][: len(layout.sampling)]
    found = blank_jpeg(make_jpeg(layout, blocks), touched, dc)
    assert found == make_jpeg(layout, blanked(layout, blocks, touched, dc))


@settings(max_examples=60, deadline=None)
@given(layouts.filter(lambda layout: not layout.tight), seeds)
def test_what_was_in_a_blank_unit_leaves_no_trace(layout, seed):
    blocks, touched = case(layout, seed)
    other = with_other_insides(layout, blocks, touched, seed + 1)
    dc = [-500, 0, 0][: len(layout.sampling)]
    streams = [make_jpeg(layout, one) for one in (blocks, other)]
    assert not touched.any() or streams[0] != streams[1]
    assert len({blank_jpeg(stream, touched, dc) for stream in streams}) == 1


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("restart", [0, 3])
def test_two_decoders_read_the_same_pixels_outside(sampling, restart):
    layout = Layout(61, 83, sampling, restart=restart)
    blocks = random_blocks(layout, 5, largest=60)
    stream = make_jpeg(layout, blocks)
    jpeg = read_frame(stream)
    inside = np.zeros((61, 83), bool)
    inside[20:30, 40:44] = True
    touched = touched_units(jpeg, inside)
    n = len(sampling)
    dc = coefficients(jpeg, [0, 128, 128][:n], up=False)
    new = blank_jpeg(stream, touched, dc)
    pixels = pixels_of(jpeg, touched)
    assert pixels[inside].all()
    assert pixels.sum() <= 32 * 48
    for decode in (turbo, libjpeg):
        old, after = (decode(one).reshape(61, 83, n) for one in (stream, new))
        full = [c for c in range(n) if sampling[c] == layout.most or n == 1]
        outside = ~pixels
        np.testing.assert_array_equal(after[outside][:, full], old[outside][:, full])
        assert (after[..., 0][pixels] == 0).all()


def turbo(stream):
    space = "YCBCR" if len(read_frame(stream).components) == 3 else None
    return imagecodecs.jpeg8_decode(stream, colorspace=space, outcolorspace=space)


def libjpeg(stream):
    return libjpeg_decode(stream, colour_transform=0)


@settings(deadline=None)
@given(
    st.integers(1, 255),
    st.integers(0, 255),
    st.booleans(),
)
def test_a_blank_unit_is_at_least_as_dark_as_it_should_be(step, value, up):
    jpeg = read_frame(make_jpeg(Layout(8, 8, step=step), [np.zeros((1, 1, 64), int)]))
    dc = coefficients(jpeg, [value], up=up)
    stream = blank_jpeg(
        make_jpeg(Layout(8, 8, step=step), [np.zeros((1, 1, 64), int)]),
        np.ones((1, 1), bool),
        dc,
    )
    decoded = imagecodecs.jpeg8_decode(stream)
    assert len(np.unique(decoded)) == 1
    assert abs(int(decoded[0, 0]) - levels(jpeg, dc)[0]) <= 0.5
    found = int(decoded[0, 0])
    assert found >= value if up else found <= value
    assert abs(found - value) <= step / 8 + 1


@settings(max_examples=60, deadline=None)
@given(layouts, seeds, st.data())
def test_a_damaged_stream_is_refused_or_stays_what_it_is(layout, seed, data):
    blocks, touched = case(layout, seed)
    stream = make_jpeg(layout, blocks)
    start = stream.index(b"\xff\xda")
    at = data.draw(st.integers(start, len(stream) - 3))
    cut = stream[:at] + b"\xff\xd9"
    dc = [-500, 0, 0][: len(layout.sampling)]
    with contextlib.suppress(InputError):
        found = blank_jpeg(cut, np.ones_like(touched), dc)
        wanted = blanked(layout, blocks, np.ones_like(touched), dc)
        for one, expected in zip(read_jpeg(found, layout), wanted, strict=True):
            np.testing.assert_array_equal(one, expected)


@pytest.mark.parametrize(
    "marker", [0xC2, 0xC3, 0xC5, 0xC9, 0xCA, 0xDC, 0xDE], ids="{:x}".format
)
def test_other_kinds_of_jpeg_are_refused(marker):
    layout = Layout(16, 16)
    stream = make_jpeg(layout, random_blocks(layout, 1))
    other = stream.replace(b"\xff\xc0", bytes([0xFF, marker]))
    with pytest.raises(InputError) as caught:
        blank_jpeg(other, np.ones((2, 2), bool), [0])
    assert caught.value.code == "unclean-pixels"


@given(st.integers(-(2**15) + 1, 2**15 - 1))
def test_a_difference_has_the_bits_of_the_standard(value):
    size, bits = coded(value)
    assert size == len(bits) == abs(value).bit_length()
    if value:
        assert int(bits, 2) == (value if value > 0 else value + 2**size - 1)


@given(st.data())
def test_new_symbols_leave_the_codes_of_a_table_alone(data):
    symbols = data.draw(st.lists(st.integers(0, 15), min_size=1, unique=True))
    length = data.draw(st.integers(len(symbols).bit_length(), 16))
    counts = [0] * 16
    counts[length - 1] = len(symbols)
    table = Table(tuple(counts), tuple(symbols))
    if 2**length * (1 << 16 - length) - (len(symbols) << 16 - length) <= 16:
        return
    wider = table.with_symbols(range(16))
    codes, before = codes_of(wider), codes_of(table)
    assert set(codes) == set(range(16))
    assert {symbol: codes[symbol] for symbol in before} == before
    ordered = sorted(codes.values())
    assert not any(b.startswith(a) for a, b in pairwise(ordered))
    assert "1" * 16 not in codes.values()


def test_a_table_without_room_is_refused():
    full = Table((0,) * 15 + (65535,), tuple([1] * 65535))
    with pytest.raises(InputError):
        full.with_symbols([0])


@pytest.mark.parametrize("steps", [[16] * 4, [255], [16, 16, 16, 2, 16]])
def test_a_block_of_another_length_is_refused(steps):
    with pytest.raises(InputError) as caught:
        skip_coefficients(0, (bytes([1] * len(steps)), bytes(steps)))
    assert caught.value.code == "bad-pixels"


@pytest.mark.parametrize("steps", [[16, 16, 16, 15], [128], [15, 128], [63]])
def test_a_block_ends_at_its_last_coefficient_or_before(steps):
    taken = (bytes([1] * len(steps)), bytes(steps))
    assert skip_coefficients(0, taken) == len(steps)


@pytest.mark.parametrize(("place", "value"), [(5, 0), (7, 0), (9, 4), (11, 0x51)])
def test_a_frame_header_that_says_nothing_clear_is_refused(place, value):
    layout = Layout(16, 16)
    stream = bytearray(make_jpeg(layout, random_blocks(layout, 1)))
    start = stream.index(b"\xff\xc0")
    stream[start + place : start + place + 1] = bytes([value])
    if place < 9:
        stream[start + place + 1] = value
    if place == 9:  # with the components that it claims
        stream[start + 2 : start + 4] = b"\0\x14"
        stream[start + 13 : start + 13] = b"\2\x11\0\3\x11\0\4\x11\0"
    if place == 11:
        stream[start + 9] = 3
        stream[start + 2 : start + 4] = b"\0\x11"
        stream[start + 13 : start + 13] = b"\2\x11\0\3\x11\0"
    with pytest.raises(InputError) as caught:
        read_frame(bytes(stream))
    assert caught.value.code == "unclean-pixels"
