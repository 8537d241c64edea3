"""The Zarr v3 side of a dataset: metadata texts, and the plain way to read.

Texts are built by hand, so that the same volume gives the same bytes whatever the
version of zarr-python. Tests hold them against zarr-python, tensorstore and ome-zarr.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import zarr
from zarr.abc.store import Store
from zarr.storage import FsspecStore, LocalStore, StorePath

from dicomdask import storage
from dicomdask.model import FORMAT, Layout
from dicomdask.shards import CRC32C, KEY_ENCODING, LITTLE, codec_chain

NGFF_VERSION: Final = "0.5"
AXIS_TYPES: Final = {
    "t": "time",
    "c": "channel",
    "z": "space",
    "y": "space",
    "x": "space",
}


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


def open_array(store: str, path: str) -> zarr.Array[Any]:
    """Open an array with plain zarr-python, to read only: the independent way.

    Parameters
    ----------
    store
        URL or local path of the dataset.
    path
        Path of the array below it.

    Returns
    -------
    zarr.Array
        Beware: zarr-python reads a missing shard as zeros.
    """
    return zarr.open_array(_store(store), path=path, mode="r")


def array_from_metadata(zarr_json: str, store: str, path: str) -> zarr.Array[Any]:
    """Return what `open_array` does, without a request: the metadata is at hand."""
    place = StorePath(_store(store), path)
    return zarr.Array(zarr.AsyncArray(json.loads(zarr_json), store_path=place))


def _store(store: str) -> Store:
    if storage.is_local(store):
        return LocalStore(storage.decode_path(store), read_only=True)
    options = storage.options_of(store)
    return FsspecStore.from_url(store, storage_options=options, read_only=True)
