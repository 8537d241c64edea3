"""Metadata texts, against zarr-python, tensorstore and NGFF tools; and layouts."""

import json
import subprocess
import sys
from itertools import product
from math import prod

import fsspec
import numpy as np
import ome_zarr.io
import ome_zarr.reader
import pytest
import tensorstore
import zarr
from hypothesis import given
from hypothesis import strategies as st
from ome_zarr_models.v05 import Image

from dicomdask import arrays
from dicomdask.layout import SHARD_BYTES, choose_layout
from dicomdask.model import Layout
from dicomdask.shards import CODECS, encode_shard, parse_metadata, shard_key

DTYPES = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "float32")
PLACE = "volumes/ab/abcd/r1"
LAYOUT = Layout((2, 8, 8), (6, 16, 16), "lz4")
VOLUME = np.arange(5 * 12 * 16, dtype=np.int16).reshape(5, 12, 16)
ZYX = ("z", "y", "x")


def write_dataset(
    root, dimensions=ZYX, array=VOLUME, layout=LAYOUT, spacing=(2.5, 1, 1)
):
    """Write a dataset of one volume, and return the array's metadata."""
    text = arrays.array_metadata(array.shape, array.dtype, dimensions, layout)
    group = arrays.volume_group_metadata(
        dimensions, spacing, {"affine": [1.0]}, name="abcd"
    )
    key = shard_key((0,) * array.ndim)
    plain = arrays.group_metadata()
    objects = {
        "zarr.json": arrays.root_metadata(),
        **{"/".join(PLACE.split("/")[:n]) + "/zarr.json": plain for n in (1, 2, 3)},
        f"{PLACE}/zarr.json": group,
        f"{PLACE}/0/zarr.json": text,
    }
    shard = encode_shard(array, layout.chunks, layout.shards, layout.codec)
    for name, data in {**objects, f"{PLACE}/0/{key}": shard}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    return text


@pytest.mark.parametrize("codec", sorted(CODECS))
@pytest.mark.parametrize("dtype", DTYPES)
def test_zarr_and_tensorstore_accept_the_text_of_an_array(tmp_path, dtype, codec):
    layout = Layout((2, 8, 8), (6, 16, 16), codec)
    array = (VOLUME % 100).astype(dtype)
    text = write_dataset(tmp_path, array=array, layout=layout)
    metadata = zarr.open_array(tmp_path / PLACE / "0", mode="r").metadata
    ours, theirs = json.loads(text), json.loads(json.dumps(metadata.to_dict()))
    if array.itemsize == 1:  # zarr drops the endianness of single bytes
        ours["codecs"][0]["configuration"]["codecs"][0].pop("configuration")
    theirs.pop("storage_transformers", None)
    assert ours == theirs
    assert metadata.fill_value == 0
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": f"{tmp_path}/{PLACE}/0"},
    }
    opened = tensorstore.open(spec, open=True).result()
    assert opened.domain.labels == ZYX
    np.testing.assert_array_equal(opened.read().result(), array, strict=True)


def test_texts_are_constant():
    plain = '{"zarr_format":3,"node_type":"group","attributes":{}}'
    assert arrays.group_metadata() == plain
    assert '"attributes":{"dicomdask":{"format":1}}' in arrays.root_metadata()
    texts = {
        arrays.array_metadata((5, 12, 16), d, ZYX, LAYOUT)
        for d in ("int16", np.int16, np.dtype("<i2"), np.dtype(">i2"))
    }
    assert len(texts) == 1


def test_what_is_no_number_is_refused():
    with pytest.raises(ValueError, match="JSON compliant"):
        arrays.group_metadata({"affine": [float("nan")]})


def test_attributes_of_an_array_are_kept():
    text = arrays.array_metadata((4, 4), "u1", ("y", "x"), LAYOUT, {"a": 1})
    assert json.loads(text)["attributes"] == {"a": 1}


def test_zarr_walks_the_whole_tree(tmp_path):
    write_dataset(tmp_path)
    root = zarr.open_group(tmp_path, mode="r")
    assert dict(root.attrs) == {"dicomdask": {"format": 1}}
    found = dict(root.members(max_depth=None))
    assert set(found) == {
        "volumes",
        "volumes/ab",
        "volumes/ab/abcd",
        PLACE,
        f"{PLACE}/0",
    }
    np.testing.assert_array_equal(found[f"{PLACE}/0"][...], VOLUME)
    assert found[PLACE].attrs["dicomdask"] == {"affine": [1.0]}


@pytest.mark.parametrize(
    ("dimensions", "spacing", "scale"),
    [
        (("y", "x"), (0.5, 0.25), [0.5, 0.25]),
        (("y", "x"), (), [1, 1]),
        (("z", "y", "x"), (2.5, 0.5, 0.25), [2.5, 0.5, 0.25]),
        (("z", "y", "x"), (None, 0.5, 0.25), [1, 0.5, 0.25]),
        (("t", "y", "x"), (0.5, 0.25), [1, 0.5, 0.25]),
        (("t", "z", "y", "x"), (2.5, 0.5, 0.25), [1, 2.5, 0.5, 0.25]),
        (("t", "c", "y", "x"), (0.5, 0.25), [1, 1, 0.5, 0.25]),
        (("t", "c", "z", "y", "x"), (), [1, 1, 1, 1, 1]),
    ],
)
def test_ngff_tools_accept_a_volume(tmp_path, dimensions, spacing, scale):
    shape = (2, 3, 4, 5, 6)[-len(dimensions) :]
    array = np.arange(prod(shape), dtype=np.uint16).reshape(shape)
    layout = choose_layout(shape, "uint16")
    write_dataset(tmp_path, dimensions, array, layout, spacing)

    image = Image.from_zarr(zarr.open_group(tmp_path / PLACE, mode="r"))
    [multiscale] = image.ome_attributes.multiscales
    assert [axis.name for axis in multiscale.axes] == list(dimensions)
    [transform] = multiscale.datasets[0].coordinateTransformations
    assert list(transform.scale) == scale
    is_known = dict(zip(dimensions[-len(spacing) :], spacing, strict=False))
    for axis in multiscale.axes:
        unit = "millimeter" if is_known.get(axis.name) else None
        assert axis.unit == unit

    location = ome_zarr.io.parse_url(tmp_path / PLACE)
    [node] = ome_zarr.reader.Reader(location)()
    assert node.metadata["axes"][-1]["name"] == "x"
    np.testing.assert_array_equal(np.asarray(node.data[0]), array)


def test_arrays_open_by_path_by_url_and_from_their_text(tmp_path):
    text = write_dataset(tmp_path)
    path = f"{PLACE}/0"
    for store in (str(tmp_path), f"file://{tmp_path}"):
        opened = arrays.open_array(store, path)
        np.testing.assert_array_equal(opened[1:3], VOLUME[1:3])
        with pytest.raises(ValueError, match="read-only"):
            opened[...] = 0
    (tmp_path / path / "zarr.json").unlink()
    for store in (str(tmp_path), f"file://{tmp_path}"):
        opened = arrays.array_from_metadata(text, store, path)
        np.testing.assert_array_equal(opened[1:3], VOLUME[1:3])
        with pytest.raises(ValueError, match="read-only"):
            opened[...] = 0


def test_remote_stores_open_with_their_options(monkeypatch):
    options = '{"memory://d": {"token": 1}}'
    monkeypatch.setenv("DICOMDASK_STORAGE_OPTIONS", options)
    memory = fsspec.filesystem("memory")
    text = arrays.array_metadata(VOLUME.shape, VOLUME.dtype, ZYX, LAYOUT)
    shard = encode_shard(VOLUME, LAYOUT.chunks, LAYOUT.shards, LAYOUT.codec)
    memory.pipe({"/d/0/zarr.json": text.encode(), "/d/0/c/0/0/0": shard})
    try:
        for opened in (
            arrays.open_array("memory://d", "0"),
            arrays.array_from_metadata(text, "memory://d", "0"),
        ):
            np.testing.assert_array_equal(opened[...], VOLUME)
            assert opened.store.fs.sync_fs.storage_options["token"] == 1
    finally:
        memory.rm("/d", recursive=True)


# ---------------------------------------------------------------------------- layouts

shapes = st.lists(st.integers(1, 700), min_size=2, max_size=5).map(tuple)


@given(
    shapes,
    st.sampled_from(DTYPES),
    st.sampled_from(["slice", "balanced", "patch"]),
    st.booleans(),
)
def test_layouts_hold_whole_chunks_and_whole_frames(shape, dtype, profile, coloured):
    axis = len(shape) - 3 if coloured and len(shape) > 2 else None
    if axis is not None:
        shape = (*shape[:axis], 3, *shape[axis + 1 :])
    layout = choose_layout(shape, dtype, profile, samples_axis=axis)
    assert layout == choose_layout(shape, np.dtype(dtype), profile, samples_axis=axis)
    if axis is not None:
        assert layout.chunks[axis] == layout.shards[axis] == 3
    for extent, chunk, shard in zip(shape, layout.chunks, layout.shards, strict=True):
        assert 1 <= chunk <= extent
        assert shard % chunk == 0
        assert shard < extent + chunk  # no shard is larger than it must be
    for extent, shard in list(zip(shape, layout.shards, strict=True))[-2:]:
        assert shard >= extent
    itemsize = np.dtype(dtype).itemsize
    layer = prod(layout.chunks[:-2]) * prod(layout.shards[-2:]) * itemsize
    assert prod(layout.shards) * itemsize <= max(SHARD_BYTES, layer)
    text = arrays.array_metadata(shape, dtype, tuple("tczyx"[-len(shape) :]), layout)
    meta = parse_metadata(text)
    assert (meta.shape, meta.chunks, meta.shards) == (
        shape,
        layout.chunks,
        layout.shards,
    )


@given(st.lists(st.integers(1, 40), min_size=2, max_size=4).map(tuple))
def test_shards_tile_an_array_exactly(shape):
    layout = choose_layout(shape, "uint16", "patch")
    seen = np.zeros(shape, int)
    counts = [-(-n // s) for n, s in zip(shape, layout.shards, strict=True)]
    for corner in product(*map(range, counts)):
        pairs = zip(corner, layout.shards, strict=True)
        seen[tuple(slice(i * s, i * s + s) for i, s in pairs)] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize(
    ("shape", "profile", "chunks", "shards", "samples_axis"),
    [
        ((200, 512, 512), "slice", (1, 512, 512), (200, 512, 512), None),
        ((200, 512, 512), "balanced", (4, 128, 128), (200, 512, 512), None),
        ((200, 512, 512), "patch", (32, 32, 32), (224, 512, 512), None),
        ((3, 100, 90), "balanced", (3, 100, 90), (3, 100, 90), None),
        ((800, 512, 512), "slice", (1, 512, 512), (400, 512, 512), None),
        ((9, 40, 64, 64), "slice", (1, 1, 64, 64), (9, 40, 64, 64), None),
        ((9, 40, 64, 64), "balanced", (1, 4, 64, 64), (9, 40, 64, 64), None),
        ((3000, 2500), "slice", (3000, 2500), (3000, 2500), None),
        ((3000, 2500), "balanced", (512, 512), (3072, 2560), None),
        ((3, 600, 800), "slice", (3, 600, 800), (3, 600, 800), 0),
        ((3, 600, 800), "slice", (1, 600, 800), (3, 600, 800), None),
        ((40, 3, 600, 800), "slice", (1, 3, 600, 800), (40, 3, 600, 800), 1),
        ((3, 40, 64, 64), "balanced", (3, 4, 64, 64), (3, 40, 64, 64), 0),
    ],
)
def test_layouts_of_common_arrays(shape, profile, chunks, shards, samples_axis):
    layout = choose_layout(shape, "uint16", profile, samples_axis=samples_axis)
    assert layout == Layout(chunks, shards, "lz4")


def test_the_codec_of_shards_needs_no_zarr():
    code = "import sys, dicomdask.shards, dicomdask.values; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert loaded.isdisjoint({"zarr", "dask", "pydicom", "fsspec", "pyarrow"})
