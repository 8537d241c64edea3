"""Reading: boxes, values, faults, and other people's readers."""

import pickle
import random
from itertools import product

import dask
import dask.dataframe as dd
import numpy as np
import ome_zarr.io
import ome_zarr.reader
import pandas as pd
import pyarrow.parquet as pq
import pydicom
import pytest
import tensorstore
import zarr
from ome_zarr_models.v05 import Image
from pydicom.pixels import apply_modality_lut

import dicomdask
from dicomdask import layout, plan, storage
from dicomdask.errors import ReadError, ShardError, StoreError
from dicomdask.loaders.xarray import open_volume
from dicomdask.work import Work
from tests.builders import make_instance, make_series, write_series

PT = "1.2.840.10008.5.1.4.1.1.128"
TABLES = ("volumes", "frames", "instances", "inputs")


@pytest.fixture(scope="module")
def made(tmp_path_factory, convert):
    """Return a dataset of a volume of several chunks and shards, and a projection."""
    folder = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(0)
    planes = rng.integers(-1000, 3000, (40, 150, 140)).astype(np.int16)
    deep = [
        make_instance(1, instance=z + 1, pixels=planes[z], RescaleSlope=2)
        for z in range(40)
    ]
    write_series(folder / "in" / "deep", iter(deep))
    flat = make_instance(2, pixels=rng.integers(0, 9, (30, 20)).astype(np.uint8))
    write_series(folder / "in" / "flat", iter([flat]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "SHARD_BYTES", 1 << 20)
        convert(folder / "in", folder / "store.zarr")
    return folder / "store.zarr", planes


@pytest.fixture
def ds(made):
    return dicomdask.open_dataset(str(made[0]))


def deep_of(ds):
    [found] = ds.volumes[ds.volumes["n_frames"] == 40]["volume_id"]
    return found


def shards_of(store):
    return sorted(store.glob("volumes/*/*/*/0/c/**/*"))


# --- tables -------------------------------------------------------------------


def test_tables(ds):
    assert len(ds) == len(ds.volumes) == 2
    assert len(ds.frames) == len(ds.instances) == len(ds.inputs) == 41
    assert set(ds.inputs["outcome"]) == {"stored"}
    assert "Dataset" in repr(ds)
    row = ds.row(deep_of(ds))
    assert tuple(row["shape"]) == (40, 150, 140)
    assert list(row["dimensions"]) == ["z", "y", "x"]
    assert row["shards"][0] < 40
    keys = ["volume_id", "revision"]
    assert len(ds.frames.merge(ds.volumes[keys])) == 41


def test_what_is_not_there(ds, tmp_path):
    with pytest.raises(StoreError, match="there is no dataset"):
        dicomdask.open_dataset(str(tmp_path / "nothing"))
    with pytest.raises(StoreError, match="has no commit 7"):
        dicomdask.open_dataset(ds.store, commit=7)
    for call in (ds.row, ds.read):
        with pytest.raises(KeyError, match="no volume 00"):
            call("00")


# --- boxes --------------------------------------------------------------------


def random_selector(rng, extent):
    kind = rng.choice(["all", "index", "negative", "slice", "open", "beyond"])
    start, stop = sorted(rng.choices(range(extent + 1), k=2))
    return {
        "all": None,
        "index": rng.randrange(extent),
        "negative": rng.randrange(-extent, 0),
        "slice": slice(start, stop),
        "open": slice(start - extent, None),
        "beyond": slice(start, extent + 5),
    }[kind]


@pytest.mark.parametrize("seed", range(150))
def test_a_box_is_what_numpy_slices(seed, ds, made):
    rng = random.Random(seed)
    extents = {"z": 40, "y": 150, "x": 140}
    box = {axis: random_selector(rng, n) for axis, n in extents.items()}
    index = tuple(slice(None) if one is None else one for one in box.values())
    wanted = made[1][index]
    found = ds.read(deep_of(ds), **box)
    assert found.dtype == wanted.dtype
    assert found.shape == wanted.shape
    assert np.array_equal(found, wanted)
    scaled = ds.read(deep_of(ds), values="modality", **box)
    assert scaled.dtype == np.float64
    assert np.array_equal(scaled, wanted * 2.0 - 1024)


def test_numpy_integers_are_indices(ds, made):
    for z in (np.int64(3), np.int32(-1), np.uint8(3)):
        found = ds.read(deep_of(ds), z=z, y=slice(0, 4))
        assert np.array_equal(found, made[1][z, :4])


def test_boxes_that_are_refused(ds):
    name = deep_of(ds)
    with pytest.raises(ValueError, match="has no axis t; its axes are z, y, x"):
        ds.read(name, t=0)
    for step in (2, -1):
        with pytest.raises(ValueError, match="along z has step 1"):
            ds.read(name, z=slice(None, None, step))
    for index in (40, -41):
        with pytest.raises(IndexError, match="out of bounds of z, 40 long"):
            ds.read(name, z=index)
    with pytest.raises(ValueError, match="stored, modality"):
        ds.read(name, values="screen")


def test_what_is_read_may_be_written_to(ds):
    first = ds.read(deep_of(ds))
    wanted = first.copy()
    first[:] = 0
    assert np.array_equal(ds.read(deep_of(ds)), wanted)


def test_a_dataset_can_be_pickled(ds):
    ds.read(deep_of(ds), z=0)
    other = pickle.loads(pickle.dumps(ds))
    assert np.array_equal(other.read(deep_of(ds)), ds.read(deep_of(ds)))


# --- values against pydicom ---------------------------------------------------


def group_of(source, number):
    """Return what tells how the values of a frame are scaled: a functional group."""
    for group in (
        source.PerFrameFunctionalGroupsSequence[number],
        *source.get("SharedFunctionalGroupsSequence", ()),
    ):
        for item in group.get("PixelValueTransformationSequence", ()):
            return item
    return pydicom.Dataset()


@pytest.mark.filterwarnings("ignore")
def test_every_real_frame_equals_pydicom(real_store, key):
    ds = dicomdask.open_dataset(str(real_store))
    work = Work(f"{real_store}.work")
    sources = {
        plan.source_key(file.url, key): file.url
        for part in work.manifest_parts()
        for file in work.read_manifest(part)
    }
    frames = ds.frames
    assert len(frames) > 300
    for volume_id, rows in frames.groupby("volume_id"):
        stored = ds.read(volume_id)
        modality = ds.read(volume_id, values="modality")
        for row in rows.itertuples():
            index = tuple(i for i in (row.t, row.z) if not pd.isna(i))
            source = pydicom.dcmread(sources[row.source_key], force=True)
            if "TransferSyntaxUID" not in source.file_meta:
                source.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2"
            wanted = source.pixel_array
            if "PerFrameFunctionalGroupsSequence" in source:
                number = row.frame_number - 1
                wanted, source = wanted[number], group_of(source, number)
            assert np.array_equal(stored[index], wanted), row
            assert stored.dtype == wanted.dtype.newbyteorder("=")
            scaled = apply_modality_lut(wanted, source)
            assert np.array_equal(modality[index], scaled), row


@pytest.mark.parametrize("what", ["slope", "intercept", "both"])
def test_slopes_that_vary_by_frame(what, tmp_path, convert):
    def scale(z):
        slope = 0.25 * (1 + z) if what != "intercept" else 0.5
        return slope, (3.0 * z if what != "slope" else 0.0)

    series = [
        make_instance(
            instance=z + 1,
            pixels=np.arange(192, dtype=np.uint16).reshape(16, 12) + z,
            Modality="PT",
            SOPClassUID=PT,
            Units="BQML",
            RescaleSlope=scale(z)[0],
            RescaleIntercept=scale(z)[1],
        )
        for z in range(6)
    ]
    write_series(tmp_path / "in", iter(series[::-1]))
    convert(tmp_path / "in", tmp_path / "store")
    ds = dicomdask.open_dataset(str(tmp_path / "store"))
    [row] = [ds.volumes.iloc[n] for n in range(len(ds))]
    assert pd.isna(row["slope"]) == (what != "intercept")
    assert pd.isna(row["intercept"]) == (what != "slope")
    assert row["units"] == "BQML"
    wanted = np.stack([apply_modality_lut(one.pixel_array, one) for one in series])
    for box in ({}, {"z": 2}, {"z": slice(1, 4), "y": 3}, {"x": slice(2, 5)}):
        index = tuple(box.get(axis) or slice(None) for axis in "zyx")
        found = ds.read(row["volume_id"], values="modality", **box)
        assert np.array_equal(found, wanted[index])


# --- requests and faults ------------------------------------------------------


@pytest.fixture
def requests(monkeypatch):
    """Return what storage is asked for."""
    found = []

    def watch(owner, name):
        original = getattr(owner, name)

        def call(*args):
            found.append(name)
            return original(*args)

        monkeypatch.setattr(owner, name, call)

    get_many = storage.Ranges.get_many

    def count(self, wanted):
        found.extend("index" if stop is None else "range" for *_, stop in wanted)
        return get_many(self, wanted)

    monkeypatch.setattr(storage.Ranges, "get_many", count)
    read_into = storage.Ranges.read_into

    def count_one(*args):
        found.append("range")
        return read_into(*args)

    monkeypatch.setattr(storage.Ranges, "read_into", count_one)
    for name in ("read", "exists", "list_names", "open_blocks"):
        watch(storage, name)
    return found


def test_an_array_costs_an_index_and_a_range(made, requests):
    ds = dicomdask.open_dataset(str(made[0]))
    name = deep_of(ds)
    requests.clear()
    ds.read(name, z=0)
    assert requests == ["index", "range"]
    requests.clear()
    ds.read(name, z=1, y=slice(0, 9), x=slice(0, 9))
    assert requests == ["range"]


def test_opening_reads_one_commit_and_lists_no_table(made, requests):
    ds = dicomdask.open_dataset(str(made[0]))
    assert requests == ["read", "list_names", "read"]
    for name in TABLES:
        requests.clear()
        getattr(ds, name)
        getattr(ds, name)
        assert requests == ["read"]


def test_a_deleted_shard_is_an_error(store):
    for path in store.glob("volumes/*/*/*/0/c/*/*/*"):
        path.unlink()
    ds = dicomdask.open_dataset(str(store))
    name = ds.volumes["volume_id"][0]
    for read in (ds.read, lambda name: ds.read_many([(name, (slice(0, 1),) * 3)])):
        with pytest.raises(ShardError, match=f"^volume {name}: shard .* is missing"):
            read(name)


@pytest.mark.parametrize("part", range(20))
def test_a_flipped_bit_is_an_error(part, store):
    [path] = store.glob("volumes/*/*/*/0/c/*/*/*")
    data = bytearray(path.read_bytes())
    data[(len(data) - 1) * part // 19] ^= 1 << part % 8
    path.write_bytes(data)
    ds = dicomdask.open_dataset(str(store))
    with pytest.raises(ReadError, match="damaged"):
        ds.read(ds.volumes["volume_id"][0])


def test_a_shard_cut_short_is_an_error(store):
    [path] = store.glob("volumes/*/*/*/0/c/*/*/*")
    data = path.read_bytes()
    for stop in (0, 3, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:stop])
        ds = dicomdask.open_dataset(str(store))
        with pytest.raises(ReadError):
            ds.read(ds.volumes["volume_id"][0])


@pytest.mark.parametrize("name", TABLES)
def test_a_damaged_table_is_an_error(name, store):
    [path] = (store / "tables" / name).iterdir()
    data = path.read_bytes()
    ds = dicomdask.open_dataset(str(store))
    path.write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:])
    with pytest.raises(ReadError, match="is damaged"):
        getattr(ds, name)
    path.unlink()
    with pytest.raises(ReadError, match="missing"):
        getattr(ds, name)


# --- the readers of others ----------------------------------------------------


def stores():
    return pytest.mark.parametrize("which", ["made", "real"])


@pytest.fixture
def which_store(which, made, request):
    return made[0] if which == "made" else request.getfixturevalue("real_store")


@stores()
def test_zarr_and_tensorstore_read_every_array(which, which_store):
    ds = dicomdask.open_dataset(str(which_store))
    for row in ds.volumes.itertuples():
        path = which_store / row.path / "0"
        wanted = ds.read(row.volume_id)
        plain = zarr.open_array(path, mode="r")
        assert np.array_equal(plain[...], wanted)
        assert plain.dtype == wanted.dtype
        assert plain.metadata.dimension_names == tuple(row.dimensions)
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{path}/"}}
        other = tensorstore.open(spec, read=True).result()
        assert np.array_equal(other.read().result(), wanted)
        assert tuple(other.domain.labels) == tuple(row.dimensions)


def test_zarr_walks_the_tree(made):
    store, _ = made
    root = zarr.open_group(store, mode="r")
    assert root.attrs["dicomdask"] == {"format": 1}
    members = dict(root["volumes"].members(max_depth=None))
    arrays = [name for name, one in members.items() if isinstance(one, zarr.Array)]
    ds = dicomdask.open_dataset(str(store))
    assert {f"volumes/{name}" for name in arrays} == {
        f"{path}/0" for path in ds.volumes["path"]
    }


@stores()
@pytest.mark.filterwarnings("ignore")
def test_ome_zarr_reads_the_multiscales(which, which_store):
    ds = dicomdask.open_dataset(str(which_store))
    for row in list(ds.volumes.itertuples())[:12]:
        group = zarr.open_group(which_store / row.path, mode="r")
        [scales] = Image.from_zarr(group).ome_attributes.multiscales
        assert tuple(axis.name for axis in scales.axes) == tuple(row.dimensions)
        [transform] = scales.datasets[0].coordinateTransformations
        assert transform.scale == expected_scale(row)
        location = ome_zarr.io.parse_url(str(which_store / row.path), mode="r")
        [node, *_] = ome_zarr.reader.Reader(location)()
        assert node.data[0].shape == tuple(row.shape)
        assert np.array_equal(node.data[0].compute(), ds.read(row.volume_id))
        attributes = group.attrs["dicomdask"]
        assert attributes["units"] == row.units
        if row.affine is not None:
            assert attributes["affine"] == pytest.approx(list(row.affine), abs=0)


def expected_scale(row):
    spacing = [] if row.spacing_mm is None else list(row.spacing_mm)
    spatial = [axis for axis in row.dimensions if axis in "zyx"]
    known = dict(zip(spatial, spacing, strict=False)) if spacing else {}
    return pytest.approx([known.get(axis, 1.0) for axis in row.dimensions])


@pytest.mark.filterwarnings("ignore:The inplace keyword")
@pytest.mark.parametrize("name", TABLES)
def test_others_read_the_tables_that_the_commit_names(name, made, ds):
    paths = [f"{made[0]}/{part.path}" for part in ds.commit.tables[name]]
    wanted = getattr(ds, name)
    assert sum(part.rows for part in ds.commit.tables[name]) == len(wanted)
    readers = {
        "pandas": lambda: pd.concat(map(pd.read_parquet, paths)),
        "pyarrow": lambda: pq.read_table(paths[0]).to_pandas(),
        "dask": lambda: dd.read_parquet(paths).compute(scheduler="synchronous"),
    }
    for reader in readers.values():
        table = reader()
        assert list(table.columns) == list(wanted.columns)
        for column in table.columns:
            if "_id" in column or column.endswith(("UID", "key")):
                assert table[column].astype(str).tolist() == (
                    wanted[column].astype(str).tolist()
                )


# --- xarray -------------------------------------------------------------------


@pytest.mark.parametrize("values", ["stored", "modality"])
def test_xarray_is_lazy_and_equal(values, ds, requests):
    name = deep_of(ds)
    ds.row(name)
    requests.clear()
    lazy = open_volume(ds, name, values=values)
    part = lazy.isel(z=slice(3, 20), y=5)
    assert requests == []
    wanted = ds.read(name, values=values)
    with dask.config.set(scheduler="synchronous"):
        assert np.array_equal(part.values, wanted[3:20, 5])
        assert np.array_equal(lazy.values, wanted)
    assert lazy.dtype == wanted.dtype
    assert lazy.dims == ("z", "y", "x")
    assert lazy.attrs["units"] == ("stored" if values == "stored" else "HU")
    assert lazy.attrs["affine"].shape == (4, 4)
    assert lazy["z"].values[:3] == pytest.approx([0, 2.5, 5])
    assert lazy["y"].values[:3] == pytest.approx([0, 0.5, 1])
    assert lazy["x"].values[:3] == pytest.approx([0, 0.75, 1.5])


def test_xarray_places_every_voxel(ds):
    lazy = open_volume(ds, deep_of(ds))
    affine = lazy.attrs["affine"]
    for index in product((0, 39), (0, 149), (0, 139)):
        left, posterior, superior, _ = affine @ [*index, 1]
        wanted = (-10 + 0.75 * index[2], -20 + 0.5 * index[1], 2.5 * index[0])
        assert (left, posterior, superior) == pytest.approx(wanted)


def test_xarray_of_an_unknown_volume(ds):
    with pytest.raises(KeyError, match="no volume"):
        open_volume(ds, "nothing")


def test_a_series_reads_back(tmp_path, convert):
    write_series(tmp_path / "in", make_series(7))
    convert(tmp_path / "in", tmp_path / "store")
    ds = dicomdask.open_dataset(str(tmp_path / "store"))
    values = ds.read(ds.volumes["volume_id"][0])
    assert values[:, 0, 0].tolist() == list(range(1, 8))
