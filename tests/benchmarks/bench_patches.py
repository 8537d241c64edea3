"""Patches: random cubes of one volume."""

import numpy as np

from tests.benchmarks.bench_slices import read_boxes
from tests.benchmarks.contest import Report
from tests.benchmarks.inputs import SCALES

PROFILES = ("patch", "balanced")


def run(scale_name: str) -> Report:
    """Compare all readers, by codec and profile."""
    scale = SCALES[scale_name]
    extents = (scale.n_slices, scale.width, scale.width)
    rng = np.random.default_rng(2)
    corners = rng.integers(
        0, [n - scale.patch + 1 for n in extents], (scale.n_reads, 3)
    )
    boxes = [
        tuple(slice(int(start), int(start) + scale.patch) for start in corner)
        for corner in corners
    ]
    contests = read_boxes("patches", scale, boxes, PROFILES)
    none, lz4 = contests["patches none patch"], contests["patches lz4 patch"]
    measures = {
        "patches none / memmap": none.ratio("dicomdask", "memmap (limit)"),
        "patches lz4 / zarr-python": lz4.ratio("dicomdask", "zarr-python"),
        "patches lz4 / tensorstore": lz4.ratio("dicomdask", "tensorstore"),
        "patches lz4 / raw DICOM": lz4.ratio("dicomdask", "pydicom, raw DICOM"),
    }
    return Report(tuple(contests.values()), measures)
