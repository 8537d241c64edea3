"""Bytes in and out: the only room that knows where they lie.

Reads are bounded ranges. Writes are whole objects that appear at once or not at all:
locally a temporary file, fsync and a rename or link; elsewhere one PUT. What differs
between the two stands in `local` and `remote`; the functions here choose.

- *names*: `urls` what they stand for; `options` what opens a store; `walk` what lies
  below a local source; `listed` what a listing tells
- *requests*: `requests` sent until they are answered; `ahead` several calls in threads,
  `flight` several ranges without; `traffic` how many bytes pass
- *reads*: `stream` a file read from where one likes; `ranges` below one base URL;
  `kept` those that stay in a local folder
"""

import errno
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import BinaryIO, Final

from dicomdask.errors import DicomDaskError, StoreError
from dicomdask.model import SourceFile
from dicomdask.storage import local, remote, traffic, walk
from dicomdask.storage.ahead import ahead
from dicomdask.storage.flight import parse_starts
from dicomdask.storage.kept import KeptRanges
from dicomdask.storage.listed import NOT_A_FILE, OUTSIDE, Listed
from dicomdask.storage.local import decode_path, encode_path
from dicomdask.storage.options import OPTIONS_VARIABLE, options_of, use_options
from dicomdask.storage.ranges import Ranges
from dicomdask.storage.traffic import Traffic, counted
from dicomdask.storage.urls import is_local, join, resolve

__all__ = [
    "NOT_A_FILE",
    "OPTIONS_VARIABLE",
    "OUTSIDE",
    "KeptRanges",
    "Listed",
    "Ranges",
    "Traffic",
    "ahead",
    "can_create_once",
    "counted",
    "create",
    "decode_path",
    "describe",
    "encode_path",
    "exists",
    "has_files",
    "is_file",
    "is_local",
    "is_openable",
    "is_same",
    "join",
    "list_below",
    "list_files",
    "list_names",
    "lock",
    "make_private_folder",
    "open_blocks",
    "options_of",
    "parse_starts",
    "read",
    "remove",
    "remove_all",
    "remove_empty_folders",
    "remove_tree",
    "require_writable",
    "resolve",
    "room_at",
    "use_options",
    "write",
    "write_all",
    "write_passing",
    "write_private",
]

PROBE: Final = ".probe-"
BULK: Final = 1000
"""How many objects one request removes at most: the limit of S3."""


def _at(url: str) -> ModuleType:
    return local if is_local(url) else remote


# --- list ---------------------------------------------------------------------


def list_files(
    source: str, *, exclude: tuple[str, ...] = (), within: tuple[str, ...] = ()
) -> Iterator[SourceFile]:
    """List the files of a source: a file, a folder (any depth) or a glob pattern.

    Links to folders are followed once. What is listed and cannot be a file (a broken
    link, a pipe, a folder without permission) has the size `NOT_A_FILE`. A link that
    leads out of the sources has the size `OUTSIDE`, and so has an object whose name
    would; neither is looked at.

    Parameters
    ----------
    source
        A URL, a local path or a glob pattern of either.
    exclude
        Folders to leave out: the store and the work directory.
    within
        The other sources that links may lead into.

    Raises
    ------
    SourceError
        If nothing is there.
    """
    url = resolve(source)
    left_out = tuple(one for one in exclude if is_local(one) == is_local(url))
    if not is_local(url):
        return remote.list_files(url, source, left_out)
    others = tuple(resolve(one) for one in within if is_local(one))
    return walk.list_files(url, source, left_out, others)


def has_files(source: str, *, exclude: tuple[str, ...] = ()) -> bool:
    """Return whether a source holds a file; a distant one is only asked if it is there.

    Raises
    ------
    SourceError
        If nothing is there.
    """
    url = resolve(source)
    if is_local(url) or not remote.is_source(url):  # then listing says what is wrong
        return any(True for _ in list_files(source, exclude=exclude))
    return True


def describe(url: str) -> SourceFile:
    """Return the present state of one listed file; see `list_files`."""
    found: SourceFile = _at(url).describe(url)
    return found


def list_names(url: str) -> list[str]:
    """Return the sorted names directly below a folder; none where there is none."""
    names: list[str] = _at(url).list_names(url)
    return names


def list_below(url: str) -> Iterator[Listed]:
    """List all objects below a folder, at any depth; none where there is none.

    What lies in one folder comes together, and folders in the order of their names.
    """
    found: Iterator[Listed] = _at(url).list_below(url)
    return found


# --- read ---------------------------------------------------------------------


def read(url: str) -> bytes:
    """Return all bytes of an object; raise FileNotFoundError if there is none."""
    data: bytes = _at(url).read(url)
    traffic.note(read=len(data))
    return data


def open_blocks(url: str, size: int | None = None) -> BinaryIO:
    """Open an object for seeking reads, of which each fetches just what it asks for.

    Parameters
    ----------
    size
        The object's bytes, where they are known: it saves a request.
    """
    found: BinaryIO = _at(url).open_blocks(url, size)
    return found


def is_openable(url: str) -> bool:
    """Return whether a file can be opened for reading now."""
    try:
        open_blocks(url).close()
    except OSError:
        return False
    return True


def exists(url: str) -> bool:
    """Return whether an object or a folder is there."""
    return bool(_at(url).exists(url))


def is_file(url: str) -> bool:
    """Return whether an object, and not a folder, is there."""
    return bool(_at(url).is_file(url))


def is_same(one: str, other: str) -> bool:
    """Return whether two URLs are one object; links of this machine are followed."""
    if is_local(one) and is_local(other):
        return local.real_path(one) == local.real_path(other)
    return one == other


# --- write --------------------------------------------------------------------


def write(url: str, data: bytes) -> None:
    """Write an object at once, replacing what is there."""
    _at(url).write(url, data)
    traffic.note(written=len(data))


def write_passing(url: str, data: bytes) -> None:
    """Write an object that nothing is lost with if the machine itself fails.

    It appears at once like any other, and outlives this process; it is only not waited
    for until it is on the disk.
    """
    if not is_local(url):
        write(url, data)
        return
    local.write(url, data, is_passing=True)
    traffic.note(written=len(data))


def write_all(objects: Iterable[tuple[str, bytes]]) -> None:
    """Write several objects at the same time: each waits for its disk or network."""
    for _, result in ahead(lambda one: write(*one), objects, is_remote=lambda _: True):
        result()


def write_private(url: str, data: bytes) -> None:
    """Write an object that only its owner can read; elsewhere access is the store's."""
    if not is_local(url):
        write(url, data)
        return
    local.write(url, data, mode=0o600)
    traffic.note(written=len(data))


@contextmanager
def room_at(place: str) -> Iterator[None]:
    """Name the store or the work directory that is full while it is written to.

    Raises
    ------
    StoreError
        If there is no space left.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise StoreError(
            f"no space is left at {place}; what is done is kept: free some there, then "
            "run the same command again"
        ) from None


def create(url: str, data: bytes) -> None:
    """Write an object that must not exist yet; of several writers one wins.

    Where a store has no conditional writes, several writers at once are not safe.

    Raises
    ------
    FileExistsError
        If the object is there already.
    """
    _at(url).create(url, data)
    traffic.note(written=len(data))


@contextmanager
def lock(url: str, *, shared: bool = False) -> Iterator[bool]:
    """Hold a local folder; the system lets go when the process ends, however it does.

    Yields whether it is held; others may hold it too if all of them share. A place that
    is not local cannot be held, so that nobody is kept out of it.
    """
    if not is_local(url):
        yield True
        return
    with local.lock(url, shared=shared) as is_held:
        yield is_held


def make_private_folder(url: str) -> None:
    """Make a folder that only its owner can enter; elsewhere access is the store's.

    Raises
    ------
    StoreError
        If it cannot be made or written to.
    """
    if is_local(url):
        local.make_private_folder(url)
    require_writable(url)


def require_writable(url: str) -> None:
    """Check that objects can be written below `url`, or raise StoreError."""
    probe = join(url, f"{PROBE}{secrets.token_hex(4)}")
    try:
        write_passing(probe, b"")
        remove(probe)
    except DicomDaskError:
        raise
    except OSError as error:
        raise StoreError(
            f"cannot write below {url} ({error.strerror}); give a place you can "
            "write to"
        ) from None


def can_create_once(url: str) -> bool:
    """Return whether the place itself refuses to create an object twice.

    Where it does not, two writers at once may lose what one of them wrote.
    """
    probe = join(url, f"{PROBE}{secrets.token_hex(4)}")
    return is_local(url) or remote.can_create_once(probe)


def remove(url: str) -> None:
    """Remove one object, if it is there."""
    _at(url).remove(url)


def remove_all(urls: Sequence[str]) -> None:
    """Remove objects, those that are there, many at once where the place can."""
    for start in range(0, len(urls), BULK):
        batch = urls[start : start + BULK]
        if not all(map(is_local, batch)) and remote.remove_at_once(batch):
            continue
        for url in batch:
            remove(url)


def remove_empty_folders(url: str) -> None:
    """Remove what holds no object below a folder, and the folder itself."""
    if is_local(url):
        local.remove_empty_folders(url)


def remove_tree(url: str) -> None:
    """Remove a folder and all that is below it, if it is there."""
    _at(url).remove_tree(url)
