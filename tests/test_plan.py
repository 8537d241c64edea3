"""From instances to volumes to tasks: pure, so every rule is tested on values."""

import json
import random
from collections import Counter
from dataclasses import replace
from itertools import product
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomdask import plan
from dicomdask.errors import CODES, PlanError
from dicomdask.layout import SHARD_BYTES, choose_layout
from dicomdask.model import FORMAT, Layout, PlannedFrame, PlannedVolume, Settings
from dicomdask.policy import load_policy
from dicomdask.pseudonym import Key
from tests.builders import AXIAL, ROOT
from tests.strategies import (
    CORONAL,
    kept_slices,
    make_planned_instance,
    make_stack,
    messy_series,
    place,
    scenes,
)

KEY = Key(b"a fixed key for tests only")
OTHER_SERIES = f"{ROOT}.1.1.2"
PROFILES = ("slice", "balanced", "patch")


def plan_of(instances, *, key=KEY, duplicates=None, **chosen):
    """Return the plan of some instances; `chosen` are settings."""
    wanted = Settings(**chosen)
    return plan.plan_instances(
        instances,
        wanted,
        policy=load_policy(wanted.policy, trusted_pixels=wanted.trusted_pixels),
        key=key,
        duplicates=duplicates,
    )


def volume_of(instances, **options):
    """Return the one volume that the instances become."""
    found = plan_of(instances, **options)
    assert not found.outcomes
    (volume,) = found.volumes
    return volume


def codes_of(found):
    return Counter(outcome.code for outcome in found.outcomes)


def urls_of(volume):
    return [frame.url for frame in volume.frames]


def shapes_of(found):
    return sorted(volume.shape for volume in found.volumes)


def repeat(stack, n, *, start=100, **fields):
    """Return `n` more copies of a stack at the same places; lists go by copy."""
    copies = []
    for copy in range(n):
        for place_in_stack, instance in enumerate(stack):
            number = start * (copy + 1) + place_in_stack
            copies.append(
                replace(
                    instance,
                    url=f"/in/{number:04d}.dcm",
                    sop_instance_uid=f"{ROOT}.1.1.1.{number}",
                    header_digest=f"{number:032x}",
                    instance_number=number,
                    **{name: values[copy] for name, values in fields.items()},
                )
            )
    return copies


def assert_accounted(instances, found):
    """Each instance is in volumes, each frame once, or it has one outcome."""
    every = {plan.source_key(one.url, KEY): one.number_of_frames for one in instances}
    frames = Counter((f.source_key, f.frame) for v in found.volumes for f in v.frames)
    assert set(frames.values()) <= {1}
    planned = Counter(source for source, _ in frames)
    assert all(n == every[source] for source, n in planned.items())
    refused = Counter(outcome.source_key for outcome in found.outcomes)
    assert Counter(planned.keys()) + refused == Counter(every.keys())
    assert {outcome.code for outcome in found.outcomes} <= set(CODES)
    assert all(outcome.stage == "plan" for outcome in found.outcomes)
    assert all(outcome.outcome == "rejected" for outcome in found.outcomes)


def assert_placed(volume, positions):
    """The frames and the affine give back the true position of each frame."""
    matrix = np.reshape(volume.affine, (4, 4))
    for frame in volume.frames:
        spatial = frame.index[volume.dimensions.count("t") :]
        index = [*spatial, *(0,) * (3 - len(spatial)), 1]
        assert frame.position == positions[frame.url]
        assert (matrix @ index)[:3] == pytest.approx(frame.position, abs=1e-3)


# --- the same input gives the same plan ---------------------------------------


class TestOrder:
    @settings(max_examples=40, deadline=None)
    @given(messy_series(), st.randoms(use_true_random=False))
    def test_line_37_any_permutation_gives_the_same_bytes(self, instances, rng):
        shuffled = rng.sample(instances, len(instances))
        expected = plan.plan_to_json(plan_of(instances))
        assert plan.plan_to_json(plan_of(shuffled)) == expected

    def test_line_01_names_and_numbers_do_not_order_slices(self):
        stack = make_stack(6)
        named = [
            replace(
                one,
                url=f"/in/{9 - k}.dcm",
                instance_number=(k * 5) % 6,
                sop_instance_uid=f"{ROOT}.{(k * 7) % 6}",
            )
            for k, one in enumerate(stack)
        ]
        assert urls_of(volume_of(named)) == [f"/in/{9 - k}.dcm" for k in range(6)]

    def test_the_normal_is_not_that_of_whichever_slice_came_first(self):
        """By one normal both lie at one place, by the other they do not."""
        leaning = (1.0, 0.0, 0.0, 0.0, 1.0, 5e-5)
        pair = [
            make_planned_instance(1, image_position_patient=(0.0, 0.0, 0.0)),
            make_planned_instance(
                2,
                image_position_patient=(0.0, 100.0, 0.0),
                image_orientation_patient=leaning,
            ),
        ]
        assert plan_of(pair) == plan_of(pair[::-1])

    def test_a_wide_series_does_not_depend_on_the_process(self):
        stack = [*make_stack(40), *make_stack(7, first=50, cosines=CORONAL)]
        texts = set()
        for seed in range(4):
            random.Random(seed).shuffle(stack)
            texts.add(plan.plan_to_json(plan_of(stack)))
        assert len(texts) == 1


class TestAccounting:
    @settings(max_examples=100)
    @given(messy_series(), st.sampled_from(["split", "reject"]))
    def test_each_instance_ends_in_one_volume_or_one_outcome(self, instances, rule):
        assert_accounted(instances, plan_of(instances, on_irregular=rule))

    @settings(max_examples=30)
    @given(messy_series())
    def test_volumes_are_whole_and_told_apart(self, instances):
        found = plan_of(instances)
        names = [volume.volume_id for volume in found.volumes]
        assert len(set(names)) == len(names)
        for volume in found.volumes:
            n_leading = len(volume.shape) - 2
            indices = sorted(frame.index for frame in volume.frames)
            assert indices == sorted(product(*map(range, volume.shape[:n_leading])))
            assert len(volume.dimensions) == len(volume.shape)
            assert len(volume.affine) in (0, 16)

    def test_nothing_gives_nothing(self):
        assert plan_of([]) == plan.Plan((), ())

    def test_a_refused_instance_leaves_the_others_whole(self):
        stack = make_stack(5)
        stack[2] = replace(stack[2], pixel_keyword=None)
        found = plan_of(stack)
        assert codes_of(found) == {"truncated": 1}
        assert_accounted(stack, found)
        assert all("gap" in volume.warnings for volume in found.volumes)

    @settings(max_examples=30)
    @given(messy_series())
    def test_no_outcome_names_a_patient_a_uid_or_a_place(self, instances):
        text = repr(plan_of(instances).outcomes)
        assert "PAT0" not in text
        assert ROOT not in text
        assert "/in/" not in text


# --- where the frames are -----------------------------------------------------


class TestGeometry:
    @settings(max_examples=80)
    @given(scenes())
    def test_frames_and_affine_give_back_the_true_positions(self, scene):
        found = plan_of(scene.instances)
        assert_accounted(scene.instances, found)
        assert not found.outcomes
        for volume in found.volumes:
            assert_placed(volume, scene.positions)
            if "z" in volume.dimensions:
                assert volume.spacing_mm[0] >= scene.gap_mm * (1 - 1e-6)

    def test_pixel_spacing_0_is_between_rows(self):
        volume = volume_of(make_stack(3))
        assert volume.spacing_mm == pytest.approx((2.5, 0.5, 0.75))
        matrix = np.reshape(volume.affine, (4, 4))
        assert matrix[:3, 1] == pytest.approx((0, 0.5, 0))
        assert matrix[:3, 2] == pytest.approx((0.75, 0, 0))

    def test_line_04_thickness_and_spacing_tags_do_not_give_spacing(self):
        stack = make_stack(4, slice_thickness=9.0, spacing_between_slices=-7.0)
        assert volume_of(stack).spacing_mm[0] == pytest.approx(2.5)

    @pytest.mark.parametrize("sign", [1, -1])
    def test_a_tilted_stack_is_one_volume_that_says_so(self, sign):
        shear = (0.0, sign * np.tan(np.radians(14)))
        positions = place(AXIAL, [5.0 * k for k in range(5)], shear=shear)
        stack = [
            replace(one, image_position_patient=position)
            for one, position in zip(make_stack(5), positions, strict=True)
        ]
        volume = volume_of(stack)
        assert volume.tilt_degrees == pytest.approx(sign * 14)
        assert "tilt" in volume.warnings
        assert_placed(volume, {one.url: one.image_position_patient for one in stack})

    def test_a_stack_that_bends_is_refused(self):
        stack = make_stack(6)
        x, y, z = stack[3].image_position_patient
        stack[3] = replace(stack[3], image_position_patient=(x + 5.0, y, z))
        assert codes_of(plan_of(stack)) == {"not-a-volume": 6}

    def test_line_16_cosines_that_are_a_little_off_warn(self):
        off = (1.0, 0.0, 0.0, 0.0, 1.0005, 0.0)
        assert "orientation-off" in volume_of(make_stack(3, cosines=off)).warnings

    def test_line_16_cosines_that_are_far_off_are_refused(self):
        off = (1.0, 0.0, 0.0, 0.0, 1.05, 0.0)
        assert codes_of(plan_of(make_stack(3, cosines=off))) == {"bad-geometry": 3}

    @pytest.mark.parametrize("spacing", [(0.0, 1.0), (-1.0, 1.0), (1.0,)])
    def test_spacing_that_cannot_be_is_refused(self, spacing):
        found = plan_of(make_stack(3, pixel_spacing=spacing))
        assert codes_of(found) == {"bad-geometry": 3}

    def test_line_15_one_slice_has_no_z_axis(self):
        (instance,) = make_stack(1)
        volume = volume_of([instance])
        assert volume.dimensions == ("y", "x")
        assert volume.shape == (16, 12)
        assert volume.frames[0].index == ()
        assert volume.spacing_mm == (0.5, 0.75)
        assert_placed(volume, {instance.url: instance.image_position_patient})

    def test_a_repeated_echo_elsewhere_in_the_plane_is_not_one_grid(self):
        """The affine is of the first echo, so the second must lie where it does."""
        first = make_stack(4, echo_time=10.0)
        moved = [
            replace(
                one,
                echo_time=80.0,
                image_position_patient=(
                    one.image_position_patient[0] + 40.0,
                    *one.image_position_patient[1:],
                ),
            )
            for one in repeat(first, 1)
        ]
        instances = [*first, *moved]
        found = plan_of(instances)
        assert_accounted(instances, found)
        positions = {one.url: one.image_position_patient for one in instances}
        for volume in found.volumes:
            assert_placed(volume, positions)

    def test_slices_beside_each_other_in_one_plane_are_no_time_axis(self):
        positions = [(0.0, 10.0 * k, 0.0) for k in range(4)]
        tiles = [
            make_planned_instance(k + 1, image_position_patient=position)
            for k, position in enumerate(positions)
        ]
        found = plan_of(tiles)
        assert_accounted(tiles, found)
        truth = {one.url: one.image_position_patient for one in tiles}
        for volume in found.volumes:
            assert_placed(volume, truth)

    def test_projections_have_no_affine_and_no_z(self):
        stack = make_stack(3, modality="DX", imager_pixel_spacing=(0.1, 0.2))
        stack = [
            replace(
                one,
                image_position_patient=(),
                image_orientation_patient=(),
                pixel_spacing=(),
            )
            for one in stack
        ]
        found = plan_of(stack, trusted_pixels=("DX",))
        assert shapes_of(found) == [(16, 12)] * 3
        assert {volume.kind for volume in found.volumes} == {"projection"}
        assert {volume.affine for volume in found.volumes} == {()}
        assert {volume.spacing_mm for volume in found.volumes} == {(0.1, 0.2)}


# --- what splits --------------------------------------------------------------

HARD = {
    "orientation": {"image_orientation_patient": (1.0, 0.0, 0.0, 0.0, 0.8, 0.6)},
    "rows": {"rows": 8},
    "columns": {"columns": 8},
    "pixel spacing": {"pixel_spacing": (0.5, 0.8)},
    "sign": {"pixel_representation": 0},
    "bits": {"bits_stored": 12, "high_bit": 11},
    "photometric": {"photometric_interpretation": "MONOCHROME1"},
    "kernel": {"convolution_kernel": ("SHARP",)},
    "localizer": {"image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER")},
    "frame of reference": {"frame_of_reference_uid": f"{ROOT}.9"},
    "class": {"sop_class_uid": "1.2.840.10008.5.1.4.1.1.4"},
}


class TestHardKeys:
    @pytest.mark.parametrize("name", HARD)
    def test_they_split_slices_that_would_fit_one_stack(self, name):
        stack = make_stack(6)
        mixed = [*stack[:3], *(replace(one, **HARD[name]) for one in stack[3:])]
        found = plan_of(mixed)
        assert_accounted(mixed, found)
        assert not found.outcomes
        halves = [{one.url for one in half} for half in (mixed[:3], mixed[3:])]
        for volume in found.volumes:
            assert any(set(urls_of(volume)) <= half for half in halves)

    def test_a_frame_of_reference_for_each_slice_tells_nothing(self):
        stack = [
            replace(one, frame_of_reference_uid=f"{ROOT}.9.{number}")
            for number, one in enumerate(make_stack(5))
        ]
        volume = volume_of(stack)
        assert volume.shape == (5, 16, 12)
        assert volume.warnings == ("frames-of-reference",)
        again = volume_of(list(reversed(stack)))
        assert (again.volume_id, again.revision) == (volume.volume_id, volume.revision)

    def test_frames_of_reference_that_are_shared_split(self):
        stack = make_stack(6)
        for n, uids in ((2, "12"), (4, "1223"), (6, "112233")):
            mixed = [
                replace(one, frame_of_reference_uid=f"{ROOT}.9.{uid}")
                for one, uid in zip(stack[:n], uids, strict=True)
            ]
            found = plan_of(mixed)
            assert len(found.volumes) == len(set(uids))
            assert not any("frames-of-reference" in v.warnings for v in found.volumes)

    def test_frames_of_reference_at_one_position_split(self):
        [slice_] = make_stack(1)
        repeats = [
            replace(
                slice_,
                url=f"{number}.dcm",
                sop_instance_uid=f"{ROOT}.8.{number}",
                frame_of_reference_uid=f"{ROOT}.9.{number}",
            )
            for number in range(4)
        ]
        assert shapes_of(plan_of(repeats)) == [(16, 12)] * 4

    def test_orientations_within_1e_4_stay_together(self):
        stack = make_stack(4)
        stack[1] = replace(
            stack[1], image_orientation_patient=(1.0, 0.0, 0.0, 0.0, 1.0, 5e-5)
        )
        assert volume_of(stack).shape == (4, 16, 12)

    def test_a_localizer_lies_apart_and_the_main_volume_is_whole(self):
        localizer = make_planned_instance(
            90,
            image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"),
            image_orientation_patient=CORONAL,
            image_position_patient=(0.0, 0.0, 0.0),
        )
        found = plan_of([*make_stack(5), localizer])
        assert shapes_of(found) == [(5, 16, 12), (16, 12)]

    def test_line_17_one_series_uid_of_two_patients_or_studies_stays_apart(self):
        stack = make_stack(6)
        for other in (
            {"patient_id": "PAT0002"},
            {"study_instance_uid": f"{ROOT}.1.2"},
            {"issuer_of_patient_id": "elsewhere"},
        ):
            mixed = [*stack[:3], *(replace(one, **other) for one in stack[3:])]
            found = plan_of(mixed)
            assert shapes_of(found) == [(3, 16, 12)] * 2
            assert len({volume.series_key for volume in found.volumes}) == 2

    def test_without_a_patient_id_studies_stay_apart(self):
        stack = make_stack(6, patient_id=None)
        mixed = [
            *stack[:3],
            *(replace(one, study_instance_uid=f"{ROOT}.2") for one in stack[3:]),
        ]
        assert shapes_of(plan_of(mixed)) == [(3, 16, 12)] * 2


VARYING = {
    "trigger_time": lambda k: 10.0 * k,
    "acquisition_number": lambda k: k // 2,
    "acquisition_time": lambda k: f"10{k:02d}00",
    "content_time": lambda k: f"10{k:02d}00",
    "echo_time": lambda k: 10.0 + k,
    "flip_angle": lambda k: 5.0 * (k % 2),
    "image_type": lambda k: ("ORIGINAL", "PRIMARY", f"T{k}"),
    "temporal_position_identifier": lambda k: k,
    "stack_id": str,
    "instance_number": lambda _: None,
}


class TestSoftKeys:
    @pytest.mark.parametrize("name", VARYING)
    def test_where_no_position_repeats_they_split_nothing(self, name):
        stack = [
            replace(one, **{name: VARYING[name](k)})
            for k, one in enumerate(make_stack(6))
        ]
        volume = volume_of(stack)
        assert volume.shape == (6, 16, 12)
        assert volume.axis_keyword is None

    def test_two_echoes_are_a_fourth_axis(self):
        first = make_stack(4, echo_time=10.0, modality="MR")
        volume = volume_of([*repeat(first, 1, echo_time=[80.0]), *first])
        assert volume.dimensions == ("t", "z", "y", "x")
        assert volume.shape == (2, 4, 16, 12)
        assert volume.kind == "timeseries"
        assert volume.axis_keyword == "EchoTime"
        assert volume.axis_values == ("10", "80")
        assert urls_of(volume)[:4] == [one.url for one in first]
        assert [frame.index for frame in volume.frames] == list(
            product(range(2), range(4))
        )

    def test_a_key_that_grows_by_slice_does_not_shatter_repeats(self):
        first = [
            replace(one, repetition_time=400.0 + number, acquisition_number=1)
            for number, one in enumerate(make_stack(4, modality="MR"))
        ]
        again = repeat(first, 1, acquisition_number=[2])
        volume = volume_of([*again, *first])
        assert volume.shape == (2, 4, 16, 12)
        assert volume.axis_keyword == "AcquisitionNumber"

    @pytest.mark.parametrize(
        ("field", "values", "keyword"),
        [
            ("echo_numbers", [1, 2, 3], "EchoNumbers"),
            ("diffusion_b_value", [0.0, 500.0, 1000.0], "DiffusionBValue"),
            ("temporal_position_identifier", [2, 10, 9], "TemporalPositionIdentifier"),
            ("flip_angle", [5.0, 15.0, 25.0], "FlipAngle"),
            ("repetition_time", [400.0, 500.0, 4000.0], "RepetitionTime"),
        ],
    )
    def test_each_soft_key_names_the_axis_in_rising_order(self, field, values, keyword):
        first = [replace(one, **{field: values[0]}) for one in make_stack(3)]
        volume = volume_of([*first, *repeat(first, 2, **{field: values[1:]})])
        assert volume.shape == (3, 3, 16, 12)
        assert volume.axis_keyword == keyword
        assert volume.axis_values == tuple(f"{value:g}" for value in sorted(values))

    def test_trigger_times_rank_the_phases_of_a_gated_series(self):
        phases = []
        for phase in range(3):
            stack = make_stack(4, first=100 * phase + 1)
            phases += [
                replace(one, trigger_time=300.0 * phase + 7.0 * k)
                for k, one in enumerate(stack)
            ]
        volume = volume_of(phases)
        assert volume.shape == (3, 4, 16, 12)
        assert volume.axis_keyword == "TriggerTime"
        assert urls_of(volume) == [one.url for one in phases]

    @pytest.mark.parametrize("field", ["image_type", "stack_id"])
    def test_kinds_of_image_and_stacks_are_volumes_of_their_own(self, field):
        values = {"image_type": [("O", "P", "M"), ("O", "P", "P")]}.get(
            field, ["1", "2"]
        )
        first = [replace(one, **{field: values[0]}) for one in make_stack(4)]
        found = plan_of([*first, *repeat(first, 1, **{field: values[1:]})])
        assert not found.outcomes
        assert shapes_of(found) == [(4, 16, 12)] * 2
        assert all(volume.axis_keyword is None for volume in found.volumes)

    def test_a_ragged_grid_becomes_volumes_that_say_so(self):
        first = make_stack(5, echo_time=10.0)
        second = repeat(first, 1, echo_time=[80.0])[:3]
        found = plan_of([*first, *second])
        assert not found.outcomes
        assert shapes_of(found) == [(3, 16, 12), (5, 16, 12)]
        assert all("ragged-grid" in volume.warnings for volume in found.volumes)

    def test_a_partial_last_repetition_is_apart_and_incomplete(self):
        first = make_stack(4)
        instances = [*first, *repeat(first, 2)]
        instances = instances[:-2]
        found = plan_of(instances)
        assert_accounted(instances, found)
        assert not found.outcomes
        assert shapes_of(found) == [(2, 4, 16, 12), (2, 16, 12)]
        assert all("incomplete" in volume.warnings for volume in found.volumes)

    def test_line_12_acquisition_number_never_splits_a_volume(self):
        for numbers in ([1, 1, 1, 2, 2, 2], [1, 2, 3, 4, 5, 6], [None, 1, 1, 2, 2, 2]):
            stack = [
                replace(one, acquisition_number=number)
                for one, number in zip(make_stack(6), numbers, strict=True)
            ]
            assert volume_of(stack).shape == (6, 16, 12)

    def test_positions_that_nothing_tells_apart_are_refused(self):
        first = make_stack(3, instance_number=None)
        instances = [
            *first,
            *(replace(one, instance_number=None) for one in repeat(first, 1)),
        ]
        found = plan_of(instances)
        assert codes_of(found) == {"repeated-positions": 6}


# --- gaps ---------------------------------------------------------------------


class TestIrregular:
    def test_a_missing_slice_splits_in_two_that_say_so(self):
        stack = make_stack(8)
        del stack[3]
        found = plan_of(stack)
        assert not found.outcomes
        assert shapes_of(found) == [(3, 16, 12), (4, 16, 12)]
        assert all("gap" in volume.warnings for volume in found.volumes)
        positions = {one.url: one.image_position_patient for one in stack}
        for volume in found.volumes:
            assert volume.spacing_mm[0] == pytest.approx(2.5)
            assert_placed(volume, positions)

    def test_or_rejects_the_series(self):
        stack = make_stack(8)
        del stack[3]
        found = plan_of(stack, on_irregular="reject")
        assert not found.volumes
        assert codes_of(found) == {"missing-slices": 7}

    @settings(max_examples=50)
    @given(kept_slices())
    def test_no_slice_is_ever_stretched_over_a_hole(self, kept):
        positions = place(AXIAL, [2.5 * k for k in kept])
        stack = [
            make_planned_instance(k + 1, image_position_patient=position)
            for k, position in zip(kept, positions, strict=True)
        ]
        found = plan_of(stack)
        unit = min(np.diff(kept), default=0)
        for volume in found.volumes:
            steps = np.diff([frame.position[2] for frame in volume.frames])
            assert len(set(np.round(steps, 6))) <= 1
            if len(found.volumes) > 1:
                assert np.all(steps <= 2.5 * unit + 1e-6)

    @staticmethod
    def thick_and_thin(second_thickness):
        """Return 5 slices 2.5 mm apart, then 5 slices 7.5 mm apart."""
        distances = [*np.arange(5) * 2.5, *(10 + 7.5 * np.arange(1, 6))]
        thickness = [2.5] * 5 + [second_thickness] * 5
        return [
            make_planned_instance(k + 1, slice_thickness=t, image_position_patient=p)
            for k, (p, t) in enumerate(
                zip(place(AXIAL, distances), thickness, strict=True)
            )
        ]

    def test_variable_thickness_is_not_missing_slices(self):
        found = plan_of(self.thick_and_thin(7.5), on_irregular="reject")
        assert codes_of(found) == {"nonuniform-spacing": 10}

    def test_variable_thickness_splits_into_its_even_pieces(self):
        found = plan_of(self.thick_and_thin(7.5))
        assert not found.outcomes
        assert shapes_of(found) == [(5, 16, 12)] * 2
        assert all("nonuniform" in volume.warnings for volume in found.volumes)
        assert not any("gap" in volume.warnings for volume in found.volumes)

    @pytest.mark.parametrize("rule", ["split", "reject"])
    def test_without_a_thickness_nothing_speaks_for_a_gap(self, rule):
        stack = make_stack(8, slice_thickness=None)
        del stack[3]
        found = plan_of(stack, on_irregular=rule)
        assert_accounted(stack, found)
        assert "missing-slices" not in codes_of(found)
        assert not any("gap" in volume.warnings for volume in found.volumes)

    def test_line_05_jitter_of_half_a_percent_is_one_volume(self):
        gaps = 2.5 * (1 + 0.005 * np.where(np.arange(19) % 2, 1, -1))
        distances = np.concatenate([[0], np.cumsum(gaps)])
        stack = [
            make_planned_instance(k + 1, image_position_patient=p)
            for k, p in enumerate(place(AXIAL, distances))
        ]
        assert volume_of(stack).uniform_spacing

    def test_line_05_jitter_of_five_percent_is_not(self):
        gaps = 2.5 * (1 + 0.05 * np.where(np.arange(19) % 2, 1, -1))
        distances = np.concatenate([[0], np.cumsum(gaps)])
        stack = [
            make_planned_instance(k + 1, image_position_patient=p)
            for k, p in enumerate(place(AXIAL, distances))
        ]
        assert codes_of(plan_of(stack)) == {"nonuniform-spacing": 20}

    def test_one_slice_close_to_another_does_not_scatter_the_series(self):
        """Every gap is a multiple of a tiny one: that is no series of holes."""
        stack = make_stack(40)
        x, y, z = stack[20].image_position_patient
        stack.append(make_planned_instance(99, image_position_patient=(x, y, z + 0.01)))
        found = plan_of(stack)
        assert_accounted(stack, found)
        assert len(found.volumes) <= 4

    def test_numbers_tell_of_a_missing_end(self):
        stack = make_stack(5, images_in_acquisition=6)
        assert volume_of(stack).warnings == ("fewer-than-images-in-acquisition",)
        skipping = [
            replace(one, instance_number=number)
            for one, number in zip(make_stack(4), [1, 2, 3, 5], strict=True)
        ]
        assert volume_of(skipping).warnings == ("instance-numbers-missing",)


# --- names --------------------------------------------------------------------


class TestNames:
    @given(st.integers(1, 9), st.integers(1, 9))
    def test_a_volume_keeps_its_id_when_slices_come(self, n, more):
        before, after = volume_of(make_stack(n)), volume_of(make_stack(n + more))
        assert before.volume_id == after.volume_id
        assert before.revision != after.revision

    def test_and_when_their_orientation_is_rounded_otherwise(self):
        stack = make_stack(4)
        last = replace(
            stack[-1], image_orientation_patient=(1.0, 0.0, 0.0, 0.0, 1.0, -1e-6)
        )
        before, after = volume_of(stack[:3]), volume_of([*stack[:3], last])
        assert before.volume_id == after.volume_id

    @pytest.mark.parametrize(
        "change",
        [{"size": 100_002}, {"header_digest": "f" * 32}, {"token": "new state"}],
    )
    def test_the_revision_names_the_state_of_each_source(self, change):
        stack = make_stack(4)
        other = [*stack[:2], replace(stack[2], **change), stack[3]]
        before, after = volume_of(stack), volume_of(other)
        assert before.volume_id == after.volume_id
        assert before.revision != after.revision

    @pytest.mark.parametrize(
        "options",
        [
            {"policy": "basic"},
            {"profile": "slice"},
            {"patch_size": (64, 64, 64)},
            {"codec": "zstd"},
        ],
    )
    def test_and_what_was_decided(self, options):
        stack = make_stack(40, rows=512, columns=512, size=600_000)
        before, after = volume_of(stack), volume_of(stack, **options)
        assert before.volume_id == after.volume_id
        assert before.revision != after.revision

    def test_where_the_files_lie_is_no_part_of_it(self):
        stack = make_stack(4)
        moved = [replace(one, url=f"/elsewhere{one.url}") for one in stack]
        before, after = volume_of(stack), volume_of(moved)
        assert before.volume_id == after.volume_id
        assert before.revision == after.revision

    def test_another_key_names_everything_anew(self):
        one, other = (
            volume_of(make_stack(3), key=key)
            for key in (KEY, Key(b"another key of tests"))
        )
        assert one.volume_id != other.volume_id
        assert one.series_key != other.series_key
        assert one.frames[0].source_key != other.frames[0].source_key

    def test_two_series_have_two_ids(self):
        both = [*make_stack(3), *make_stack(3, series_instance_uid=OTHER_SERIES)]
        assert len({volume.volume_id for volume in plan_of(both).volumes}) == 2

    def test_the_path_holds_ids_only(self):
        volume = volume_of(make_stack(3))
        head, shelf, name, revision = volume.path.split("/")
        assert (head, shelf) == ("volumes", volume.volume_id[:2])
        assert (len(name), len(revision)) == (32, 16)
        assert ROOT not in volume.path

    def test_duplicates_are_counted(self):
        stack = make_stack(3)
        counts = {stack[1].sop_instance_uid: 2, "of another series": 5}
        assert volume_of(stack, duplicates=counts).n_duplicates == 2


# --- tasks --------------------------------------------------------------------


@st.composite
def volumes(draw):
    """Volumes of (t, z, y, x) or less, cut by the layout or by hand."""
    n_leading = draw(st.integers(0, 2))
    extent = st.integers(1, 12)
    leading = tuple(draw(extent.filter(lambda n: n > 1)) for _ in range(n_leading))
    shape = (*leading, draw(st.integers(1, 40)), draw(st.integers(1, 40)))
    chunks = tuple(draw(st.integers(1, n)) for n in shape)
    counts = [-(-n // c) for n, c in zip(shape, chunks, strict=True)]
    shards = tuple(
        c * (draw(st.integers(1, n)) if axis < n_leading else n)
        for axis, (c, n) in enumerate(zip(chunks, counts, strict=True))
    )
    return volume_with(shape, Layout(chunks, shards, "lz4"))


def volume_with(shape, layout, *, dtype="int16", size=1000):
    """Return a volume of one shape and layout."""
    frames = tuple(
        PlannedFrame(f"/in/{k}", size + k, "", 0, index, (0.0, 0.0, 1.0 * k), f"{k}")
        for k, index in enumerate(product(*map(range, shape[:-2])))
    )
    return PlannedVolume(
        volume_id="ab" * 16,
        revision="cd" * 8,
        series_key="ef" * 16,
        kind="volume",
        shape=shape,
        dimensions=("t", "z", "y", "x")[-len(shape) :],
        dtype=dtype,
        layout=layout,
        affine=(),
        spacing_mm=(),
        uniform_spacing=True,
        tilt_degrees=0.0,
        axis_keyword=None,
        axis_values=(),
        padding=(),
        n_missing=0,
        n_duplicates=0,
        warnings=(),
        frames=frames,
    )


def assert_tiled(volume):
    """Tasks are the grid of shards, and share out the frames among them."""
    tasks = list(plan.volume_tasks(volume))
    shape, shards = volume.shape, volume.layout.shards
    grid = [range(-(-n // s)) for n, s in zip(shape, shards, strict=True)]
    assert [task.corner for task in tasks] == list(product(*grid))
    held = Counter(number for task in tasks for number in task.frames)
    assert held == Counter(range(len(volume.frames)))
    for task in tasks:
        for number in task.frames:
            index = volume.frames[number].index
            where = tuple(i // s for i, s in zip(index, shards, strict=False))
            assert where == task.corner[: len(index)]
    assert len({plan.task_digest(volume, task, KEY) for task in tasks}) == len(tasks)


class TestTasks:
    @given(volumes())
    def test_they_tile_an_array_on_shard_borders(self, volume):
        assert_tiled(volume)

    @pytest.mark.parametrize("profile", PROFILES)
    @pytest.mark.parametrize(
        "shape",
        [
            (700, 512, 512),
            (3, 16, 12),
            (40, 60, 128, 128),
            (3000, 2, 512, 512),
            (4000, 3000),
            (1, 1),
        ],
    )
    def test_so_do_those_of_chosen_layouts(self, profile, shape):
        layout = choose_layout(shape, "int16", profile)
        volume = volume_with(shape, layout)
        assert_tiled(volume)
        whole = zip(layout.shards, layout.chunks, strict=True)
        assert all(shard % chunk == 0 for shard, chunk in whole)
        assert all(
            shard >= extent
            for shard, extent in zip(layout.shards[-2:], shape[-2:], strict=True)
        )
        assert plan.shard_raw_bytes(volume) <= SHARD_BYTES

    @settings(max_examples=40)
    @given(messy_series(), st.sampled_from(PROFILES))
    def test_so_do_those_of_planned_volumes(self, instances, profile):
        for volume in plan_of(instances, profile=profile).volumes:
            assert_tiled(volume)

    def test_a_frame_pruned_by_hand_is_in_no_task(self):
        volume = volume_of(make_stack(4))
        pruned = replace(volume, frames=volume.frames[:2] + volume.frames[3:])
        held = [n for task in plan.volume_tasks(pruned) for n in task.frames]
        assert held == [0, 1, 2]

    def test_the_digest_names_volume_revision_and_shard(self):
        volume = volume_of(make_stack(4))
        (task,) = plan.volume_tasks(volume)
        digest = plan.task_digest(volume, task, KEY)
        for other in (replace(volume, revision="0"), replace(volume, volume_id="0")):
            assert plan.task_digest(other, task, KEY) != digest
        assert plan.task_digest(volume, replace(task, corner=(1, 0, 0)), KEY) != digest

    @given(volumes())
    def test_memory_grows_with_the_shard_and_the_source(self, volume):
        frames = tuple(replace(f, size=f.size + (1 << 30)) for f in volume.frames)
        grown = plan.memory_bytes(replace(volume, frames=frames))
        assert grown > plan.memory_bytes(volume) + (1 << 30)
        itemsize = np.dtype(volume.dtype).itemsize
        assert volume.raw_bytes == prod(volume.shape) * itemsize


# --- the document -------------------------------------------------------------

DAMAGE = {
    "no list": lambda plain: plain.update(volumes=3),
    "no volumes": lambda plain: plain.pop("volumes"),
    "unknown field": lambda plain: plain.update(extra=1),
    "unknown field below": lambda plain: plain["volumes"][0].update(extra=1),
    "missing field": lambda plain: plain["volumes"][0].pop("frames"),
    "text for a number": lambda plain: plain["volumes"][0].update(n_missing="1"),
    "number for text": lambda plain: plain["volumes"][0].update(volume_id=1),
    "text for a list": lambda plain: plain["volumes"][0].update(warnings="gap"),
    "null for a list": lambda plain: plain["volumes"][0].update(shape=None),
    "fraction in a shape": lambda plain: plain["volumes"][0].update(shape=[1.5, 2, 3]),
    "list for a record": lambda plain: plain["volumes"][0].update(layout=[1]),
    "outcome without code": lambda plain: plain["outcomes"][0].pop("code"),
}


class TestDocument:
    @staticmethod
    def example():
        """Return a plan with a volume and an outcome."""
        stack = make_stack(4)
        stack.append(replace(make_stack(1)[0], url="/in/rgb", samples_per_pixel=3))
        return plan_of(stack)

    @settings(max_examples=40)
    @given(messy_series())
    def test_round_trip(self, instances):
        found = plan_of(instances)
        text = plan.plan_to_json(found)
        assert plan.plan_from_json(text) == found
        assert plan.plan_to_json(plan.plan_from_json(text.encode())) == text

    def test_it_is_lines_that_a_person_can_edit(self):
        text = plan.plan_to_json(self.example())
        assert json.loads(text)["format"] == FORMAT
        assert text.count("\n") > 50
        edited = json.loads(text)
        edited["volumes"] = []
        assert plan.plan_from_json(json.dumps(edited)).volumes == ()

    @pytest.mark.parametrize("other", [FORMAT + 1, 0, None, str(FORMAT)])
    def test_another_format_is_refused_by_name(self, other):
        plain = json.loads(plan.plan_to_json(self.example()))
        plain["format"] = other
        with pytest.raises(PlanError, match="part 7 has another format"):
            plan.plan_from_json(json.dumps(plain), name="part 7")

    @pytest.mark.parametrize("name", DAMAGE)
    def test_damage_is_named(self, name):
        plain = json.loads(plan.plan_to_json(self.example()))
        DAMAGE[name](plain)
        with pytest.raises(PlanError, match="part 7 is damaged"):
            plan.plan_from_json(json.dumps(plain), name="part 7")

    @pytest.mark.parametrize("text", ["", "[]", "null", "1", '"x"', b"\xff\xfe", "{}"])
    def test_what_is_no_plan_is_refused(self, text):
        with pytest.raises(PlanError):
            plan.plan_from_json(text)

    @given(st.data())
    def test_a_text_cut_short_is_refused(self, data):
        text = plan.plan_to_json(self.example())
        with pytest.raises(PlanError):
            plan.plan_from_json(text[: data.draw(st.integers(0, len(text) - 3))])

    def test_the_error_holds_nothing_of_the_plan(self):
        plain = json.loads(plan.plan_to_json(self.example()))
        plain["volumes"][0]["n_missing"] = "SMITH^JOHN"
        with pytest.raises(PlanError) as caught:
            plan.plan_from_json(json.dumps(plain))
        assert "SMITH" not in str(caught.value)
        assert caught.value.__cause__ is None


class TestWhere:
    def test_instances_are_chosen_by_keywords(self):
        stack = [*make_stack(3), *make_stack(2, first=10, modality="MR")]
        chosen, others = plan.filter_instances(stack, "Modality == 'CT'")
        assert chosen == stack[:3]
        assert others == stack[3:]

    def test_a_part_of_the_body_a_description_and_a_date_choose_too(self):
        told = {"body_part_examined": "HEAD", "study_date": "20240229"}
        heads = make_stack(2, series_description="Köpfchen T1", **told)
        others = make_stack(2, first=10, body_part_examined="CHEST")
        for where in (
            "BodyPartExamined == 'HEAD'",
            "SeriesDescription == 'Köpfchen T1'",
            "StudyDate >= '20240101'",
        ):
            assert plan.filter_instances([*heads, *others], where) == (heads, others)

    def test_identifiers_keep_the_spelling_of_the_standard(self):
        stack = make_stack(3)
        where = f"SOPInstanceUID in ['{stack[1].sop_instance_uid}']"
        chosen, _ = plan.filter_instances(stack, where)
        assert chosen == [stack[1]]

    def test_what_cannot_be_evaluated_is_refused_without_values(self):
        with pytest.raises(PlanError) as caught:
            plan.filter_instances(make_stack(2), "NoSuchKeyword == 'PAT0001'")
        assert "PAT0001" not in str(caught.value)

    def test_a_word_that_is_no_keyword_is_refused_with_what_it_may_mean(self):
        with pytest.raises(PlanError, match=r"did you mean Modality\?") as caught:
            plan.filter_instances(make_stack(2), "Modalty == 'CT'")
        assert "SliceThickness" in str(caught.value)
        with pytest.raises(PlanError, match="stand in quotes") as caught:
            plan.filter_instances(make_stack(2), "PatientID == ZZ0815")
        assert "ZZ0815" not in str(caught.value)
