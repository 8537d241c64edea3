"""What planners of training ask of a dataset: spacings, shapes and intensities."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

LEVELS: Final = (0.5, 50.0, 99.5)
COLUMNS: Final = (
    *("Modality", "units", "shape", "dimensions", "spacing_mm", "slope", "intercept"),
    "statistics",
)
"""The columns of `tables/volumes` that a fingerprint is made of."""

UNKNOWN: Final = "unknown"
"""The modality of volumes that tell none, as a commit's statistics name it."""

Floats = np.ndarray[Any, np.dtype[np.float64]]


def told(statistics: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame | None:
    """Return the fingerprint that a commit tells, or None.

    Parameters
    ----------
    statistics
        Those of the commit, by modality.

    Returns
    -------
    pandas.DataFrame
        One row a modality and units; see `values.Fingerprint.summary`.
    """
    if not all("fingerprints" in found for found in statistics.values()):
        return None
    rows = [
        {"Modality": None if modality == UNKNOWN else modality}
        | {name: value for name, value in one.items() if name != "pooled"}
        for modality, found in statistics.items()
        for one in found["fingerprints"]
    ]
    return pd.DataFrame(rows, columns=None if rows else [])


def fingerprint(volumes: pd.DataFrame) -> pd.DataFrame:
    """Return one row a modality and units, out of rows of volumes; pure.

    Parameters
    ----------
    volumes
        Rows of `tables/volumes` with `COLUMNS`.

    Returns
    -------
    pandas.DataFrame
        Modality, units, n_volumes; median spacing_mm and shape over volumes of as many
        spatial axes as most have; n_values, mean, std, percentile_0.5, _50 and _99.5 of
        modality values, padding left out, over volumes of one slope (n_pooled of them).
        Mean and standard deviation are those of all voxels together; percentiles are
        read from curves through those that are kept of each volume, and nobody knows
        how far off they are.
    """
    rows = []
    for (modality, units), group in volumes.groupby(
        ["Modality", "units"], dropna=False, sort=True
    ):
        records = [dict(zip(group.columns, one, strict=True)) for one in group.values]
        told = {"Modality": modality, "units": units, "n_volumes": len(records)}
        rows.append(told | _geometry(records) | _intensities(records))
    return pd.DataFrame(rows)


def _geometry(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the medians of spacing and shape along z, y and x."""
    shapes, spacings = [], []
    for one in records:
        pairs = zip(one["dimensions"], one["shape"], strict=True)
        shapes.append(
            [int(extent) for axis, extent in pairs if axis in ("z", "y", "x")]
        )
        spacing = one["spacing_mm"]
        spacings.append([] if spacing is None else [float(step) for step in spacing])
    return {"spacing_mm": _median(spacings), "shape": _median(shapes)}


def _median(lists: list[list[Any]]) -> list[float] | None:
    lengths = [len(one) for one in lists if one]
    if not lengths:
        return None
    usual = max(sorted(set(lengths)), key=lengths.count)
    found: list[float] = np.median(
        [o for o in lists if len(o) == usual], axis=0
    ).tolist()
    return found


def _intensities(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    known = [
        (one["statistics"], float(one["slope"]), float(one["intercept"]))
        for one in records
        if not (pd.isna(one["slope"]) or pd.isna(one["intercept"]))
        and one["statistics"]["n_values"]
    ]
    names = [f"percentile_{level:g}" for level in LEVELS]
    found: dict[str, Any] = {"n_pooled": len(known)}
    if not known:
        return found | {"n_values": 0} | dict.fromkeys(("mean", "std", *names))
    counts = np.array([told["n_values"] for told, _, _ in known], float)
    means = np.array([told["mean"] * slope + add for told, slope, add in known])
    spreads = np.array([told["std"] * abs(slope) for told, slope, _ in known])
    total = counts.sum()
    mean = float((counts * means).sum() / total)
    squares = float((counts * (spreads**2 + (means - mean) ** 2)).sum() / total)
    percentiles = _pooled([_curve(*one) for one in known], counts / total)
    return found | {
        "n_values": int(total),
        "mean": mean,
        "std": squares**0.5,
        **dict(zip(names, percentiles, strict=True)),
    }


def _curve(told: Mapping[str, Any], slope: float, add: float) -> tuple[Floats, Floats]:
    """Return modality values, and which share of a volume lies below each."""
    levels = np.array([0, *told["percentile_levels"], 100]) / 100
    values = np.array([told["min"], *told["percentiles"], told["max"]]) * slope + add
    return (values, levels) if slope >= 0 else (values[::-1], 1 - levels[::-1])


def _pooled(curves: list[tuple[Floats, Floats]], shares: Floats) -> list[float]:
    """Return where the shares of all volumes together reach the levels."""
    if len(curves) == 1:
        values, levels = curves[0]
        return [float(np.interp(level / 100, levels, values)) for level in LEVELS]
    knots = np.unique(np.concatenate([values for values, _ in curves]))
    below = np.zeros(knots.size)
    for (values, levels), share in zip(curves, shares, strict=True):
        below += share * np.interp(knots, values, levels, left=0.0, right=1.0)
    return [float(np.interp(level / 100, below, knots)) for level in LEVELS]
