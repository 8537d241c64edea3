"""What a task reads of its files: each once, whole or the ranges of some frames."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from dicomdask import storage
from dicomdask.errors import InputError
from dicomdask.limits import BATCH_BYTES
from dicomdask.model import PlannedFrame, PlannedVolume
from dicomdask.tasks.resolve import is_unchanged, read_source


@dataclass(frozen=True, slots=True)
class Portion:
    """Frames of one file that are read together.

    Where `header_bytes` is None the file is read whole; else that many bytes from its
    start, and then the pixels of the frames.
    """

    frames: tuple[PlannedFrame, ...]
    frame_bytes: int
    header_bytes: int | None = None

    @property
    def file(self) -> PlannedFrame:
        """Return the first frame: it names the file."""
        return self.frames[0]

    @property
    def nbytes(self) -> int:
        """Return how many bytes are read."""
        if self.header_bytes is None:
            return self.file.size
        return self.header_bytes + len(self.frames) * self.frame_bytes

    def batches(self) -> Iterator[tuple[PlannedFrame, ...]]:
        """Yield the frames in groups that are decoded together."""
        return _cut(self.frames, self.frame_bytes)


def portions(volume: PlannedVolume, frames: Iterable[PlannedFrame]) -> list[Portion]:
    """Return what has to be read for some frames of a volume, file by file."""
    files: dict[str, list[PlannedFrame]] = defaultdict(list)
    for frame in frames:
        files[frame.url].append(frame)
    nbytes = volume.frame_bytes
    found: list[Portion] = []
    for mine in files.values():
        mine.sort(key=lambda frame: frame.frame)
        if mine[0].offset is None:
            found.append(Portion(tuple(mine), nbytes))
            continue
        header_bytes = mine[0].offset - mine[0].frame * nbytes
        found += [Portion(some, nbytes, header_bytes) for some in _cut(mine, nbytes)]
    return found


def _cut(
    frames: Iterable[PlannedFrame], nbytes: int
) -> Iterator[tuple[PlannedFrame, ...]]:
    every = tuple(frames)
    size = max(1, BATCH_BYTES // max(1, nbytes))
    for start in range(0, len(every), size):
        yield every[start : start + size]


def fetch(
    wanted: Iterable[Portion],
) -> Iterator[tuple[Portion, Callable[[], bytes]]]:
    """Yield each portion with what returns its bytes; distant ones are read ahead."""
    return storage.ahead(
        _fetch,
        wanted,
        is_remote=lambda portion: not storage.is_local(portion.file.url),
        nbytes=lambda portion: portion.nbytes,
    )


def take(portion: Portion, fetched: Callable[[], bytes]) -> bytes:
    """Return the bytes of a portion whose file is still as it was listed.

    Raises
    ------
    InputError
        `source-changed` if it is not.
    """
    if portion.header_bytes is None:
        return read_source(portion.file, fetched)
    data = fetched()
    if len(data) != portion.nbytes or not is_unchanged(portion.file):
        raise InputError("source-changed")
    return data


def _fetch(portion: Portion) -> bytes:
    if portion.header_bytes is None:
        return storage.read(portion.file.url)
    data = bytearray()
    with storage.open_blocks(portion.file.url, portion.file.size) as file:
        for start, stop in _ranges(portion):
            file.seek(start)
            while start < stop and (block := file.read(stop - start)):
                data += block
                start += len(block)
    return bytes(data)


def _ranges(portion: Portion) -> Iterator[tuple[int, int]]:
    """Yield the ranges to read, neighbours joined."""
    yield 0, portion.header_bytes or 0
    start = stop = -1
    for frame in portion.frames:
        offset = frame.offset or 0
        if offset != stop:
            if start >= 0:
                yield start, stop
            start = offset
        stop = offset + portion.frame_bytes
    yield start, stop
