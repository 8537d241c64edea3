"""A series of single images: a few are looked at, the others where they differ."""

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest

import dicomdask
from dicomdask import plan
from dicomdask.burnedin import detector
from dicomdask.errors import InputError
from dicomdask.model import Settings
from dicomdask.plan.references import REFERENCES
from dicomdask.policy import load_policy
from dicomdask.pseudonym import Key
from dicomdask.tasks import attempts, references
from dicomdask.verify import verify
from dicomdask.work import Work
from tests.builders import to_bytes
from tests.strategies import make_planned_instance, make_stack
from tests.test_look import write
from tests.test_looks import told, ultrasound

CLEAN = ["clean-pixels"]
POLICY = load_policy("research", options=CLEAN)
N, SHAPE = 7, (200, 320)
ODD = 5
"""The number of the image that says something else."""
CONTRASTS = 2
"""In so many the detector sees each image, at most."""


# --- the plan ----------------------------------------------------------------------


def us(number: int, **fields):
    """Return an ultrasound image that the plan finds nothing to refuse in."""
    named = {"modality": "US", "manufacturer": "ACME"}
    return make_planned_instance(number, **named | fields)


def planned(instances, policy=POLICY, key=b"0123456789abcdef"):
    """Return the volumes of one series, by the SOP Instance UID of their first."""
    made = plan.plan_instances(instances, Settings(), policy=policy, key=Key(key))
    uids = {one.url: one.sop_instance_uid for one in instances}
    assert made.outcomes == ()
    return {uids[volume.frames[0].url]: volume for volume in made.volumes}


def uids_of(volume, instances) -> set[str]:
    """Return the SOP Instance UIDs of a volume's references."""
    uids = {one.url: one.sop_instance_uid for one in instances}
    return {uids[frame.url] for frame in volume.references}


def test_three_images_are_references_and_each_is_compared_with_itself() -> None:
    instances = [us(number) for number in range(1, 21)]
    made = planned(instances)
    used = {uid: uids_of(volume, instances) for uid, volume in made.items()}
    own = {uid for uid, found in used.items() if found == {uid}}
    assert len(own) == REFERENCES
    assert all(found == own for uid, found in used.items() if uid not in own)


def test_neither_order_nor_names_of_files_change_who_they_are() -> None:
    instances = [us(number) for number in range(1, 21)]
    moved = [
        dataclasses.replace(one, url=f"/elsewhere/{number}.dcm")
        for number, one in enumerate(reversed(instances))
    ]
    before, after = planned(instances), planned(moved)
    for uid, volume in before.items():
        assert uids_of(volume, instances) == uids_of(after[uid], moved)
        assert volume.revision == after[uid].revision


def test_another_state_of_a_reference_is_another_revision_of_all() -> None:
    instances = [us(number) for number in range(1, 21)]
    before = planned(instances)
    own = [uid for uid, v in before.items() if uids_of(v, instances) == {uid}]
    changed = [
        dataclasses.replace(one, header_digest="f" * 32)
        if one.sop_instance_uid == own[0]
        else one
        for one in instances
    ]
    after = planned(changed)
    same = {uid for uid in before if before[uid].revision == after[uid].revision}
    assert same == {*own[1:]}


def test_who_is_added_changes_nothing_or_all_that_is_compared() -> None:
    instances = [us(number) for number in range(1, 41)]
    n_same = 0
    for n in range(20, 40):
        before, after = planned(instances[:n]), planned(instances[: n + 1])
        first, second = (
            {uid for uid, v in made.items() if uids_of(v, instances) == {uid}}
            for made in (before, after)
        )
        if first == second:
            n_same += 1
            assert all(before[u].revision == after[u].revision for u in before)
        else:
            others = {*before} - first - second
            assert all(before[u].revision != after[u].revision for u in others)
    assert n_same > 10


@pytest.mark.parametrize(
    "fields",
    [
        {"manufacturer": "OTHER"},
        {"manufacturer_model_name": "Echo 9"},
        {"rows": 18},
        {"photometric_interpretation": "MONOCHROME1"},
        {"series_instance_uid": "1.2.3"},
    ],
)
def test_images_that_are_not_alike_are_not_compared(fields) -> None:
    plain = [us(number) for number in range(1, 7)]
    other = [us(number, **fields) for number in range(7, 13)]
    every = [*plain, *other]
    made = planned(every)
    uids = {one.sop_instance_uid for one in plain}
    for uid, volume in made.items():
        used = uids_of(volume, every)
        assert used
        assert (used <= uids) == (uid in uids)


@pytest.mark.parametrize(
    "instances",
    [
        [us(number) for number in range(1, REFERENCES + 1)],
        [us(number, number_of_frames=4) for number in range(1, 9)],
        make_stack(8),
    ],
    ids=["few", "cines", "not at risk"],
)
def test_nothing_else_has_references(instances) -> None:
    assert all(volume.references == () for volume in planned(instances).values())


def test_a_volume_of_many_images_has_references_too() -> None:
    stack = make_stack(12, image_type=("DERIVED", "SECONDARY"))
    [volume] = planned(stack).values()
    assert len(volume.references) == REFERENCES
    assert set(volume.references) < set(volume.frames)


def test_references_are_in_the_bounds_of_memory_and_in_the_document() -> None:
    made = plan.plan_instances(
        [us(number) for number in range(1, 9)],
        Settings(),
        policy=POLICY,
        key=Key(b"0123456789abcdef"),
    )
    assert plan.plan_from_json(plan.plan_to_json(made)) == made
    volume = max(made.volumes, key=lambda one: len(one.references))
    alone = dataclasses.replace(volume, references=())
    assert plan.memory_bytes(volume) > plan.memory_bytes(alone)
    lone = plan.Plan((alone,), ())
    assert plan.held_bytes(plan.Plan((volume,), ())) > plan.held_bytes(lone)


# --- what is stored ------------------------------------------------------------------


def tissue(number: int) -> np.ndarray:
    """Return an image with the same text as all, and a shape that moves."""
    noise = np.random.default_rng(3).integers(0, 24, SHAPE).astype(np.uint8)
    noise[110:170, 60 + 8 * number : 120 + 8 * number] += 60
    write(noise, "DOE JANE 1970-01-02", (20, 30), fill=235)
    return noise


def series(n: int = N) -> list[pydicom.Dataset]:
    """Return single images; one of them says something else, elsewhere."""
    planes = [tissue(number) for number in range(n)]
    write(planes[ODD], "MRN 0042", (70, 200), fill=235)
    return [
        ultrasound(plane, instance=number + 1) for number, plane in enumerate(planes)
    ]


def put(folder: Path, datasets: Sequence[pydicom.Dataset], names=None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, ds in enumerate(datasets):
        name = names[number] if names else f"{number}.dcm"
        (folder / name).write_bytes(to_bytes(ds))
    return folder


def stored(folder: Path, store: Path, **options) -> dict[str, tuple[np.ndarray, list]]:
    """Return the pixels and the boxes of each instance of a dataset, by its UID."""
    key = folder.parent / "key"
    if not key.exists():
        key.write_text("00112233445566778899aabbccddeeff" * 2)
        key.chmod(0o600)
    options = {"scheduler": "synchronous", "options": CLEAN, **options}
    dicomdask.convert(str(folder), str(store), key_file=str(key), **options)
    ds = dicomdask.open_dataset(str(store))
    boxes = ds.redactions.groupby("SOPInstanceUID")
    names = ["top", "left", "bottom", "right", "way", "score"]
    told_of = {uid: rows[names].to_numpy().tolist() for uid, rows in boxes}
    return {
        frame["SOPInstanceUID"]: (
            ds.read(frame["volume_id"]),
            sorted(told_of.get(frame["SOPInstanceUID"], [])),
        )
        for frame in ds.frames.to_dict("records")
    }


def assert_same(found, wanted) -> None:
    assert set(found) == set(wanted)
    for uid, (plane, boxes) in wanted.items():
        assert np.array_equal(found[uid][0], plane)
        assert found[uid][1] == boxes


class Counted:
    """The detector, which counts the pixels that it is shown."""

    def __init__(self, monkeypatch) -> None:
        self.find, self.shapes = detector.find_text, []
        monkeypatch.setattr(detector, "find_text", self)

    def __call__(self, image, *args):
        self.shapes.append(image.shape)
        return self.find(image, *args)

    @property
    def n_whole(self) -> int:
        return sum(shape == SHAPE for shape in self.shapes)


@pytest.fixture(scope="module")
def pile(tmp_path_factory) -> Path:
    return put(tmp_path_factory.mktemp("series") / "in", series())


@pytest.fixture(scope="module")
def wanted(pile: Path):
    return stored(pile, pile.parent / "wanted.zarr")


def test_a_few_are_looked_at_and_all_are_blank(pile, tmp_path, monkeypatch, wanted):
    counted = Counted(monkeypatch)
    found = stored(pile, tmp_path / "a.zarr")
    assert_same(found, wanted)
    assert len(found) == N
    assert all(plane.max() < 120 for plane, _ in found.values())
    assert counted.n_whole <= CONTRASTS * (REFERENCES + 1)
    looks = sum(rows * columns for rows, columns in counted.shapes)
    assert looks < CONTRASTS * N * SHAPE[0] * SHAPE[1] * 0.7
    assert sorted(len(boxes) for _, boxes in found.values()) == [1] * (N - 1) + [2]
    ds = dicomdask.open_dataset(str(tmp_path / "a.zarr"))
    assert set(ds.volumes["text_look"]) == {"detector"}
    assert set(ds.redactions["way"]) == {"detector"}
    assert ds.redactions["score"].notna().all()


def test_nothing_is_missed_that_a_look_at_each_finds(pile, tmp_path, monkeypatch):
    monkeypatch.setattr(plan.build, "with_references", lambda volumes, *_: volumes)
    each = stored(pile, tmp_path / "each.zarr")
    monkeypatch.undo()
    found = stored(pile, tmp_path / "a.zarr")
    assert set(each) == set(found)
    for uid, (plane, boxes) in each.items():
        assert boxes
        assert found[uid][0].max() < 120
        assert plane.max() < 120


@pytest.mark.filterwarnings("ignore::DeprecationWarning:multiprocessing")
def test_whoever_runs_it_it_is_the_same(pile, tmp_path, wanted) -> None:
    assert_same(stored(pile, tmp_path / "a.zarr", scheduler="processes"), wanted)


def test_in_whatever_order_files_lie_it_is_the_same(pile, tmp_path, wanted) -> None:
    names = [f"{(5 * number) % N}/x.dcm" for number in range(N)]
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(parents=True)
    shutil.copy(pile.parent / "key", tmp_path / "key")
    moved = put(tmp_path / "in", series(), names)
    assert_same(stored(moved, tmp_path / "a.zarr"), wanted)


def test_in_a_process_apart_it_is_the_same(pile, tmp_path, wanted, monkeypatch):
    monkeypatch.setattr(attempts, "TRIES", 0)
    monkeypatch.setattr(detector, "find_text", None)  # of this process
    assert_same(stored(pile, tmp_path / "a.zarr"), wanted)


def test_what_is_done_again_looks_at_no_reference_again(
    pile, tmp_path, wanted, monkeypatch
) -> None:
    store = tmp_path / "a.zarr"
    first = Counted(monkeypatch)
    stored(pile, store)
    monkeypatch.undo()
    work = Work(f"{store}.work")
    notes = list((Path(work.url) / "receipts" / "looks").rglob("*.json"))
    assert len(notes) == REFERENCES
    notes[0].write_text('{"boxes": 7}')  # damaged: looked at again
    for task in work.done_tasks():
        work.remove_receipt(task)
    shutil.rmtree(store)
    counted = Counted(monkeypatch)
    assert_same(stored(pile, store), wanted)
    assert 0 < counted.n_whole < first.n_whole / 2 + 1
    assert "scores" in notes[0].read_text()


def test_what_comes_later_is_as_if_it_had_been_there(pile, tmp_path, wanted) -> None:
    every = series()
    shutil.copy(pile.parent / "key", tmp_path / "key")
    stored(put(tmp_path / "in", every[:5]), tmp_path / "a.zarr")
    found = stored(put(tmp_path / "in", every), tmp_path / "a.zarr")
    assert_same(found, wanted)
    assert verify(str(tmp_path / "a.zarr")).problems == ()


def test_a_reference_that_cannot_be_looked_at_takes_nothing_along(
    pile, tmp_path, monkeypatch, wanted
) -> None:
    real, broken = references.looks.see, []

    def see(dataset, *args, **named):
        if not broken or dataset.InstanceNumber in broken:
            broken.append(dataset.InstanceNumber)
            raise InputError("unclean-pixels")
        return real(dataset, *args, **named)

    monkeypatch.setattr(references.looks, "see", see)
    found = stored(pile, tmp_path / "a.zarr")
    assert broken
    assert set(found) == set(wanted)
    assert all(plane.max() < 120 for plane, _ in found.values())


def test_slices_of_one_volume_are_compared_as_well(tmp_path, monkeypatch) -> None:
    slices = []
    for number in range(N):
        ds = ultrasound(tissue(number), instance=number + 1)
        ds.Modality, ds.SOPClassUID = "CT", "1.2.840.10008.5.1.4.1.1.2"
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
        ds.ImageType = ["DERIVED", "SECONDARY"]
        slices.append(ds)
    counted = Counted(monkeypatch)
    found = stored(put(tmp_path / "in", slices), tmp_path / "a.zarr")
    assert len(found) == N
    assert all(volume.max() < 120 for volume, _ in found.values())
    assert all(len(boxes) == 1 for _, boxes in found.values())
    assert counted.n_whole <= CONTRASTS * (REFERENCES + 1)


# --- in DICOM ---------------------------------------------------------------------


def cleaned(pile: Path, out: Path) -> dict[str, pydicom.Dataset]:
    """Return what `deidentify` writes, by UID."""
    key = str(pile.parent / "key")
    options = {"options": CLEAN, "key_file": key, "scheduler": "synchronous"}
    dicomdask.deidentify(str(pile), str(out), **options)
    return {ds.SOPInstanceUID: ds for ds in map(pydicom.dcmread, out.rglob("*.dcm"))}


def test_deidentify_looks_at_a_few_files_of_a_batch(
    pile, tmp_path, monkeypatch, wanted, request
) -> None:
    apart = cleaned(pile, tmp_path / "apart")
    request.getfixturevalue("nothing_apart")
    counted = Counted(monkeypatch)
    found = cleaned(pile, tmp_path / "out")
    assert set(found) == set(wanted) == set(apart)
    assert all(ds.PixelData == apart[uid].PixelData for uid, ds in found.items())
    assert all(ds.pixel_array.max() < 120 for ds in found.values())
    assert all(ds.BurnedInAnnotation == "NO" for ds in found.values())
    assert 0 < counted.n_whole <= CONTRASTS * (REFERENCES + 1)
    rows = told(tmp_path, "redactions")
    by_file = [sum(r["SOPInstanceUID"] == uid for r in rows) for uid in found]
    assert (min(by_file), max(by_file)) == (1, 2)


def test_what_neighbours_hold_is_bounded(monkeypatch) -> None:
    held = references.Neighbours()
    seen = references.Seen((np.zeros((100, 100), np.uint8),), ())
    for number in range(9):
        held.add((str(number % 3),), seen)
    assert [len(held.of((str(number),))) for number in range(3)] == [3, 3, 3]
    monkeypatch.setattr(references, "HELD_BYTES", 55_000)
    held.add(("2",), seen)
    assert [len(held.of((str(number),))) for number in range(3)] == [0, 0, 4]
    held.add(("2",), seen)
    assert len(held.of(("2",))) == references.LAST_SEEN
    assert held.of(None) == ()
