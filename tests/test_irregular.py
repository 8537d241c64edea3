"""Series that are not one even stack: what becomes of them, and what tells of it.

A line number in a name is that of the list of what right means for pixels and volumes.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dicomdask
from dicomdask.model import Instance, Settings
from dicomdask.plan import Plan, plan_instances
from dicomdask.policy import load_policy
from dicomdask.pseudonym import Key
from dicomdask.verify import verify
from dicomdask.work import Work
from tests.builders import make_instance, make_series, write_series
from tests.conftest import SECRET, Convert
from tests.strategies import Scene, make_planned_instance, make_stack, place, scenes

KEY = Key(SECRET.encode())


def plan_of(instances: list[Instance], on_irregular: str = "split") -> Plan:
    wanted = Settings(on_irregular=on_irregular)  # type: ignore[arg-type]
    return plan_instances(instances, wanted, policy=load_policy("research"), key=KEY)


def without(stack: list[Instance], *gone: int) -> list[Instance]:
    return [one for number, one in enumerate(stack) if number not in gone]


# --- missing slices -------------------------------------------------------------------


def test_line_06_a_gap_splits_pads_or_rejects():
    stack = without(make_stack(8), 3, 4)
    split = plan_of(stack)
    assert sorted(volume.shape[0] for volume in split.volumes) == [3, 3]
    [padded] = plan_of(stack, "pad").volumes
    assert padded.shape[0] == 8
    assert padded.missing == (3, 4)
    assert padded.n_missing == 2
    assert padded.warnings == ("padded",)
    assert padded.uniform_spacing
    assert [frame.index for frame in padded.frames] == [
        (z,) for z in (0, 1, 2, 5, 6, 7)
    ]
    assert padded.spacing_mm[0] == pytest.approx(2.5)
    rejected = plan_of(stack, "reject")
    assert {one.code for one in rejected.outcomes} == {"missing-slices"}


def test_line_06_a_padded_grid_of_time_points():
    both = [
        make_planned_instance(
            1 + number + 10 * t,
            image_position_patient=(0.0, 0.0, 2.0 * number),
            temporal_position_identifier=t,
        )
        for t in (1, 2)
        for number in (0, 1, 3)
    ]
    [volume] = plan_of(both, "pad").volumes
    assert volume.shape[:2] == (2, 4)
    assert volume.missing == (2,)
    assert volume.axis_keyword == "TemporalPositionIdentifier"


def test_line_06_padding_differs_in_its_revision_only():
    stack = make_stack(5)
    [whole] = plan_of(stack).volumes
    [padded] = plan_of(without(stack, 2), "pad").volumes
    assert padded.volume_id == whole.volume_id
    assert padded.revision != whole.revision


def test_line_06_a_gap_wider_than_a_shard_is_not_padded(monkeypatch):
    monkeypatch.setattr("dicomdask.layout.SHARD_FRAMES", 16)
    stack = without(make_stack(90), *range(20, 60))
    found = plan_of(stack, "pad")
    assert {one.code for one in found.outcomes} == {"missing-slices"}


@pytest.mark.parametrize("padding", [None, -2000])
def test_line_06_what_a_padded_volume_holds(
    tmp_path: Path, convert: Convert, padding: int | None
):
    elements = {"PixelPaddingValue": padding} if padding is not None else {}
    every = list(make_series(6, **elements))
    write_series(tmp_path / "in", (ds for k, ds in enumerate(every) if k not in (2, 3)))
    store = tmp_path / "o.zarr"
    convert(tmp_path / "in", store, on_irregular="pad")
    dataset = dicomdask.open_dataset(str(store))
    [row] = dataset.volumes.to_dict("records")
    array = dataset.read(row["volume_id"])
    assert list(row["missing_slices"]) == [2, 3]
    assert (row["n_missing"], row["n_frames"]) == (2, 4)
    assert list(dataset.frames["z"]) == [0, 1, 4, 5]
    assert set(np.unique(array[2:4])) == {padding or 0}
    there = np.stack([every[k].pixel_array for k in (0, 1, 4, 5)])
    np.testing.assert_array_equal(array[[0, 1, 4, 5]], there)
    found = row["statistics"]
    assert found["n_values"] == there.size
    assert found["n_padding"] == 0
    assert (found["min"], found["max"]) == (there.min(), there.max())
    assert found["mean"] == pytest.approx(there.mean())
    report = verify(str(store), work=Work(f"{store}.work"), key=KEY)
    assert not report.problems
    assert report.n_frames == 4


def test_line_06_scales_of_a_padded_volume(tmp_path: Path, convert: Convert):
    series = (
        make_instance(
            instance=k + 1,
            RescaleSlope=k + 1,
            ImagePositionPatient=[0, 0, 2.5 * k],
            pixels=np.full((4, 4), 3, np.int16),
        )
        for k in (0, 1, 3)
    )
    write_series(tmp_path / "in", series)
    convert(tmp_path / "in", tmp_path / "o.zarr", on_irregular="pad")
    dataset = dicomdask.open_dataset(str(tmp_path / "o.zarr"))
    values = dataset.read(dataset.volumes["volume_id"][0], values="modality")
    assert list(values[:, 0, 0])[:2] == [3 - 1024, 6 - 1024]
    assert np.isnan(values[2]).all()
    assert values[3, 0, 0] == 12 - 1024


# --- the other irregularities ---------------------------------------------------------


@pytest.mark.parametrize("rule", ["split", "pad"])
def test_line_08_variable_thickness_is_nonuniform_not_missing(rule: str):
    thin = make_stack(4, gap_mm=2.5, slice_thickness=2.5)
    thick = [
        make_planned_instance(
            10 + k, image_position_patient=(-10.0, -20.0, z), slice_thickness=7.5
        )
        for k, z in enumerate((15.0, 22.5, 30.0))
    ]
    for one in thin:
        assert one.image_position_patient[2] <= 40
    found = plan_of([*thin_at_zero(thin), *thick], rule)
    assert all(volume.missing == () for volume in found.volumes)
    assert all("nonuniform" in volume.warnings for volume in found.volumes)


def thin_at_zero(stack: list[Instance]) -> list[Instance]:
    return [
        make_planned_instance(
            k + 1, image_position_patient=(-10.0, -20.0, 2.5 * k), slice_thickness=2.5
        )
        for k, _ in enumerate(stack)
    ]


@pytest.mark.parametrize("degrees", [-20.0, 12.5])
def test_line_09_tilt_is_kept_and_recorded_when_padded(degrees: float):
    shear = np.tan(np.radians(degrees))
    axial = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    positions = place(axial, [2.0 * k for k in (0, 1, 2, 4)], shear=(0.0, shear))
    stack = [
        make_planned_instance(k + 1, image_position_patient=position)
        for k, position in enumerate(positions)
    ]
    [volume] = plan_of(stack, "pad").volumes
    assert volume.tilt_degrees == pytest.approx(degrees, abs=1e-6)
    assert_recovered(volume, {one.url: one for one in stack})


def test_line_07_a_missing_end_is_warned_of():
    numbered = make_stack(5, images_in_acquisition=7)
    [volume] = plan_of(numbered).volumes
    assert "fewer-than-images-in-acquisition" in volume.warnings


def test_line_11_a_localizer_leaves_the_volume_whole():
    coronal = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
    scout = make_planned_instance(
        99,
        image_orientation_patient=coronal,
        image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"),
    )
    found = plan_of([*make_stack(5), scout], "pad")
    assert sorted(len(volume.frames) for volume in found.volumes) == [1, 5]
    assert all(volume.missing == () for volume in found.volumes)


def test_line_13_a_partial_last_repetition_is_incomplete():
    frames = [
        make_planned_instance(
            1 + k + 10 * t,
            image_position_patient=(0.0, 0.0, 3.0 * k),
            echo_numbers=None,
        )
        for t in range(3)
        for k in range(4 if t < 2 else 2)
    ]
    found = plan_of(frames)
    whole = max(found.volumes, key=lambda volume: len(volume.frames))
    assert whole.shape[:2] == (2, 4)
    assert all("incomplete" in volume.warnings for volume in found.volumes)


# --- whatever there is ----------------------------------------------------------------


def assert_recovered(volume: Any, instances: dict[str, Instance]):
    """The table of frames and the affine give each frame's true position."""
    affine = np.reshape(volume.affine, (4, 4))
    seen = set()
    for frame in volume.frames:
        true = instances[frame.url].image_position_patient
        assert frame.position == true
        place_of = dict(zip(volume.dimensions, frame.index, strict=False))
        found = (affine @ (place_of.get("z", 0), 0, 0, 1))[:3]
        # Uneven by up to 1 % of a gap is even (line 5).
        gap = volume.spacing_mm[0] if "z" in volume.dimensions else 0.0
        assert np.abs(found - true).max() <= max(1e-3, 0.02 * gap * len(volume.frames))
        seen.add(frame.index)
    assert len(seen) == len(volume.frames)
    z_of = volume.dimensions.index("z") if "z" in volume.dimensions else None
    if z_of is not None:
        assert not {index[z_of] for index in seen} & {*volume.missing}


@st.composite
def mixtures(draw: st.DrawFn) -> list[Instance]:
    """Scenes of several orientations, each at some time points, in any order."""
    found: list[Instance] = []
    for _ in range(draw(st.integers(1, 2))):
        scene: Scene = draw(scenes(max_slices=8))
        n_times = draw(st.integers(1, 3))
        for t in range(n_times):
            some = draw(st.integers(0, 2)) if t and t == n_times - 1 else 0
            kept = scene.instances[some:] if some < len(scene.instances) else ()
            for one in kept:
                number = len(found) + 1
                found.append(
                    make_planned_instance(
                        number,
                        image_orientation_patient=one.image_orientation_patient,
                        image_position_patient=one.image_position_patient,
                        pixel_spacing=one.pixel_spacing,
                        temporal_position_identifier=t if n_times > 1 else None,
                        instance_number=number,
                    )
                )
    return draw(st.permutations(found))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mixtures(), st.sampled_from(["split", "pad", "reject"]))
def test_line_03_frames_and_affine_recover_every_position(
    instances: list[Instance], rule: str
):
    by_url = {one.url: one for one in instances}
    found = plan_of(instances, rule)
    planned = [frame.url for volume in found.volumes for frame in volume.frames]
    assert len(planned) + len(found.outcomes) == len(instances)
    assert len(set(planned)) == len(planned)
    for volume in found.volumes:
        assert_recovered(volume, by_url)
    again = plan_of(sorted(instances, key=lambda one: one.url), rule)
    assert again == found
