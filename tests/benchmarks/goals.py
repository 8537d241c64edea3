"""What the project wants to reach: ratios, each with a bar and a stretch."""

from collections.abc import Mapping
from dataclasses import dataclass

from tests.benchmarks.contest import align


@dataclass(frozen=True, slots=True)
class Goal:
    """A ratio to reach, or to stay below."""

    bar: float
    stretch: float | None = None
    at_most: bool = False

    def verdict(self, measured: float) -> str:
        """Return whether the goal is met, and how well."""
        sign = -1 if self.at_most else 1
        if sign * measured < sign * self.bar:
            return "missed"
        if self.stretch is None or sign * measured < sign * self.stretch:
            return "met"
        return "stretch"


GOALS = {
    "index / pydicom full": Goal(10, 15),
    "decode raw / decoder": Goal(0.9),
    "decode RLE / decoder": Goal(0.9),
    "decode JPEG-LS / decoder": Goal(0.9),
    "decode JPEG lossless / decoder": Goal(0.9),
    "decode J2K / decoder": Goal(0.9),
    "decode HTJ2K / decoder": Goal(0.9),
    "slices none / memmap": Goal(0.55, 0.75),
    "slices lz4 / zarr-python": Goal(10, 13),
    "slices lz4 / tensorstore": Goal(1.8, 2.2),
    "slices lz4 / raw DICOM": Goal(8, 10),
    "slices lz4 / h5py": Goal(2, 2.5),
    "patches none / memmap": Goal(0.4, 0.6),
    "patches lz4 / zarr-python": Goal(9, 12),
    "patches lz4 / tensorstore": Goal(1.1, 1.5),
    "patches lz4 / raw DICOM": Goal(75, 100),
    "loader lz4 / memmap": Goal(0.65, 0.85),
    "loader none / memmap": Goal(0.65, 0.85),
    "store / zarr-python, 64 in flight": Goal(3, 4),
    "store: requests a sample": Goal(1.05, at_most=True),
    "store: requests a sample, first touch": Goal(2, at_most=True),
    "store, whole shards / raw DICOM": Goal(2.8, 4.5),
    "store, headers / bare range GETs": Goal(0.8),
    "store: requests a header": Goal(1, at_most=True),
    "open: seconds": Goal(2, at_most=True),
    "open: peak MB": Goal(500, at_most=True),
    **{
        f"deidentify / floor, {kind}": Goal(2, at_most=True)
        for kind in ("CT", "MR", "SR", "US")
    },
    "text: recall": Goal(0.95, 0.98),
    "text: recall, low contrast": Goal(0.75, 0.9),
    "text: text-free pixels kept": Goal(0.985, 0.995),
    "convert / unavoidable": Goal(0.80),
    "convert: finished again": Goal(0.02, at_most=True),
}


def goal_table(measures: Mapping[str, float]) -> str:
    """Return one line a goal that was measured."""
    lines = [
        (
            name,
            f"{measures[name]:.3g}",
            ("≤ " if goal.at_most else "") + f"{goal.bar:g}",
            "" if goal.stretch is None else f"{goal.stretch:g}",
            goal.verdict(measures[name]),
        )
        for name, goal in GOALS.items()
        if name in measures
    ]
    return align([("goals", "measured", "bar", "stretch", ""), *lines])
