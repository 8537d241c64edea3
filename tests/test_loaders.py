"""Loaders: each sample once, the right voxels, the same after a stop, any process."""

import json
import pickle
import shutil
from collections import Counter
from itertools import chain

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader

import dicomdask
from dicomdask import storage
from dicomdask.errors import BatchError, OptionError, ReadError, SplitError
from dicomdask.loaders.torch import (
    BatchOrder,
    BatchStream,
    GridDataset,
    Loader,
    PatchDataset,
    SliceDataset,
    VolumeDataset,
    collate,
)
from tests.builders import make_instance, write_series

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

PATIENTS, DEPTH = 6, 37


@pytest.fixture(scope="module")
def store(tmp_path_factory, convert):
    """Return a dataset of 6 volumes of 3 layers of chunks, and a projection."""
    folder = tmp_path_factory.mktemp("loaders")
    for patient in range(1, PATIENTS + 1):
        rng = np.random.default_rng(patient)
        planes = rng.integers(-1000, 3000, (DEPTH, 24, 20)).astype(np.int16)
        slices = (
            make_instance(patient, instance=z + 1, pixels=plane, RescaleSlope=2)
            for z, plane in enumerate(planes)
        )
        write_series(folder / "in" / str(patient), slices)
    single = make_instance(9, pixels=np.ones((24, 20), np.uint16))
    write_series(folder / "in" / "single", iter([single]))
    convert(folder / "in", folder / "store.zarr")
    return folder / "store.zarr"


@pytest.fixture
def ds(store):
    return dicomdask.open_dataset(str(store))


@pytest.fixture
def stacks(ds):
    return ds.volumes[ds.volumes["n_frames"] > 1]


def flat(lists):
    return list(chain.from_iterable(lists))


def identity(trace):
    return trace.volume_ids, trace.start, trace.stop


def numbers(batches):
    return [[trace.number for trace in batch["trace"]] for batch in batches]


def is_what_was_read(ds, sample, **options):
    """Tell whether a sample is what `Dataset.read` reads of its box."""
    trace = sample["trace"]
    axes = ds.row(trace.volume_ids[0])["dimensions"]
    box = dict(zip(axes, trace.box, strict=True))
    found = ds.read(trace.volume_ids[0], **box, **options)
    return (sample["image"].numpy().ravel() == found.ravel()).all()


# --- what samples are ---------------------------------------------------------


def test_slices_are_all_planes_of_all_volumes(ds):
    dataset = SliceDataset(ds)
    assert len(dataset) == PATIENTS * DEPTH + 1
    seen = {identity(dataset[i]["trace"]) for i in range(len(dataset))}
    assert len(seen) == len(dataset)
    for number in (0, 40, len(dataset) - 1):
        sample = dataset[number]
        assert sample["image"].shape == (1, 24, 20)
        assert sample["image"].dtype == torch.float32
        assert is_what_was_read(ds, sample, values="modality")


def test_stacks_and_single_slices_make_one_batch(ds):
    dataset = SliceDataset(ds, values="stored")
    batch = next(iter(Loader(dataset, len(dataset))))
    assert batch["image"].shape == (len(dataset), 1, 24, 20)
    for i, trace in enumerate(batch["trace"]):
        sample = {"image": batch["image"][i], "trace": trace}
        assert is_what_was_read(ds, sample)


def test_volumes_and_their_crops(ds, stacks):
    whole = VolumeDataset(ds, volumes=stacks)
    assert len(whole) == PATIENTS
    assert whole[3]["image"].shape == (1, DEPTH, 24, 20)
    sized = VolumeDataset(ds, (40, 16, 20), volumes=stacks, fill=-7)[3]["image"]
    assert sized.shape == (1, 40, 16, 20)
    assert (sized[:, 2:39] == whole[3]["image"][:, :, 4:20]).all()
    assert (sized[:, :2] == -7).all()


def test_patches_lie_inside_and_differ_by_epoch(ds, stacks):
    dataset = PatchDataset(ds, (8, 8, 8), volumes=stacks, per_volume=5)
    assert len(dataset) == 5 * PATIENTS
    traces = {e: [dataset[e, i]["trace"] for i in range(30)] for e in (0, 1)}
    assert len({identity(trace) for trace in traces[0] + traces[1]}) > 50
    again = PatchDataset(ds, (8, 8, 8), volumes=stacks, per_volume=5)
    assert [again[1, i]["trace"] for i in range(30)] == traces[1]
    other = PatchDataset(ds, (8, 8, 8), volumes=stacks, per_volume=5, seed=1)
    assert [other[1, i]["trace"] for i in range(30)] != traces[1]
    assert is_what_was_read(ds, dataset[1, 7], values="modality")


def test_a_grid_puts_a_volume_together_again(ds, stacks):
    dataset = GridDataset(ds, (16, 9, 8), overlap=(2, 1, 0), volumes=stacks)
    first = stacks["volume_id"].iloc[0]
    found = np.full((DEPTH, 24, 20), np.nan, np.float32)
    for number in range(len(dataset)):
        sample = dataset[number]
        if sample["trace"].volume_ids[0] == first:
            found[sample["trace"].box] = sample["image"][0]
    assert (found == ds.read(first, values="modality")).all()


def test_values_dtypes_and_windows(ds, stacks):
    def slices(**options):
        return SliceDataset(ds, volumes=stacks, **options)[3]["image"]

    stored = slices(values="stored", dtype=None)
    assert stored.dtype == torch.int16
    assert (slices() == stored * 2.0 - 1024).all()
    assert 0 <= slices(values="display").min() < slices(values="display").max() <= 1
    windowed = slices(window=(40, 400))
    assert torch.allclose(windowed, ((stored * 2.0 - 1024 + 160) / 400).clip(0, 1))
    for wrong in ({"window": (40, 0)}, {"window": (0, 1), "values": "stored"}):
        with pytest.raises(OptionError, match="a window is"):
            slices(**wrong)
    with pytest.raises(OptionError, match="values is one of stored"):
        slices(values="hounsfield")


def test_transforms_get_a_generator_of_their_own(ds, stacks):
    def noisy(sample, rng):
        noise = rng.normal(size=sample["image"].shape)
        return {**sample, "image": noise}

    dataset = SliceDataset(ds, volumes=stacks, transform=noisy)
    alone = dataset[0, 5]["image"]
    np.random.default_rng(0).normal(size=100)
    among = dataset.__getitems__([(0, 4), (0, 5), (0, 6)])[1]["image"]
    assert (alone == among).all()
    assert (alone != dataset[1, 5]["image"]).any()

    def ragged(sample, rng):
        return {**sample, "image": np.zeros(sample["trace"].number + 1)}

    with pytest.raises(BatchError, match="images of 2 shapes for one batch"):
        SliceDataset(ds, transform=ragged).__getitems__([(0, 1), (0, 2)])


def test_a_sample_leads_back_to_its_instance(ds, stacks):
    trace = SliceDataset(ds, volumes=stacks)[50]["trace"]
    [found] = SliceDataset(ds, volumes=stacks).samples.frames_of(trace).itertuples()
    assert (found.volume_id, found.z) == (trace.volume_ids[0], trace.start[0])
    assert found.SOPInstanceUID.startswith("2.25.")
    patch = PatchDataset(ds, (8, 8, 8), volumes=stacks)
    frames = patch.samples.frames_of(patch[0]["trace"])
    assert len(frames) == frames["SOPInstanceUID"].nunique() == 8
    single = SliceDataset(ds, volumes=ds.volumes[ds.volumes["n_frames"] == 1])
    assert len(single.samples.frames_of(single[0]["trace"])) == 1


# --- labels, classes, channels, splits -----------------------------------------


def patient_labels(stacks):
    return pd.DataFrame(
        {
            "PatientID": stacks["PatientID"].to_list(),
            "outcome": [0, 1, 1, 1, 1, 1],
            "note": list("abcdef"),
        }
    )


def test_labels_are_joined(ds, stacks):
    labels = patient_labels(stacks)
    dataset = SliceDataset(ds, volumes=stacks, labels=labels.sample(frac=1))
    for batch in Loader(dataset, 32):
        for trace, outcome, note in zip(
            batch["trace"],
            batch["labels"]["outcome"],
            batch["labels"]["note"],
            strict=True,
        ):
            patient = ds.row(trace.volume_ids[0])["PatientID"]
            [row] = labels[labels["PatientID"] == patient].itertuples()
            assert (row.outcome, row.note) == (outcome, note)


def test_columns_of_the_volumes_are_labels_as_well(ds, stacks):
    chosen = stacks.merge(patient_labels(stacks), on="PatientID")
    dataset = SliceDataset(ds, volumes=chosen, labels=["outcome", "Modality"])
    assert dataset[0]["labels"] == {"outcome": 0, "Modality": "CT"}


@pytest.mark.parametrize("name", ["labels.csv", "labels.parquet"])
def test_labels_come_from_files(ds, stacks, tmp_path, name):
    labels, path = patient_labels(stacks), tmp_path / name
    write = labels.to_csv if name.endswith("csv") else labels.to_parquet
    write(path, index=False)
    batch = next(iter(Loader(SliceDataset(ds, volumes=stacks, labels=str(path)), 222)))
    assert batch["labels"]["outcome"].sum() == 5 * DEPTH
    assert set(batch["labels"]["note"]) == set("abcdef")
    with pytest.raises(OptionError, match="there is no table at"):
        SliceDataset(ds, labels=str(tmp_path / "other.csv"))


def test_labels_that_cannot_be_joined(ds, stacks):
    labels = patient_labels(stacks)

    def refused(labels, message, **options):
        with pytest.raises(OptionError, match=message):
            SliceDataset(ds, **{"volumes": stacks, **options}, labels=labels)

    refused(labels[1:], "1 of 6 volumes have no 'outcome' in the labels, joined by Pat")
    refused(labels, "1 of 7 volumes have no 'outcome'", volumes=None)
    refused(pd.concat([labels, labels[:2]]), "2 rows of the labels name what another")
    refused(labels.assign(PatientID=range(6)), "column PatientID of the labels holds n")
    refused(labels[["outcome"]], "has a column of volume_id, SeriesInstanceUID")


def test_classes_are_drawn_equally_often(ds, stacks):
    labels = patient_labels(stacks)
    options = {"volumes": stacks, "labels": labels, "per_volume": 10}
    dataset = PatchDataset(ds, (4, 4, 4), balance="outcome", **options)
    for epoch in range(3):
        drawn = [dataset[epoch, i]["labels"]["outcome"].item() for i in range(60)]
        assert Counter(drawn) == {0: 30, 1: 30}
    weights = labels.assign(weight=[0, 0, 0, 0, 1, 2])
    dataset = PatchDataset(
        ds, (4, 4, 4), weights="weight", **{**options, "labels": weights}
    )
    drawn = Counter(dataset[0, i]["labels"]["note"] for i in range(60))
    assert drawn == {"e": 20, "f": 40}
    with pytest.raises(OptionError, match="not both"):
        PatchDataset(ds, (4, 4, 4), balance="note", weights="outcome", **options)
    with pytest.raises(OptionError, match="have a column 'severity'"):
        PatchDataset(ds, (4, 4, 4), balance="severity", **options)


def test_loaders_that_share_a_patient_are_refused(ds, stacks):
    train = SliceDataset(ds, volumes=stacks[:4])
    SliceDataset(ds, volumes=stacks[4:], apart_from=[train.samples.volumes])
    with pytest.raises(SplitError, match="share 1 patients"):
        SliceDataset(ds, volumes=stacks[3:], apart_from=[train.samples.volumes])


def test_volumes_of_another_dataset_are_refused(ds):
    with pytest.raises(OptionError, match="1 of 2 chosen volumes are not in commit 0"):
        SliceDataset(ds, volumes=[ds.volumes["volume_id"][0], "00"])
    with pytest.raises(OptionError, match="0 of 0"):
        SliceDataset(ds, volumes=[])


@pytest.fixture(scope="module")
def sequences(tmp_path_factory, convert):
    """Return a dataset of 3 studies of 3 series; series 3 of study 2 lies elsewhere."""
    folder = tmp_path_factory.mktemp("sequences")
    for study in (1, 2, 3):
        for series in (1, 2, 3):
            rng = np.random.default_rng(10 * study + series)
            x = -11.0 if (study, series) == (2, 3) else -10.0
            slices = (
                make_instance(
                    study,
                    study,
                    series,
                    z + 1,
                    pixels=rng.integers(0, 99, (16, 12)).astype(np.int16),
                    ImagePositionPatient=[x, 0, 2.5 * z],
                    SeriesDescription=f"s{series}",
                    KVP=str(series),
                )
                for z in range(4)
            )
            write_series(folder / "in" / f"{study}{series}", slices)
    convert(folder / "in", folder / "store.zarr")
    return dicomdask.open_dataset(str(folder / "store.zarr"))


def test_volumes_of_a_study_are_channels(sequences):
    volumes = sequences.volumes
    one, two, three = (volumes[volumes["KVP"].astype(float) == n] for n in (1, 2, 3))
    dataset = SliceDataset(sequences, channels=[one, two[::-1]])
    assert len(dataset) == 12
    batch = next(iter(Loader(dataset, 12)))
    assert batch["image"].shape == (12, 2, 16, 12)
    for image, trace in zip(batch["image"], batch["trace"], strict=True):
        studies = {sequences.row(name)["StudyInstanceUID"] for name in trace.volume_ids}
        assert len(studies) == 1
        for channel, name in zip(image, trace.volume_ids, strict=True):
            plane = sequences.read(name, z=trace.start[0], values="modality")
            assert (channel.numpy() == plane).all()
    with pytest.raises(OptionError, match="in 1 of 3 studies channel 1 has not the sh"):
        SliceDataset(sequences, channels=[one, three])
    with pytest.raises(OptionError, match=r"channel 1 has 0 volumes .* and 1 studies"):
        SliceDataset(sequences, channels=[one, two[:2]])
    with pytest.raises(OptionError, match="channel 1 has 3 volumes"):
        SliceDataset(sequences, channels=[one, pd.concat([two, three])])


# --- batches ------------------------------------------------------------------


def test_what_cannot_be_batched_is_told_before_it_is_read(store, tmp_path, convert):
    sizes = {1: (16, 12), 2: (16, 12), 3: (20, 12)}
    for patient, size in sizes.items():
        pixels = np.ones(size, np.int16 if patient < 3 else np.uint16)
        write_series(
            tmp_path / "in" / str(patient),
            (make_instance(patient, instance=z + 1, pixels=pixels) for z in range(2)),
        )
    convert(tmp_path / "in", tmp_path / "o.zarr")
    ds = dicomdask.open_dataset(str(tmp_path / "o.zarr"))
    with pytest.raises(BatchError, match=r"2 shapes .*1x16x12 in 2 volumes.*give size"):
        Loader(SliceDataset(ds), 2)
    assert len(list(Loader(SliceDataset(ds), 1))) == 6
    sized = SliceDataset(ds, (16, 12), values="stored", dtype=None)
    with pytest.raises(BatchError, match=r"2 dtypes .*int16 in 2 volumes.*give dtype"):
        Loader(sized, 2)
    assert len(list(Loader(SliceDataset(ds, (16, 12)), 2))) == 3
    with pytest.raises(ValueError, match="give fill"):
        next(iter(Loader(SliceDataset(ds, (24, 12)), 2)))


@pytest.mark.parametrize("workers", [0, 1, 4])
@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_every_sample_once(ds, stacks, world, workers):
    dataset = SliceDataset(ds, volumes=stacks)
    seen = Counter()
    for rank in range(world):
        # Processes are started for some: which worker reads a batch is not asked here
        loader = Loader(
            dataset,
            7,
            rank=rank,
            world=world,
            num_workers=workers if rank == 0 and world < 3 else 0,
            remainder="keep",
        )
        loader.batches.use_workers(max(1, workers))
        seen.update(flat(numbers(loader)))
    assert seen == Counter(range(len(dataset)))


@pytest.mark.parametrize("after", [(1, 0), (1, 4), (2, 1), (3, 0)])
@pytest.mark.parametrize("before", [(1, 0), (1, 2), (2, 0)])
def test_an_epoch_resumes_after_any_stop(ds, stacks, before, after):
    dataset = SliceDataset(ds, volumes=stacks)

    def loaders(world, workers):
        return [
            Loader(dataset, 9, rank=rank, world=world, num_workers=0, remainder="keep")
            for rank in range(world)
            if workers is not None
        ]

    def using(loader, workers):
        loader.batches.use_workers(max(1, workers))
        return loader

    begun = [using(loader, before[1]) for loader in loaders(*before)]
    whole = [numbers(using(loader, before[1])) for loader in loaders(*before)]
    for stop in (0, 1, 5, len(whole[0])):
        seen, states = [], []
        for loader in begun:
            loader.set_epoch(1)
            loader.set_epoch(0)
            walk = iter(loader)
            seen += flat(numbers(next(walk) for _ in range(stop)))
            states.append(loader.state_dict())
        assert all(state == states[0] for state in states)
        state = json.loads(json.dumps(states[0]))
        resumed = [using(loader, after[1]) for loader in loaders(*after)]
        for loader in resumed:
            loader.load_state_dict(state)
            using(loader, after[1])
        left = [numbers(loader) for loader in resumed]
        rest = flat(flat(left))
        assert Counter(rest) == Counter(range(len(dataset))) - Counter(seen)
        if before == after:
            assert left == [batches[stop:] for batches in whole]


def test_a_loader_with_workers_counts_what_it_yields(ds, stacks):
    dataset = PatchDataset(ds, (4, 4, 4), volumes=stacks)
    whole = numbers(Loader(dataset, 5, num_workers=2))
    walk = iter(loader := Loader(dataset, 5, num_workers=2))
    seen = numbers(next(walk) for _ in range(3))  # workers have read further by now
    state = loader.state_dict()
    walk.close()
    resumed = Loader(dataset, 5, num_workers=2)
    resumed.load_state_dict(state)
    assert len(resumed) == len(whole) - 3
    assert seen + numbers(resumed) == whole
    assert numbers(Loader(dataset, 5, num_workers=0)) != whole  # another share-out
    assert sorted(flat(whole)) == list(range(len(dataset)))


def test_a_resumed_transform_does_the_same(ds, stacks):
    def noisy(sample, rng):
        return {**sample, "image": sample["image"] + rng.normal(size=1)}

    dataset = PatchDataset(ds, (4, 4, 4), volumes=stacks, transform=noisy)
    loader = Loader(dataset, 8)
    whole = [batch["image"] for batch in loader]
    loader.set_epoch(0)
    walk = iter(loader)
    for _ in range(2):
        next(walk)
    resumed = Loader(dataset, 8)
    resumed.load_state_dict(loader.state_dict())
    for image, batch in zip(whole[2:], resumed, strict=True):
        assert (image == batch["image"]).all()


def test_epochs_follow_each_other(ds, stacks):
    loader = Loader(SliceDataset(ds, volumes=stacks), 16)
    first = numbers(loader)
    assert loader.epoch == 1
    second = numbers(loader)
    assert first != second
    assert loader.epoch == 2
    loader.set_epoch(0)
    next(iter(loader))  # a look at one batch takes nothing away
    assert numbers(loader) == first
    loader.set_epoch(1)
    assert numbers(loader) == second
    assert loader.state_dict()["epoch"] == 2


def test_a_state_of_other_samples_is_refused(ds, stacks):
    state = Loader(SliceDataset(ds, volumes=stacks), 4).state_dict()
    others = [
        Loader(SliceDataset(ds, volumes=stacks[1:]), 4),
        Loader(SliceDataset(ds, volumes=stacks, seed=1), 4),
        Loader(SliceDataset(ds, (8, 8), volumes=stacks), 4),
        Loader(SliceDataset(ds, volumes=stacks), 4, mix=3),
    ]
    for other in others:
        with pytest.raises(OptionError, match="other samples or another order"):
            other.load_state_dict(state)


def test_torch_alone_takes_the_pieces(ds, stacks):
    dataset = SliceDataset(ds, volumes=stacks, labels=patient_labels(stacks))
    order = BatchOrder(dataset, 8, workers=2)
    whole = numbers(DataLoader(dataset, batch_sampler=order, collate_fn=collate))
    plain = DataLoader(dataset, batch_sampler=order, num_workers=2)
    found = [batch["trace"].number.tolist() for batch in plain]
    assert found == whole
    shuffled = list(DataLoader(dataset, batch_size=8, shuffle=True))
    assert shuffled[0]["image"].shape == (8, 1, 24, 20)
    assert shuffled[0]["labels"]["outcome"].shape == (8,)


# --- streams ------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_stream_yields_what_a_loader_yields(ds, stacks, workers):
    dataset = SliceDataset(ds, volumes=stacks)
    loader = Loader(dataset, 7, num_workers=workers)
    stream = BatchStream(dataset, 7)
    found = DataLoader(stream, batch_size=None, num_workers=workers)
    assert numbers(found) == numbers(loader)
    stream.set_epoch(1)
    assert numbers(found) == numbers(loader)


def test_a_stream_goes_on_in_its_process(ds, stacks):
    dataset = SliceDataset(ds, volumes=stacks)
    whole = numbers(BatchStream(dataset, 7))
    walk = iter(stream := BatchStream(dataset, 7))
    seen = numbers(next(walk) for _ in range(4))
    other = BatchStream(dataset, 7)
    other.load_state_dict(stream.state_dict())
    assert seen + numbers(other) == whole
    loader = Loader(dataset, 7)
    loader.load_state_dict(stream.state_dict())
    assert seen + numbers(loader) == whole


def test_a_stream_keeps_a_state_for_each_worker(ds, stacks, monkeypatch):
    """What torchdata's StatefulDataLoader does, in one process."""
    dataset = SliceDataset(ds, volumes=stacks)

    def streams(states=(None, None)):
        found = [BatchStream(dataset, 7) for _ in states]
        for stream, state in zip(found, states, strict=True):
            if state is not None:
                stream.load_state_dict(state)
        return found

    def walk(streams, n):
        """Take turns, as workers do."""
        walks, found = [], []
        for number, stream in enumerate(streams):
            info = type("Info", (), {"id": number, "num_workers": len(streams)})
            monkeypatch.setattr("torch.utils.data.get_worker_info", lambda i=info: i)
            walks.append(iter(stream))
            first = next(walks[-1], None)
            found.append([] if first is None else [first])
        for one, batches in zip(walks, found, strict=True):
            for _ in range(n - 1):
                batches += [batch] if (batch := next(one, None)) else []
        return [numbers(batches) for batches in found]

    whole = walk(streams(), 99)
    begun = streams()
    seen = walk(begun, 3)
    states = [json.loads(json.dumps(stream.state_dict())) for stream in begun]
    rest = walk(streams(states), 99)
    assert [a + b for a, b in zip(seen, rest, strict=True)] == whole
    with pytest.raises(OptionError, match="one of 2 workers and there are 3"):
        walk(streams([*states, states[0]]), 1)
    with pytest.raises(OptionError, match="not the state of a loader"):
        Loader(dataset, 7).load_state_dict(states[0])


# --- faults -------------------------------------------------------------------


@pytest.fixture
def damaged(store, tmp_path):
    """Return a copy of the dataset, and a volume of it that lost its shard."""
    shutil.copytree(store, tmp_path / "copy.zarr")
    ds = dicomdask.open_dataset(str(tmp_path / "copy.zarr"))
    row = ds.volumes[ds.volumes["n_frames"] > 1].iloc[0]
    for path in (tmp_path / "copy.zarr" / row["path"] / "0" / "c").rglob("0"):
        if path.is_file():
            path.unlink()
    return ds, row["volume_id"]


@pytest.mark.parametrize("workers", [0, 2])
def test_what_cannot_be_read_is_left_out_and_told(damaged, workers):
    ds, volume_id = damaged
    dataset = SliceDataset(ds, on_error="skip")
    loader = Loader(dataset, 8, num_workers=workers, remainder="keep", mix=2)
    images = [batch["image"] for batch in loader]
    assert sum(map(len, images)) == len(dataset) - DEPTH
    assert min(map(len, images)) > 0
    assert len(loader.left_out) == DEPTH
    assert {out.trace.volume_ids for out in loader.left_out} == {(volume_id,)}
    assert all("is missing" in out.reason for out in loader.left_out)
    assert len({out.trace.start for out in loader.left_out}) == DEPTH


@pytest.mark.parametrize("workers", [0, 2])
def test_what_cannot_be_read_is_an_error(damaged, workers):
    ds, volume_id = damaged
    with pytest.raises(ReadError, match="is missing"):
        list(Loader(SliceDataset(ds), 8, num_workers=workers))
    dataset = SliceDataset(ds, volumes=[volume_id], on_error="skip")
    with pytest.raises(ReadError, match="is missing"):
        dataset[0]
    assert list(Loader(dataset, 8)) == []  # and no empty batch


def test_wrong_options_and_numbers(ds):
    with pytest.raises(OptionError, match="on_error is one of raise, skip"):
        SliceDataset(ds, on_error="ignore")
    with pytest.raises(OptionError, match="rank 2 of 2"):
        Loader(SliceDataset(ds), rank=2, world=2)
    with pytest.raises(IndexError, match="sample 300 of 223"):
        SliceDataset(ds)[300]
    with pytest.raises(OptionError, match="1 block or more"):
        next(iter(Loader(SliceDataset(ds), mix=-1)))


# --- processes ----------------------------------------------------------------


def test_a_dataset_pickles_small(ds):
    ds.frames  # noqa: B018
    dataset = SliceDataset(ds)
    size = len(pickle.dumps(dataset))
    assert size < len(pickle.dumps(ds.volumes)) / 2
    assert size < 20_000
    other = pickle.loads(pickle.dumps(dataset))
    assert (other[5]["image"] == dataset[5]["image"]).all()


# --- how much is read ----------------------------------------------------------


@pytest.fixture
def count_bytes(monkeypatch):
    """Return a list that grows by the size of each range that is read."""
    sizes = []
    for name in ("get_range", "get_tail", "read_into"):
        plain = getattr(storage.Ranges, name)

        def counted(self, *args, plain=plain):
            found = plain(self, *args)
            sizes.append(found if isinstance(found, int) else len(found))
            return found

        monkeypatch.setattr(storage.Ranges, name, counted)
    return sizes


MAKERS = {
    "slices": lambda ds, stacks: SliceDataset(ds, volumes=stacks),
    "patches": lambda ds, stacks: GridDataset(ds, (16, 24, 20), volumes=stacks),
    "overlapping": lambda ds, stacks: GridDataset(
        ds, (9, 8, 7), overlap=(4, 2, 3), volumes=stacks
    ),
    "volumes": lambda ds, stacks: VolumeDataset(ds, volumes=stacks),
}


@pytest.mark.parametrize("name", MAKERS)
def test_an_epoch_reads_the_store_once(store, count_bytes, name):
    ds = dicomdask.open_dataset(str(store))
    stacks = ds.volumes[ds.volumes["n_frames"] > 1]
    loader = Loader(MAKERS[name](ds, stacks), 4, mix=2)
    n = sum(len(batch["image"]) for batch in loader)
    assert n == len(loader.dataset)
    assert sum(count_bytes) <= 1.05 * stacks["stored_bytes"].sum()
    count_bytes.clear()
    for _ in Loader(SliceDataset(ds.with_cache(1), volumes=stacks), 4, mix=2):
        pass
    assert sum(count_bytes) > 1.5 * stacks["stored_bytes"].sum()  # what is saved


@pytest.mark.parametrize("n", [2, 3, 6])
def test_consumers_share_few_windows(store, count_bytes, n):
    """Of n consumers' shares each ends within one window, which two of them read."""
    ds = dicomdask.open_dataset(str(store))
    stacks = ds.volumes[ds.volumes["n_frames"] > 1]
    for rank in range(n):
        own = dicomdask.open_dataset(str(store))  # as each process would
        for _ in Loader(
            SliceDataset(own, volumes=stacks), 4, mix=1, rank=rank, world=n
        ):
            pass
    windows = 3 * PATIENTS
    assert sum(count_bytes) <= 1.05 * stacks["stored_bytes"].sum() * (1 + n / windows)
