"""What lies below a local source: its files, and links that stay within the sources."""

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from dicomdask.errors import SourceError
from dicomdask.model import SourceFile
from dicomdask.storage.listed import NOT_A_FILE, OUTSIDE
from dicomdask.storage.local import decode_path, describe, encode_path


def list_files(
    url: str, source: str, exclude: tuple[str, ...], within: tuple[str, ...]
) -> Iterator[SourceFile]:
    """List a file, a folder or what a glob pattern finds; see `storage.list_files`."""
    path = decode_path(url)
    walk = _Walk(
        left_out=frozenset(os.path.realpath(decode_path(one)) for one in exclude),
        roots=tuple(_root(decode_path(one)) for one in (url, *within)),
    )
    if os.path.lexists(path):
        yield from walk.entry(path, os.path.realpath(path))
        return
    matches = sorted(glob.glob(path, recursive=True)) if glob.has_magic(path) else []
    if not matches:
        raise SourceError(f"no such source: {source}; give a file, a folder or a glob")
    for match in matches:
        yield from walk.entry(match, os.path.realpath(match))


def _root(path: str) -> str:
    """Return the real place that a source stands for; a pattern's is what is fixed."""
    if glob.has_magic(path) and not os.path.lexists(path):
        parts = path.split(os.sep)
        first = next(at for at, part in enumerate(parts) if glob.has_magic(part))
        path = os.sep.join(parts[:first]) or os.sep
    return os.path.realpath(path)


@dataclass(frozen=True, slots=True)
class _Walk:
    """One listing: what is left out, where links may lead, folders seen by now."""

    left_out: frozenset[str]
    roots: tuple[str, ...]
    seen: set[str] = field(default_factory=set)

    def entry(self, path: str, real: str) -> Iterator[SourceFile]:
        """List what is at a path, whose real place is known."""
        if real in self.left_out:
            return
        if not any(_is_within(real, root) for root in self.roots):
            yield SourceFile(encode_path(path), OUTSIDE, "")
            return
        if not os.path.isdir(real):
            yield describe(encode_path(path))
            return
        if real in self.seen:
            return
        self.seen.add(real)
        try:
            with os.scandir(path) as found:
                entries = sorted((one.name, one.is_symlink()) for one in found)
        except OSError:
            yield SourceFile(encode_path(path), NOT_A_FILE, "")
            return
        for name, is_link in entries:
            below = os.path.join(path, name)
            place = os.path.realpath(below) if is_link else os.path.join(real, name)
            yield from self.entry(below, place)


def _is_within(real: str, root: str) -> bool:
    return real == root or real.startswith(root.rstrip(os.sep) + os.sep)
