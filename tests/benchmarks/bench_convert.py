"""Convert: the whole way, against what cannot be avoided of it."""

import io
import json
import shutil
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import pydicom
import zarr
from pydicom.dataset import FileDataset

import dicomdask
from dicomdask import deid, rows, shards, storage, tables
from dicomdask.layout import choose_layout
from dicomdask.policy import load_policy
from dicomdask.pseudonym import Key
from dicomdask.tasks import commit as commit_task
from dicomdask.tasks import encode, looks, planning, resolve
from dicomdask.tasks import index as index_task
from tests.benchmarks.contest import Contender, Report, align, compete
from tests.benchmarks.inputs import SCALES, Scale, Series, write_inputs
from tests.benchmarks.real import find_images

UNAVOIDABLE = ("read", "parse", "de-identify", "header JSON", "decode", "encode")
STAGES = (
    ("list", index_task, "list_sources"),
    ("index: header", index_task.header, "read_instance"),
    ("read", resolve.storage, "read"),
    ("parse", resolve.header, "read_dataset"),
    ("decode", encode.pixels.FrameDecoder, "decode"),
    ("decode: meaning", encode.pixels, "read_meaning"),
    ("de-identify", encode.deid, "clean_header"),
    ("header JSON", encode.deid, "header_json"),
    ("look", looks.burnedin, "look"),
    ("look", looks.burnedin, "look_beside"),
    ("look: blank", looks.pixels, "blank"),
    ("encode", encode.shards, "encode_shard"),
    ("statistics", encode, "statistics"),
    ("rows", rows, "part_of"),
    ("rows: Parquet", tables, "part_to_parquet"),
    ("plan", planning.plan, "plan_instances"),
    ("commit", commit_task, "commit"),
    ("write, fsync", storage, "write"),
    ("write, fsync", storage, "create"),
)
"""What is timed of a conversion; of nested ones the inner counts."""
LOOK = ("look", "look: blank")
TOGETHER = {
    "de-identification": ("de-identify", "header JSON"),
    "looking for text": LOOK,
}
"""Stages whose shares are told as one."""
TRUSTED = "US OT SC CR DX MG XA RF SM SEG RTDOSE XC OP OPT ES GM IVUS PX IO RTIMAGE"
EVERYTHING: dict[str, Any] = {
    "scheduler": "synchronous",
    "on_irregular": "split",
    "trust_pixels": TRUSTED.split(),
}
"""So that of real files as many are stored as can be."""
LOOKED_AT: dict[str, Any] = {
    "scheduler": "synchronous",
    "on_irregular": "split",
    "options": ["clean-pixels"],
}
"""So that of real files those at risk are looked at, and only those."""


def run(scale_name: str) -> Report:
    """Compare with the sum of unavoidable costs, and with what one writes at first."""
    scale = SCALES[scale_name]
    with TemporaryDirectory() as name:
        folder = Path(name)
        series = write_inputs(folder / "series", scale)
        stages = _Unavoidable(series)
        contenders: dict[str, Callable[[], Any]] = {
            "unavoidable costs": stages.run,
            "dicomdask": partial(_convert, series, folder, count()),
            "pydicom, zarr-python": partial(_naive, series, folder / "naive"),
        }
        contest = compete(
            f"convert: {series.told}",
            {n: Contender(c, scale.n_slices) for n, c in contenders.items()},
            unit="slices",
            reference="unavoidable costs",
            rounds=scale.few_rounds,
        )
        n = len(series.paths)
        slices = series.paths[0].parent
        told, store = series.told, folder / "shares.zarr"
        notes = [_shares(slices, n, told, store, "de-identification", EVERYTHING)]
        rerun, told = _rerun(series, folder / "rerun.zarr", scale)
        pile, n = _mixed(folder, scale)
        if n:
            told_of = f"{n} real files of all kinds"
            of_all, store = (pile, n, told_of), folder / "mixed.zarr"
            notes.append(_shares(*of_all, store, "de-identification", EVERYTHING))
            store = folder / "looked.zarr"
            notes.append(_shares(*of_all, store, "looking for text", LOOKED_AT))
    measures = {
        "convert / unavoidable": contest.ratio("dicomdask", "unavoidable costs"),
        "convert: finished again": rerun,
    }
    return Report((contest,), measures, (stages.text(), *notes, told))


def _convert(series: Series, folder: Path, numbers: Iterator[int]) -> np.ndarray:
    number = next(numbers)
    store = folder / f"{number}.zarr"
    source = str(series.paths[0].parent)
    dicomdask.convert(source, str(store), scheduler="synchronous")
    if number:
        return np.empty(0)  # only what the warm-up wrote is read
    dataset = dicomdask.open_dataset(str(store))
    return dataset.read(dataset.volumes["volume_id"][0])


def _naive(series: Series, store: Path) -> np.ndarray:
    """Do what one writes at first: no order, no geometry, nothing de-identified."""
    array = np.stack([pydicom.dcmread(path).pixel_array for path in series.paths])
    layout = choose_layout(array.shape, array.dtype)
    codec = zarr.codecs.BloscCodec(cname="lz4", clevel=5, shuffle="shuffle")
    made = zarr.create_array(
        store,
        shape=array.shape,
        dtype=array.dtype,
        chunks=layout.chunks,
        shards=layout.shards,
        compressors=codec,
        overwrite=True,
    )
    made[...] = array
    return array


class _Unavoidable:
    """The costs that no converter avoids, each paid once and at its best."""

    def __init__(self, series: Series) -> None:
        self._series = series
        self._policy, self._key = load_policy("research"), Key(bytes(range(32)))
        shape, dtype = series.stored.shape, series.stored.dtype
        self._layout = choose_layout(shape, dtype)
        self._rounds: list[list[float]] = []

    def run(self) -> np.ndarray:
        """Do one stage after the other over the whole series; return the array."""
        times = [time.perf_counter()]
        data = self._past(times, [path.read_bytes() for path in self._series.paths])
        parsed = self._past(times, [pydicom.dcmread(io.BytesIO(one)) for one in data])
        clean = [deid.clean_header(ds, self._policy, self._key) for ds in parsed]
        self._past(times, clean)
        self._past(times, [json.dumps(deid.header_json(ds)) for ds in clean])
        array = self._past(times, self._decode(parsed))
        shape = self._layout.shards
        packed = []
        for start in range(0, len(array), shape[0]):
            piece = array[start : start + shape[0]]
            packed.append(
                shards.encode_shard(
                    piece, self._layout.chunks, shape, self._layout.codec
                )
            )
        self._past(times, packed)
        self._rounds.append(np.diff(times).tolist())
        return array

    @staticmethod
    def _past(times: list[float], result: Any) -> Any:
        times.append(time.perf_counter())
        return result

    def _decode(self, parsed: list[FileDataset]) -> np.ndarray:
        stored = self._series.stored
        array = np.empty_like(stored)
        for place, ds in zip(array, parsed, strict=True):
            raw = ds.get_item("PixelData").value
            place[...] = np.frombuffer(raw, stored.dtype).reshape(place.shape)
        return array

    def text(self) -> str:
        """Return the milliseconds a slice of each stage."""
        columns = zip(*self._rounds, strict=True)
        n = len(self._series.paths)
        lines = [
            (stage, f"{1e3 * median(column) / n:.3f}")
            for stage, column in zip(UNAVOIDABLE, columns, strict=True)
        ]
        return "unavoidable costs\n" + align([("", "ms a slice"), *lines])


def _shares(
    source: Path,
    n: int,
    told: str,
    store: Path,
    name: str,
    options: dict[str, Any],
) -> str:
    """Convert once under stopwatches; return each stage's share of the time.

    De-identification is what cleans headers and writes what is left of them; of
    those of a name of `TOGETHER` the sum is told as well.
    """
    seconds: dict[str, float] = defaultdict(float)
    with _stopwatches(seconds):
        started = time.perf_counter()
        done = dicomdask.convert(str(source), str(store), **options)
        total = time.perf_counter() - started
    share = sum(seconds[stage] for stage in TOGETHER[name]) / total
    seconds["all else"] = total - sum(seconds.values())
    lines = [
        (stage, f"{1e3 * spent / n:.3f}", f"{spent / total:.1%}")
        for stage, spent in sorted(seconds.items(), key=lambda item: -item[1])
    ]
    n_stored = done.commit.counts["stored"]
    return "\n".join(
        (
            f"stages of convert: {told}, {n_stored} stored",
            align([("", "ms a file", "share"), *lines]),
            f"{name} is {share:.1%} of convert",
        )
    )


def _mixed(folder: Path, scale: Scale) -> tuple[Path, int]:
    """Return a folder with copies of real images of all kinds, and their number."""
    found = find_images()[:: 1 if scale.name == "full" else 40]
    pile = folder / "mixed"
    pile.mkdir()
    for number, one in enumerate(found):
        shutil.copy(one.path, pile / f"{number:05d}.dcm")
    return pile, len(found)


@contextmanager
def _stopwatches(seconds: dict[str, float]) -> Iterator[None]:
    """Take the time of each stage, without that of the stages within it."""
    inner = [0.0]

    def timed(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if threading.current_thread() is not threading.main_thread():
                return function(*args, **kwargs)  # what waits for it is timed
            started = time.perf_counter()
            inner.append(0.0)
            try:
                return function(*args, **kwargs)
            finally:
                spent = time.perf_counter() - started
                seconds[stage] += spent - inner.pop()
                inner[-1] += spent

        return call

    with ExitStack() as stack:
        for stage, place, name in STAGES:
            watched = timed(stage, getattr(place, name))
            stack.enter_context(patch.object(place, name, watched))
        yield


def _rerun(series: Series, store: Path, scale: Scale) -> tuple[float, str]:
    """Return what share of the first run a run of the finished job takes."""
    source = str(series.paths[0].parent)
    spent = []
    for _ in range(1 + scale.few_rounds):
        started = time.perf_counter()
        dicomdask.convert(source, str(store), scheduler="synchronous")
        spent.append(time.perf_counter() - started)
    first, again = spent[0], median(spent[1:])
    told = f"finished job again: {1e3 * again:.0f} ms after {1e3 * first:.0f} ms"
    return again / first, told
