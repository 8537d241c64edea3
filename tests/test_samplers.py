"""Samplers: every voxel is reached, no chunk lies in two blocks, chance is even."""

from collections import Counter
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomdask.errors import BatchError, OptionError
from dicomdask.loaders.order import key_of
from dicomdask.loaders.samplers import Grid, Random, Tiles, Whole

axes = st.sampled_from(
    [("y", "x"), ("z", "y", "x"), ("t", "z", "y", "x"), ("c", "y", "x")]
)


@st.composite
def grids(draw):
    names = draw(axes)
    shape = tuple(draw(st.integers(1, 7)) for _ in names)
    chunks = tuple(draw(st.integers(1, n)) for n in shape)
    return Grid("v", names, shape, chunks)


def boxes(sampler, grid):
    """Return the boxes of each block."""
    return [
        [sampler.box(grid, block, place, 0) for place in range(size)]
        for block, size in enumerate(sampler.sizes(grid))
    ]


def voxels(grid, box):
    edges = zip(box, grid.shape, strict=True)
    return set(product(*(range(max(0, s.start), min(s.stop, n)) for s, n in edges)))


def chunks_of(grid, box):
    return {
        tuple(i // c for i, c in zip(voxel, grid.chunks, strict=True))
        for voxel in voxels(grid, box)
    }


@st.composite
def tiles(draw):
    size = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=2)))
    return Tiles(size, tuple(draw(st.integers(0, n - 1)) for n in size))


samplers = st.one_of(st.sampled_from([Whole(2), Whole(), Whole(1)]), tiles())


@settings(deadline=None)
@given(grids(), samplers)
def test_samples_reach_every_voxel_and_blocks_share_no_chunk(grid, sampler):
    blocks = boxes(sampler, grid)
    reached = set().union(*(voxels(grid, box) for block in blocks for box in block))
    assert reached == voxels(grid, tuple(map(slice, (0,) * 9, grid.shape)))
    held = [set().union(*(chunks_of(grid, box) for box in block)) for block in blocks]
    assert sum(map(len, held)) == len(set().union(*held))
    flat = [tuple((s.start, s.stop) for s in box) for block in blocks for box in block]
    assert len(set(flat)) == len(flat)


@settings(deadline=None)
@given(grids(), tiles())
def test_a_grid_keeps_its_size_and_its_overlap(grid, sampler):
    spanned = grid.spanned(len(sampler.size))
    for block in boxes(sampler, grid):
        for box in block:
            assert tuple(box[i].stop - box[i].start for i in spanned) == sampler.size
            for i, size in zip(spanned, sampler.size, strict=True):
                assert box[i].start >= 0
                assert box[i].stop <= max(grid.shape[i], size)


def test_a_slice_is_a_plane_and_blocks_are_layers_of_chunks():
    grid = Grid("v", ("z", "y", "x"), (10, 6, 5), (4, 3, 3))
    assert Whole(2).sizes(grid).tolist() == [4, 4, 2]
    assert Whole(2).box(grid, 2, 1, 0) == (slice(9, 10), slice(0, 6), slice(0, 5))
    assert Whole().sizes(grid).tolist() == [1]
    assert Whole().shape(grid) == (10, 6, 5)


def test_colours_stay_together_and_time_points_are_apart():
    colour = Grid("v", ("t", "c", "y", "x"), (4, 3, 6, 5), (1, 3, 6, 5))
    assert Whole(2).sizes(colour).tolist() == [1, 1, 1, 1]
    assert Whole(2).box(colour, 3, 0, 0)[:2] == (slice(3, 4), slice(0, 3))


def test_a_crop_and_a_pad_are_about_the_centre():
    grid = Grid("v", ("z", "y", "x"), (1, 10, 5), (1, 10, 5))
    box = Whole(2, (4, 9)).box(grid, 0, 0, 0)
    assert box == (slice(0, 1), slice(3, 7), slice(-2, 7))


def test_random_patches_lie_inside_and_each_place_is_as_likely():
    grid = Grid("v", ("z", "y", "x"), (3, 6, 7), (3, 6, 7))
    sampler = Random((4, 4), 1)
    drawn = Counter(
        tuple(piece.start for piece in sampler.box(grid, 0, 0, key_of(number)))
        for number in range(12_000)
    )
    assert set(drawn) == set(product(range(3), range(3), range(4)))
    chi = sum((n - 12_000 / 36) ** 2 / (12_000 / 36) for n in drawn.values())
    assert chi < 67  # p = 0.001 at 35 degrees of freedom
    small = Random((4, 12), 5).box(grid, 0, 3, 1)
    assert small[2] == slice(-3, 9)


def test_what_a_volume_cannot_give():
    flat = Grid("ab12", ("y", "x"), (6, 5), (6, 5))
    with pytest.raises(
        BatchError, match="volume ab12 has the axes y, x, and a sample spans 3"
    ):
        Random((2, 2, 2), 1).sizes(flat)
    for wrong in (
        lambda: Random((), 1),
        lambda: Random((1,), 0),
        lambda: Tiles((4,), (4,)),
    ):
        with pytest.raises(OptionError):
            wrong()
    with pytest.raises(OptionError, match="size has 2 numbers"):
        Whole(2, (1, 2, 3))
