"""Contenders that read boxes of one volume, each in its own way."""

from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pydicom
import tensorstore
import zarr

from dicomdask import storage
from dicomdask.dataset import Dataset
from dicomdask.shards import ShardReader
from tests.benchmarks.inputs import Series, array_path

Box = tuple[slice, slice, slice]
Reader = Callable[[Box], np.ndarray]


def memmap(folder: Path, stored: np.ndarray) -> Reader:
    """Return the limit: a copy out of a mapped file of raw values."""
    path = folder / "stored.npy"
    if not path.exists():
        np.save(path, stored)
    mapped = np.load(path, mmap_mode="r")
    return lambda box: np.array(mapped[box])


def dicomdask(dataset: Dataset) -> Reader:
    """Return our reader, as people call it."""
    volume_id = dataset.volumes["volume_id"][0]
    return lambda box: dataset.read(volume_id, z=box[0], y=box[1], x=box[2])


def dicomdask_first(dataset: Dataset, n_reads: int) -> Reader:
    """Return our reader as it meets chunks for the first time: it checks them."""
    volume_id = dataset.volumes["volume_id"][0]
    fresh = copy(dataset)
    left = 0

    def read(box: Box) -> np.ndarray:
        nonlocal left
        if not left:
            left = n_reads
            fresh._reader = ShardReader(storage.Ranges(dataset.store))
        left -= 1
        return fresh.read(volume_id, z=box[0], y=box[1], x=box[2])

    return read


def zarr_python(dataset: Dataset) -> Reader:
    """Return zarr-python over the same array."""
    array = zarr.open_array(array_path(dataset), mode="r")
    return lambda box: np.asarray(array[box])


def open_tensorstore(dataset: Dataset) -> Reader:
    """Return tensorstore over the same array."""
    kvstore = {"driver": "file", "path": f"{array_path(dataset)}/"}
    spec = {"driver": "zarr3", "kvstore": kvstore}
    array: Any = tensorstore.open(spec, read=True).result()
    return lambda box: np.asarray(array[box].read().result())


def h5(folder: Path, stored: np.ndarray, dataset: Dataset, codec: str) -> Reader:
    """Return h5py over a file in the same chunks; its own codec is gzip."""
    chunks = tuple(int(n) for n in dataset.volumes["chunks"][0])
    path = folder / f"{'-'.join(map(str, chunks))}-{codec}.h5"
    options: dict[str, Any] = {"chunks": chunks}
    if codec != "none":
        options |= {"compression": "gzip", "compression_opts": 1, "shuffle": True}
    with h5py.File(path, "w") as file:
        file.create_dataset("stored", data=stored, **options)
    array = h5py.File(path, "r", rdcc_nbytes=0)["stored"]  # no decoded chunks kept
    return lambda box: array[box]


def dicom(series: Series) -> Reader:
    """Return pydicom over the files of the series, read anew each time."""

    def read(box: Box) -> np.ndarray:
        frames = [pydicom.dcmread(path).pixel_array for path in series.paths[box[0]]]
        return np.stack([frame[box[1:]] for frame in frames])

    return read
