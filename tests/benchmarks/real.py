"""Real pixels of many kinds, found below DICOMDASK_TEST_DATA, and what is made of them.

A real series there has few slices. It is continued by its own slices in turn, each
mirrored, turned and shifted by chance, so that no piece of one is found in another by
a codec. Where no real files are, pixels are a smooth field plus noise.
"""

import os
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

Array = np.ndarray[Any, np.dtype[Any]]
LARGEST_FILE = 1 << 25


@dataclass(frozen=True, slots=True)
class Found:
    """A real image file: what it shows, and where it is."""

    path: Path
    series: str
    modality: str
    shape: tuple[int, ...]
    """Frames, rows, columns and samples, those that are one left out."""


@cache
def find_images() -> tuple[Found, ...]:
    """Return all image files, in the order of their paths."""
    root = os.environ.get("DICOMDASK_TEST_DATA")
    files = (
        sorted(path for path in Path(root).rglob("*") if path.is_file()) if root else []
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [_look(path) for path in files if path.stat().st_size < LARGEST_FILE]
    return tuple(one for one in found if one is not None)


def _look(path: Path) -> Found | None:
    try:
        ds = pydicom.dcmread(path, stop_before_pixels=True)
        sizes = ds.get("NumberOfFrames") or 1, ds.Rows, ds.Columns, ds.SamplesPerPixel
        shape = tuple(int(size) for size in sizes if int(size) != 1)
        series, modality = str(ds.SeriesInstanceUID), str(ds.Modality)
    except (pydicom.errors.InvalidDicomError, AttributeError, TypeError, ValueError):
        return None
    return Found(path, series, modality, shape)


def real_series(modality: str, width: int) -> list[Array]:
    """Return the pixels of each series of several square slices, as int16.

    Series that repeat one slice in many encodings are left out.
    """
    groups: dict[str, list[Path]] = defaultdict(list)
    for one in find_images():
        if (one.modality, one.shape) == (modality, (width, width)):
            groups[one.series].append(one.path)
    loaded = [_load(paths) for _, paths in sorted(groups.items())]
    return [np.stack(slices) for slices in loaded if len(slices) > 1]


def _load(paths: Sequence[Path]) -> list[Array]:
    """Return what differs of the pixels of some files."""
    seen: dict[bytes, Array] = {}
    for path in paths:
        pixels = read_pixels(path)
        if pixels is not None and pixels.max() < 1 << 15:
            small = np.asarray(pixels, np.int16)
            seen.setdefault(small.tobytes(), small)
    return list(seen.values()) if len(seen) == len(paths) else []


def read_pixels(path: Path) -> Array | None:
    """Return the pixels of a file; None where it cannot be decoded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return np.asarray(pydicom.dcmread(path).pixel_array)
        except Exception:  # noqa: BLE001 - decoders raise anything
            return None


def continued(slices: Array, n: int, seed: int) -> Array:
    """Return `n` slices: those given, then they again in turn, each moved by chance."""
    rng = np.random.default_rng(seed)
    out = np.empty((n, *slices.shape[1:]), slices.dtype)
    for number in range(n):
        one = slices[number % len(slices)]
        if number >= len(slices):
            one = one[:: rng.choice([-1, 1]), :: rng.choice([-1, 1])]
            one = one.T if rng.random() < 0.5 else one
            shift = rng.integers(0, one.shape[0], 2).tolist()
            one = np.roll(one, shift, (0, 1))
        out[number] = one
    return out


def generated(n: int, width: int, seed: int = 0) -> Array:
    """Return slices of 12 bits: a smooth field plus noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:width, :width] / width
    out = np.empty((n, width, width), np.int16)
    for number in range(n):
        smooth = 1200 + 1000 * np.sin(6 * x + number / 9 + seed) * np.cos(5 * y)
        out[number] = np.clip(smooth + rng.normal(0, 12, smooth.shape), 0, 4095)
    return out
