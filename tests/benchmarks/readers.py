"""Contenders that read boxes of many volumes, each in its own way.

A reader takes one pick, a batch reader several; what they open they keep open.
"""

import pickle
from collections.abc import Callable, Sequence
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pydicom
import tensorstore
import zarr

from tests.benchmarks.corpus import Corpus, Pick, Volumes

Array = np.ndarray[Any, np.dtype[Any]]
Reader = Callable[[Pick], Array]
BatchReader = Callable[[Sequence[Pick]], Array]


def memmap(corpus: Corpus) -> Reader:
    """Return the limit: a copy out of mapped files of raw values."""
    mapped = corpus.stored
    return lambda pick: np.array(mapped[pick[0]][pick[1]])


def dicomdask(volumes: Volumes) -> Reader:
    """Return our reader, one box a call."""
    dataset, ids = volumes.dataset, volumes.ids

    def read(pick: Pick) -> Array:
        z, y, x = pick[1]
        return dataset.read(ids[pick[0]], z=z, y=y, x=x)

    return read


def dicomdask_first(volumes: Volumes, n_reads: int) -> Reader:
    """Return our reader as it meets chunks for the first time: it checks them."""
    left = 0
    read = dicomdask(volumes)

    def read_anew(pick: Pick) -> Array:
        nonlocal left, read
        if not left:
            left = n_reads
            # What was read and checked is not pickled.
            fresh = pickle.loads(pickle.dumps(volumes.dataset))
            read = dicomdask(Volumes(fresh, volumes.ids))
        left -= 1
        return read(pick)

    return read_anew


def dicomdask_many(volumes: Volumes) -> BatchReader:
    """Return our reader, several boxes a call, each time into the same memory."""
    dataset, ids = volumes.dataset, volumes.ids
    out: Array | None = None

    def read(picks: Sequence[Pick]) -> Array:
        nonlocal out
        requests = [(ids[n], box) for n, box in picks]
        if out is None or len(out) != len(picks):
            out = dataset.read_many(requests)
            return out
        return dataset.read_many(requests, out=out)

    return read


def zarr_python(volumes: Volumes) -> Reader:
    """Return zarr-python over the same arrays."""
    arrays = [
        zarr.open_array(volumes.path(n), mode="r") for n in range(len(volumes.ids))
    ]
    return lambda pick: np.asarray(arrays[pick[0]][pick[1]])


def open_tensorstore(volumes: Volumes) -> Reader:
    """Return tensorstore over the same arrays."""
    arrays: list[Any] = []
    for number in range(len(volumes.ids)):
        kvstore = {"driver": "file", "path": f"{volumes.path(number)}/"}
        spec = {"driver": "zarr3", "kvstore": kvstore}
        arrays.append(tensorstore.open(spec, read=True).result())
    return lambda pick: np.asarray(arrays[pick[0]][pick[1]].read().result())


def h5(corpus: Corpus, volumes: Volumes, codec: str) -> Reader:
    """Return h5py over a file in the same chunks and with the same codec."""
    chunks = tuple(int(n) for n in volumes.dataset.volumes["chunks"][0])
    path = corpus.folder / "stored.h5"
    with h5py.File(path, "w") as file:
        for number, stored in enumerate(corpus.stored):
            file.create_dataset(str(number), data=stored, chunks=chunks, **H5[codec])
    opened = h5py.File(path, "r", rdcc_nbytes=0)  # no decoded chunks kept
    arrays = [opened[str(number)] for number in range(len(corpus.paths))]
    return lambda pick: arrays[pick[0]][pick[1]]


_BLOSC = hdf5plugin.Blosc
H5: dict[str, Any] = {
    "none": {},
    "lz4": _BLOSC(cname="lz4", clevel=5, shuffle=_BLOSC.SHUFFLE),
    "zstd": _BLOSC(cname="zstd", clevel=1, shuffle=_BLOSC.SHUFFLE),
}


def dicom(corpus: Corpus) -> Reader:
    """Return pydicom over the files of a series, read anew each time."""

    def read(pick: Pick) -> Array:
        paths = corpus.paths[pick[0]][pick[1][0]]
        frames = [pydicom.dcmread(path).pixel_array for path in paths]
        return np.stack([frame[pick[1][1:]] for frame in frames])

    return read
