"""Layout: chunk shapes and codecs side by side, for each kind of array.

Every layout is encoded, and read by the reader of shards. Rates are per second of CPU,
which what else runs on a machine disturbs least. The least share of a layout is its
rate at the worst kind of read, against the layout that is best at it: the most balanced
layout has the largest.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from dicomdask import arrays, storage
from dicomdask.model import Layout
from dicomdask.shards import (
    CODECS,
    ArrayMeta,
    ShardReader,
    encode_shard,
    parse_metadata,
    shard_key,
)
from tests.benchmarks import real
from tests.benchmarks.contest import Contender, Contest, Report, align, compete
from tests.benchmarks.inputs import SCALES, Scale

Array = np.ndarray[Any, np.dtype[Any]]
Shape = tuple[int, ...]
Box = tuple[slice, ...]
Read = tuple[int, Box]  # which array, and what of it


@dataclass(frozen=True, slots=True)
class Subject:
    """Arrays of one kind, the chunks to try, and what is read of them."""

    title: str
    arrays: Sequence[Array]
    chunks: Sequence[Shape]
    reads: Mapping[str, Sequence[Read]]
    shards: Sequence[int] = ()
    """Depths of shards to try besides, of the first chunks."""


@dataclass(frozen=True, slots=True)
class Written:
    """Arrays in one layout: where they are, how large, and what writing took."""

    name: str
    meta: ArrayMeta
    ratio: float
    megabytes_per_cpu_second: float


class _CountedRanges(storage.Ranges):
    """Ranges that are counted, and their bytes; the indexes of shards are left out."""

    requests = nbytes = 0

    def read_into(self, path: str, start: int, buffers: Sequence[Any]) -> int:
        found = super().read_into(path, start, buffers)
        self.requests += 1
        self.nbytes += found
        return found

    def get_many(self, wanted: Sequence[Any]) -> Iterator[Any]:
        sizes = [stop - start for _, start, stop in wanted if stop is not None]
        self.requests += len(sizes)
        self.nbytes += sum(sizes)
        yield from super().get_many(wanted)


class Counted:
    """A reader over counted ranges."""

    def __init__(self, folder: Path) -> None:
        self.ranges = _CountedRanges(str(folder))
        self.renew()

    def renew(self) -> None:
        """Forget what was read: indexes, and which chunks were checked."""
        self.reader = ShardReader(self.ranges)


def run(scale_name: str) -> Report:
    """Compare layouts of volumes, projections and cines."""
    scale = SCALES[scale_name]
    contests: list[Contest] = []
    remarks = []
    for subject in (_ct(scale), _mr(scale), _projection(scale), _cine(scale)):
        with TemporaryDirectory() as name:
            for codec in CODECS:
                found, text = _compare(subject, codec, Path(name), scale)
                contests += found
                remarks.append(text)
            if subject.shards:
                contests.append(_compare_shards(subject, Path(name), scale))
                remarks.append(contests[-1].table())
    return Report(tuple(contests), {}, tuple(remarks))


# --- what is read -------------------------------------------------------------


def _ct(scale: Scale) -> Subject:
    """Two volumes of the CT series that use more than 8 bits."""
    found = [one for one in real.real_series("CT", 512) if one.max() > 255]
    shape = (scale.n_deep, scale.width, scale.width)
    cuts = [(1, 1, 1), (1, 2, 2), (2, 2, 2), (4, 2, 2), (4, 4, 4), (8, 4, 4)]
    cuts += [(16, 4, 4), (32, 4, 4), (8, 8, 8), (16, 8, 8), (32, 8, 8), (32, 16, 16)]
    stacks, told = _stacks(found, 2, shape)
    return Subject(
        f"CT {shape}, {told}",
        stacks,
        _fractions(shape, cuts),
        _volume_reads(scale, shape, (scale.patch, scale.patch * 3 // 2)),
        shards=tuple(scale.n_deep // n for n in (8, 4, 2, 1)),
    )


def _mr(scale: Scale) -> Subject:
    width = scale.width // 2
    found = real.real_series("MR", 256)
    shape = (scale.n_deep, width, width)
    cuts = [(1, 1, 1), (4, 1, 1), (4, 2, 2), (8, 2, 2), (16, 2, 2), (32, 2, 2)]
    cuts += [(16, 4, 4), (32, 4, 4), (32, 8, 8)]
    stacks, told = _stacks(found, 4, shape)
    return Subject(
        f"MR {shape}, {told}",
        stacks,
        _fractions(shape, cuts),
        _volume_reads(scale, shape, (scale.patch, scale.patch * 3 // 2)),
    )


def _stacks(found: Sequence[Array], n: int, shape: Shape) -> tuple[list[Array], str]:
    if not found or found[0].shape[1:] != shape[1:]:
        made = [real.generated(shape[0], shape[1], seed) for seed in range(n)]
        return made, "generated"
    used = [found[number % len(found)] for number in range(n)]
    told = f"{n} volumes of {sum(map(len, found[:n]))} real slices, moved and repeated"
    return [real.continued(one, shape[0], k) for k, one in enumerate(used)], told


def _fractions(shape: Shape, cuts: Iterable[Shape]) -> list[Shape]:
    """Return chunks: a depth each, and the plane cut so many times."""
    return [
        (min(depth, shape[0]), shape[1] // rows, shape[2] // columns)
        for depth, rows, columns in cuts
    ]


def _volume_reads(
    scale: Scale, shape: Shape, sides: Iterable[int]
) -> dict[str, list[Read]]:
    rng = np.random.default_rng(3)
    slices = [
        (
            int(rng.integers(2)),
            _box((int(rng.integers(shape[0])), 0, 0), (1, *shape[1:])),
        )
        for _ in range(scale.n_layout_reads)
    ]
    reads = {"slices": slices}
    for side in sides:
        reads[f"{side}³"] = _patches(rng, scale.n_layout_reads // 2, shape, (side,) * 3)
    return {**reads, "volumes": [(0, _box((0, 0, 0), shape))]}


def _patches(rng: np.random.Generator, n: int, shape: Shape, size: Shape) -> list[Read]:
    room = [extent - side + 1 for extent, side in zip(shape, size, strict=True)]
    return [
        (int(rng.integers(2)), _box(rng.integers(0, room).tolist(), size))
        for _ in range(n)
    ]


def _box(corner: Sequence[int], size: Shape) -> Box:
    return tuple(
        slice(start, start + side) for start, side in zip(corner, size, strict=True)
    )


def _projection(scale: Scale) -> Subject:
    """Two large images, each of a real one and its mirror images."""
    found = [
        one.path
        for one in real.find_images()
        if one.modality in ("CR", "DX")
        and len(one.shape) == 2
        and min(one.shape) > 1000
    ]
    side = 7 * scale.width
    images = [real.read_pixels(path) for path in found[:2]]
    if scale.name == "tiny" or len(images) < 2 or any(one is None for one in images):
        stacks, told = (
            [real.generated(1, side, seed)[0] for seed in (0, 1)],
            "generated",
        )
    else:
        told = "2 real images and their mirror images"
        stacks = [
            np.ascontiguousarray(
                np.pad(one, ((0, side),) * 2, "symmetric")[:side, :side]
            )
            for one in images
            if one is not None
        ]
    rng = np.random.default_rng(4)
    n = scale.n_layout_reads // 2
    crops = [scale.width // 2, scale.width]
    reads = {f"{one}²": _patches(rng, n, (side, side), (one, one)) for one in crops}
    reads["images"] = [(0, _box((0, 0), (side, side)))]
    cuts = [(side, side), (scale.width // 4, side)]
    cuts += [(scale.width * 2 // n, scale.width * 2 // n) for n in (1, 2, 4, 8)]
    return Subject(f"projection ({side}, {side}), {told}", stacks, cuts, reads)


def _cine(scale: Scale) -> Subject:
    """Two colour cines of the frames of a real one."""
    found = [one for one in real.find_images() if one.shape == (30, 240, 320, 3)]
    clip = real.read_pixels(found[0].path) if found and scale.name != "tiny" else None
    if clip is None:
        frames = real.generated(10, scale.width).astype(np.uint8)
        clip, told = np.stack([frames] * 3, axis=-1), "generated"
    else:
        told = "a real one twice"
    planes = np.ascontiguousarray(np.moveaxis(clip, -1, 1))
    shape = planes.shape
    rng = np.random.default_rng(5)
    n = scale.n_layout_reads // 2
    reads = {
        "frames": _patches(rng, n, shape, (1, *shape[1:])),
        "clips of 8": _patches(rng, n, shape, (8, *shape[1:])),
        "cines": [(0, _box((0, 0, 0, 0), shape))],
    }
    cuts = [(depth, *shape[1:]) for depth in (1, 2, 4, 8)]
    cuts += [(8, 3, shape[2] // 2, shape[3] // 2), (8, 3, 64, 64)]
    return Subject(f"cine {shape}, {told}", [planes, planes], cuts, reads)


# --- comparison ---------------------------------------------------------------


def _compare(
    subject: Subject, codec: str, folder: Path, scale: Scale
) -> tuple[list[Contest], str]:
    """Let all chunks of a subject compete at each kind of read."""
    written = {
        _name(chunks): _write(
            subject, Layout(chunks, _whole(subject, chunks), codec), folder
        )
        for chunks in subject.chunks
    }
    counted = Counted(folder)
    reference = _name(subject.chunks[0])
    contests, needs = {}, {}
    for what, reads in subject.reads.items():
        contenders = {
            name: Contender(_reading(counted, one, reads), len(reads))
            for name, one in written.items()
        }
        contests[what] = compete(
            f"layout, {what}, {codec}: {subject.title}",
            contenders,
            unit=what,
            reference=reference,
            rounds=scale.rounds,
            outputs={
                name: _first(counted, one, reads) for name, one in written.items()
            },
        )
        needs[what] = {
            name: _need(counted, one, reads) for name, one in written.items()
        }
    text = _table(f"{codec}: {subject.title}", written, contests, needs)
    return list(contests.values()), text


def _name(chunks: Shape) -> str:
    return " ".join(map(str, chunks))


def _whole(subject: Subject, chunks: Shape) -> Shape:
    shape = subject.arrays[0].shape
    return tuple(-(-n // c) * c for n, c in zip(shape, chunks, strict=True))


def _write(subject: Subject, layout: Layout, folder: Path) -> Written:
    first = subject.arrays[0]
    text = arrays.array_metadata(
        first.shape, first.dtype, tuple("tczyx"[-first.ndim :]), layout
    )
    meta = parse_metadata(text)
    if meta is None:
        raise ValueError("the reader of shards knows what we write")
    name = f"{layout.codec}-{_name(layout.chunks)}-{layout.shards[0]}"
    spent = stored = 0.0
    for number, array in enumerate(subject.arrays):
        for corner in range(-(-first.shape[0] // layout.shards[0])):
            depth = layout.shards[0]
            piece = array[corner * depth : (corner + 1) * depth]
            started = time.process_time()
            data = encode_shard(piece, layout.chunks, layout.shards, layout.codec)
            spent += time.process_time() - started
            stored += len(data)
            key = shard_key((corner, *(0,) * (first.ndim - 1)))
            path = folder / name / str(number) / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    raw = sum(array.nbytes for array in subject.arrays)
    return Written(name, meta, raw / stored, raw / max(spent, 1e-9) / 1e6)


def _reading(
    counted: Counted, written: Written, reads: Sequence[Read]
) -> Callable[[], None]:
    def run() -> None:
        for number, box in reads:
            counted.reader.read(f"{written.name}/{number}", written.meta, box)

    return run


def _first(counted: Counted, written: Written, reads: Sequence[Read]) -> Array:
    number, box = reads[0]
    return counted.reader.read(f"{written.name}/{number}", written.meta, box)


def _need(
    counted: Counted, written: Written, reads: Sequence[Read]
) -> tuple[float, float]:
    """Return requests and megabytes a read."""
    ranges = counted.ranges
    ranges.requests = ranges.nbytes = 0
    _reading(counted, written, reads)()
    n = len(reads)
    return ranges.requests / n, ranges.nbytes / n / 1e6


def _table(
    title: str,
    written: Mapping[str, Written],
    contests: Mapping[str, Contest],
    needs: Mapping[str, Mapping[str, tuple[float, float]]],
) -> str:
    rates = {
        what: {
            name: 1 / max(median(t.cpu), 1e-9) for name, t in contest.timings.items()
        }
        for what, contest in contests.items()
    }
    head = ["chunks", "ratio", "write MB/cpu-s", *(f"{what}/s" for what in rates)]
    head += [f"requests, MB: {what}" for what in rates]
    rows = []
    for name, one in written.items():
        least = min(found[name] / max(found.values()) for found in rates.values())
        row = [name, f"{one.ratio:.2f}", f"{one.megabytes_per_cpu_second:.0f}"]
        row += [f"{found[name]:.0f}" for found in rates.values()]
        for need in needs.values():
            row.append("{:.1f}, {:.2f}".format(*need[name]))
        rows.append([*row, f"{least:.2f}"])
    return f"layout, {title}\n{align([[*head, 'least share'], *rows])}"


def _compare_shards(subject: Subject, folder: Path, scale: Scale) -> Contest:
    """Let shards of several depths compete at the first touch of each read."""
    chunks = subject.chunks[0]
    reads = next(iter(subject.reads.values()))
    contenders, outputs = {}, {}
    for depth in subject.shards:
        layout = Layout(chunks, (depth, *_whole(subject, chunks)[1:]), "lz4")
        written, counted = _write(subject, layout, folder), Counted(folder)
        nbytes = prod(layout.shards) * subject.arrays[0].itemsize
        name = f"shards of {depth} slices, {nbytes / (1 << 20):.3g} MiB"
        contenders[name] = Contender(_touching(counted, written, reads), len(reads))
        outputs[name] = _first(counted, written, reads)
    return compete(
        f"layout, first touch, {_name(chunks)}, lz4: {subject.title}",
        contenders,
        unit="reads",
        reference=next(iter(contenders)),
        rounds=scale.rounds,
        outputs=outputs,
    )


def _touching(
    counted: Counted, written: Written, reads: Sequence[Read]
) -> Callable[[], None]:
    def run() -> None:
        counted.renew()
        _reading(counted, written, reads)()

    return run
