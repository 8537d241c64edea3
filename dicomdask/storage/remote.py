"""Objects that fsspec reaches: bounded ranges, one PUT each, never renamed."""

import datetime
import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any, BinaryIO, Final
from urllib.parse import unquote

import fsspec

from dicomdask.errors import SourceError, StoreError
from dicomdask.model import SourceFile
from dicomdask.storage import traffic
from dicomdask.storage.listed import NOT_A_FILE, OUTSIDE, Listed
from dicomdask.storage.requests import ANSWERS, ask, open_store
from dicomdask.storage.stream import open_stream
from dicomdask.storage.urls import join

SUFFIX_RANGES: Final = frozenset({"s3", "s3a", "gs", "gcs", "memory", "http", "https"})
"""Schemes that give the end of an object without being told its size."""
PAGED: Final = frozenset({"s3", "s3a"})
"""Schemes that are listed page by page; elsewhere a listing is held at once."""
ONE_PUT: Final = frozenset({"s3", "s3a"})
"""Schemes where an upload is cut unless its pieces are told to be large."""

Info = dict[str, Any]


# --- list ---------------------------------------------------------------------


def list_files(url: str, source: str, exclude: tuple[str, ...]) -> Iterator[SourceFile]:
    """List an object, what is below a prefix, or what a glob pattern finds."""
    filesystem, path = open_store(url)
    folders = tuple(join(one, "") for one in exclude)
    found = _below(url)
    first = next(found, None)
    if first is None:
        found = iter(_matches(url, filesystem, path).items())
        first = next(found, None)
    if first is None:
        raise SourceError(
            f"no such source: {source}; give an object, a prefix or a glob"
        )
    for name, info in chain([first], found):
        listed = _source_file(_url_of(url, path, name), info)
        if listed.url.startswith(folders):
            continue
        if _may_escape(listed.url):
            yield SourceFile(listed.url, OUTSIDE, "")
        else:
            yield listed


def is_source(url: str) -> bool:
    """Return whether anything is there to list; see `list_files`."""
    filesystem, path = open_store(url)
    return exists(url) or bool(_matches(url, filesystem, path))


def _matches(
    url: str, filesystem: fsspec.AbstractFileSystem, path: str
) -> dict[str, Info]:
    if not fsspec.core.has_magic(path):
        return {}
    found: dict[str, Info] = ask(url, filesystem.glob, path, detail=True)
    return {name: found[name] for name in sorted(found) if _is_object(name, found)}


def _is_object(name: str, found: Mapping[str, Info]) -> bool:
    return found[name].get("type") != "directory" and not name.endswith("/")


def _below(url: str) -> Iterator[tuple[str, Info]]:
    """Yield the objects below a prefix, or the object itself, in order of names."""
    filesystem, path = open_store(url)
    if url.split("://", 1)[0] in PAGED:
        yield from _pages(url, filesystem, path)
        return
    found = _find(url, filesystem, path)
    yield from (
        (name, found[name]) for name in sorted(found) if _is_object(name, found)
    )


def _pages(
    url: str, filesystem: fsspec.AbstractFileSystem, path: str
) -> Iterator[tuple[str, Info]]:
    """Do what `_find` does, of which no more than a page is held at a time."""
    bucket, key, _ = filesystem.split_path(path)
    prefix = f"{key}/" if key else ""
    more: dict[str, str] = {}
    n_found = 0
    while True:
        try:
            page = ask(
                url,
                filesystem.call_s3,
                "list_objects_v2",
                Bucket=bucket,
                Prefix=prefix,
                **more,
            )
        except FileNotFoundError:
            return
        for one in page.get("Contents", ()):
            n_found += 1
            if not one["Key"].endswith("/"):
                yield f"{bucket}/{one['Key']}", {**one, "size": one["Size"]}
        if not page.get("IsTruncated"):
            break
        more = {"ContinuationToken": page["NextContinuationToken"]}
    if not n_found and key:
        with suppress(*ANSWERS):
            info = ask(url, filesystem.info, path)
            if info.get("type") != "directory":
                yield path, info


def _may_escape(url: str) -> bool:
    """Return whether a name may reach another object than it says.

    Libraries and servers resolve `..` as they like (RFC 3986 6.2.2.3), encoded or not,
    and end names at a NUL.
    """
    names = unquote(unquote(url)).replace("\\", "/").split("/")
    return bool({".", ".."} & set(names)) or "\0" in url or "%00" in url


def _find(
    url: str, filesystem: fsspec.AbstractFileSystem, path: str
) -> dict[str, dict[str, Any]]:
    try:
        found: dict[str, dict[str, Any]] = ask(url, filesystem.find, path, detail=True)
    except ANSWERS:
        return {}
    if isinstance(found, list):  # adlfs, of an object
        return {name: ask(url, filesystem.info, name) for name in found}
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
    return f"{_modified(info)}-{info.get('size')}"


def describe(url: str) -> SourceFile:
    """Return the present state of one object."""
    filesystem, path = open_store(url)
    try:
        info = ask(url, filesystem.info, path)
    except ANSWERS:
        return SourceFile(url, NOT_A_FILE, "")
    if info.get("type") == "directory":
        return SourceFile(url, NOT_A_FILE, "")
    return _source_file(url, info)


def list_names(url: str) -> list[str]:
    """Return the sorted names directly below a prefix, hidden ones left out."""
    filesystem, path = open_store(url)
    try:
        paths = ask(url, filesystem.ls, path, detail=False)
    except ANSWERS:
        return []
    inside = path.rstrip("/") + "/"
    names = {one.rstrip("/").rsplit("/", 1)[-1] for one in paths if inside in one + "/"}
    own = {path.rstrip("/").rsplit("/", 1)[-1]} if path in paths else set()
    return sorted(name for name in names - own if name and name[0] != ".")


def list_below(url: str) -> Iterator[Listed]:
    """List all objects below a prefix, in as few requests as there are pages."""
    root = open_store(url)[1].rstrip("/") + "/"
    for name, info in _below(url):
        if name.startswith(root):
            size = int(info.get("size") or 0)
            yield Listed(name.removeprefix(root), size, _modified(info))


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
    filesystem, path = open_store(url)
    return bytes(ask(url, filesystem.cat_file, path))


def read_range(url: str, start: int, stop: int) -> bytes:
    """Return the bytes [start, stop) of an object; fewer where it ends before."""
    return _read_part(url, start=start, end=stop) if start < stop else b""


def _read_part(url: str, **bounds: int) -> bytes:
    filesystem, path = open_store(url)
    try:
        return bytes(ask(url, filesystem.cat_file, path, **bounds))
    except OSError as error:
        if error.errno == errno.EINVAL:  # a range behind the end
            return b""
        raise


def knows_suffix(url: str) -> bool:
    """Return whether the end of an object is given without being told its size."""
    return url.split("://", 1)[0] in SUFFIX_RANGES


def read_tail(url: str, nbytes: int) -> bytes:
    """Return the last bytes of an object, all of it where it is short."""
    if knows_suffix(url):
        return _read_part(url, start=-nbytes)
    size = describe(url).size
    if size == NOT_A_FILE:
        raise FileNotFoundError(errno.ENOENT, "no such object")
    return read_range(url, max(0, size - nbytes), size)


def open_blocks(url: str, size: int | None = None) -> BinaryIO:
    """Open an object for reads of just what is asked for."""
    if size is None:
        size = describe(url).size
        if size == NOT_A_FILE:
            raise FileNotFoundError(errno.ENOENT, "no such object")

    def give(start: int, stop: int) -> bytes:
        data = read_range(url, start, stop)
        traffic.note(read=len(data))
        return data

    return open_stream(size, give)


def exists(url: str) -> bool:
    """Return whether an object, or one below it, is there."""
    filesystem, path = open_store(url)
    try:  # s3fs's own `exists` takes a bucket that it may not see for a missing one
        ask(url, filesystem.info, path)
    except ANSWERS:
        return False
    return True


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
    filesystem, path = open_store(url)
    if url.split("://", 1)[0] in ONE_PUT:
        options["chunksize"] = max(1, len(data))  # type: ignore[assignment]
    try:
        ask(url, filesystem.pipe_file, path, data, **options)
    except FileNotFoundError:
        scheme, rest = url.split("://", 1)
        raise StoreError(
            f"{scheme}://{rest.split('/', 1)[0]} does not exist; make the bucket first"
        ) from None


def remove(url: str) -> None:
    """Remove one object, if it is there."""
    filesystem, path = open_store(url)
    with suppress(FileNotFoundError):
        ask(url, filesystem.rm_file, path)


def remove_at_once(urls: Sequence[str]) -> bool:
    """Remove objects of one store by one request; return whether it takes that."""
    filesystem, _ = open_store(urls[0])
    paths = [filesystem._strip_protocol(url) for url in urls]
    if any(map(fsspec.core.has_magic, paths)):
        return False
    try:
        ask(urls[0], filesystem.rm, paths)
    except FileNotFoundError:
        return len(urls) == 1
    except (OSError, NotImplementedError):
        return False
    return True


def remove_tree(url: str) -> None:
    """Remove an object and all that is below it, at once or else one by one."""
    filesystem, path = open_store(url)
    if not exists(url):
        return
    try:
        ask(url, filesystem.rm, path, recursive=True)
    except FileNotFoundError:
        return
    except OSError:  # a store without bulk deletion
        for listed in list_below(url):
            remove(join(url, listed.name))
        if is_file(url):
            remove(url)
