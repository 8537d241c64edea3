"""Ranges of distant objects kept in a local folder, for the epochs to come.

An entry is one file: the bytes, then their crc32c. It appears by a rename, so that a
writer that is killed leaves at most a temporary file. Processes share a folder: a file
beside the entries tells how many bytes they take, and whoever would pass the budget
removes first what was not used for longest.
"""

import fcntl
import itertools
import os
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Final

import google_crc32c
import numpy as np

from dicomdask.errors import StoreError

CRC: Final = struct.Struct("<I")
TALLY: Final = struct.Struct("<q")
TALLY_NAME: Final = "tally"
TEMPORARY: Final = "tmp-"
TEMPORARY_SECONDS: Final = 3600
"""An older temporary file is one whose writer was killed."""
FULL: Final = 0.9
"""What a sweep leaves of the budget, so that the next is not at once."""
BUSY_SECONDS: Final = 0.1
"""Who cannot write in this time keeps nothing: another process is sweeping."""

_numbers = itertools.count()


class KeptRanges:
    """A folder of ranges, bounded in bytes and shared by processes.

    What cannot be kept, for want of space or of time, is left out: it costs a request,
    never an error.

    Parameters
    ----------
    folder
        A local folder, made where it is missing; for the user only.
    budget
        Bounds the bytes of all files in it.
    origin
        The URL that paths are below; several may share a folder.

    Raises
    ------
    StoreError
        If the folder cannot be made.
    """

    def __init__(self, folder: str, budget: int, *, origin: str) -> None:
        self._folder, self._budget, self._origin = Path(folder), budget, origin
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"cannot make the cache folder {folder} ({error.strerror}); give a "
                "place you can write to"
            ) from None

    def __reduce__(self) -> tuple[object, ...]:
        return _open_kept, (str(self._folder), self._budget, self._origin)

    def get(self, path: str, start: int, stop: int | None) -> memoryview | None:
        """Return a range that is kept whole, and note that it was used."""
        file, size = self._file(path, start, stop), _size(start, stop)
        try:
            descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            found = _read_all(descriptor, size + CRC.size + 1)
            if _is_whole(found, size):
                with suppress(OSError):
                    os.utime(descriptor)
                return memoryview(found)[:size]
        finally:
            os.close(descriptor)
        file.unlink(missing_ok=True)
        return None

    def put(self, path: str, start: int, stop: int | None, data: bytes) -> None:
        """Keep a range; its bytes must have been checked."""
        file = self._file(path, start, stop)
        with suppress(OSError):
            if not file.exists() and self._reserve(len(data) + CRC.size):
                self._write(file, data)

    def _file(self, path: str, start: int, stop: int | None) -> Path:
        key = f"{self._origin}\0{path}\0{start}\0{stop}".encode(
            errors="surrogateescape"
        )
        name = blake2b(key, digest_size=16).hexdigest()
        return self._folder / name[:2] / name[2:]

    def _write(self, file: Path, data: bytes) -> None:
        mine = f"{TEMPORARY}{os.getpid()}-{threading.get_ident()}-{next(_numbers)}"
        temporary = self._folder / mine
        try:
            with temporary.open("xb") as out:
                out.write(data)
                out.write(CRC.pack(google_crc32c.value(data)))
            file.parent.mkdir(mode=0o700, exist_ok=True)
            temporary.replace(file)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

    def _reserve(self, size: int) -> bool:
        """Count bytes before they are written; return whether there is room."""
        if size > FULL * self._budget:
            return False
        with self._locked_tally() as tally:
            if tally is None:
                return False
            held = os.pread(tally, TALLY.size, 0)
            known = TALLY.unpack(held)[0] if len(held) == TALLY.size else None
            if known is None or known + size > self._budget:
                known = self._sweep(int(FULL * self._budget) - size)
            os.pwrite(tally, TALLY.pack(known + size), 0)
        return True

    @contextmanager
    def _locked_tally(self) -> Iterator[int | None]:
        descriptor = os.open(
            self._folder / TALLY_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            yield descriptor if _lock(descriptor) else None
        finally:
            os.close(descriptor)  # which unlocks

    def _sweep(self, most: int) -> int:
        """Remove what was used longest ago until at most so much is left; return it."""
        found = [(used, size) for _, used, size in self._entries()]
        ages = np.array(found, np.int64).reshape(-1, 2)
        ages = ages[ages[:, 0].argsort()[::-1]]
        sums = ages[:, 1].cumsum()
        n_kept = int(np.searchsorted(sums, most, side="right"))
        if n_kept < len(ages):
            newest = ages[n_kept, 0]
            for entry, used, _ in self._entries():
                if used <= newest:
                    entry.unlink(missing_ok=True)
        return int(sums[n_kept - 1]) if n_kept else 0

    def _entries(self) -> Iterator[tuple[Path, int, int]]:
        """Yield each entry with when it was used, in ns, and its bytes."""
        with os.scandir(self._folder) as outer:
            for one in outer:
                if one.name.startswith(TEMPORARY):
                    _remove_if_old(one)
                elif one.name != TALLY_NAME:
                    yield from _files_of(one.path)


def _open_kept(folder: str, budget: int, origin: str) -> KeptRanges:
    return KeptRanges(folder, budget, origin=origin)


def _size(start: int, stop: int | None) -> int:
    return -start if stop is None else stop - start


def _read_all(descriptor: int, most: int) -> bytes:
    """Return the bytes of a file up to so many: one call nearly always."""
    data = os.read(descriptor, most)
    while len(data) < most and (more := os.read(descriptor, most - len(data))):
        data += more
    return data


def _is_whole(found: bytes, size: int) -> bool:
    if len(found) != size + CRC.size:
        return False
    content = np.frombuffer(found, np.uint8, size)  # what computes it takes no view
    return bool(CRC.unpack_from(found, size)[0] == google_crc32c.value(content))


def _lock(descriptor: int) -> bool:
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                return False
            time.sleep(0.001)
        else:
            return True


def _files_of(folder: str) -> Iterator[tuple[Path, int, int]]:
    with os.scandir(folder) as inner:
        for one in inner:
            with suppress(FileNotFoundError):  # another process dropped it
                state = one.stat()
                yield Path(one.path), state.st_mtime_ns, state.st_size


def _remove_if_old(entry: "os.DirEntry[str]") -> None:
    with suppress(FileNotFoundError):
        if time.time() - entry.stat().st_mtime > TEMPORARY_SECONDS:
            os.unlink(entry.path)
