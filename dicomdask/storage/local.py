"""Paths of this machine: whole files that appear at once, ranges by `pread`."""

import fcntl
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import quote_from_bytes, unquote_to_bytes

from dicomdask.errors import StoreError
from dicomdask.model import SourceFile
from dicomdask.storage import traffic
from dicomdask.storage.listed import NOT_A_FILE, Listed


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


# --- list ---------------------------------------------------------------------


def describe(url: str) -> SourceFile:
    """Return the present state of one file."""
    path = decode_path(url)
    listed = encode_path(path)
    try:
        info = os.stat(path)
    except OSError:
        return SourceFile(listed, NOT_A_FILE, "")
    if not stat.S_ISREG(info.st_mode):
        return SourceFile(listed, NOT_A_FILE, "")
    return SourceFile(listed, info.st_size, f"{info.st_mtime_ns:x}-{info.st_size:x}")


def list_names(url: str) -> list[str]:
    """Return the sorted names directly below a folder, hidden ones left out."""
    try:
        return sorted(name for name in os.listdir(decode_path(url)) if name[0] != ".")
    except (FileNotFoundError, NotADirectoryError):
        return []


def list_below(url: str) -> Iterator[Listed]:
    """List all files below a folder, hidden ones too."""
    root = decode_path(url)
    for folder, below, names in os.walk(root):
        below.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            try:
                info = os.lstat(path)
            except FileNotFoundError:
                continue
            relative = os.path.relpath(path, root)
            yield Listed(relative, info.st_size, info.st_mtime)


# --- read ---------------------------------------------------------------------


def read(url: str) -> bytes:
    """Return all bytes of a file."""
    return Path(decode_path(url)).read_bytes()


def open_blocks(url: str, size: int | None = None) -> BinaryIO:
    """Open a file for reads of just what is asked for."""
    del size  # the file knows
    return cast("BinaryIO", traffic.CountedFile(decode_path(url)))


def exists(url: str) -> bool:
    """Return whether a file or a folder is there."""
    return os.path.exists(decode_path(url))


def is_file(url: str) -> bool:
    """Return whether a file is there."""
    return os.path.isfile(decode_path(url))


def real_path(url: str) -> str:
    """Return the path of a file after all links."""
    return os.path.realpath(decode_path(url))


# --- write --------------------------------------------------------------------


def write(
    url: str, data: bytes, *, mode: int = 0o666, is_passing: bool = False
) -> None:
    """Write a file at once, replacing what is there; see `storage.write_passing`."""
    target = Path(decode_path(url))
    temporary = _write_temporary(target, data, mode, is_passing=is_passing)
    try:
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def create(url: str, data: bytes) -> None:
    """Write a file that must not exist yet."""
    target = Path(decode_path(url))
    temporary = _write_temporary(target, data)
    try:
        os.link(temporary, target)
    finally:
        temporary.unlink()


def _write_temporary(
    target: Path, data: bytes, mode: int = 0o666, *, is_passing: bool = False
) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")

    def opener(path: str, flags: int) -> int:
        return os.open(path, flags, mode)

    try:
        with open(temporary, "wb", opener=opener) as file:
            file.write(data)
            file.flush()
            if not is_passing:
                os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


@contextmanager
def lock(url: str, *, shared: bool) -> Iterator[bool]:
    """Hold a folder for this process; see `storage.lock`."""
    path = os.path.join(decode_path(url), ".lock")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            is_held = True
        except BlockingIOError:
            is_held = False
        yield is_held
    finally:
        os.close(descriptor)


def make_private_folder(url: str) -> None:
    """Make a folder that only its owner can enter, or raise StoreError."""
    path = decode_path(url)
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        os.chmod(path, 0o700)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be made ({error.strerror}); give a place you can write to"
        ) from None


def remove(url: str) -> None:
    """Remove one file, if it is there."""
    Path(decode_path(url)).unlink(missing_ok=True)


def remove_empty_folders(url: str) -> None:
    """Remove folders that hold nothing, the lowest first, and the one that is named."""
    for folder, _, _ in os.walk(decode_path(url), topdown=False):
        with suppress(OSError):  # it holds something
            os.rmdir(folder)


def remove_tree(url: str) -> None:
    """Remove a folder and all that is below it, or a file, if it is there."""
    path = Path(decode_path(url))
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
