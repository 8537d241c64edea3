"""Many CT series, and datasets of them in any layout: what training reads from.

They are converted once. A dataset in another layout is made from that one: its shards
are encoded anew, its table of volumes says so, all else is copied.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pydicom

import dicomdask
from dicomdask import arrays, tables
from dicomdask.commits import read_commit, read_table
from dicomdask.dataset import Dataset
from dicomdask.layout import choose_layout
from dicomdask.model import Layout
from dicomdask.shards import encode_shard, shard_key
from tests.benchmarks import real
from tests.benchmarks.inputs import (
    GAP_MM,
    SCALES,
    Scale,
    find_real_slice,
    with_usual_elements,
)
from tests.builders import ROOT, make_instance, write_series

Array = np.ndarray[Any, np.dtype[Any]]
Box = tuple[slice, slice, slice]
Pick = tuple[int, Box]
"""A volume by its number, and what of it."""


@dataclass(frozen=True)
class Corpus:
    """Series on disk, in the order of their slices, and their pixels as .npy files."""

    folder: Path
    paths: tuple[tuple[Path, ...], ...]
    told: str
    scale: Scale

    def __reduce__(self) -> tuple[type["Corpus"], tuple[Any, ...]]:
        # What is mapped would be pickled as arrays.
        return Corpus, (self.folder, self.paths, self.told, self.scale)

    @cached_property
    def stored(self) -> list[Array]:
        """The pixels of each series, mapped from its file."""
        names = (self.folder / "npy" / f"{n}.npy" for n in range(len(self.paths)))
        return [np.load(name, mmap_mode="r") for name in names]

    def picks(self, size: tuple[int, int, int], n: int, seed: int = 1) -> list[Pick]:
        """Return boxes of a size, anywhere in any of the series."""
        rng = np.random.default_rng(seed)
        shape = self.stored[0].shape
        room = [extent - side + 1 for extent, side in zip(shape, size, strict=True)]
        found = []
        for _ in range(n):
            corner = rng.integers(0, room).tolist()
            z, y, x = (slice(c, c + s) for c, s in zip(corner, size, strict=True))
            found.append((int(rng.integers(len(self.paths))), (z, y, x)))
        return found

    @cached_property
    def _converted(self) -> str:
        return dicomdask.convert(
            str(self.folder / "dicom"),
            str(self.folder / "converted.zarr"),
            policy="none",  # so that series are told apart by their UIDs
            profile="slice",
            codec="none",
            scheduler="synchronous",
        ).store

    @contextmanager
    def dataset(self, profile: str, codec: str) -> Iterator["Volumes"]:
        """Make a dataset of all series in a layout, and remove it afterwards."""
        store = self.folder / f"{profile}-{codec}.zarr"
        _recut(Path(self._converted), store, profile, codec)
        try:
            dataset = dicomdask.open_dataset(str(store))
            series = dict(
                zip(
                    dataset.volumes["SeriesInstanceUID"],
                    dataset.volumes["volume_id"],
                    strict=True,
                )
            )
            ids = tuple(series[_series_uid(n)] for n in range(len(self.paths)))
            yield Volumes(dataset, ids)
        finally:
            shutil.rmtree(store)


@dataclass(frozen=True, slots=True)
class Volumes:
    """A dataset, and the id of the volume that each series became."""

    dataset: Dataset
    ids: tuple[str, ...]

    def path(self, number: int) -> Path:
        """Return where the array of a volume lies."""
        return Path(self.dataset.store) / self.key(number)

    def key(self, number: int) -> str:
        """Return the path of a volume's array below the dataset."""
        return f"{self.dataset.row(self.ids[number])['path']}/0"


_KEPT: list[TemporaryDirectory[str]] = []  # removed when the process ends


@cache
def make_corpus(scale_name: str) -> Corpus:
    """Write the series of a scale, once in a process."""
    scale = SCALES[scale_name]
    _KEPT.append(TemporaryDirectory(prefix="dicomdask-corpus-"))
    folder = Path(_KEPT[-1].name)
    (folder / "npy").mkdir()
    found = real.real_series("CT", scale.width) if scale.name == "full" else []
    if found:
        told = (
            f"{scale.n_series} series of {scale.n_slices} slices of {scale.width}², "
            f"replicated from {len(found)} real ones of {sum(map(len, found))} slices "
            "in all (turned, mirrored, shifted)"
        )
    else:
        told = f"{scale.n_series} generated series of {scale.n_slices} slices"
    paths = []
    for number in range(scale.n_series):
        if found:
            source = found[number % len(found)]
            pixels = real.continued(source, scale.n_slices, number)
        else:
            pixels = real.generated(scale.n_slices, scale.width, number)
        np.save(folder / "npy" / f"{number}.npy", pixels)
        below = folder / "dicom" / f"{number:03d}"
        paths.append(tuple(write_series(below, _slices(pixels, number))))
    return Corpus(folder, tuple(paths), told, scale)


def _series_uid(number: int) -> str:
    return f"{ROOT}.9.{number + 1}"


def _slices(pixels: Array, series: int) -> Iterator[pydicom.Dataset]:
    template = _template(pixels)
    for number, plane in enumerate(pixels):
        ds = deepcopy(template)
        uid = f"{_series_uid(series)}.{number + 1}"
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid
        ds.PatientID = ds.PatientName = f"P{series}"
        ds.StudyInstanceUID = f"{ROOT}.8.{series + 1}"
        ds.SeriesInstanceUID = _series_uid(series)
        ds.InstanceNumber = number + 1
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        ds.ImagePositionPatient = [-250.0, -250.0, GAP_MM * number]
        ds.PixelData = plane.tobytes()
        yield ds


def _template(pixels: Array) -> pydicom.Dataset:
    """Return a real header for real pixels, one as large for others; both signed."""
    path = find_real_slice() if pixels.shape[1] == 512 else None
    ds = pydicom.dcmread(path) if path else with_usual_elements(make_instance())
    ds.Rows, ds.Columns = pixels.shape[1:]
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 1
    for keyword in ("PixelPaddingValue", "SmallestImagePixelValue"):
        if keyword in ds:
            delattr(ds, keyword)
    return ds


def _recut(source: Path, store: Path, profile: str, codec: str) -> None:
    """Copy a dataset of one commit into another layout."""
    commit = read_commit(str(source))
    if commit is None:
        raise ValueError("the dataset of a benchmark is committed")
    rows = read_table(str(source), commit, "volumes").to_pylist()
    for row in rows:
        old = Path(source, row["path"], "0")
        shape, dtype = tuple(row["shape"]), np.dtype(row["dtype"])
        layout = choose_layout(
            shape,
            dtype,
            profile,  # type: ignore[arg-type]
            samples_axis=(
                [*row["dimensions"]].index("c") if "c" in row["dimensions"] else None
            ),
            codec=codec,  # type: ignore[arg-type]
        )
        array = np.asarray(arrays.open_array(str(source), f"{row['path']}/0")[...])
        new = Path(store, row["path"], "0")
        new.mkdir(parents=True)
        row["stored_bytes"] = _write_shards(new, array, layout)
        row["chunks"], row["shards"] = layout.chunks, layout.shards
        row["codec"] = codec
        row["zarr_json"] = arrays.array_metadata(
            shape, dtype, tuple(row["dimensions"]), layout
        )
        (new / "zarr.json").write_text(row["zarr_json"])
        shutil.copy(old.parent / "zarr.json", new.parent)
    shutil.copy(source / "zarr.json", store)
    shutil.copytree(source / "tables", store / "tables")
    _write_commit(source, store, tables.to_parquet(tables.to_table("volumes", rows)))


def _write_shards(folder: Path, array: Array, layout: Layout) -> int:
    """Write an array that is cut along its first axis only; return the bytes."""
    written = 0
    depth = layout.shards[0]
    for number in range(-(-len(array) // depth)):
        piece = array[number * depth : (number + 1) * depth]
        data = encode_shard(piece, layout.chunks, layout.shards, layout.codec)
        path = folder / shard_key((number, *(0,) * (array.ndim - 1)))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        written += len(data)
    return written


def _write_commit(source: Path, store: Path, volumes: bytes) -> None:
    """Write the only commit of a copy, which has another table of volumes."""
    [path] = (source / "commits").iterdir()
    document = json.loads(path.read_text())
    [part] = document["tables"]["volumes"]
    (store / part["path"]).write_bytes(volumes)
    part["bytes"], part["sha256"] = len(volumes), hashlib.sha256(volumes).hexdigest()
    (store / "commits").mkdir()
    (store / "commits" / path.name).write_text(json.dumps(document))
