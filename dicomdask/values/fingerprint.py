"""What planners of training ask of many volumes: spacings, shapes and intensities.

As nnU-Net's `dataset_fingerprint.json` has them, but of any number of volumes: what is
kept grows with the number of different values, which is bounded, and not with volumes.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

import numpy as np

from dicomdask.values.distribution import Distribution, distribution, pool

LEVELS: Final = (0.5, 50.0, 99.5)
EXTENTS: Final = ("spacing_mm", "shape", "extent_mm")
INTENSITIES: Final = "intensities"


@dataclass(frozen=True, slots=True, eq=False)
class Fingerprint:
    """The volumes of one modality and units, pooled; it merges.

    Attributes
    ----------
    n_volumes, n_pooled
        How many, and of how many the intensities are known.
    parts
        Distributions by name. `intensities`: modality values of all voxels; padding and
        what is no number left out. `spacing_mm 3 0`: spacings of volumes that have
        three, along the first axis; and so of `shape`, and of `extent_mm`, the product
        of both.
    """

    n_volumes: int = 0
    n_pooled: int = 0
    parts: Mapping[str, Distribution] = field(default_factory=dict)

    def less(self, other: "Fingerprint") -> "Fingerprint":
        """Return what is left without volumes that were pooled.

        Raises
        ------
        ValueError
            If some of them were not.
        """
        if not other.parts.keys() <= self.parts.keys():
            raise ValueError("volumes that were not pooled cannot be taken away")
        left = {
            name: one.less(other.parts[name]) if name in other.parts else one
            for name, one in self.parts.items()
        }
        kept = {name: one for name, one in left.items() if one.counts.size}
        n_volumes = self.n_volumes - other.n_volumes
        return Fingerprint(n_volumes, self.n_pooled - other.n_pooled, kept)

    def summary(self) -> dict[str, Any]:
        """Return what a planner asks for, as plain numbers and lists.

        Returns
        -------
        dict
            n_volumes, n_pooled; n_values, mean, std, min, max, percentile_0.5, _50 and
            _99.5 of modality values; percentile_error: by how much one of the latter
            may be off at most. Medians spacing_mm, shape and extent_mm over volumes of
            as many spatial axes as most have, and spacing_mm_10, their tenth
            percentiles. None where nothing was counted.
        """
        return {
            "n_volumes": self.n_volumes,
            "n_pooled": self.n_pooled,
            **_summary(self.parts.get(INTENSITIES, pool([]))),
            **{name: self._along_axes(name, 50) for name in EXTENTS},
            "spacing_mm_10": self._along_axes("spacing_mm", 10),
        }

    def _along_axes(self, name: str, level: float) -> list[float] | None:
        """Return a percentile along each axis, of the usual number of axes."""
        several: dict[int, list[Distribution]] = defaultdict(list)
        for key, one in sorted(self.parts.items()):
            if key.startswith(f"{name} "):
                several[int(key.split()[1])].append(one)
        if not several:
            return None
        usual = max(sorted(several), key=lambda n: several[n][0].n_values)
        return [one.percentile(level)[0] for one in several[usual]]

    def to_json(self) -> dict[str, Any]:
        """Return plain data; distributions are packed."""
        packed = {name: one.to_text() for name, one in sorted(self.parts.items())}
        n = {"n_volumes": self.n_volumes, "n_pooled": self.n_pooled}
        return {**n, "parts": packed}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Self:
        """Return what `to_json` told of."""
        parts = {n: Distribution.from_text(text) for n, text in told["parts"].items()}
        return cls(told["n_volumes"], told["n_pooled"], parts)


def merge_fingerprints(several: Iterable[Fingerprint]) -> Fingerprint:
    """Return the fingerprint of all volumes together."""
    n_volumes, n_pooled = 0, 0
    parts = defaultdict[str, list[Distribution]](list)
    for one in several:
        n_volumes += one.n_volumes
        n_pooled += one.n_pooled
        for name, found in one.parts.items():
            parts[name].append(found)
    pooled = {name: pool(found) for name, found in parts.items()}
    return Fingerprint(n_volumes, n_pooled, pooled)


def fingerprint_of(rows: Sequence[Mapping[str, Any]]) -> Fingerprint:
    """Return the fingerprint of rows of `tables/fingerprints`."""
    extents: dict[str, list[Distribution]] = defaultdict(list)
    for row in rows:
        for name, along in _extents(row):
            for axis, value in enumerate(along):  # one by one, sums are exact
                one = distribution(np.array([value]))
                extents[f"{name} {len(along)} {axis}"].append(one)
    parts = {name: pool(several) for name, several in extents.items()}
    told = [row[INTENSITIES] for row in rows if row[INTENSITIES] is not None]
    if told:
        parts[INTENSITIES] = pool([*map(Distribution.from_record, told)])
    return Fingerprint(len(rows), len(told), parts)


def _extents(row: Mapping[str, Any]) -> Iterator[tuple[str, list[float]]]:
    shape = [float(extent) for extent in row["shape"]]
    spacing = [float(step) for step in row["spacing_mm"] or ()]
    yield "shape", shape
    yield "spacing_mm", spacing
    if len(shape) == len(spacing):
        pairs = zip(shape, spacing, strict=True)
        yield "extent_mm", [extent * step for extent, step in pairs]


def _summary(intensities: Distribution) -> dict[str, Any]:
    names = [f"percentile_{level:g}" for level in LEVELS]
    if not intensities.counts.size:
        empty = ("mean", "std", "min", "max", *names, "percentile_error")
        return {"n_values": 0} | dict.fromkeys(empty)
    told = [intensities.percentile(level) for level in LEVELS]
    return {
        "n_values": intensities.n_values,
        "mean": intensities.mean,
        "std": intensities.std,
        "min": float(intensities.lows[0]),
        "max": float(intensities.highs[-1]),
        **{name: value for name, (value, _) in zip(names, told, strict=True)},
        "percentile_error": max(error for _, error in told),
    }
