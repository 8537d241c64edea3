"""Distributions of values, against numpy over all values together."""

import json
import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dicomdask.values import Distribution, Transform, distribution, pool, statistics
from dicomdask.values.distribution import MAX_BINS

LEVELS = (0, 0.5, 10, 50, 99.5, 100)
whole = hnp.arrays("int16", hnp.array_shapes(min_dims=1, max_dims=2, max_side=20))
broken = hnp.arrays(
    "float64",
    hnp.array_shapes(min_dims=1, max_dims=2, max_side=20),
    elements=st.floats(-1e300, 1e300),
)


def fields(one: Distribution) -> tuple[object, ...]:
    """Return all that a distribution holds."""
    arrays = (one.lows.tolist(), one.highs.tolist(), one.counts.tolist())
    return (*arrays, one.exponent, one.total, one.squares)


def many(seed: int, n: int = 3 * MAX_BINS) -> np.ndarray:
    """Return more different values than are told apart, of all magnitudes."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=n) * 10.0 ** rng.integers(-3, 4, n)


@given(st.lists(st.one_of(whole, broken), min_size=1, max_size=4))
@settings(deadline=None)
def test_few_values_are_told_exactly(parts):
    found = pool([distribution(part) for part in parts])
    values = np.concatenate([part.ravel().astype(float) for part in parts])
    assert found.n_values == values.size
    assert (found.exponent, found.lows.min()) == (None, values.min())
    for level in LEVELS:
        with np.errstate(over="ignore", invalid="ignore"):
            wanted = float(np.percentile(values, level))
        if np.isfinite(wanted):
            assert found.percentile(level) == (wanted, 0.0)
    exact = [Fraction(value) for value in values.tolist()]
    mean = sum(exact) / len(exact)
    spread = sum((one - mean) ** 2 for one in exact) / len(exact)
    scale = float(np.abs(values).max()) or 1.0
    assert found.mean == pytest.approx(float(mean), abs=1e-12 * scale)
    assert found.std == pytest.approx(
        float(spread / Fraction(scale) ** 2) ** 0.5 * scale, abs=1e-7 * scale
    )


@pytest.mark.parametrize("seed", range(4))
def test_many_values_are_told_within_the_error_that_is_told(seed):
    values = many(seed)
    found = distribution(values)
    assert found.counts.size <= MAX_BINS
    assert found.n_values == values.size
    assert (found.lows <= found.highs).all()
    for level in np.linspace(0, 100, 201):
        value, error = found.percentile(level)
        wanted = np.percentile(values, level)
        assert abs(value - wanted) <= error + 1e-12 * abs(wanted)
        assert error <= np.ldexp(1, found.exponent)
    assert found.mean == pytest.approx(values.mean(), rel=1e-9)
    assert found.std == pytest.approx(values.std(), rel=1e-9)


def test_bins_are_no_wider_than_they_must():
    found = distribution(many(0))
    keys = np.floor(np.ldexp(many(0), 1 - found.exponent))
    assert np.unique(keys).size > MAX_BINS


def test_the_order_of_adding_changes_nothing():
    parts = [distribution(many(seed, 5000)) for seed in range(6)]
    parts += [distribution(np.arange(-900.0, 3000.0))]
    rng = random.Random(0)
    told = set()
    for _ in range(5):
        rng.shuffle(parts)
        left = pool(parts[:3])
        right = pool([pool(parts[3:5]), *parts[5:]])
        told.add(repr(fields(pool([left, right]))))
    assert len(told) == 1
    assert pool(parts).exponent is not None


def test_what_was_added_is_taken_away_again():
    small = [distribution(np.arange(first, first + 500.0)) for first in (0, 250, 9000)]
    assert fields(pool(small).less(small[1])) == fields(pool([small[0], small[2]]))
    values = [many(seed, 20000) for seed in range(3)]
    left = pool([*map(distribution, values)]).less(distribution(values[1]))
    rest = np.concatenate([values[0], values[2]])
    assert left.n_values == rest.size
    assert left.mean == pytest.approx(rest.mean(), rel=1e-9)
    for level in LEVELS:
        value, error = left.percentile(level)
        assert abs(value - np.percentile(rest, level)) <= error + 1e-12
    for other in (distribution(np.array([77.7])), distribution(np.zeros(2))):
        with pytest.raises(ValueError, match="not counted"):
            small[0].less(other)
    with pytest.raises(ValueError, match="not counted"):
        pool([]).less(small[0])


@pytest.mark.parametrize("values", [np.arange(40.0), many(1), np.empty(0)])
def test_text_and_record_hold_all_of_it(values):
    found = distribution(values)
    assert fields(Distribution.from_text(found.to_text())) == fields(found)
    assert fields(Distribution.from_record(found.to_record())) == fields(found)
    json.loads(found.to_text())


def test_a_commit_stays_small():
    """Values of 12 bits, as CT has them, in a commit."""
    rng = np.random.default_rng(0)
    values = np.clip(rng.normal(-300, 600, 1 << 20), -1024, 3071).round()
    assert len(distribution(values).to_text()) < 20_000


def test_nothing_has_no_mean():
    empty = distribution(np.array([np.nan, np.inf]))
    assert (empty.n_values, empty.mean, empty.std) == (0, None, None)
    assert fields(pool([])) == fields(empty)


def test_modality_values_are_counted_without_padding():
    stored = np.array([[-2000, 5, 5], [7, -2000, 9]], np.int16)
    found = Transform.of(-0.5, 3, None).distribution(statistics(stored, (-2000,)))
    assert found.lows.tolist() == [-1.5, -0.5, 0.5]
    assert found.counts.tolist() == [1, 1, 2]
