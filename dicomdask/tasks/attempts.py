"""Attempts: what was being decoded when a process died, and how often.

A decoder is foreign code: on a damaged file it may end its process, and then no barrier
holds. So whatever is decoded leaves a mark first, and takes it away when it is over. A
mark that is still there was left by a process that died, whoever ran it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from dicomdask.work import Work

TRIES: Final = 2
"""After so many deaths a task is decoded in a process apart."""


class Attempts:
    """The marks of a work directory as they were when a batch began.

    Parameters
    ----------
    work
        The work directory.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._before = work.read_attempts()
        self.is_careful = False

    @contextmanager
    def mark(self, name: str) -> Iterator[None]:
        """Leave a mark while something is decoded.

        `is_careful` tells whether it is to be decoded apart; where that was needed
        once, it holds for the rest of the batch: what is like it lies beside it.

        Parameters
        ----------
        name
            The digest of what is decoded, the same in each attempt.
        """
        before = self._before.get(name, [])
        self.is_careful |= len(before) >= TRIES
        mine = self._work.mark_attempt(name)
        try:
            yield
        finally:
            self._work.remove_attempt(mine)
        for mark in before:
            self._work.remove_attempt(mark)
