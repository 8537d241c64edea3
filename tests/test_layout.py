"""Chunks for patches of one size: the rule, its formula, and what people may ask for.

How profiles cut arrays is held in `test_arrays`.
"""

import re
from itertools import product
from math import prod
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomdask.errors import OptionError
from dicomdask.layout import (
    CHUNK_COST,
    DEEP_TILES,
    FLAT_TILES,
    MOST_PATCH,
    PATCH_CHUNK_BYTES,
    PATCH_PARTS,
    choose_layout,
    chunks_touched,
    parse_patch_size,
    patch_chunks,
    patch_cost,
)
from dicomdask.model import Codec, Profile, Settings
from dicomdask.shards import CODECS
from dicomdask.steps.target import check_settings

sizes, small = st.integers(1, 40), st.integers(1, 12)


@given(sizes, sizes, sizes, st.integers(1, 5))
def test_chunks_touched_are_those_that_hold_an_element(extent, patch, chunk, step):
    numbers = np.arange(extent) // chunk
    size = min(extent, patch)
    touched = [
        len(set(numbers[start : start + size]))
        for start in range(0, extent - size + 1, step)
    ]
    assert chunks_touched(extent, patch, chunk, step=step) == pytest.approx(
        np.mean(touched)
    )


@settings(deadline=None)
@given(st.tuples(small, small), st.tuples(small, small), st.tuples(small, small))
def test_the_cost_counts_the_chunks_of_each_patch(extents, patch, chunks):
    """Walk over all patches of a grid, and over those anywhere."""
    numbers = np.indices(extents) // np.reshape(chunks, (2, 1, 1))
    sides = [min(*axis) for axis in zip(extents, patch, strict=True)]

    def mean(steps: tuple[int, int]) -> float:
        starts = [
            range(0, extent - side + 1, step)
            for extent, side, step in zip(extents, sides, steps, strict=True)
        ]
        counts = []
        for corner in product(*starts):
            inside = tuple(slice(c, c + s) for c, s in zip(corner, sides, strict=True))
            met = numbers[(slice(None), *inside)].reshape(2, -1)
            counts.append(np.unique(met, axis=1).shape[1])
        return float(np.mean(counts))

    touched = mean((1, 1)) + mean(patch)
    assert patch_cost(extents, patch, chunks, 2) == pytest.approx(
        touched * (CHUNK_COST + prod(chunks) * 2)
    )


@given(
    st.lists(st.integers(1, 700), min_size=3, max_size=3).map(tuple),
    st.lists(st.integers(1, 200), min_size=3, max_size=3).map(tuple),
    st.sampled_from([1, 2, 4]),
)
def test_no_other_parts_of_the_patch_cost_less(extents, patch, itemsize):
    chosen = patch_chunks(extents, patch, itemsize)
    sides = [min(*axis) for axis in zip(extents, patch, strict=True)]
    axes = [{-(-side // n) for n in range(1, PATCH_PARTS + 1)} for side in sides]
    cuts = [c for c in product(*axes) if prod(c) * itemsize <= PATCH_CHUNK_BYTES]
    assert chosen in cuts
    costs = [patch_cost(extents, patch, cut, itemsize) for cut in cuts]
    assert patch_cost(extents, patch, chosen, itemsize) == min(costs)


@pytest.mark.parametrize("patch", [(64, 64, 64), (96, 96, 96), (32, 96, 96)])
def test_an_aligned_patch_is_whole_chunks_and_any_touches_few(patch):
    chunks = patch_chunks((384, 512, 512), patch, 2)
    assert all(side % chunk == 0 for side, chunk in zip(patch, chunks, strict=True))
    touched = prod(
        chunks_touched(extent, side, chunk, step=1)
        for extent, side, chunk in zip((384, 512, 512), patch, chunks, strict=True)
    )
    assert touched < 48


@pytest.mark.parametrize(
    ("shape", "patch_size", "chunks", "samples_axis"),
    [
        ((300, 512, 512), (64, 64, 64), (32, 32, 32), None),
        ((40, 512, 512), (64, 64, 64), (40, 32, 32), None),
        ((300, 512, 512), (1, 512, 512), (1, 512, 512), None),
        ((3, 100, 90), (64, 128, 128), (3, 100, 90), None),
        ((9, 128, 256, 256), (64, 64, 64), (1, 32, 32, 32), None),
        ((3000, 2500), (9, 256, 256), (256, 128), None),
        ((3, 600, 800), (1, 128, 128), (3, 64, 128), 0),
        ((3, 40, 600, 800), (1, 128, 128), (3, 1, 64, 128), 0),
    ],
)
def test_layouts_for_patches(shape, patch_size, chunks, samples_axis):
    found = choose_layout(
        shape, "uint16", samples_axis=samples_axis, patch_size=patch_size
    )
    assert found.chunks == chunks
    assert found.codec == "lz4"


@pytest.mark.parametrize(
    ("options", "chunks"),
    [
        ({"profile": "slice"}, (1, 3, 600, 800)),
        ({}, (1, 3, 600, 800)),
        ({"profile": "patch"}, (1, 3, 256, 256)),
        ({"patch_size": (64, 128, 128)}, (1, 3, 128, 128)),
    ],
)
def test_no_chunk_holds_two_frames_of_a_cine(options, chunks):
    layout = choose_layout(
        (40, 3, 600, 800), "uint8", samples_axis=1, framewise=True, **options
    )
    assert layout.chunks == chunks
    grey = choose_layout((40, 600, 800), "uint8", framewise=True, **options)
    assert grey.chunks[0] == 1


def test_the_page_tells_the_profiles_as_they_are():
    text = (Path(__file__).parents[1] / "examples" / "layout.md").read_text()
    text = text.replace("\N{MULTIPLICATION SIGN}", "x")
    rows = re.findall(r"^\| `(\w+)`[^|]*\| ([^|]+) \| ([^|]+) \| [^|]+ \|$", text, re.M)
    told = {name: (deep, flat) for name, deep, flat in rows}
    assert told == {
        "slice": ("a slice", "the image"),
        **{
            name: tuple(
                "x".join(map(str, tiles[name])) for tiles in (DEEP_TILES, FLAT_TILES)
            )
            for name in DEEP_TILES
        },
    }
    assert set(get_args(Profile)) == set(told)
    for patch in ((64, 64, 64), (96, 96, 96), (32, 96, 96)):
        chunks = patch_chunks((384, 512, 512), patch, 2)
        name = f"{chunks[0]}³" if len(set(chunks)) == 1 else "x".join(map(str, chunks))
        assert name in text.partition("## Patches of one size")[2]


def test_a_chunk_for_huge_patches_stays_small():
    chunks = patch_chunks((2000, 512, 512), (MOST_PATCH,) * 3, 2)
    assert prod(chunks) * 2 <= PATCH_CHUNK_BYTES


@pytest.mark.parametrize(
    "size", [64, "64", [64], (64, 64, 64), "64, 64,64", np.int64(64)]
)
def test_one_number_stands_for_all_three(size):
    assert parse_patch_size(size) == (64, 64, 64)
    assert all(type(n) is int for n in parse_patch_size(size))


@pytest.mark.parametrize(
    "size",
    ["", "64,64", "0", "-3", "a", "1,2,3,4", "4097", 0, 1.5, [], (1, 2), (1, 2, 0)],
)
def test_another_patch_size_is_refused(size):
    with pytest.raises(OptionError, match="--patch-size is one number, or slices"):
        parse_patch_size(size)


def test_the_codecs_of_settings_are_those_of_shards():
    assert list(get_args(Codec)) == list(CODECS)


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(OptionError, match="either --profile or --patch-size"):
        check_settings(Settings(profile="slice", patch_size=(64, 64, 64)), limit=None)
    with pytest.raises(OptionError, match="--codec is one of none, lz4, zstd"):
        check_settings(Settings(codec="gzip"), limit=None)
    check_settings(Settings(patch_size=(64, 64, 64)), limit=None)
