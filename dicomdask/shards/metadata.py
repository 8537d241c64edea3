"""What the metadata of a sharded array says, and how its shards are named."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any, Final

import numpy as np

from dicomdask.errors import PlanError, ReadError, ShardError

Array = np.ndarray[Any, np.dtype[Any]]
Shape = tuple[int, ...]
Box = tuple[slice, ...]

DTYPES: Final = tuple(np.dtype(code).name for code in "?bBhHiIqQfd")
LITTLE: Final = {"name": "bytes", "configuration": {"endian": "little"}}
CRC32C: Final = {"name": "crc32c"}
KEY_ENCODING: Final = {"name": "default", "configuration": {"separator": "/"}}
REPAIR: Final = "restore it from a copy, or convert its series again"

CODECS: Final[Mapping[str, Mapping[str, Any] | None]] = {
    "none": None,
    "lz4": {"cname": "lz4", "clevel": 5, "shuffle": "shuffle"},
    "zstd": {"cname": "zstd", "clevel": 1, "shuffle": "shuffle"},
}
"""Our codec names, and the blosc configuration each stands for."""


def codec_chain(codec: str, dtype: np.dtype[Any]) -> list[dict[str, Any]]:
    """Return the codecs of an inner chunk as in the array's `zarr.json`."""
    configuration = CODECS[codec]
    if configuration is None:
        return [LITTLE, CRC32C]
    settings = {**configuration, "typesize": dtype.itemsize, "blocksize": 0}
    return [LITTLE, {"name": "blosc", "configuration": settings}, CRC32C]


def shard_key(corner: tuple[int, ...]) -> str:
    """Return the key of a shard below its array, such as `c/0/1/0`."""
    return "/".join(("c", *map(str, corner)))


def shard_error(shard: str, sentence: str) -> ShardError:
    """Return the error of a shard, to be raised."""
    error = ShardError(sentence)
    error.shard = shard
    return error


def check_fit(shape: Shape, chunks: Shape, shards: Shape) -> None:
    """Raise PlanError unless a shard holds whole chunks, and an array of this shape."""
    axes = list(zip(shape, chunks, shards, strict=True))
    if not axes or any(not 0 < n <= s or c < 1 or s % c for n, c, s in axes):
        cut = f"a shard of shape {tuple(shards)} in chunks of {tuple(chunks)}"
        raise PlanError(f"{cut} cannot hold {tuple(shape)}; plan its layout again")


@dataclass(frozen=True, slots=True)
class ArrayMeta:
    """What a reader has to know of an array; shapes are in elements, in axis order.

    A shard holds `grid` chunks; one along an axis adds `steps` to a chunk's number.
    A decoded chunk has `nbytes`. The `cuts` are chunk, grid and step of each axis.
    """

    shape: Shape
    dtype: np.dtype[Any]
    chunks: Shape
    shards: Shape
    compressed: bool
    dimension_names: tuple[str | None, ...]
    grid: Shape
    steps: Shape
    nbytes: int
    cuts: tuple[tuple[int, int, int], ...]


@lru_cache(maxsize=1024)
def parse_metadata(zarr_json: str) -> ArrayMeta | None:
    """Parse the text of an array's `zarr.json`.

    None means that it is cut or encoded in a way not known here: zarr-python reads it.

    Raises
    ------
    ReadError
        If the text is not the metadata of a Zarr v3 array.
    """
    try:
        meta = json.loads(zarr_json)
        if (meta["zarr_format"], meta["node_type"]) != (3, "array"):
            raise ValueError
        return _parse_array(meta) if _is_known(meta) else None
    except (ValueError, KeyError, TypeError) as error:
        sentence = f"the metadata is not that of a Zarr v3 array; {REPAIR}"
        raise ReadError(sentence) from error


def _is_known(meta: dict[str, Any]) -> bool:
    """Tell whether the array is cut and encoded as `encode_shard` does it."""
    *others, sharding = meta["codecs"]
    if others or sharding["name"] != "sharding_indexed":
        return False
    settings = sharding["configuration"]
    names = [codec["name"] for codec in settings["codecs"]]
    return (
        meta["data_type"] in DTYPES
        and meta["chunk_grid"]["name"] == "regular"
        and {**KEY_ENCODING, **meta["chunk_key_encoding"]} == KEY_ENCODING
        and not meta.get("storage_transformers")
        and settings.get("index_location", "end") == "end"
        and settings["index_codecs"] == [LITTLE, CRC32C]
        and settings["codecs"][0] == LITTLE
        and names in (["bytes", "crc32c"], ["bytes", "blosc", "crc32c"])
    )


def _parse_array(meta: dict[str, Any]) -> ArrayMeta:
    settings = meta["codecs"][0]["configuration"]
    dtype = np.dtype(meta["data_type"]).newbyteorder("<")
    shape, chunks = tuple(meta["shape"]), tuple(settings["chunk_shape"])
    shards = tuple(meta["chunk_grid"]["configuration"]["chunk_shape"])
    check_fit(shards, chunks, shards)
    grid = tuple(s // c for s, c in zip(shards, chunks, strict=True))
    steps = tuple(prod(grid[axis + 1 :]) for axis in range(len(grid)))
    return ArrayMeta(
        shape=shape,
        dtype=dtype,
        chunks=chunks,
        shards=shards,
        compressed=len(settings["codecs"]) > 2,
        dimension_names=tuple(meta.get("dimension_names") or (None,) * len(shape)),
        grid=grid,
        steps=steps,
        nbytes=prod(chunks) * dtype.itemsize,
        cuts=tuple(zip(chunks, grid, steps, strict=True)),
    )
