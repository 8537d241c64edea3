"""Loaders in processes: however they start, bounded in memory, told when killed."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest

import dicomdask
from dicomdask.errors import WorkerError
from dicomdask.loaders.torch import Loader, PatchDataset, SliceDataset
from tests.builders import make_instance, write_series

STARTS = ("fork", "forkserver", "spawn")
HANG_S = 120
MIB = 1 << 20


@pytest.fixture(scope="module")
def store(tmp_path_factory, convert):
    """Return a dataset of 6 volumes of 4 MiB each."""
    folder = tmp_path_factory.mktemp("processes")
    for patient in range(1, 7):
        rng = np.random.default_rng(patient)
        planes = rng.integers(-1000, 3000, (32, 256, 256)).astype(np.int16)
        slices = (
            make_instance(patient, instance=z + 1, pixels=plane)
            for z, plane in enumerate(planes)
        )
        write_series(folder / "in" / str(patient), slices)
    convert(folder / "in", folder / "store.zarr")
    return str(folder / "store.zarr")


def noisy(sample, rng):
    return {**sample, "image": sample["image"] + rng.normal()}


def with_memory(sample, rng):
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    rss = np.int64(pages * os.sysconf("SC_PAGE_SIZE"))
    return {**sample, "labels": {"rss": rss, "pid": np.int64(os.getpid())}}


def killed(sample, rng):
    if sample["trace"].number == 70:
        os.kill(os.getpid(), signal.SIGKILL)
    return sample


def sums(loader):
    return [(batch["trace"], batch["image"].sum().item()) for batch in loader]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("start", STARTS)
def test_workers_read_the_same_however_they_start(store, start, full):
    ds = dicomdask.open_dataset(store)
    dataset = PatchDataset(ds, (8, 32, 32), per_volume=2, transform=noisy)
    alone = sums(Loader(dataset, 3))  # threads of this process are there now
    for stop in range(1, 51 if full else 2):
        loader = Loader(
            dataset, 3, num_workers=1, multiprocessing_context=start, timeout=HANG_S
        )
        walk = iter(loader)
        assert sums(next(walk) for _ in range(stop % 4)) == alone[: stop % 4]
        walk.close()  # workers end in the middle as well


def test_workers_that_persist_go_through_epochs(store):
    ds = dicomdask.open_dataset(store)
    dataset = PatchDataset(ds, (8, 32, 32), per_volume=2, transform=noisy)
    alone = Loader(dataset, 3)
    alone.batches.use_workers(2)
    loader = Loader(dataset, 3, num_workers=2, persistent_workers=True, timeout=HANG_S)
    for _ in range(3):
        assert sums(loader) == sums(alone)


def test_the_memory_of_a_worker_is_bounded(store):
    budget = 2 * MIB
    ds = dicomdask.open_dataset(store, cache_bytes=budget)
    dataset = SliceDataset(ds, dtype=None, values="stored", transform=with_memory)
    loader = Loader(dataset, 4, num_workers=1, timeout=HANG_S)
    sizes = [int(size) for batch in loader for size in batch["labels"]["rss"]]
    assert len(sizes) == 192  # of 128 KiB each
    assert max(sizes) - sizes[0] < budget + 8 * MIB


def test_a_batch_that_is_cut_off_is_an_error(store, monkeypatch):
    def cut_off(self):
        raise ConnectionResetError

    monkeypatch.setattr(
        "torch.utils.data.dataloader._BaseDataLoaderIter.__next__", cut_off
    )
    with pytest.raises(WorkerError, match="a worker of the loader ended"):
        next(iter(Loader(SliceDataset(dicomdask.open_dataset(store)))))


def test_a_killed_worker_is_an_error_and_no_hang(store):
    dataset = SliceDataset(dicomdask.open_dataset(store), transform=killed)
    loader = Loader(dataset, 4, num_workers=2, timeout=HANG_S)
    seen = []
    with pytest.raises(RuntimeError, match=r"[Ww]orker .*(killed|exited)"):
        seen.extend(batch["trace"] for batch in loader)
    whole = SliceDataset(dicomdask.open_dataset(store))
    resumed = Loader(whole, 4, num_workers=2, timeout=HANG_S)
    resumed.load_state_dict(loader.state_dict())
    left = [trace.number for batch in resumed for trace in batch["trace"]]
    assert 70 in left
    assert len(left) == len(whole) - 4 * len(seen)
