"""A tiny harness: contenders run interleaved, so that noise strikes all alike.

Only ratios carry over from one machine to another. A ratio is the median of those of
each round, in which the contenders ran one right after the other.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Contender:
    """Something to time: one call does `amount` units of work."""

    run: Callable[[], Any]
    amount: int


@dataclass(frozen=True, slots=True)
class Timing:
    """The seconds that one unit took in each round, by the wall and of the CPU."""

    wall: tuple[float, ...]
    cpu: tuple[float, ...]

    @property
    def spread(self) -> float:
        """Return how far the rounds lie apart, as a share of their median."""
        return (max(self.wall) - min(self.wall)) / median(self.wall)


@dataclass(frozen=True, slots=True)
class Contest:
    """What came of one contest; `outputs` are what contenders returned to be equal."""

    title: str
    unit: str
    reference: str
    timings: Mapping[str, Timing]
    outputs: Mapping[str, Any] = field(default_factory=dict)

    def ratio(self, name: str, reference: str) -> float:
        """Return how many times as fast as the reference a contender is."""
        return _ratio(self.timings[reference].wall, self.timings[name].wall)

    def cpu_ratio(self, name: str, reference: str) -> float:
        """Return how many times less CPU than the reference a contender takes."""
        return _ratio(self.timings[reference].cpu, self.timings[name].cpu)

    def differing(self) -> list[str]:
        """Return the contenders whose output is not equal to the first one's."""
        if not self.outputs:
            return []
        first = next(iter(self.outputs.values()))
        return [n for n, other in self.outputs.items() if not _equal(first, other)]

    def table(self) -> str:
        """Return one line a contender."""
        head = (f"{self.unit}/s", "ms wall", "ms cpu", "spread", "x", "x cpu")
        lines = [
            (
                name,
                f"{1 / median(timing.wall):.1f}",
                f"{1e3 * median(timing.wall):.3f}",
                f"{1e3 * median(timing.cpu):.3f}",
                f"{timing.spread:.0%}",
                f"{self.ratio(name, self.reference):.2f}",
                f"{self.cpu_ratio(name, self.reference):.2f}",
            )
            for name, timing in self.timings.items()
        ]
        title = f"{self.title} (x: times {self.reference})"
        return f"{title}\n{align([('', *head), *lines])}"


@dataclass(frozen=True, slots=True)
class Report:
    """What one benchmark found: contests, what goals are held against, and remarks."""

    contests: tuple[Contest, ...]
    measures: Mapping[str, float]
    remarks: tuple[str, ...] = ()

    def text(self) -> str:
        """Return all tables."""
        return "\n\n".join([*self.remarks, *(one.table() for one in self.contests)])


def compete(
    title: str,
    contenders: Mapping[str, Contender],
    *,
    unit: str,
    reference: str,
    rounds: int,
    outputs: Mapping[str, Any] | None = None,
) -> Contest:
    """Run A B C A B C …, after one warm-up of each.

    Parameters
    ----------
    outputs
        What contenders returned, to be compared; by default that of the warm-up.
    """
    warm = {name: contender.run() for name, contender in contenders.items()}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            wall, cpu = time.perf_counter(), time.process_time()
            contender.run()
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            found[name].append((wall / contender.amount, cpu / contender.amount))
    timings = {
        name: Timing(*(tuple(column) for column in zip(*times, strict=True)))
        for name, times in found.items()
    }
    kept = warm if outputs is None else outputs
    return Contest(title, unit, reference, timings, kept)


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return bool(a.dtype == b.dtype and np.array_equal(a, b))
    if isinstance(a, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    return bool(a == b)


def _ratio(reference: Sequence[float], own: Sequence[float]) -> float:
    pairs = zip(reference, own, strict=True)
    # A clock of coarse steps may say that a tiny run took no time.
    return median(base / max(seconds, 1e-9) for base, seconds in pairs)


def align(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as lines, the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
