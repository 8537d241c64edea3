"""Bytes in and out: the only room that knows where they lie.

Reads are bounded ranges. Writes are whole objects that appear at once or not at all:
locally a temporary file, fsync and a rename or link; elsewhere one PUT. This version
reads and writes local paths; other URLs are refused by `require_local`.
"""

import glob
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

import fsspec
import numpy as np

from dicomdask.errors import SourceError, StoreError
from dicomdask.model import SourceFile

BLOCK_BYTES: Final = 1 << 16
"""How much of a file one read of its header fetches."""

NOT_A_FILE: Final = -1
"""The size of a listed entry that cannot be read as a file."""


def require_local(url: str) -> str:
    """Return the absolute local path of `url`, in the form that the tables keep.

    Raises
    ------
    StoreError
        If the URL names an object store, which this version does not handle.
    """
    if "://" in url and not url.startswith(("file://", "memory://")):
        scheme = url.split("://", 1)[0]
        raise StoreError(
            f"{scheme}:// is not supported yet; copy the data to a local path"
        )
    if url.startswith("memory://"):
        return url.rstrip("/")
    return encode_path(os.path.abspath(decode_path(url)))


def encode_path(path: str) -> str:
    """Return a local path as text that any table can hold.

    Names that are not UTF-8 become a percent-encoded file:// URL.
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        return "file://" + quote_from_bytes(os.fsencode(path))
    return path


def decode_path(url: str) -> str:
    """Return the local path that `encode_path` made a URL of."""
    if not url.startswith("file://"):
        return url
    return os.fsdecode(unquote_to_bytes(url.removeprefix("file://")))


def join(base: str, *names: str) -> str:
    """Return the URL of an object below `base`."""
    return "/".join([base.rstrip("/"), *names])


def _is_local(url: str) -> bool:
    return "://" not in url or url.startswith("file://")


def _filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    filesystem, path = fsspec.core.url_to_fs(url)
    return filesystem, path


# --- list ---------------------------------------------------------------------


def list_files(source: str, *, exclude: tuple[str, ...] = ()) -> Iterator[SourceFile]:
    """List the files of a source: a file, a folder (any depth) or a glob pattern.

    Links to folders are followed once. What is listed and cannot be a file (a broken
    link, a pipe, a folder without permission) has the size `NOT_A_FILE`.

    Parameters
    ----------
    source
        A local path or glob pattern.
    exclude
        Folders to leave out: the store and the work directory.

    Raises
    ------
    SourceError
        If nothing is there.
    """
    root = decode_path(require_local(source))
    left_out = {os.path.realpath(decode_path(url)) for url in exclude}
    if os.path.lexists(root):
        yield from _list_entry(root, left_out, set())
        return
    matches = sorted(glob.glob(root, recursive=True)) if glob.has_magic(root) else []
    if not matches:
        raise SourceError(f"no such source: {source}; give a file, a folder or a glob")
    seen: set[str] = set()
    for match in matches:
        yield from _list_entry(match, left_out, seen)


def _list_entry(path: str, left_out: set[str], seen: set[str]) -> Iterator[SourceFile]:
    real = os.path.realpath(path)
    if real in left_out:
        return
    if not os.path.isdir(path):
        yield _describe(path)
        return
    if real in seen:
        return
    seen.add(real)
    try:
        names = sorted(os.listdir(path))
    except OSError:
        yield SourceFile(encode_path(path), NOT_A_FILE, "")
        return
    for name in names:
        yield from _list_entry(os.path.join(path, name), left_out, seen)


def _describe(path: str) -> SourceFile:
    url = encode_path(path)
    try:
        info = os.stat(path)
    except OSError:
        return SourceFile(url, NOT_A_FILE, "")
    if not stat.S_ISREG(info.st_mode):
        return SourceFile(url, NOT_A_FILE, "")
    return SourceFile(url, info.st_size, f"{info.st_mtime_ns:x}-{info.st_size:x}")


def describe(url: str) -> SourceFile:
    """Return the present state of one listed file; see `list_files`."""
    return _describe(decode_path(url))


# --- read ---------------------------------------------------------------------


def read(url: str) -> bytes:
    """Return all bytes of an object; raise FileNotFoundError if there is none."""
    if _is_local(url):
        return Path(decode_path(url)).read_bytes()
    filesystem, path = _filesystem(url)
    return bytes(filesystem.cat_file(path))


def open_blocks(url: str) -> BinaryIO:
    """Open an object for seeking reads that fetch one block at a time."""
    if _is_local(url):
        return open(decode_path(url), "rb", buffering=BLOCK_BYTES)
    filesystem, path = _filesystem(url)
    opened: BinaryIO = filesystem.open(path, "rb", block_size=BLOCK_BYTES)
    return opened


def is_openable(url: str) -> bool:
    """Return whether a file can be opened for reading now."""
    try:
        open_blocks(url).close()
    except OSError:
        return False
    return True


class _OpenFile:
    """A descriptor that is closed when the last one who reads it lets go."""

    __slots__ = ("descriptor",)

    def __init__(self, path: str) -> None:
        self.descriptor = -1
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


class Ranges:
    """Ranged reads below one base URL; the reader of shards is given its methods.

    A local object is opened once and kept open, so that a range costs one `pread`.
    Threads may share it without a lock: each step on the dictionary is atomic, and a
    file that is dropped stays open until its reads are done.
    """

    def __init__(self, base: str, *, max_open: int = 256) -> None:
        self._base = base
        self._max_open = max_open
        self._files: dict[str, _OpenFile] = {}

    def get_range(self, path: str, start: int, stop: int) -> memoryview:
        """Return the bytes [start, stop) of an object; fewer where it ends before.

        The bytes are the caller's own and may be written to.
        """
        if _is_local(self._base):
            file = self._open(path)
            data = np.empty(stop - start, np.uint8).data
            return data[: os.preadv(file.descriptor, [data], start)]
        filesystem, full = _filesystem(join(self._base, path))
        return memoryview(bytearray(filesystem.cat_file(full, start=start, end=stop)))

    def get_tail(self, path: str, nbytes: int) -> bytes:
        """Return the last `nbytes` bytes of an object, all of it where it is short."""
        if _is_local(self._base):
            file = self._open(path)
            start = max(0, os.fstat(file.descriptor).st_size - nbytes)
            return os.pread(file.descriptor, nbytes, start)
        filesystem, full = _filesystem(join(self._base, path))
        return bytes(filesystem.cat_file(full, start=-nbytes))

    def _open(self, path: str) -> _OpenFile:
        file = self._files.get(path)
        if file is None:
            if len(self._files) >= self._max_open:
                self.close()
            opened = _OpenFile(join(decode_path(self._base), path))
            file = self._files.setdefault(path, opened)
        return file

    def close(self) -> None:
        """Close the files that are kept open; later reads open them again."""
        self._files = {}

    def __reduce__(self) -> tuple[type["Ranges"], tuple[str]]:
        return type(self), (self._base,)


def exists(url: str) -> bool:
    """Return whether an object or a folder is there."""
    if _is_local(url):
        return os.path.exists(decode_path(url))
    filesystem, path = _filesystem(url)
    return bool(filesystem.exists(path))


def is_file(url: str) -> bool:
    """Return whether an object, and not a folder, is there."""
    if _is_local(url):
        return os.path.isfile(decode_path(url))
    filesystem, path = _filesystem(url)
    return bool(filesystem.isfile(path))


def list_names(url: str) -> list[str]:
    """Return the sorted names directly below a folder; none where there is none."""
    if _is_local(url):
        try:
            return sorted(
                name for name in os.listdir(decode_path(url)) if name[0] != "."
            )
        except (FileNotFoundError, NotADirectoryError):
            return []
    filesystem, path = _filesystem(url)
    if not filesystem.exists(path):
        return []
    return sorted(name.rsplit("/", 1)[-1] for name in filesystem.ls(path, detail=False))


# --- write --------------------------------------------------------------------


def write(url: str, data: bytes) -> None:
    """Write an object at once, replacing what is there."""
    if not _is_local(url):
        filesystem, path = _filesystem(url)
        filesystem.pipe_file(path, data)
        return
    target = Path(decode_path(url))
    temporary = _write_temporary(target, data)
    try:
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def create(url: str, data: bytes) -> None:
    """Write an object that must not exist yet; of several writers one wins.

    Raises
    ------
    FileExistsError
        If the object is there already.
    """
    if not _is_local(url):
        filesystem, path = _filesystem(url)
        filesystem.pipe_file(path, data, mode="create")
        return
    target = Path(decode_path(url))
    temporary = _write_temporary(target, data)
    try:
        os.link(temporary, target)
    finally:
        temporary.unlink()


def _write_temporary(target: Path, data: bytes) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def make_private_folder(url: str) -> None:
    """Make a folder that only its owner can enter.

    Raises
    ------
    StoreError
        If it cannot be made or written to.
    """
    if not _is_local(url):
        return
    path = decode_path(url)
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        os.chmod(path, 0o700)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be made ({error.strerror}); give a place you can write to"
        ) from None
    require_writable(url)


def require_writable(url: str) -> None:
    """Check that objects can be written below `url`, or raise StoreError."""
    probe = join(url, f".probe-{secrets.token_hex(4)}")
    try:
        write(probe, b"")
        remove(probe)
    except OSError as error:
        raise StoreError(
            f"cannot write below {url} ({error.strerror}); give a place you can "
            "write to"
        ) from None


def remove(url: str) -> None:
    """Remove one object, if it is there."""
    if _is_local(url):
        Path(decode_path(url)).unlink(missing_ok=True)
        return
    filesystem, path = _filesystem(url)
    if filesystem.exists(path):
        filesystem.rm_file(path)


def remove_tree(url: str) -> None:
    """Remove a folder and all that is below it, if it is there."""
    filesystem, path = _filesystem(decode_path(url))
    if filesystem.exists(path):
        filesystem.rm(path, recursive=True)
