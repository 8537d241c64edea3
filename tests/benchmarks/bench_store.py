"""An object store behind 30 ms of latency: samples, whole shards and headers.

The store is a small HTTP server in a process of its own, on the same cores.
"""

import asyncio
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from threading import local
from typing import Any

import aiohttp
import fsspec
import numpy as np
import pydicom
import zarr
from zarr.storage import FsspecStore

import dicomdask
from dicomdask.dataset import Dataset
from dicomdask.limits import AHEAD_FILES
from dicomdask.model import SourceFile
from dicomdask.tasks.index import read_instances
from tests.benchmarks import readers, slow_server
from tests.benchmarks.contest import Contender, Contest, Report, align, compete
from tests.benchmarks.corpus import Corpus, Pick, Volumes, make_corpus
from tests.benchmarks.slow_server import Server

Array = np.ndarray[Any, np.dtype[Any]]
LATENCY = 0.03
IN_FLIGHT = (1, 16, 64)
HEADER_BYTES = 1 << 14
SHARDS_AHEAD = 2
RAW, OURS, ZARR = "raw DICOM GET, pydicom", "dicomdask", "zarr-python"


def run(scale_name: str) -> Report:
    """Compare readers by how many requests are in flight, and count requests."""
    corpus = make_corpus(scale_name)
    latency = LATENCY if corpus.scale.name == "full" else 0.001
    with (
        corpus.dataset("slice", "lz4") as volumes,
        slow_server.start(corpus.folder, latency=latency) as server,
        ExitStack() as stack,
    ):
        far = _Far(corpus, volumes, server, stack)
        contests = {n: _samples(far, n) for n in IN_FLIGHT}
        shards = _whole_shards(far)
        requests = _requests(far)
        headers, per_header = _headers(far)
    most = contests[IN_FLIGHT[-1]]
    measures = {
        "store / zarr-python, 64 in flight": most.ratio(OURS, ZARR),
        "store: requests a sample": requests[OURS],
        "store: requests a sample, first touch": requests[f"{OURS}, first touch"],
        "store, whole shards / raw DICOM": min(
            shards.ratio(f"{OURS}, whole shards, shuffled", one)
            for one in shards.timings
            if one.startswith(RAW)
        ),
        "store, headers / bare range GETs": headers.ratio(OURS, "bare range GETs"),
        "store: requests a header": per_header,
    }
    told = [(name, f"{n:.2f}") for name, n in requests.items()]
    table = "requests a sample\n" + align(told)
    return Report((*contests.values(), shards, headers), measures, (table,))


class _Far:
    """A corpus and a dataset of it behind a server."""

    def __init__(
        self, corpus: Corpus, volumes: Volumes, server: Server, stack: ExitStack
    ) -> None:
        self.corpus, self.volumes, self.server = corpus, volumes, server
        self.url = f"{server.url}/{Path(volumes.dataset.store).name}"
        self.dataset = self.open()
        width = corpus.scale.width
        self.size = (1, width, width)
        self._local, self._stack = local(), stack

    def open(self) -> Dataset:
        """Open the dataset anew; its tables are read."""
        dataset = dicomdask.open_dataset(self.url)
        assert len(dataset.volumes) == len(self.volumes.ids)
        return dataset

    def ours(self, dataset: Dataset) -> readers.Reader:
        return readers.dicomdask(Volumes(dataset, self.volumes.ids))

    def zarr_python(self) -> readers.Reader:
        arrays = []
        for number in range(len(self.volumes.ids)):
            store = FsspecStore.from_url(f"{self.url}/{self.volumes.key(number)}")
            arrays.append(zarr.open_array(store, mode="r"))
        return lambda pick: np.asarray(arrays[pick[0]][pick[1]])

    def dicom(self) -> readers.Reader:
        def read(pick: Pick) -> Array:
            path = self.corpus.paths[pick[0]][pick[1][0].start]
            name = path.relative_to(self.corpus.folder)
            ds = pydicom.dcmread(io.BytesIO(self._get(f"/{name}")))
            return ds.pixel_array[np.newaxis]

        return read

    def _get(self, path: str) -> bytes:
        """Return an object; each thread keeps its connection."""
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = HTTPConnection(self.server.host, self.server.port)
            self._local.connection = connection
            self._stack.callback(connection.close)
        connection.request("GET", path)
        return connection.getresponse().read()


def _samples(far: _Far, in_flight: int) -> Contest:
    """Let all read random slices, so many at a time."""
    n = far.corpus.scale.n_far_reads * min(in_flight, 8)
    picks = far.corpus.picks(far.size, n)
    ones = {
        ZARR: far.zarr_python(),
        OURS: far.ours(far.dataset),
        RAW: far.dicom(),
    }
    contenders = {
        name: Contender(partial(_at_once, read, picks, in_flight), n)
        for name, read in ones.items()
    }
    many = readers.dicomdask_many(Volumes(far.dataset, far.volumes.ids))
    if in_flight > 1:
        batches = [picks[start : start + in_flight] for start in range(0, n, in_flight)]
        name = f"{OURS}, read_many of {in_flight}"
        contenders[name] = Contender(partial(_at_once, many, batches, 1), n)
    return compete(
        f"store, {in_flight} in flight: {far.corpus.told}",
        contenders,
        unit="slices",
        reference=ZARR,
        rounds=far.corpus.scale.few_rounds,
        outputs={name: [read(p) for p in picks[:2]] for name, read in ones.items()},
    )


def _at_once(
    read: Callable[[Any], Any], items: Sequence[Any], in_flight: int
) -> list[Any]:
    if in_flight == 1:
        return [read(item) for item in items]
    with ThreadPoolExecutor(in_flight) as pool:
        return list(pool.map(read, items))


def _requests(far: _Far) -> Mapping[str, float]:
    """Return the requests a sample: indexes cached, and at the first touch of each."""
    picks = far.corpus.picks(far.size, far.corpus.scale.n_far_reads * 8)
    each = [(number, pick[1]) for number, pick in enumerate(picks)]
    firsts = each[: len(far.volumes.ids)]
    cached, fresh = far.ours(far.dataset), far.ours(far.open())
    _at_once(cached, firsts, 1)
    zarr_python = far.zarr_python()
    far.server.count()
    found = {}
    for name, read, some in (
        (OURS, cached, picks),
        (f"{OURS}, first touch", fresh, firsts),
        (ZARR, zarr_python, picks),
    ):
        _at_once(read, some, 16)
        found[name] = far.server.count() / len(some)
    return found


# --- whole shards -------------------------------------------------------------


def _whole_shards(far: _Far) -> Contest:
    """Let whole shards through a buffer compete with single files at their best."""
    n = len(far.volumes.ids) // 2 * far.corpus.scale.n_slices
    picks = far.corpus.picks(far.size, far.corpus.scale.n_far_reads * 8)
    dicom = far.dicom()
    contenders = {
        f"{RAW}, {count} in flight": Contender(
            partial(_at_once, dicom, picks, count), len(picks)
        )
        for count in IN_FLIGHT[1:]
    }
    name = f"{OURS}, whole shards, shuffled"
    contenders[name] = Contender(lambda: sum(1 for _ in _shuffled(far)), n)
    totals = {
        name: sum(int(one.sum(dtype=np.int64)) for one in _shuffled(far)),
        "memmap": sum(
            int(one.sum(dtype=np.int64))
            for one in far.corpus.stored[: n // far.corpus.scale.n_slices]
        ),
    }
    return compete(
        f"store, whole shards: {far.corpus.told}",
        contenders,
        unit="slices",
        reference=f"{RAW}, {IN_FLIGHT[-1]} in flight",
        rounds=far.corpus.scale.few_rounds,
        outputs={name: [total] for name, total in totals.items()},
    )


def _shuffled(far: _Far) -> Iterator[Array]:
    """Yield the slices of half the volumes, in random order within a buffer of two."""
    rng = np.random.default_rng(0)
    dataset = far.dataset
    ids = far.volumes.ids[: len(far.volumes.ids) // 2]
    held: list[Array] = []
    with ThreadPoolExecutor(SHARDS_AHEAD) as pool:
        for volume in pool.map(dataset.read, ids):
            held += list(volume)
            while len(held) > len(volume):
                yield _take(held, rng)
    while held:
        yield _take(held, rng)


def _take(held: list[Array], rng: np.random.Generator) -> Array:
    place = int(rng.integers(len(held)))
    held[place], held[-1] = held[-1], held[place]
    return held.pop().copy()  # so that no sample holds a volume


# --- headers ------------------------------------------------------------------


def _headers(far: _Far) -> tuple[Contest, float]:
    """Let the index compete with ranges that nobody parses; count its requests."""
    folder, server = far.corpus.folder, far.server
    paths = [path for series in far.corpus.paths for path in series]
    paths = paths[: far.corpus.scale.n_headers]
    names = [str(path.relative_to(folder)) for path in paths]
    files = [
        SourceFile(f"{server.url}/{name}", path.stat().st_size, "")
        for name, path in zip(names, paths, strict=True)
    ]
    urls = [file.url for file in files]
    n = len(files)
    contenders = {
        "bare range GETs": Contender(partial(_bare, urls), n),
        "bare range GETs, aiohttp alone": Contender(
            lambda: asyncio.run(_bare_aiohttp(urls)), n
        ),
        OURS: Contender(partial(read_instances, files), n),
        "pydicom over fsspec": Contender(
            partial(_at_once, _read_pydicom, urls[: n // 4], AHEAD_FILES), n // 4
        ),
    }
    server.count()
    uids = [one.sop_instance_uid for one in read_instances(files)]
    per_header = server.count() / n
    contest = compete(
        f"store, headers, {AHEAD_FILES} in flight: {far.corpus.told}",
        contenders,
        unit="headers",
        reference="bare range GETs",
        rounds=far.corpus.scale.few_rounds,
        outputs={
            OURS: uids,
            "pydicom": [_read_pydicom(url) for url in urls[:2]] + uids[2:],
            "local": [pydicom.dcmread(p).SOPInstanceUID for p in paths[:3]] + uids[3:],
        },
    )
    return contest, per_header


def _bare(urls: Sequence[str]) -> None:
    filesystem = fsspec.filesystem("http")
    get = partial(filesystem.cat_file, start=0, end=HEADER_BYTES)
    _at_once(get, urls, AHEAD_FILES)


async def _bare_aiohttp(urls: Sequence[str]) -> None:
    turns = asyncio.Semaphore(AHEAD_FILES)
    headers = {"Range": f"bytes=0-{HEADER_BYTES - 1}"}
    async with aiohttp.ClientSession() as session:

        async def get(url: str) -> None:
            async with turns, session.get(url, headers=headers) as answer:
                await answer.read()

        await asyncio.gather(*map(get, urls))


def _read_pydicom(url: str) -> str:
    with fsspec.open(url) as file:
        return str(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID)
