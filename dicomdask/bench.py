"""What a user's own storage gives, and how near to it a dataset is read.

Bare ranges through the same storage are the limit; slices, patches and volumes are read
by the reader that training uses. All take turns, so that noise strikes them alike.
"""

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any, Final

import numpy as np

from dicomdask import storage
from dicomdask.dataset import open_dataset
from dicomdask.dataset.opened import Opened
from dicomdask.errors import StoreError
from dicomdask.shards import Request, ShardReader, shard_key

Box = tuple[slice, ...]

BLOCK: Final = 8 << 20
"""The bytes of one request of a sequential read."""
FIRST_RANGE: Final = 64 << 10
"""The bytes of a bare range until it is known what a sample asks for."""
TOGETHER: Final = 64
"""How many distant samples are read by one call, so that requests overlap."""
ROUNDS: Final = 4
PATCH: Final = (64, 64, 64)
MOST_VOLUMES: Final = 1000
MOST_SHARDS: Final = 64
"""How many volumes are read, and of how many bare ranges are taken."""


@dataclass(slots=True)
class Pace:
    """How fast one way of reading went.

    Attributes
    ----------
    name, unit
        What was read, and in what it is counted.
    limit
        The name of the bare read that it cannot be faster than; None for these.
    n, seconds, cpu_seconds
        What was read, and what that took by the wall and of the processor.
    storage_seconds
        How much of `seconds` passed inside storage; the rest is decoding and copying.
    requests, read_bytes, value_bytes
        What storage was asked for, what came, and what was made of it.
    """

    name: str
    unit: str
    limit: str | None = None
    n: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    storage_seconds: float = 0.0
    requests: int = 0
    read_bytes: int = 0
    value_bytes: int = 0

    @property
    def rate(self) -> float:
        """Return how many units a second were read."""
        return self.n / self.seconds if self.seconds else 0.0

    @property
    def byte_rate(self) -> float:
        """Return how many bytes a second came from storage."""
        return self.read_bytes / self.seconds if self.seconds else 0.0

    @property
    def decode_share(self) -> float:
        """Return the share of the time that did not pass inside storage."""
        rest = 1 - self.storage_seconds / self.seconds if self.seconds else 0.0
        return max(0.0, rest)


@dataclass(frozen=True, slots=True)
class Bench:
    """What storage gives, and what reading makes of it.

    Attributes
    ----------
    paces
        One a way of reading; the bare ones first.
    stored_bytes
        What all shards of the dataset take.
    remarks
        What has to be known to judge the figures: one sentence each.
    """

    store: str
    is_distant: bool
    stored_bytes: int
    paces: tuple[Pace, ...]
    remarks: tuple[str, ...]

    def share_of_limit(self, pace: Pace) -> float | None:
        """Return the bytes a second of a pace as a share of its limit's."""
        limits = [one.byte_rate for one in self.paces if one.name == pace.limit]
        return pace.byte_rate / limits[0] if limits and limits[0] else None


class _Counted:
    """Ranges that are counted and timed while they are read."""

    def __init__(self, ranges: storage.Ranges) -> None:
        self._ranges, self._lock = ranges, Lock()
        self.requests = self.nbytes = 0
        self.seconds = 0.0

    @property
    def is_distant(self) -> bool:
        return self._ranges.is_distant

    def get_range(self, path: str, start: int, stop: int) -> Any:
        began = time.perf_counter()
        data = self._ranges.get_range(path, start, stop)
        self._note(began, 1, len(data))
        return data

    def read_into(self, path: str, start: int, buffers: Sequence[Any]) -> int:
        began = time.perf_counter()
        nbytes = self._ranges.read_into(path, start, buffers)
        self._note(began, 1, nbytes)
        return nbytes

    def get_many(
        self, wanted: Sequence[tuple[str, int, int | None]]
    ) -> Iterator[tuple[int, Any]]:
        found = self._ranges.get_many(wanted)
        while True:
            began = time.perf_counter()
            one = next(found, None)
            if one is None:
                return
            self._note(began, 1, len(one[1]))
            yield one

    def _note(self, began: float, requests: int, nbytes: int) -> None:
        with self._lock:
            self.seconds += time.perf_counter() - began
            self.requests += requests
            self.nbytes += nbytes


def bench(
    store: str,
    *,
    seconds: float = 20.0,
    patch_size: tuple[int, ...] = PATCH,
    seed: int = 0,
) -> Bench:
    """Read a dataset at random, and its shards bare, for some seconds in all.

    Parameters
    ----------
    store
        Where the dataset is.
    seconds
        How long; each way of reading is gone at least once, however long that takes.
    patch_size
        Slices, rows and columns of a patch; smaller where a volume is.
    seed
        Decides what is read.

    Raises
    ------
    StoreError
        If there is no dataset, or nothing in it that our reader reads.
    ShardError
        If a shard is missing or damaged.
    """
    dataset = open_dataset(store)
    rng = random.Random(seed)  # noqa: S311 - no secret
    n = len(dataset.volumes)
    numbers = rng.sample(range(n), min(n, MOST_VOLUMES))
    opened = [Opened.of(dataset.volumes, number) for number in numbers]
    volumes = [volume for volume in opened if volume.meta is not None]
    if not volumes:
        raise StoreError(f"{store} holds no volumes that could be timed; convert some")
    source = _Counted(storage.Ranges(dataset.store))
    course = _Course(volumes, _shards(dataset.store, volumes), patch_size, source, rng)
    paces = course.run(seconds)
    stored_bytes = int(dataset.volumes["stored_bytes"].sum())
    remarks = _remarks(paces, stored_bytes, n - len(volumes), source.is_distant)
    return Bench(dataset.store, source.is_distant, stored_bytes, paces, remarks)


def _shards(store: str, volumes: Sequence[Opened]) -> list[tuple[str, int]]:
    """Return the first shards of some volumes, and their bytes."""
    found = []
    for volume in volumes[:MOST_SHARDS]:
        path = f"{volume.path}/{shard_key((0,) * len(volume.shape))}"
        size = storage.describe(storage.join(store, path)).size
        if size <= 0:
            raise StoreError(
                f"shard {path} is missing in {store}; `dicomdask verify` tells what "
                "else is"
            )
        found.append((path, size))
    return found


def _remarks(
    paces: Sequence[Pace], stored_bytes: int, n_left_out: int, is_distant: bool
) -> tuple[str, ...]:
    read = sum(pace.read_bytes for pace in paces)
    times = read / stored_bytes if stored_bytes else 0.0
    found = [
        f"{times:.1f} times the dataset was read from afar, one request after the "
        f"other but for what is marked as {TOGETHER} together; other clients, and "
        "caches of the store, change the figures"
        if is_distant
        else f"{times:.1f} times the dataset was read: what was read lately comes from "
        "the machine's memory, so that figures are of warm data unless the dataset is "
        "larger than that"
    ]
    if n_left_out:
        found.append(
            f"{n_left_out} volumes were left out: {MOST_VOLUMES} at most are read, of "
            "those whose chunks our reader knows"
        )
    slow = [pace.name for pace in paces if pace.n and pace.seconds / ROUNDS > 5]
    if slow:
        found.append(
            f"{', '.join(slow)}: few were read in so short a time; give more --seconds"
        )
    return tuple(found)


Turn = Callable[[], tuple[int, int]]
"""Reads something; returns how many units, and the bytes that were made of them."""


class _Course:
    """Ways of reading one dataset that take turns."""

    def __init__(
        self,
        volumes: Sequence[Opened],
        shards: Sequence[tuple[str, int]],
        patch: tuple[int, ...],
        source: _Counted,
        rng: random.Random,
    ) -> None:
        self._volumes, self._shards, self._patch = volumes, shards, patch
        self._source, self._rng = source, rng
        self._reader = ShardReader(source)
        self._range_bytes = FIRST_RANGE

    def run(self, seconds: float) -> tuple[Pace, ...]:
        """Let all ways take turns for some seconds; return how fast each was."""
        ways = self._ways()
        share = seconds / ROUNDS / len(ways)
        for _ in range(ROUNDS):
            for pace, turn in ways:
                self._go(pace, turn, share)
            samples = [pace for pace, _ in ways if pace.limit and pace.n]
            requests = sum(pace.requests for pace in samples)
            read = sum(pace.read_bytes for pace in samples if pace.requests)
            self._range_bytes = max(1, read // requests) if requests else FIRST_RANGE
        return tuple(pace for pace, _ in ways)

    def _go(self, pace: Pace, turn: Turn, seconds: float) -> None:
        source = self._source
        wall, cpu = time.perf_counter(), time.process_time()
        before = source.seconds, source.requests, source.nbytes
        is_over = False
        while not is_over:
            n, value_bytes = turn()
            pace.n += n
            pace.value_bytes += value_bytes
            is_over = time.perf_counter() - wall >= seconds
        pace.seconds += time.perf_counter() - wall
        pace.cpu_seconds += time.process_time() - cpu
        pace.storage_seconds += source.seconds - before[0]
        pace.requests += source.requests - before[1]
        pace.read_bytes += source.nbytes - before[2]

    def _ways(self) -> list[tuple[Pace, Turn]]:
        found: list[tuple[Pace, Turn]] = [
            (Pace("sequential", "blocks"), self._sequential),
            (Pace("random", "ranges"), self._random),
        ]
        kinds = {"slices": _slice_box, "patches": self._patch_box}
        for name, box_of in kinds.items():
            found.append((Pace(name, name, "random"), partial(self._read, box_of, 1)))
        if self._source.is_distant:
            limit = Pace(f"random, {TOGETHER} together", "ranges")
            found.append((limit, self._random_together))
            for name, box_of in kinds.items():
                pace = Pace(f"{name}, {TOGETHER} together", name, limit.name)
                found.append((pace, partial(self._read, box_of, TOGETHER)))
        whole = partial(self._read, _whole_box, 1)
        found.append((Pace("volumes", "volumes", "sequential"), whole))
        return found

    def _sequential(self) -> tuple[int, int]:
        path, size = self._rng.choice(self._shards)
        starts = range(0, size, BLOCK)
        for start in starts:
            self._source.get_range(path, start, min(start + BLOCK, size))
        return len(starts), 0

    def _bare_range(self) -> tuple[str, int, int]:
        path, size = self._rng.choice(self._shards)
        length = min(size, self._range_bytes)
        start = self._rng.randrange(size - length + 1)
        return path, start, start + length

    def _random(self) -> tuple[int, int]:
        self._source.get_range(*self._bare_range())
        return 1, 0

    def _random_together(self) -> tuple[int, int]:
        wanted = [self._bare_range() for _ in range(TOGETHER)]
        return sum(1 for _ in self._source.get_many(wanted)), 0

    def _read(self, box_of: "BoxOf", n: int) -> tuple[int, int]:
        """Read boxes of volumes taken at random, by one call."""
        requests = []
        for volume in self._rng.choices(self._volumes, k=n):
            meta, box = volume.meta, box_of(volume, self._rng)
            if meta is not None:
                out = np.empty([one.stop - one.start for one in box], meta.dtype)
                requests.append(Request(volume.path, meta, box, out))
        self._reader.read_many(requests)
        return n, sum(request.out.nbytes for request in requests)

    def _patch_box(self, volume: Opened, rng: random.Random) -> Box:
        sizes = dict(zip("zyx", self._patch, strict=True)) | {"t": 1}
        return _box(volume, rng, sizes)


BoxOf = Callable[[Opened, random.Random], Box]


def _slice_box(volume: Opened, rng: random.Random) -> Box:
    return _box(volume, rng, {"t": 1, "z": 1})


def _whole_box(volume: Opened, rng: random.Random) -> Box:
    return _box(volume, rng, {})


def _box(volume: Opened, rng: random.Random, sizes: Mapping[str, int]) -> Box:
    """Return a box somewhere in a volume, all of those axes that have no size."""
    box = []
    for axis, extent in zip(volume.dimensions, volume.shape, strict=True):
        size = min(extent, sizes.get(axis, extent))
        start = rng.randrange(extent - size + 1)
        box.append(slice(start, start + size))
    return tuple(box)
