"""What the manifest knows already, in sixteen bytes a file.

A listing is compared with it as it comes, so that neither is ever held as a whole: of a
hundred million files, what is known takes 1.6 GB.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from dicomdask.model import SourceFile

Numbers = np.ndarray[Any, np.dtype[np.uint64]]


class Known:
    """The URLs that were listed, and the state of each when it was listed last.

    Parameters
    ----------
    parts
        Listed files, oldest first.
    """

    def __init__(self, parts: Iterable[Sequence[SourceFile]] = ()) -> None:
        self._urls: Numbers = np.empty(0, np.uint64)
        self._states: Numbers = np.empty(0, np.uint64)
        self._learn([_digests(part) for part in parts])

    def compare(
        self, files: Sequence[SourceFile]
    ) -> tuple[list[SourceFile], list[SourceFile]]:
        """Return the files that are new and those that changed, and know them then."""
        urls, states = _digests(files)
        places = np.searchsorted(self._urls, urls)
        inside = places < len(self._urls)
        is_known = np.zeros(len(files), bool)
        is_known[inside] = self._urls[places[inside]] == urls[inside]
        is_same = np.zeros(len(files), bool)
        is_same[is_known] = self._states[places[is_known]] == states[is_known]
        self._learn([(urls[~is_same], states[~is_same])])
        fresh = [file for file, known in zip(files, is_known, strict=True) if not known]
        changed = [
            file
            for file, known, same in zip(files, is_known, is_same, strict=True)
            if known and not same
        ]
        return _once(fresh), _once(changed)

    def _learn(self, digests: Sequence[tuple[Numbers, Numbers]]) -> None:
        if not sum(len(urls) for urls, _ in digests):
            return
        urls = np.concatenate([self._urls, *(urls for urls, _ in digests)])
        states = np.concatenate([self._states, *(states for _, states in digests)])
        order = np.argsort(urls, kind="stable")
        is_last = np.append(urls[order][1:] != urls[order][:-1], True)
        self._urls, self._states = urls[order][is_last], states[order][is_last]


def _once(files: Sequence[SourceFile]) -> list[SourceFile]:
    return list({file.url: file for file in files}.values())


def _digests(files: Sequence[SourceFile]) -> tuple[Numbers, Numbers]:
    urls = b"".join(_digest(file.url) for file in files)
    states = b"".join(_digest(file.etag) for file in files)
    return np.frombuffer(urls, np.uint64), np.frombuffer(states, np.uint64)


def _digest(text: str) -> bytes:
    data = text.encode("utf-8", "surrogateescape")
    return hashlib.blake2b(data, digest_size=8).digest()
