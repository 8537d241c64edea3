"""The modality transform, against pydicom; statistics, against numpy."""

import json
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydicom import Dataset
from pydicom.pixels import apply_rescale

from dicomdask.values import (
    PERCENTILES,
    SUMMARY,
    Statistics,
    merge,
    statistics,
    to_modality,
)

DTYPES = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32")
# What a DS holds: at most 16 characters.
decimals = st.floats(-1e6, 1e6).map(lambda value: float(f"{value:.8g}"))
stored_arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_side=1, max_side=9))
)


@given(stored_arrays, decimals, decimals)
def test_line_18_modality_values_equal_those_of_pydicom(stored, slope, intercept):
    dataset = Dataset()
    dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
    expected = apply_rescale(stored, dataset)
    found = to_modality(stored, slope, intercept)
    assert found.tobytes() == expected.tobytes()
    assert (found.dtype, found.shape) == (np.float64, stored.shape)


def test_every_16_bit_value_equals_that_of_pydicom():
    stored = np.arange(-(2**15), 2**15, dtype=np.int16)
    dataset = Dataset()
    for slope, intercept in [(1, -1024), (0.1, 0.3), (2.4414063, -4096.7), (0, 5)]:
        dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
        expected = apply_rescale(stored, dataset)
        assert to_modality(stored, slope, intercept).tobytes() == expected.tobytes()


def test_line_18_a_slope_for_each_frame():
    stored = np.arange(2 * 3 * 4 * 5, dtype=np.uint16).reshape(2, 3, 4, 5)
    slopes = np.linspace(0.1, 2.3, 6).reshape(2, 3)
    intercepts = -slopes * 7
    found = to_modality(stored, slopes, intercepts)
    for t in range(2):
        for z in range(3):
            expected = to_modality(stored[t, z], slopes[t, z], intercepts[t, z])
            np.testing.assert_array_equal(found[t, z], expected)
    by_t = to_modality(stored, [1.0, 2.0], 0)
    np.testing.assert_array_equal(by_t[1], stored[1] * 2.0)


def test_the_stored_values_are_left_alone():
    stored = np.arange(6.0).reshape(1, 2, 3)
    to_modality(stored, 2, 1)
    np.testing.assert_array_equal(stored.ravel(), np.arange(6.0))


paddings = st.one_of(
    st.just(()),
    st.tuples(st.integers(-300, 300)),
    st.tuples(st.integers(-300, 300), st.integers(-300, 300)),
)


def without_padding(stored, padding):
    wide = stored.astype(np.int64).ravel()
    if not padding:
        return wide
    return wide[(wide < min(padding)) | (wide > max(padding))]


@given(stored_arrays, paddings)
@settings(max_examples=200, deadline=None)
def test_line_21_statistics_equal_those_of_numpy(stored, padding):
    found = statistics(stored, padding)
    valid = without_padding(stored, padding)
    values, counts = np.unique(valid, return_counts=True)
    np.testing.assert_array_equal(found.values, values, strict=True)
    np.testing.assert_array_equal(found.counts, counts)
    summary = found.summary()
    assert summary["n_values"] == valid.size
    assert summary["n_padding"] == stored.size - valid.size
    if valid.size:
        levels = valid.astype(np.float64)
        assert summary["min"] == levels.min()
        assert summary["max"] == levels.max()
        expected = [float(np.percentile(levels, level)) for level in PERCENTILES]
        assert summary["percentiles"] == expected
        histogram, edges = np.histogram(levels, 64)
        assert summary["histogram"] == histogram.tolist()
        assert summary["histogram_edges"] == edges.tolist()
        assert summary["nonzero_fraction"] == np.count_nonzero(valid) / valid.size
        scale = max(1.0, np.abs(levels).max())
        assert summary["mean"] == pytest.approx(levels.mean(), abs=1e-12 * scale)
        assert summary["std"] == pytest.approx(levels.std(), abs=1e-7 * scale)


def test_stored_moments_are_exact_where_floats_are_not():
    """Naive sums of squares in float64 lose a small spread on a large mean."""
    stored = np.repeat(np.array([2**32 - 1, 2**32 - 2], np.uint32), 500)
    summary = statistics(stored).summary()
    assert summary["std"] == 0.5
    assert summary["mean"] == 2**32 - 1.5


@given(st.lists(stored_arrays, min_size=2, max_size=4), paddings)
@settings(deadline=None)
def test_merged_statistics_are_those_of_the_whole(parts, padding):
    merged = reduce(merge, [statistics(part, padding) for part in parts])
    flat = [part.astype(np.int64).ravel() for part in parts]
    whole = statistics(np.concatenate(flat), padding)
    np.testing.assert_array_equal(merged.values, whole.values, strict=True)
    np.testing.assert_array_equal(merged.counts, whole.counts, strict=True)
    assert merged.n_padding == whole.n_padding
    assert merged.summary() == whole.summary()


@pytest.mark.parametrize("dtype", ["int16", "uint16", "int8", "uint8"])
def test_the_ends_of_a_type_are_counted(dtype):
    info = np.iinfo(dtype)
    stored = np.array([info.min, info.max, info.max, 0], dtype)
    found = statistics(stored)
    counts = dict(zip(found.values.tolist(), found.counts.tolist(), strict=True))
    values, expected = np.unique(stored, return_counts=True)
    assert counts == dict(zip(values.tolist(), expected.tolist(), strict=True))


def test_arrays_longer_than_a_block_in_any_byte_order_and_stride():
    rng = np.random.default_rng(0)
    stored = rng.integers(-2000, 2000, (5, 700, 700)).astype(np.int16)
    plain = statistics(stored).summary()
    assert plain == statistics(stored.astype(">i2")).summary()
    assert plain == statistics(stored.T).summary()
    assert plain == statistics(stored[::-1]).summary()
    levels = stored.astype(np.float64)
    expected = [float(np.percentile(levels, level)) for level in PERCENTILES]
    assert plain["percentiles"] == expected
    assert plain["std"] == pytest.approx(levels.std(), rel=1e-12)


def test_all_padding_gives_none():
    summary = statistics(np.full((3, 4), -2000, np.int16), (-2000,)).summary()
    assert {name: summary[name] for name in SUMMARY} == dict.fromkeys(SUMMARY)
    assert (summary["n_values"], summary["n_padding"]) == (0, 12)
    nothing = statistics(np.zeros((0, 4), np.int16)).summary()
    assert (nothing["n_values"], nothing["min"]) == (0, None)


def test_a_summary_is_plain_data():
    summary = statistics(np.arange(12, dtype=np.int16)).summary()
    assert json.loads(json.dumps(summary)) == summary
    assert len(summary["histogram"]) + 1 == len(summary["histogram_edges"]) == 65


def test_statistics_are_made_from_a_table_again():
    found = statistics(np.array([1, 1, 5], np.uint8), (5,))
    again = Statistics(found.values, found.counts, found.n_padding)
    assert again.summary() == found.summary()
