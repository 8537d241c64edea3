"""Objects that fsspec reaches: bounded requests, tried again, never renamed.

The libraries below try again by themselves; here each request is tried again from its
start, so that an answer that breaks off in its middle is asked for anew. A request that
ends well answers the same however often it is sent, so that does no harm.
"""

import datetime
import errno
import io
import json
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, BinaryIO, Final, TypeVar, cast

import fsspec

from dicomdask.errors import (
    DicomDaskError,
    SourceError,
    StorageError,
    StoreError,
)
from dicomdask.model import SourceFile
from dicomdask.storage.listed import NOT_A_FILE, Listed
from dicomdask.storage.options import options_of
from dicomdask.storage.urls import join

Result = TypeVar("Result")

WAITS: Final = (0.2, 1.0, 4.0)
"""Seconds between tries, give or take a half; the libraries below have their own."""

DEFAULTS: Final[dict[str, dict[str, Any]]] = {
    scheme: {"max_concurrency": 1}  # else a read asks for the size first
    for scheme in ("s3", "s3a")
}
SUFFIX_RANGES: Final = frozenset({"s3", "s3a", "gs", "gcs", "memory", "http", "https"})
"""Schemes that give the end of an object without being told its size."""
ONE_PUT: Final = frozenset({"s3", "s3a"})
"""Schemes where an upload is cut unless its pieces are told to be large."""

_ANSWERS: Final = (
    FileNotFoundError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
)
_FINAL: Final = {errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.ENAMETOOLONG}
_NO_ACCESS: Final = {
    "ClientAuthenticationError",
    "NoCredentialsError",
    "PartialCredentialsError",
    "ProfileNotFound",
}


# --- requests -----------------------------------------------------------------


def _open(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of a URL, and the path on it."""
    scheme, rest = url.split("://", 1)
    root = f"{scheme}://{rest.split('/', 1)[0]}"
    options = json.dumps(options_of(url), sort_keys=True)
    filesystem = _filesystem(os.getpid(), root, options)
    return filesystem, filesystem._strip_protocol(url)


@lru_cache(maxsize=64)
def _filesystem(pid: int, root: str, options: str) -> fsspec.AbstractFileSystem:
    """Return one file system for all threads of a process; a fork gets its own."""
    del pid
    scheme = root.split("://", 1)[0]
    own = {"use_listings_cache": False, "skip_instance_cache": True}
    given = {**own, **DEFAULTS.get(scheme, {}), **json.loads(options)}
    try:
        found, _ = fsspec.core.url_to_fs(root, **given)
    except Exception as error:  # noqa: BLE001 - each library has its own
        raise _failure(root, error) from None
    return found


def _ask(url: str, function: Callable[..., Result], *args: Any, **options: Any) -> Any:
    """Send a request, again where it may pass the next time.

    Raises
    ------
    StorageError
        If it does not pass: access is denied, or nothing answers.
    """
    for wait in (*WAITS, None):
        try:
            return function(*args, **options)
        except _ANSWERS:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _FINAL:
                raise
            is_final = isinstance(error, DicomDaskError) or _is_refusal(error)
            if wait is None or is_final:
                raise _failure(url, error) from None
            time.sleep(wait * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
    return None


def _is_refusal(error: Exception) -> bool:
    names = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, PermissionError) or bool(names & _NO_ACCESS)


def _failure(url: str, error: Exception) -> DicomDaskError:
    """Say what failed. A message of a library may hold anything: only its class."""
    scheme, rest = url.split("://", 1)
    place = f"{scheme}://{rest.split('/', 1)[0]}"
    if isinstance(error, DicomDaskError):
        return error
    if _is_refusal(error):
        return StorageError(
            f"{place} denies access ({type(error).__name__}); check the credentials in "
            "the environment or in --storage-options",
        )
    return StorageError(
        f"{place} does not answer as it should ({type(error).__name__}); check its "
        "address and the network, then run again",
    )


# --- list ---------------------------------------------------------------------


def list_files(url: str, source: str, exclude: tuple[str, ...]) -> Iterator[SourceFile]:
    """List an object, what is below a prefix, or what a glob pattern finds."""
    filesystem, path = _open(url)
    found = _find(url, filesystem, path)
    if not found and fsspec.core.has_magic(path):
        found = _ask(url, filesystem.glob, path, detail=True)
    if not found:
        raise SourceError(
            f"no such source: {source}; give an object, a prefix or a glob"
        )
    folders = tuple(join(one, "") for one in exclude)
    for name in sorted(found):
        if found[name].get("type") == "directory" or name.endswith("/"):
            continue
        listed = _source_file(_url_of(url, path, name), found[name])
        if not listed.url.startswith(folders):
            yield listed


def _find(
    url: str, filesystem: fsspec.AbstractFileSystem, path: str
) -> dict[str, dict[str, Any]]:
    try:
        found: dict[str, dict[str, Any]] = _ask(url, filesystem.find, path, detail=True)
    except _ANSWERS:
        return {}
    return found


def _url_of(url: str, path: str, name: str) -> str:
    """Return the URL of a listed name, below the URL and the path of its root."""
    if fsspec.core.has_magic(path) and not name.startswith(path):
        scheme = url.split("://", 1)[0]
        return name if "://" in name else f"{scheme}://{name.lstrip('/')}"
    return url + name.removeprefix(path.rstrip("/"))


def _source_file(url: str, info: dict[str, Any]) -> SourceFile:
    size = info.get("size")
    return SourceFile(url, NOT_A_FILE if size is None else int(size), _etag(info))


def _etag(info: dict[str, Any]) -> str:
    """Return what tells two states of an object apart."""
    for name in ("ETag", "etag", "md5Hash", "generation", "mtime", "LastModified"):
        if info.get(name):
            return str(info[name]).strip('"')
    changed = info.get("last_modified") or info.get("created") or ""
    return f"{changed}-{info.get('size')}"


def describe(url: str) -> SourceFile:
    """Return the present state of one object."""
    filesystem, path = _open(url)
    try:
        info = _ask(url, filesystem.info, path)
    except _ANSWERS:
        return SourceFile(url, NOT_A_FILE, "")
    if info.get("type") == "directory":
        return SourceFile(url, NOT_A_FILE, "")
    return _source_file(url, info)


def list_names(url: str) -> list[str]:
    """Return the sorted names directly below a prefix, hidden ones left out."""
    filesystem, path = _open(url)
    try:
        paths = _ask(url, filesystem.ls, path, detail=False)
    except _ANSWERS:
        return []
    inside = path.rstrip("/") + "/"
    names = {one.rstrip("/").rsplit("/", 1)[-1] for one in paths if inside in one + "/"}
    own = {path.rstrip("/").rsplit("/", 1)[-1]} if path in paths else set()
    return sorted(name for name in names - own if name and name[0] != ".")


def list_below(url: str) -> Iterator[Listed]:
    """List all objects below a prefix, in as few requests as there are pages."""
    filesystem, path = _open(url)
    found = _find(url, filesystem, path)
    root = path.rstrip("/") + "/"
    for name in sorted(found):
        info = found[name]
        if info.get("type") != "directory" and name.startswith(root):
            size = int(info.get("size") or 0)
            etag = str(info.get("ETag") or info.get("etag") or "")
            yield Listed(name.removeprefix(root), size, _modified(info), etag)


def _modified(info: dict[str, Any]) -> float:
    for name in ("LastModified", "last_modified", "mtime", "updated", "created"):
        value = info.get(name)
        if isinstance(value, int | float):
            return float(value)
        if isinstance(value, datetime.datetime):
            return value.timestamp()
    return 0.0


# --- read ---------------------------------------------------------------------


def read(url: str) -> bytes:
    """Return all bytes of an object, in one request."""
    filesystem, path = _open(url)
    return bytes(_ask(url, filesystem.cat_file, path))


def read_range(url: str, start: int, stop: int) -> bytes:
    """Return the bytes [start, stop) of an object; fewer where it ends before."""
    filesystem, path = _open(url)
    try:
        return bytes(_ask(url, filesystem.cat_file, path, start=start, end=stop))
    except OSError as error:
        if error.errno == errno.EINVAL:  # a range behind the end
            return b""
        raise


def read_ranges(url: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Return several ranges of an object, asked for at once."""
    filesystem, path = _open(url)
    starts, stops = zip(*ranges, strict=True)
    found = filesystem.cat_ranges(
        [path] * len(ranges), list(starts), list(stops), on_error="return"
    )
    return [
        bytes(data) if isinstance(data, bytes) else read_range(url, start, stop)
        for data, (start, stop) in zip(found, ranges, strict=True)
    ]


def read_tail(url: str, nbytes: int) -> bytes:
    """Return the last bytes of an object, all of it where it is short."""
    filesystem, path = _open(url)
    if url.split("://", 1)[0] in SUFFIX_RANGES:
        return bytes(_ask(url, filesystem.cat_file, path, start=-nbytes))
    size = describe(url).size
    if size == NOT_A_FILE:
        raise FileNotFoundError(errno.ENOENT, "no such object")
    return read_range(url, max(0, size - nbytes), size)


class _Blocks(io.RawIOBase):
    """An object read from where one likes; each read is one request."""

    def __init__(self, url: str, size: int) -> None:
        self._url, self._size, self._position = url, size, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}
        self._position = max(0, base[whence] + offset)
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        wanted = self._size if size is None or size < 0 else self._position + size
        stop = min(wanted, self._size)
        if stop <= self._position:
            return b""
        data = read_range(self._url, self._position, stop)
        self._position += len(data)
        return data


def open_blocks(url: str, size: int | None = None) -> BinaryIO:
    """Open an object for reads of just what is asked for."""
    if size is None:
        size = describe(url).size
        if size == NOT_A_FILE:
            raise FileNotFoundError(errno.ENOENT, "no such object")
    return cast("BinaryIO", _Blocks(url, size))


def exists(url: str) -> bool:
    """Return whether an object, or one below it, is there."""
    filesystem, path = _open(url)
    return bool(_ask(url, filesystem.exists, path))


def is_file(url: str) -> bool:
    """Return whether an object is there."""
    return describe(url).size != NOT_A_FILE


# --- write --------------------------------------------------------------------


def write(url: str, data: bytes) -> None:
    """Write an object by one request, replacing what is there."""
    _put(url, data)


def create(url: str, data: bytes) -> None:
    """Write an object that must not exist yet.

    Three kinds of store answer in three ways when it exists: with FileExistsError
    (AWS), EINVAL (Ceph), or ENOSYS where they know no conditional write (Swift); some
    of the last replace in silence, so it is asked first.
    """
    if is_file(url):
        raise FileExistsError(errno.EEXIST, "the object exists")
    try:
        _put(url, data, mode="create")
    except OSError as error:
        if error.errno == errno.ENOSYS:
            _put(url, data)
            return
        refused = isinstance(error, FileExistsError) or error.errno == errno.EINVAL
        if not refused or not is_file(url):
            raise
        if read(url) != data:  # else the answer to our own first try was lost
            raise FileExistsError(errno.EEXIST, "the object exists") from None


def can_create_once(url: str) -> bool:
    """Return whether the store itself refuses to write an object twice."""
    try:
        _put(url, b"1", mode="create")
        _put(url, b"2", mode="create")
    except FileExistsError:
        return True
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS):
            raise
        return error.errno == errno.EINVAL
    else:
        return False
    finally:
        remove(url)


def _put(url: str, data: bytes, **options: str) -> None:
    filesystem, path = _open(url)
    if url.split("://", 1)[0] in ONE_PUT:
        options["chunksize"] = max(1, len(data))  # type: ignore[assignment]
    try:
        _ask(url, filesystem.pipe_file, path, data, **options)
    except FileNotFoundError:
        scheme, rest = url.split("://", 1)
        raise StoreError(
            f"{scheme}://{rest.split('/', 1)[0]} does not exist; make the bucket first"
        ) from None


def remove(url: str) -> None:
    """Remove one object, if it is there."""
    filesystem, path = _open(url)
    with suppress(FileNotFoundError):
        _ask(url, filesystem.rm_file, path)


def remove_tree(url: str) -> None:
    """Remove an object and all that is below it, at once or else one by one."""
    filesystem, path = _open(url)
    if not exists(url):
        return
    try:
        _ask(url, filesystem.rm, path, recursive=True)
    except FileNotFoundError:
        return
    except OSError:  # a store without bulk deletion
        for listed in list_below(url):
            remove(join(url, listed.name))
        if is_file(url):
            remove(url)
