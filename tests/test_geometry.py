"""Order, spacing, affine and tilt of stacks, by formula."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomdask import geometry
from dicomdask.errors import InputError
from tests.builders import AXIAL
from tests.strategies import (
    CORONAL,
    OBLIQUE,
    PLANES,
    SAGITTAL,
    axis_angle,
    normal_of,
    orientations,
    origins,
    place,
    shears,
    spacings,
)


def stack(cosines, n, gap_mm, **where):
    """Return the positions of an even stack, shape (n, 3)."""
    return np.array(place(cosines, [gap_mm * k for k in range(n)], **where))


class TestOrder:
    def test_normal_is_row_cross_column(self):
        assert geometry.slice_normal(AXIAL) == pytest.approx((0, 0, 1))
        assert geometry.slice_normal(CORONAL) == pytest.approx((0, 1, 0))
        assert geometry.slice_normal(SAGITTAL) == pytest.approx((-1, 0, 0))
        assert geometry.slice_normal(OBLIQUE) == pytest.approx((-0.8, 0.6, 0))

    @given(orientations(), origins(), st.permutations(range(8)))
    def test_line_01_projection_orders_slices_whatever_their_orientation(
        self, cosines, origin, order
    ):
        positions = stack(cosines, 8, 2.5, origin=origin)
        normal = geometry.slice_normal(cosines)
        found = np.argsort(geometry.project(positions[list(order)], normal))
        assert np.array(order)[found].tolist() == list(range(8))

    def test_line_01_z_alone_would_not_order_a_coronal_stack(self):
        positions = stack(CORONAL, 5, 3.0)
        assert len(set(positions[:, 2])) == 1
        distances = geometry.project(positions, geometry.slice_normal(CORONAL))
        assert np.diff(distances) == pytest.approx(3.0)


class TestSpacing:
    @pytest.mark.parametrize("plane", PLANES)
    def test_line_02_spacing_is_the_distance_along_the_normal(self, plane):
        cosines = PLANES[plane]
        distances = geometry.project(
            stack(cosines, 6, 3.0), geometry.slice_normal(cosines)
        )
        assert geometry.slice_spacing(distances) == pytest.approx(3.0)

    @given(orientations(), spacings(), origins(), shears())
    def test_a_shear_does_not_change_it(self, cosines, gap, origin, shear):
        positions = stack(cosines, 6, gap, origin=origin, shear=shear)
        distances = geometry.project(positions, geometry.slice_normal(cosines))
        assert geometry.slice_spacing(distances) == pytest.approx(gap, abs=1e-6)


class TestUniform:
    @staticmethod
    def jittered(share, n=40):
        """Return distances whose gaps are alternately longer and shorter."""
        gaps = 2.5 * (1 + share * np.where(np.arange(n - 1) % 2, 1, -1))
        return np.concatenate([[0.0], np.cumsum(gaps)])

    @pytest.mark.parametrize("share", [0.0, 0.001, 0.005, -0.005])
    def test_line_05_jitter_of_half_a_percent_passes(self, share):
        assert geometry.is_uniform(self.jittered(share))

    @pytest.mark.parametrize("share", [0.05, -0.05, 0.02])
    def test_line_05_jitter_of_five_percent_fails(self, share):
        assert not geometry.is_uniform(self.jittered(share))

    def test_one_gap_that_is_off_fails_in_a_long_stack(self):
        distances = 2.5 * np.arange(400)
        distances[200:] += 0.05 * 2.5
        assert not geometry.is_uniform(distances)

    @pytest.mark.parametrize("n", [1, 2])
    def test_two_slices_have_one_gap(self, n):
        assert geometry.is_uniform(7.0 * np.arange(n))

    def test_gaps_that_drift_stay_on_the_line(self):
        distances = np.cumsum([0.0, *[2.5] * 20, *[2.5 * 1.009] * 20])
        assert geometry.is_uniform(distances)
        positions = distances[:, None] * np.array([[0.0, 0.2, 1.0]])
        assert geometry.lies_on_line(positions, distances)

    def test_in_plane_drift_is_off_the_line(self):
        positions, distances = stack(AXIAL, 9, 2.5), 2.5 * np.arange(9)
        assert geometry.lies_on_line(positions, distances)
        positions[4, 0] += 1.0
        assert not geometry.lies_on_line(positions, distances)


class TestAffine:
    def test_columns_by_hand(self):
        matrix = geometry.affine(stack(AXIAL, 3, 2.5), AXIAL, (0.5, 0.75))
        expected = [
            [0.0, 0.0, 0.75, -10.0],
            [0.0, 0.5, 0.0, -20.0],
            [2.5, 0.0, 0.0, 30.0],
            [0.0, 0.0, 0.0, 1.0],
        ]
        assert matrix == pytest.approx(np.array(expected))

    @given(orientations(), spacings(), spacings())
    def test_pixel_spacing_0_is_between_rows(self, cosines, between_rows, between_cols):
        matrix = geometry.affine(
            stack(cosines, 4, 2.5), cosines, (between_rows, between_cols)
        )
        row, column = np.reshape(cosines, (2, 3))
        assert matrix[:3, 1] == pytest.approx(column * between_rows, abs=1e-6)
        assert matrix[:3, 2] == pytest.approx(row * between_cols, abs=1e-6)

    @given(orientations(), spacings(), origins(), shears(), st.integers(2, 300))
    def test_times_an_index_is_the_position_of_that_slice(
        self, cosines, gap, origin, shear, n
    ):
        positions = stack(cosines, n, gap, origin=origin, shear=shear)
        matrix = geometry.affine(positions, cosines, (0.5, 0.75))
        for index in (0, n // 2, n - 1):
            found = (matrix @ (index, 0, 0, 1))[:3]
            assert found == pytest.approx(positions[index], abs=1e-3)

    @given(orientations(), origins())
    def test_one_slice_steps_by_the_unit_normal(self, cosines, origin):
        matrix = geometry.affine(np.array([origin]), cosines, (0.5, 0.75))
        assert matrix[:3, 3] == pytest.approx(origin)
        assert matrix[:3, 0] == pytest.approx(normal_of(cosines), abs=1e-6)

    def test_the_hand_of_the_axes_is_right_for_slices_in_order(self):
        """z, y, x counts axes backwards, so a right-handed frame has det < 0."""
        matrix = geometry.affine(stack(OBLIQUE, 3, 2.5), OBLIQUE, (1, 1))
        assert np.linalg.det(matrix[:3, :3]) == pytest.approx(-2.5)


class TestTilt:
    @pytest.mark.parametrize("degrees", [14.0, -14.0, 30.0, -1.0, 0.5])
    def test_both_signs(self, degrees):
        shear = (0.0, np.tan(np.radians(degrees)))
        positions = stack(AXIAL, 5, 5.0, shear=shear)
        assert geometry.tilt_degrees(positions, AXIAL) == pytest.approx(degrees)

    @given(orientations(), st.floats(-35, 35).filter(lambda a: abs(a) > 0.1))
    def test_in_any_orientation(self, cosines, degrees):
        positions = stack(cosines, 5, 5.0, shear=(0, np.tan(np.radians(degrees))))
        found = geometry.tilt_degrees(positions, cosines)
        assert found == pytest.approx(degrees, abs=1e-4)

    def test_towards_the_columns_counts_too(self):
        shear = (np.tan(np.radians(-10)), 0.0)
        found = geometry.tilt_degrees(stack(AXIAL, 5, 5.0, shear=shear), AXIAL)
        assert found == pytest.approx(-10)

    @pytest.mark.parametrize("plane", PLANES)
    def test_no_shear_is_exactly_zero(self, plane):
        assert geometry.tilt_degrees(stack(PLANES[plane], 5, 5.0), PLANES[plane]) == 0

    def test_rounded_positions_are_no_tilt(self):
        positions = np.round(stack(OBLIQUE, 50, 3.0), 3)
        assert geometry.tilt_degrees(positions, OBLIQUE) == 0


class TestCosines:
    @pytest.mark.parametrize(
        ("share", "is_warned", "is_rejected"),
        [
            (0.0, False, False),
            (5e-5, False, False),
            (5e-4, True, False),
            (9e-3, True, False),
            (2e-2, True, True),
        ],
    )
    @pytest.mark.parametrize("damage", ["length", "angle"])
    def test_line_16_thresholds(self, share, is_warned, is_rejected, damage):
        row, column = np.array([1.0, 0, 0]), np.array([0, 1.0, 0])
        if damage == "length":
            row = row * (1 + share)
        else:
            column = axis_angle((0, 0, 1), np.degrees(np.arcsin(share))) @ column
        cosines = (*row, *column)
        if is_rejected:
            with pytest.raises(InputError) as caught:
                geometry.parse_orientation(cosines)
            assert caught.value.code == "bad-geometry"
            return
        found_row, found_column, off = geometry.parse_orientation(cosines)
        assert (off > geometry.COSINE_WARN) == is_warned
        assert np.linalg.norm(found_row) == pytest.approx(1)
        assert np.linalg.norm(found_column) == pytest.approx(1)

    @pytest.mark.parametrize(
        "cosines",
        [
            (),
            (1.0, 0.0, 0.0),
            (*AXIAL, 0.0),
            (0.0,) * 6,
            (1.0, 0.0, 0.0, 1.0, 0.0, 0.0),
            (np.nan, 0.0, 0.0, 0.0, 1.0, 0.0),
            (np.inf, 0.0, 0.0, 0.0, 1.0, 0.0),
        ],
    )
    def test_line_16_what_is_no_orientation_is_rejected(self, cosines):
        with pytest.raises(InputError) as caught:
            geometry.parse_orientation(cosines)
        assert caught.value.code == "bad-geometry"

    def test_the_message_holds_no_number_of_the_header(self):
        with pytest.raises(InputError) as caught:
            geometry.parse_orientation((1.2345, 0.0, 0.0, 0.0, 1.0, 0.0))
        assert "1.2345" not in str(caught.value)


class TestGaps:
    def test_one_missing_slice(self):
        gaps = geometry.find_gaps(np.array([0, 2.5, 5.0, 10.0, 12.5]))
        assert gaps.holes
        assert gaps.n_missing == 1
        assert gaps.runs == ((0, 3), (3, 5))

    def test_several_holes(self):
        numbers = np.array([0, 1, 2, 5, 6, 9, 10, 11])
        gaps = geometry.find_gaps(3.0 * numbers)
        assert gaps.holes
        assert gaps.n_missing == 4
        assert gaps.runs == ((0, 3), (3, 5), (5, 8))

    def test_a_hole_among_jitter_is_still_a_hole(self):
        distances = 2.5 * np.array([0, 1.002, 2, 3.002, 5, 6.001, 7])
        gaps = geometry.find_gaps(distances)
        assert gaps.holes
        assert gaps.n_missing == 1
        assert gaps.runs == ((0, 4), (4, 7))

    def test_gaps_that_are_no_multiples_are_no_holes(self):
        gaps = geometry.find_gaps(np.array([0, 2.0, 4.0, 6.0, 9.0, 12.0, 15.0]))
        assert not gaps.holes
        assert gaps.n_missing == 0
        assert gaps.runs == ((0, 4), (4, 7))

    @given(st.lists(st.floats(0.1, 10), min_size=1, max_size=20))
    def test_runs_hold_each_slice_once_in_order(self, steps):
        distances = np.concatenate([[0.0], np.cumsum(steps)])
        runs = geometry.find_gaps(distances).runs
        slices = [k for start, stop in runs for k in range(start, stop)]
        assert slices == list(range(len(distances)))

    @given(
        st.lists(st.integers(1, 4), min_size=3, max_size=30).filter(lambda s: 1 in s),
        spacings(),
    )
    def test_whole_multiples_count_what_is_missing(self, steps, gap):
        distances = gap * np.concatenate([[0], np.cumsum(steps)])
        gaps = geometry.find_gaps(distances)
        assert gaps.holes
        assert gaps.n_missing == sum(step - 1 for step in steps)
