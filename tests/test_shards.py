"""The codec of shards, against numpy, zarr-python and tensorstore."""

import errno
import json
import pickle
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from math import prod
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import tensorstore
import zarr
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numcodecs import blosc

from dicomdask.arrays import array_metadata
from dicomdask.errors import PlanError, ReadError
from dicomdask.model import Layout
from dicomdask.shards import (
    ABSENT,
    CODECS,
    ShardReader,
    encode_shard,
    index,
    parse_metadata,
    rows,
    shard_key,
)
from dicomdask.shards import codec as codecs

DTYPES = ("bool", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64")
SHARD = "a/c/0/0/0"


class Memory:
    """Objects in memory, and a log of what was asked of them."""

    def __init__(self, objects, *, shuffled=False, is_distant=False):
        self.objects, self.is_distant = objects, is_distant
        self.log = []
        self.shuffled = shuffled
        self.n_filled = 0

    def _get(self, path):
        if path not in self.objects:
            raise FileNotFoundError(errno.ENOENT, "no such object", path)
        return self.objects[path]

    def get_range(self, path, start, stop):
        self.log.append((path, start, stop))
        return self._get(path)[start:stop]

    def read_into(self, path, start, buffers):
        stop = start + sum(memoryview(one).nbytes for one in buffers)
        data = memoryview(self.get_range(path, start, stop))
        size, self.n_filled = len(data), self.n_filled + len(buffers) // 2
        for one in buffers:
            view = memoryview(one).cast("B")
            part, data = data[: len(view)], data[len(view) :]
            view[: len(part)] = part
        return size

    def get_many(self, wanted):
        order = list(enumerate(wanted))
        if self.shuffled:
            random.Random(len(order)).shuffle(order)
        for number, one in order:
            yield number, self.get_range(*one)

    def reader(self, **options):
        return ShardReader(self, **options)


def shard_boxes(shape, shards):
    corners = product(*(range(-(-n // s)) for n, s in zip(shape, shards, strict=True)))
    for corner in corners:
        spans = zip(corner, shards, shape, strict=True)
        yield corner, tuple(slice(i * s, min(i * s + s, n)) for i, s, n in spans)


def encode_array(array, layout, path="a"):
    """Return the objects of a whole array, and its metadata's text."""
    names = tuple("tczyx"[-array.ndim :])
    text = array_metadata(array.shape, array.dtype, names, layout)
    objects = {
        f"{path}/{shard_key(corner)}": encode_shard(
            array[box], layout.chunks, layout.shards, layout.codec
        )
        for corner, box in shard_boxes(array.shape, layout.shards)
    }
    return objects, text


def write_objects(folder, objects, text):
    for key, data in {**objects, "a/zarr.json": text.encode()}.items():
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(data)


def random_array(shape, dtype, seed=0):
    bits = np.random.default_rng(seed).integers(0, 200, shape)
    return (bits > 99) if dtype == "bool" else bits.astype(dtype)


def whole(shape):
    return tuple(slice(0, n) for n in shape)


@st.composite
def arrays_and_boxes(draw):
    shape = draw(st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple))
    chunks = tuple(draw(st.integers(1, 5)) for _ in shape)
    shards = tuple(c * draw(st.integers(1, 3)) for c in chunks)
    layout = Layout(chunks, shards, draw(st.sampled_from(sorted(CODECS))))
    array = random_array(shape, draw(st.sampled_from(DTYPES)), draw(st.integers(0, 9)))
    ends = [sorted(draw(st.tuples(*[st.integers(0, n)] * 2))) for n in shape]
    return array, layout, tuple(slice(*pair) for pair in ends)


@given(
    arrays_and_boxes(),
    st.sampled_from([0, 7, 1 << 20]),
    st.sampled_from([0, 3000, 1 << 20]),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_read_equals_numpy_slicing(case, max_gap, cache_bytes, shuffled, is_distant):
    array, layout, box = case
    objects, text = encode_array(array, layout)
    store = Memory(objects, shuffled=shuffled, is_distant=is_distant)
    reader = store.reader(max_gap=max_gap, cache_bytes=cache_bytes)
    for _ in range(2):
        found = reader.read("a", parse_metadata(text), box)
        assert found.dtype == array.dtype
        assert found.flags.writeable
        assert found.flags.aligned
        np.testing.assert_array_equal(found, array[box], strict=True)


@given(arrays_and_boxes())
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_other_tools_read_our_bytes(tmp_path_factory, case):
    array, layout, _ = case
    folder = tmp_path_factory.mktemp("store")
    write_objects(folder, *encode_array(array, layout))
    plain = zarr.open_array(folder / "a", mode="r")
    np.testing.assert_array_equal(plain[...], array, strict=True)
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{folder}/a"}}
    other = tensorstore.open(spec, open=True).result()
    np.testing.assert_array_equal(other.read().result(), array, strict=True)


def test_big_endian_and_strided_input_give_the_same_bytes():
    array = random_array((6, 8), "uint16")
    turned = np.asfortranarray(array.astype(">u2"))
    assert turned.dtype != array.dtype
    args = ((4, 4), (8, 8), "lz4")
    assert encode_shard(turned, *args) == encode_shard(array, *args)


LAYOUT = Layout((2, 4, 4), (6, 8, 8), "lz4")
VOLUME = random_array((5, 7, 8), "uint16")


@pytest.mark.parametrize("codec", sorted(CODECS))
def test_any_flipped_byte_is_an_error(codec):
    layout = Layout(LAYOUT.chunks, LAYOUT.shards, codec)
    objects, text = encode_array(VOLUME, layout)
    sound, meta = objects[SHARD], parse_metadata(text)
    for place in range(len(sound)):
        data = bytearray(sound)
        data[place] ^= 0x10
        reader = Memory({SHARD: bytes(data)}).reader()
        with pytest.raises(ReadError, match=SHARD):
            reader.read("a", meta, whole(VOLUME.shape))


def test_a_damaged_chunk_is_named():
    objects, text = encode_array(VOLUME, LAYOUT)
    data = bytearray(objects[SHARD])
    data[0] ^= 1
    reader = Memory({SHARD: bytes(data)}).reader()
    with pytest.raises(ReadError, match=f"chunk 0 of shard {SHARD} is damaged; rest"):
        reader.read("a", parse_metadata(text), whole(VOLUME.shape))


def test_a_missing_shard_is_an_error_not_zeros():
    _, text = encode_array(VOLUME, LAYOUT)
    with pytest.raises(ReadError, match=f"shard {SHARD} is missing; restore"):
        Memory({}).reader().read("a", parse_metadata(text), whole(VOLUME.shape))


def test_a_shard_that_vanishes_later_is_an_error():
    objects, text = encode_array(VOLUME, LAYOUT)
    reader, meta = Memory(objects).reader(), parse_metadata(text)
    reader.read("a", meta, whole(VOLUME.shape))
    objects.clear()
    with pytest.raises(ReadError, match="is missing"):
        reader.read("a", meta, whole(VOLUME.shape))


@pytest.mark.parametrize("keep", [0, 1, 3, 19, 20, 100, 0.5, 0.99])
def test_a_truncated_shard_is_an_error(keep):
    objects, text = encode_array(VOLUME, LAYOUT)
    size = keep if isinstance(keep, int) else int(keep * len(objects[SHARD]))
    reader = Memory({SHARD: objects[SHARD][:size]}).reader()
    with pytest.raises(ReadError, match=r"cut short|is damaged"):
        reader.read("a", parse_metadata(text), whole(VOLUME.shape))


@pytest.mark.parametrize("is_distant", [False, True])
@pytest.mark.parametrize("codec", sorted(CODECS))
def test_a_shard_cut_short_later_is_an_error(codec, is_distant):
    """The chunk was checked before, so only the number of bytes tells."""
    layout = Layout(LAYOUT.chunks, LAYOUT.shards, codec)
    objects, text = encode_array(VOLUME, layout)
    store = Memory(objects, is_distant=is_distant)
    reader, meta = store.reader(), parse_metadata(text)
    last = (slice(4, 5), slice(4, 7), slice(4, 8))
    reader.read("a", meta, last)
    objects[SHARD] = objects[SHARD][: -(3 * 2 * 2 * 16 + 4) - 60]
    with pytest.raises(ReadError, match=f"shard {SHARD} is cut short"):
        reader.read("a", meta, last)


def rewrite_index(data, n_chunks, change):
    """Return the shard with another index, whose checksum is right."""
    size = 16 * n_chunks + 4
    entries = np.frombuffer(data[-size:-4], "<u8").reshape(-1, 2).copy()
    change(entries)
    crc = np.array([google_crc32c.value(entries.tobytes())], "<u4")
    return data[:-size] + entries.tobytes() + crc.tobytes()


def test_an_absent_chunk_in_bounds_is_an_error():
    objects, text = encode_array(VOLUME, LAYOUT)
    n_chunks = 3 * 2 * 2

    def forget(entries):
        entries[5] = ABSENT

    objects[SHARD] = rewrite_index(objects[SHARD], n_chunks, forget)
    reader, meta = Memory(objects).reader(), parse_metadata(text)
    with pytest.raises(ReadError, match=f"shard {SHARD} lacks chunk 5"):
        reader.read("a", meta, whole(VOLUME.shape))


@pytest.mark.parametrize("codec", sorted(CODECS))
@pytest.mark.parametrize("payload", [b"", b"x", bytes(40)])
@pytest.mark.parametrize("is_distant", [False, True])
def test_a_chunk_of_another_size_is_an_error(codec, payload, is_distant):
    """Its checksum is right, so only its size tells: blosc would leave garbage."""
    chunk = payload + np.array([google_crc32c.value(payload)], "<u4").tobytes()
    entry = np.array([0, len(chunk)], "<u8").tobytes()
    data = chunk + entry + np.array([google_crc32c.value(entry)], "<u4").tobytes()
    layout = Layout((4, 4, 4), (4, 4, 4), codec)
    text = array_metadata((4, 4, 4), "uint16", ("z", "y", "x"), layout)
    reader = Memory({SHARD: data}, is_distant=is_distant).reader()
    with pytest.raises(ReadError, match="does not hold 128 bytes"):
        reader.read("a", parse_metadata(text), whole((4, 4, 4)))


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_a_blosc_frame_that_holds_less_is_an_error(codec):
    small = encode_shard(np.zeros((2, 4, 4), "u2"), (2, 4, 4), (2, 4, 4), codec)
    layout = Layout((4, 4, 4), (4, 4, 4), codec)
    text = array_metadata((4, 4, 4), "uint16", ("z", "y", "x"), layout)
    reader = Memory({SHARD: small}).reader()
    with pytest.raises(ReadError, match="does not hold 128 bytes"):
        reader.read("a", parse_metadata(text), whole((4, 4, 4)))


def test_requests_are_two_at_first_then_one():
    objects, text = encode_array(VOLUME, LAYOUT)
    store, meta = Memory(objects), parse_metadata(text)
    reader = store.reader()
    for box, expected in [
        ((slice(0, 1), slice(0, 1), slice(0, 1)), 2),  # index and chunk
        ((slice(2, 3), slice(5, 6), slice(6, 7)), 1),  # chunk
        ((slice(2, 3), slice(5, 6), slice(0, 8)), 1),  # two adjacent chunks
        ((slice(0, 2), slice(0, 7), slice(0, 8)), 1),  # a run over two axes
        ((slice(0, 4), slice(0, 1), slice(0, 8)), 2),  # two runs
        ((slice(0, 0), slice(0, 7), slice(0, 8)), 0),  # nothing
        ((slice(1, 1), slice(0, 7), slice(0, 8)), 0),  # nothing, within a chunk
        (whole(VOLUME.shape), 1),
    ]:
        store.log.clear()
        reader.read("a", meta, box)
        assert len(store.log) == expected, box


def test_a_gap_is_bridged():
    objects, text = encode_array(VOLUME, LAYOUT)
    store, meta = Memory(objects), parse_metadata(text)
    box = (slice(0, 4), slice(0, 1), slice(0, 8))
    reader = store.reader(max_gap=1 << 20)
    np.testing.assert_array_equal(reader.read("a", meta, box), VOLUME[box])
    assert len(store.log) == 2  # the index, then all else


def test_runs_are_bounded(monkeypatch):
    objects, text = encode_array(VOLUME, Layout((1, 7, 8), (5, 7, 8), "none"))
    store, meta = Memory(objects), parse_metadata(text)
    monkeypatch.setattr(index, "RUN_BYTES", 2 * (7 * 8 * 2 + 4))
    np.testing.assert_array_equal(
        store.reader().read("a", meta, whole(VOLUME.shape)), VOLUME
    )
    assert len(store.log) == 1 + 3  # the index, then two, two and one chunk


def test_small_caches_forget_and_still_read():
    layout = Layout((1, 4, 4), (1, 8, 8), "lz4")
    objects, text = encode_array(VOLUME, layout)
    store, meta = Memory(objects), parse_metadata(text)
    reader = store.reader(index_bytes=2 * 700)
    for _ in range(3):
        np.testing.assert_array_equal(
            reader.read("a", meta, whole(VOLUME.shape)), VOLUME
        )
    tails = [entry for entry in store.log if entry[2] is None]
    assert len(tails) > len(objects)
    store.log.clear()
    for _ in range(3):
        reader.read("a", meta, (slice(4, 5), slice(0, 8), slice(0, 8)))
    assert len(store.log) == 3  # what was used last is known


def test_checksums_are_verified_once():
    objects, text = encode_array(VOLUME, Layout((5, 7, 8), (5, 7, 8), "none"))
    reader, meta = Memory(objects).reader(), parse_metadata(text)
    reader.read("a", meta, whole(VOLUME.shape))
    data = bytearray(objects[SHARD])
    data[-1 - 4 - 16] ^= 1  # the chunk's own checksum
    objects[SHARD] = bytes(data)
    reader.read("a", meta, whole(VOLUME.shape))
    with pytest.raises(ReadError, match="is damaged"):
        pickle.loads(pickle.dumps(reader)).read("a", meta, whole(VOLUME.shape))


def test_pickled_readers_keep_their_options():
    objects, _ = encode_array(VOLUME, LAYOUT)
    reader = Memory(objects).reader(max_gap=3, cache_bytes=5, index_bytes=7)
    again = pickle.loads(pickle.dumps(reader))
    assert again._max_gap == 3
    assert again._indexes.budget == 7
    assert again._chunks.budget == 5


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_a_reader_leaves_blosc_without_a_pool_of_threads(codec):
    """The pool would not survive the fork of a data loader."""
    objects, text = encode_array(VOLUME, Layout(LAYOUT.chunks, LAYOUT.shards, codec))
    blosc.use_threads = None
    Memory(objects).reader().read("a", parse_metadata(text), whole(VOLUME.shape))
    assert blosc.use_threads is False


def test_threads_share_a_reader():
    objects, text = encode_array(VOLUME, Layout((1, 4, 4), (1, 8, 8), "lz4"))
    reader, meta = Memory(objects).reader(index_bytes=2000), parse_metadata(text)
    boxes = [(slice(z, z + 2), slice(1, 7), slice(0, 8)) for z in range(4)] * 50
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda box: reader.read("a", meta, box), boxes))
    for box, values in zip(boxes, found, strict=True):
        np.testing.assert_array_equal(values, VOLUME[box])


@pytest.mark.parametrize("codec", sorted(CODECS))
def test_boxes_of_the_shape_of_a_chunk_may_lie_anywhere(codec):
    objects, text = encode_array(VOLUME, Layout((2, 4, 4), (6, 8, 8), codec))
    reader, meta = Memory(objects).reader(), parse_metadata(text)
    for start in product(range(4), range(4), range(5)):
        ends = zip(start, (2, 4, 4), strict=True)
        box = tuple(slice(first, first + size) for first, size in ends)
        np.testing.assert_array_equal(reader.read("a", meta, box), VOLUME[box])


@pytest.mark.parametrize("codec", sorted(CODECS))
def test_whole_uncompressed_chunks_are_read_into_place(codec):
    objects, text = encode_array(VOLUME, Layout((1, 7, 8), (5, 7, 8), codec))
    store, meta = Memory(objects), parse_metadata(text)
    reader = store.reader()
    box = (slice(1, 4), slice(0, 7), slice(0, 8))
    for _ in range(2):
        np.testing.assert_array_equal(reader.read("a", meta, box), VOLUME[box])
    assert store.n_filled == (2 * 3 if codec == "none" else 0)


def test_few_rows_of_an_uncompressed_chunk_are_read_alone():
    """But only when all of it was checked once."""
    objects, text = encode_array(VOLUME, Layout((4, 7, 8), (8, 7, 8), "none"))
    store, meta = Memory(objects), parse_metadata(text)
    reader, row = store.reader(), 7 * 8 * 2
    for box, nbytes in [
        ((slice(1, 2), slice(0, 7), slice(0, 8)), 4 * row + 4),
        ((slice(1, 2), slice(0, 7), slice(0, 8)), row),
        ((slice(1, 3), slice(2, 5), slice(1, 8)), 2 * row),
        ((slice(1, 4), slice(2, 5), slice(1, 8)), 4 * row + 4),
        ((slice(3, 5), slice(2, 5), slice(1, 8)), row + 4 * row + 4),
        ((slice(3, 5), slice(2, 5), slice(1, 8)), 2 * row),
    ]:
        store.log.clear()
        np.testing.assert_array_equal(reader.read("a", meta, box), VOLUME[box])
        ranges = [(start, stop) for _, start, stop in store.log if stop is not None]
        assert sum(stop - start for start, stop in ranges) == nbytes, box


BLOCKS = st.tuples(
    st.sampled_from([(16, 128, 128), (5, 100, 300), (33, 64, 64), (7, 33, 31)]),
    st.sampled_from(["lz4", "zstd"]),
    st.sampled_from(["uint8", "int16", "float32"]),
    st.booleans(),
)


@given(BLOCKS, st.integers(0, 99), st.integers(1, 99))
@example(((33, 64, 64), "lz4", "uint8", False), 32, 1)  # all in a short last block
@settings(max_examples=60, deadline=None)
def test_rows_of_a_frame_are_those_of_the_whole(case, first, n_rows):
    shape, codec, dtype, is_noise = case
    array = random_array(shape, dtype)
    if not is_noise:  # else some frames hold their content as it is
        array = (np.arange(array.size).reshape(shape) // 50 % 99).astype(dtype)
    text = array_metadata(shape, dtype, ("z", "y", "x"), Layout(shape, shape, codec))
    meta = parse_metadata(text)
    shard = np.frombuffer(encode_shard(array, shape, shape, codec), np.uint8)
    payload = shard[: -(16 + 4) - 4]
    first %= shape[0]
    end = min(shape[0], first + n_rows)
    found = rows.decode_rows(payload, meta, first, end)
    if found is not None:
        np.testing.assert_array_equal(found, array[first:end], strict=True)
    inside = (slice(first, end), slice(3, 20), slice(5, 30))
    target = np.zeros(array[inside].shape, dtype)
    codecs.place(payload, meta, [(target, inside)])
    np.testing.assert_array_equal(target, array[inside])


def test_few_rows_are_decoded_alone_unless_blocks_are_out_of_order():
    shape = (16, 128, 128)
    array = (np.arange(1 << 18).reshape(shape) // 50 % 99).astype("i2")
    text = array_metadata(shape, "int16", ("z", "y", "x"), Layout(shape, shape, "zstd"))
    meta = parse_metadata(text)
    shard = encode_shard(array, shape, shape, "zstd")
    payload = np.frombuffer(shard, np.uint8)[: -(16 + 4) - 4].copy()
    found = rows.decode_rows(payload, meta, 9, 10)
    np.testing.assert_array_equal(found, array[9:10])
    assert rows.decode_rows(payload, meta, 1, 16) is None  # nearly all
    starts = payload[16 : 16 + 4 * 16].view("<u4")
    starts[:2] = starts[1::-1]
    assert rows.decode_rows(payload, meta, 9, 10) is None


def test_bytes_are_the_same_on_repeat_and_in_threads():
    z, y, x = np.ogrid[:8, :256, :256]
    array = (1000 + 20 * z + y * x % 97).astype(np.uint16)
    for codec in CODECS:
        args = (array, (8, 256, 256), (8, 256, 256), codec)
        first = encode_shard(*args)
        blosc.use_threads = True  # as another library may have left it
        assert {encode_shard(*args) for _ in range(5)} == {first}
        found = []
        threads = [
            threading.Thread(target=lambda: found.append(encode_shard(*args)))  # noqa: B023
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [first, first]


def test_chunks_out_of_bounds_are_absent_and_fill_is_written():
    data = encode_shard(np.zeros((3, 3), "u1"), (2, 2), (8, 4), "none")
    entries = np.frombuffer(data[-(8 * 16 + 4) : -4], "<u8").reshape(4, 2, 2)
    assert (entries[2:] == ABSENT).all()
    assert entries[:2, :, 0].ravel().tolist() == [0, 8, 16, 24]
    assert (entries[:2, :, 1] == 8).all()
    edge = encode_shard(np.zeros((1,), "u1"), (2,), (2,), "none", fill=7)
    assert edge[:2] == b"\x00\x07"


@pytest.mark.parametrize(
    ("shape", "chunks", "shards"),
    [((5,), (2,), (4,)), ((4,), (3,), (4,)), ((0,), (2,), (4,)), ((), (), ())],
)
def test_layouts_that_do_not_fit_are_refused(shape, chunks, shards):
    with pytest.raises(PlanError, match="plan its layout again"):
        encode_shard(np.zeros(shape, "u1"), chunks, shards, "lz4")


def edited(**changes):
    _, text = encode_array(VOLUME, LAYOUT)
    meta = json.loads(text)
    sharding = meta["codecs"][0]["configuration"]
    for key, value in changes.items():
        (sharding if key in sharding else meta)[key] = value
    return json.dumps(meta)


def test_metadata_says_what_the_reader_needs():
    meta = parse_metadata(edited())
    assert (meta.shape, meta.chunks, meta.shards) == ((5, 7, 8), (2, 4, 4), (6, 8, 8))
    assert (meta.dtype, meta.dimension_names) == (np.dtype("<u2"), ("z", "y", "x"))
    assert meta.compressed


LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
BIG = {"name": "bytes", "configuration": {"endian": "big"}}
CRC = {"name": "crc32c"}


@pytest.mark.parametrize(
    "changes",
    [
        {"index_location": "start"},
        {"index_codecs": [LITTLE]},
        {"codecs": [BIG]},
        {"codecs": [BIG, CRC]},
        {"codecs": [LITTLE, {"name": "gzip", "configuration": {"level": 1}}, CRC]},
        {"data_type": "complex64"},
        {"data_type": {"name": "numpy.datetime64"}},
        {"chunk_key_encoding": {"name": "v2"}},
    ],
)
def test_unknown_metadata_is_left_to_zarr(changes):
    assert parse_metadata(edited(**changes)) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"zarr_format":3}', "null"])
def test_what_is_no_metadata_is_an_error(text):
    with pytest.raises(ReadError, match="not that of a Zarr v3 array"):
        parse_metadata(text)


def test_a_group_is_no_array():
    with pytest.raises(ReadError):
        parse_metadata(edited(node_type="group"))


def test_arrays_of_zarr_python_are_read_where_the_chain_is_known(tmp_path: Path):
    array = random_array((9, 10), "int16")
    theirs = zarr.create_array(
        tmp_path / "a",
        shape=array.shape,
        dtype=array.dtype,
        chunks=(3, 5),
        shards=(6, 10),
        compressors=[
            zarr.codecs.BloscCodec(typesize=2, cname="zstd", shuffle="shuffle"),
            zarr.codecs.Crc32cCodec(),
        ],
    )
    theirs[...] = array
    meta = parse_metadata((tmp_path / "a" / "zarr.json").read_text())
    objects = {
        str(path.relative_to(tmp_path)): path.read_bytes()
        for path in tmp_path.rglob("*")
        if path.is_file()
    }
    found = Memory(objects).reader().read("a", meta, whole(array.shape))
    np.testing.assert_array_equal(found, array)
    assert prod(meta.grid) == 4
