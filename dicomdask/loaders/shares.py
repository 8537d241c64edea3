"""Who consumes what of an epoch, and what is left of it: arithmetic over places.

An epoch is a line of places. Each rank takes one run of it, each worker one run of its
rank's, in whole batches; batches come from the workers in turn, as torch's DataLoader
asks for them. So batch `t` of any rank is known without the batches before it, and a
stop leaves a few runs, which are the line of those who go on.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

import numpy as np

from dicomdask.errors import OptionError
from dicomdask.loaders.order import VERSION, Integers

Remainder = Literal["pad", "keep", "drop"]
Runs = Sequence[tuple[int, int]]

REMAINDERS: Final = ("pad", "keep", "drop")


@dataclass(frozen=True, slots=True)
class Leg:
    """A part of an epoch that went on without a change of those who consume it.

    Attributes
    ----------
    world, workers
        How many ranks there are, and how many workers each has: 1 for none of its own.
    batch_size
        Samples in a batch.
    remainder
        `pad`: every rank has as many samples, by taking the line's first ones again;
        `keep`: every sample once, so that ranks may differ by one batch; `drop`: whole
        batches only, as many for each rank.
    batches
        How many each rank was given.
    """

    world: int = 1
    workers: int = 1
    batch_size: int = 1
    remainder: Remainder = "pad"
    batches: int = 0

    def __post_init__(self) -> None:
        if min(self.world, self.workers, self.batch_size) < 1 or self.batches < 0:
            raise OptionError("world, workers and batch_size are 1 or more")
        if self.remainder not in REMAINDERS:
            raise OptionError(f"remainder is one of {', '.join(REMAINDERS)}")


@dataclass(frozen=True, slots=True)
class State:
    """Where an epoch stands: plain data, the same on every rank.

    Attributes
    ----------
    seed, epoch, mix
        They decide the order; see `Samples.order`.
    samples
        Tells samples of other volumes or another sampler apart.
    n_samples
        Of the whole epoch.
    legs
        What was consumed; the last one goes on.
    """

    seed: int
    epoch: int
    mix: int
    samples: str
    n_samples: int
    legs: tuple[Leg, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` takes, as JSON can hold it."""
        return {"version": VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "State":
        """Return the state that `to_dict` wrote.

        Raises
        ------
        OptionError
            If another version of the order wrote it, or it is not a state.
        """
        version = data.get("version")
        if version != VERSION:
            raise OptionError(
                f"this state has version {version} of the order and this dicomdask has "
                f"{VERSION}; begin the epoch again, or finish it with the other release"
            )
        try:
            found = {name: value for name, value in data.items() if name != "version"}
            found["legs"] = tuple(Leg(**leg) for leg in data["legs"])
            return cls(**found)
        except (KeyError, TypeError) as error:
            raise OptionError("this is not the state of a loader") from error

    def go_on(self, leg: Leg) -> "State":
        """Return the state with `leg` as the last one, which may be going on."""
        *before, last = self.legs
        if replace(last, batches=0) == replace(leg, batches=0):
            return self
        if last.batches:
            return replace(self, legs=(*self.legs, leg))
        if not before:
            return replace(self, legs=(leg,))
        return replace(self, legs=tuple(before)).go_on(leg)

    def after(self, batches: int) -> "State":
        """Return the state after so many batches of the last leg, in all."""
        *before, last = self.legs
        return replace(self, legs=(*before, replace(last, batches=batches)))

    def share(self) -> "Share":
        """Return how the last leg shares out what the others left."""
        runs: Runs = [(0, self.n_samples)]
        for leg in self.legs[:-1]:
            runs = Share(runs, leg).left()
        return Share(runs, self.legs[-1])


class Share:
    """How a leg shares out a line: its batches, and what it leaves.

    Parameters
    ----------
    runs
        The places of the epoch that are left, as (start, stop), in order.
    leg
        Who consumes them, and how many batches they were given.
    """

    def __init__(self, runs: Runs, leg: Leg) -> None:
        self._runs = np.asarray(runs, np.int64).reshape(-1, 2)
        self._ends = np.cumsum(self._runs[:, 1] - self._runs[:, 0])
        self._leg = leg
        self._length = int(self._ends[-1]) if len(self._runs) else 0

    def n_batches(self, rank: int) -> int:
        """Return how many batches a rank has, those already given included."""
        start, stop = self._rank(rank)
        return -(-(stop - start) // self._leg.batch_size)

    def batch(self, rank: int, number: int) -> Integers:
        """Return the places of one batch of a rank, counted from the leg's begin."""
        start, stop = self._rank(rank)
        worker, step = number % self._leg.workers, number // self._leg.workers
        first, end = self._batches_of(rank, worker)
        if number < 0 or first + step >= end:
            raise IndexError(f"batch {number} of {self.n_batches(rank)}")
        begin = start + (first + step) * self._leg.batch_size
        return self._places(begin, min(begin + self._leg.batch_size, stop))

    def left(self) -> list[tuple[int, int]]:
        """Return the runs of the epoch that no batch given so far holds, in order."""
        size = self._leg.batch_size
        cuts = []
        for rank in range(self._leg.world):
            start, stop = self._rank(rank)
            for worker in range(self._leg.workers):
                first, end = self._batches_of(rank, worker)
                given = min(self._given(worker), end - first)
                low, high = start + (first + given) * size, start + end * size
                cuts.append((low, min(high, stop, self._length)))
        shared = self._rank(self._leg.world - 1)[1]
        cuts.append((shared, self._length))  # what `drop` leaves out
        return [run for low, high in cuts for run in self._cut(low, high)]

    def _rank(self, rank: int) -> tuple[int, int]:
        """Return a rank's run of the line; `pad` reaches beyond its end."""
        world, length = self._leg.world, self._length
        if self._leg.remainder == "pad":
            length = -(-length // world) * world
        elif self._leg.remainder == "drop":
            length -= length % (world * self._leg.batch_size)
        return rank * length // world, (rank + 1) * length // world

    def _batches_of(self, rank: int, worker: int) -> tuple[int, int]:
        """Return a worker's run of its rank's batches; the first ones have one more."""
        each, more = divmod(self.n_batches(rank), self._leg.workers)
        first = worker * each + min(worker, more)
        return first, first + each + (worker < more)

    def _given(self, worker: int) -> int:
        turns, more = divmod(self._leg.batches, self._leg.workers)
        return turns + (worker < more)

    def _places(self, start: int, stop: int) -> Integers:
        """Return the places of the epoch at a run of the line."""
        line = np.arange(start, stop) % self._length
        which = np.searchsorted(self._ends, line, side="right")
        places: Integers = self._runs[which, 1] - self._ends[which] + line
        return places

    def _cut(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield what of the runs a run of the line covers."""
        begin = 0
        for (low, high), end in zip(self._runs, self._ends, strict=True):
            first, last = max(start, begin), min(stop, end)
            if first < last:
                yield int(low + first - begin), int(high + last - end)
            begin = int(end)
