"""The order of an epoch and its shares: covers, resumes, and stays what it is."""

import json
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomdask.errors import OptionError
from dicomdask.loaders.order import Order, key_of, permute, uniform
from dicomdask.loaders.shares import REMAINDERS, Leg, Share, State

WORLDS, WORKERS = (1, 2, 3, 8), (1, 4)

legs = st.builds(
    Leg,
    world=st.sampled_from(WORLDS),
    workers=st.sampled_from(WORKERS),
    batch_size=st.integers(1, 6),
    remainder=st.sampled_from(REMAINDERS),
)


def state_of(n, leg):
    return State(seed=0, epoch=0, mix=8, samples="", n_samples=n, legs=(leg,))


def given_out(share, leg, start=0, stop=10**6):
    """Return the places that all ranks get in some batches."""
    return [
        int(place)
        for rank in range(leg.world)
        for number in range(start, min(stop, share.n_batches(rank)))
        for place in share.batch(rank, number)
    ]


# --- order --------------------------------------------------------------------


def test_version_1_draws_what_it_always_drew():
    order = Order([3, 1, 4, 1, 5], seed=7, epoch=2, window=2)
    assert order.at(range(14)).tolist() == GOLDEN_ORDER
    assert np.round(uniform(key_of(1, 2), [0, 1, 2**40]), 6).tolist() == GOLDEN_DRAWS


GOLDEN_ORDER = [0, 3, 1, 2, 10, 13, 9, 5, 4, 11, 6, 12, 7, 8]
GOLDEN_DRAWS = [0.916699, 0.583876, 0.918798]


@given(st.integers(1, 300), st.integers())
def test_a_permutation_moves_each_place_to_another(n, key):
    assert sorted(permute(range(n), n, key_of(key))) == list(range(n))


def test_permutations_of_few_are_all_about_as_likely():
    drawn = Counter(tuple(permute(range(4), 4, key_of(seed))) for seed in range(4800))
    assert len(drawn) == 24
    assert 130 < min(drawn.values()) < max(drawn.values()) < 270  # 200 expected


def test_draws_are_uniform_and_do_not_follow_each_other():
    drawn = uniform(key_of(0), range(100_000))
    assert abs(drawn.mean() - 0.5) < 0.005
    assert abs(np.corrcoef(drawn[1:], drawn[:-1])[0, 1]) < 0.01
    assert drawn.min() >= 0
    assert drawn.max() < 1


@given(st.lists(st.integers(0, 9), max_size=40), st.integers(1, 9), st.integers())
def test_an_order_holds_each_sample_once_and_windows_whole_blocks(sizes, window, seed):
    order = Order(sizes, seed=seed, epoch=1, window=window)
    n = sum(sizes)
    assert len(order) == n
    ordered = order.at(range(n))
    assert sorted(ordered) == list(range(n))
    block_of = np.repeat(range(len(sizes)), sizes)[ordered]
    last = {block: place for place, block in enumerate(block_of)}
    first = {block: place for place, block in reversed(list(enumerate(block_of)))}
    for place in range(n):
        still_open = [b for b in last if first[b] <= place <= last[b]]
        assert len(still_open) <= window  # so a cache of a window reads each once


def test_seed_and_epoch_decide_the_order_and_nothing_else():
    def ordered(**options):
        return Order([10] * 10, **{"seed": 1, "epoch": 1, **options}).at(range(100))

    again = Order([10] * 10, seed=1, epoch=1)
    backwards = np.concatenate([again.at(place) for place in range(99, -1, -1)])
    assert (ordered() == backwards[::-1]).all()
    assert (ordered() != ordered(epoch=2)).any()
    assert (ordered() != ordered(seed=2)).any()
    assert (ordered(window=0) == range(100)).all()


# --- shares -------------------------------------------------------------------


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("n", [0, 1, 7, 96, 101])
def test_exact_cover(n, world, workers):
    for size in (1, 3, 8):
        keep, pad, drop = (
            Leg(world, workers, size, rule) for rule in ("keep", "pad", "drop")
        )
        assert sorted(given_out(Share([(0, n)], keep), keep)) == list(range(n))
        padded = given_out(Share([(0, n)], pad), pad)
        assert set(padded) == set(range(n))
        assert n <= len(padded) < n + world
        counts = Counter(given_out(Share([(0, n)], drop), drop))
        assert set(counts.values()) <= {1}
        assert n - world * size < len(counts) <= n


@given(st.integers(0, 120), legs)
def test_ranks_have_as_many_batches_where_they_must(n, leg):
    share = Share([(0, n)], leg)
    counts = [share.n_batches(rank) for rank in range(leg.world)]
    assert max(counts) - min(counts) <= (leg.remainder == "keep")
    sizes = [
        [share.batch(rank, number).size for number in range(counts[rank])]
        for rank in range(leg.world)
    ]
    for of_rank in sizes:
        assert all(size <= leg.batch_size for size in of_rank)
        assert sum(size < leg.batch_size for size in of_rank) <= 1
    if leg.remainder != "keep":
        assert len(set(map(tuple, sizes))) == 1  # step for step


@given(st.integers(1, 120), legs)
def test_a_worker_walks_one_run_of_the_order(n, leg):
    share = Share([(0, n)], leg)
    for rank in range(leg.world):
        for worker in range(leg.workers):
            numbers = range(worker, share.n_batches(rank), leg.workers)
            batches = [share.batch(rank, number) for number in numbers]
            for before, after in pairwise(batches):
                assert after[0] == (before[-1] + 1) % n


@settings(max_examples=300)
@given(st.integers(1, 90), st.lists(st.tuples(legs, st.integers(0, 30)), min_size=1))
def test_what_is_left_after_any_stops_is_what_was_not_seen(n, stops):
    state = state_of(n, stops[0][0])
    seen: list[int] = []
    for leg, more in stops:
        state = State.from_dict(json.loads(json.dumps(state.go_on(leg).to_dict())))
        share, going = state.share(), state.legs[-1]
        stop = going.batches + more
        seen += given_out(share, going, going.batches, stop)
        state = state.after(stop)
        left = [place for run in state.share().left() for place in range(*run)]
        assert len(set(left)) == len(left)
        assert set(left) | set(seen) == set(range(n))
        if all(leg.remainder != "pad" for leg, _ in stops):
            assert not set(left) & set(seen)
            assert len(set(seen)) == len(seen)


@given(st.integers(1, 120), legs, st.integers(0, 40))
def test_the_same_ranks_and_workers_go_on_with_the_same_batches(n, leg, stop):
    state = state_of(n, leg).after(stop)
    resumed = State.from_dict(state.to_dict()).go_on(leg)
    assert resumed == state
    whole, rest = state_of(n, leg).share(), resumed.share()
    for rank in range(leg.world):
        for number in range(stop, whole.n_batches(rank)):
            assert (whole.batch(rank, number) == rest.batch(rank, number)).all()


def test_a_state_that_cannot_be_resumed():
    state = state_of(9, Leg()).to_dict()
    with pytest.raises(OptionError, match="version 0 of the order"):
        State.from_dict(state | {"version": 0})
    with pytest.raises(OptionError, match="not the state of a loader"):
        State.from_dict({"version": 1, "seed": 0})
    with pytest.raises(OptionError, match="remainder is one of"):
        Leg(remainder="sometimes")
    with pytest.raises(OptionError, match="1 or more"):
        Leg(world=0)
    with pytest.raises(IndexError, match="batch 9 of 9"):
        Share([(0, 9)], Leg()).batch(0, 9)
