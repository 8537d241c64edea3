"""The Zarr v3 side of a dataset: metadata texts, layouts, and the plain way to read.

Texts are built by hand, so that the same volume gives the same bytes whatever the
version of zarr-python. Tests hold them against zarr-python, tensorstore and ome-zarr.
"""

import json
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, Final

import numpy as np
import zarr
from zarr.abc.store import Store
from zarr.storage import FsspecStore, LocalStore, StorePath

from dicomdask.model import FORMAT, Kind, Layout, Profile
from dicomdask.shards import CRC32C, KEY_ENCODING, LITTLE, codec_chain, shard_key

__all__ = [
    "FORMAT",
    "array_from_metadata",
    "array_metadata",
    "choose_layout",
    "group_metadata",
    "open_array",
    "root_metadata",
    "shard_key",
    "volume_group_metadata",
]

SHARD_BYTES: Final = 256 << 20
"""A shard holds at most so many raw bytes, but never less than one frame of chunks."""

NGFF_VERSION: Final = "0.5"
AXIS_TYPES: Final = {
    "t": "time",
    "c": "channel",
    "z": "space",
    "y": "space",
    "x": "space",
}
DEEP_TILES: Final = {"balanced": (16, 128, 128), "patch": (32, 64, 64)}
FLAT_TILES: Final = {"balanced": (512, 512), "patch": (256, 256)}


def _text(value: Mapping[str, Any]) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def array_metadata(
    shape: tuple[int, ...],
    dtype: np.dtype[Any] | str,
    dimensions: tuple[str, ...],
    layout: Layout,
    attributes: Mapping[str, Any] | None = None,
) -> str:
    """Return the text of an array's `zarr.json`.

    Parameters
    ----------
    shape
        Elements along each axis.
    dtype
        The type of the stored values.
    dimensions
        The name of each axis: of t, c, z, y, x, in this order.
    layout
        Chunks, shards and codec.
    attributes
        The array's attributes; none by default.
    """
    dtype = np.dtype(dtype)
    sharding = {
        "chunk_shape": layout.chunks,
        "codecs": codec_chain(layout.codec, dtype),
        "index_codecs": [LITTLE, CRC32C],
        "index_location": "end",
    }
    grid = {"name": "regular", "configuration": {"chunk_shape": layout.shards}}
    return _text(
        {
            "zarr_format": 3,
            "node_type": "array",
            "shape": shape,
            "data_type": dtype.name,
            "chunk_grid": grid,
            "chunk_key_encoding": KEY_ENCODING,
            "fill_value": dtype.type(0).item(),
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
            "attributes": dict(attributes or {}),
            "dimension_names": dimensions,
        }
    )


def group_metadata(attributes: Mapping[str, Any] | None = None) -> str:
    """Return the text of a group's `zarr.json`; without attributes it is constant."""
    return _text(
        {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes or {})}
    )


def root_metadata() -> str:
    """Return the text of the `zarr.json` at the root of a dataset."""
    return group_metadata({"dicomdask": {"format": FORMAT}})


def volume_group_metadata(
    dimensions: tuple[str, ...],
    spacing_mm: Sequence[float | None],
    attributes: Mapping[str, Any],
    *,
    name: str = "0",
) -> str:
    """Return the text of a volume's group: NGFF 0.5 multiscales, and our attributes.

    Parameters
    ----------
    dimensions
        The name of each axis of array `0`.
    spacing_mm
        The step along each spatial axis, in axis order, in mm. None, or () for all,
        where unknown: the scale is 1 and there is no unit.
    attributes
        Goes to `attributes.dicomdask`: the affine, units, windows, …
    name
        What viewers show.
    """
    spacings = iter(spacing_mm)
    steps = [next(spacings, None) if _is_space(axis) else None for axis in dimensions]
    scale = [1.0 if step is None else float(step) for step in steps]
    dataset = {
        "path": "0",
        "coordinateTransformations": [{"type": "scale", "scale": scale}],
    }
    multiscale = {
        "name": name,
        "axes": [*map(_axis, dimensions, steps)],
        "datasets": [dataset],
    }
    ome = {"version": NGFF_VERSION, "multiscales": [multiscale]}
    return group_metadata({"ome": ome, "dicomdask": dict(attributes)})


def _is_space(axis: str) -> bool:
    return AXIS_TYPES[axis] == "space"


def _axis(name: str, step: float | None) -> dict[str, str]:
    axis = {"name": name, "type": AXIS_TYPES[name]}
    return axis if step is None else {**axis, "unit": "millimeter"}


def choose_layout(
    kind: Kind,
    shape: tuple[int, ...],
    dtype: np.dtype[Any] | str,
    profile: Profile = "balanced",
    *,
    codec: str = "lz4",
) -> Layout:
    """Choose how an array is cut; provisional until the benchmark decides.

    Parameters
    ----------
    kind
        What the array shows.
    shape
        Elements along each axis; rows and columns are last.
    dtype
        The type of the stored values.
    profile
        `slice` makes a frame one chunk, `patch` chunks are small cubes, and `balanced`
        ones lie between.
    codec
        One of `shards.CODECS`.

    Returns
    -------
    Layout
        Chunks no larger than the array; shards of whole chunks and whole frames, one
        for the array unless its raw bytes exceed `SHARD_BYTES`.
    """
    chunks = _chunks(kind, shape, profile)
    shards = _shards(shape, chunks, np.dtype(dtype).itemsize)
    return Layout(chunks=chunks, shards=shards, codec=codec)


def _chunks(kind: Kind, shape: tuple[int, ...], profile: Profile) -> tuple[int, ...]:
    # Only colour images have samples before rows and columns, and they have three.
    coloured = (
        kind not in ("volume", "timeseries") and len(shape) > 2 and shape[-3] == 3
    )
    leading, frame = shape[: -3 if coloured else -2], shape[-3 if coloured else -2 :]
    tile = frame
    if profile != "slice":
        tiles = DEEP_TILES if leading else FLAT_TILES
        depth, plane = tiles[profile][:-2], tiles[profile][-2:]
        tile = (*depth, *frame[:-2], *plane)
    whole = (*(1,) * (len(shape) - len(tile)), *tile)
    return tuple(min(n, size) for n, size in zip(shape, whole, strict=True))


def _shards(
    shape: tuple[int, ...], chunks: tuple[int, ...], itemsize: int
) -> tuple[int, ...]:
    """Round the array up to whole chunks; cut leading axes until a shard fits."""
    counts = [-(-n // c) for n, c in zip(shape, chunks, strict=True)]
    chunk_bytes = prod(chunks) * itemsize
    for axis in range(len(shape) - 2):
        layer_bytes = prod(counts[axis + 1 :]) * chunk_bytes
        n_shards = -(-counts[axis] // max(1, SHARD_BYTES // layer_bytes))
        counts[axis] = -(-counts[axis] // n_shards)  # shards of about the same size
    return tuple(n * c for n, c in zip(counts, chunks, strict=True))


def open_array(
    store: str, path: str, storage_options: Mapping[str, Any] | None = None
) -> zarr.Array[Any]:
    """Open an array with plain zarr-python, to read only: the independent way.

    Parameters
    ----------
    store
        URL or local path of the dataset.
    path
        Path of the array below it.
    storage_options
        Passed on to fsspec, for a URL.

    Returns
    -------
    zarr.Array
        Beware: zarr-python reads a missing shard as zeros.
    """
    return zarr.open_array(_store(store, storage_options), path=path, mode="r")


def array_from_metadata(
    zarr_json: str,
    store: str,
    path: str,
    storage_options: Mapping[str, Any] | None = None,
) -> zarr.Array[Any]:
    """Return what `open_array` does, without a request: the metadata is at hand."""
    place = StorePath(_store(store, storage_options), path)
    return zarr.Array(zarr.AsyncArray(json.loads(zarr_json), store_path=place))


def _store(store: str, storage_options: Mapping[str, Any] | None) -> Store:
    if "://" not in store:
        return LocalStore(store, read_only=True)
    options = dict(storage_options or {})
    return FsspecStore.from_url(store, storage_options=options, read_only=True)
