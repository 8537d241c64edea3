"""torch's DataLoader with two workers: random slices in batches, by each reader.

Ours is a whole epoch in its own order; the others read random slices.
"""

import multiprocessing
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from dicomdask.loaders.torch import Loader, SliceDataset
from tests.benchmarks import readers
from tests.benchmarks.contest import Contender, Contest, Report, compete
from tests.benchmarks.corpus import Corpus, Pick, Volumes, make_corpus

Array = np.ndarray[Any, np.dtype[Any]]
N_WORKERS = 2
BATCH = 16
OURS, MANY = "dicomdask", "dicomdask, read_many below it"
PRELOADED = ["torch", "zarr", "tensorstore", "h5py", "hdf5plugin", "pydicom"]
CODECS = ("lz4", "none")


def run(scale_name: str) -> Report:
    """Compare all readers below the same loader, by codec."""
    corpus = make_corpus(scale_name)
    # Libraries that start threads do not survive a fork, hence another way to start.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*PRELOADED, __name__])
    contests = {codec: _contest(corpus, codec, context) for codec in CODECS}
    measures = {
        "loader lz4 / memmap": contests["lz4"].ratio(OURS, "memmap (limit)"),
        "loader none / memmap": contests["none"].ratio(OURS, "memmap (limit)"),
    }
    return Report(tuple(contests.values()), measures)


class _One(Dataset[torch.Tensor]):
    """Samples that a reader reads one by one; it is opened in the worker."""

    def __init__(self, make: Callable[[], readers.Reader], picks: Sequence[Pick]):
        self._make, self._picks = make, picks
        self._read: readers.Reader | None = None

    def __len__(self) -> int:
        return len(self._picks)

    def __getitem__(self, number: int) -> torch.Tensor:
        if self._read is None:
            self._read = self._make()
        return torch.from_numpy(self._read(self._picks[number]))


class _Many(Dataset[torch.Tensor]):
    """Samples that are read a batch at a time."""

    def __init__(self, volumes: Volumes, picks: Sequence[Pick]) -> None:
        self._volumes, self._picks = volumes, picks
        self._read: readers.BatchReader | None = None

    def __len__(self) -> int:
        return len(self._picks)

    def __getitems__(self, numbers: Sequence[int]) -> torch.Tensor:
        if self._read is None:
            self._read = readers.dicomdask_many(self._volumes)
        return torch.from_numpy(self._read([self._picks[n] for n in numbers]).copy())


def _contest(corpus: Corpus, codec: str, context: Any) -> Contest:
    width, n = corpus.scale.width, corpus.scale.n_loaded
    picks = corpus.picks((1, width, width), n)
    few = picks[: n // 4]
    options: dict[str, Any] = {
        "num_workers": N_WORKERS,
        "persistent_workers": True,
        "multiprocessing_context": context,
        "timeout": 120,
    }
    with corpus.dataset("slice", codec) as volumes, ExitStack() as stack:
        samples: dict[str, Any] = {
            "memmap (limit)": _One(partial(readers.memmap, corpus), picks),
            MANY: _Many(volumes, picks),
            "tensorstore": _One(partial(readers.open_tensorstore, volumes), picks),
            "zarr-python": _One(partial(readers.zarr_python, volumes), few),
            "pydicom, raw DICOM": _One(partial(readers.dicom, corpus), few),
        }
        loaders: dict[str, DataLoader[Any]] = {
            name: DataLoader(
                one, BATCH, collate_fn=_keep if name == MANY else None, **options
            )
            for name, one in samples.items()
        }
        for loader in loaders.values():
            stack.callback(_end, loader)
        outputs = {name: _first(loader) for name, loader in loaders.items()}
        slices = SliceDataset(volumes.dataset, values="stored", dtype=None)
        loaders[OURS] = Loader(slices, BATCH, **options)
        stack.callback(_end, loaders[OURS])
        _check_traced(loaders[OURS], corpus, volumes)
        amounts = {name: len(one) for name, one in samples.items()}
        amounts[OURS] = len(slices)
        return compete(
            f"loader, {N_WORKERS} workers, slices, {codec}: {corpus.told}",
            {
                name: Contender(partial(_epoch, loader), amounts[name])
                for name, loader in loaders.items()
            },
            unit="slices",
            reference="memmap (limit)",
            rounds=corpus.scale.rounds,
            outputs=outputs,
        )


def _end(loader: DataLoader[Any]) -> None:
    if loader._iterator is not None:
        loader._iterator._shutdown_workers()


def _keep(batch: torch.Tensor) -> torch.Tensor:
    return batch


def _epoch(loader: "DataLoader[torch.Tensor]") -> None:
    for _ in loader:
        pass


def _first(loader: DataLoader[Any]) -> list[Array]:
    """Return the first samples of an epoch; it starts the workers."""
    batches = list(loader)
    return list(batches[0].numpy()[:2])


def _check_traced(loader: DataLoader[Any], corpus: Corpus, volumes: Volumes) -> None:
    """Raise ValueError unless samples are what their traces say; start the workers."""
    batch = next(iter(loader))
    for image, trace in zip(batch["image"], batch["trace"], strict=True):
        stored = corpus.stored[volumes.ids.index(trace.volume_ids[0])]
        if not np.array_equal(image[0], stored[trace.box].reshape(image[0].shape)):
            raise ValueError("a sample of the loader is not what its trace says")
