"""What a read needs of a volume, taken out of the tables once."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dicomdask.shards import ArrayMeta, parse_metadata

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Opened:
    """A volume that can be read: what its row says of its array."""

    volume_id: str
    revision: str
    path: str
    zarr_json: str
    meta: ArrayMeta | None
    dimensions: tuple[str, ...]
    shape: tuple[int, ...]
    scale: tuple[float, float] | None
    n_missing: int

    @classmethod
    def of(cls, volumes: pd.DataFrame, number: int) -> "Opened":
        """Take what is needed out of a row; other columns are not looked at."""
        row = {name: volumes[name].array[number] for name in _COLUMNS}
        slope, intercept = row["slope"], row["intercept"]
        varies = pd.isna(slope) or pd.isna(intercept)
        return cls(
            volume_id=row["volume_id"],
            revision=row["revision"],
            path=f"{row['path']}/0",
            zarr_json=row["zarr_json"],
            meta=parse_metadata(row["zarr_json"]),
            dimensions=tuple(row["dimensions"]),
            shape=tuple(int(extent) for extent in row["shape"]),
            scale=None if varies else (float(slope), float(intercept)),
            n_missing=int(row["n_missing"]),
        )

    @property
    def frame_axes(self) -> tuple[int, ...]:
        """Return the numbers of the axes that tell frames apart: those of t and z."""
        return tuple(n for n, axis in enumerate(self.dimensions) if axis in ("t", "z"))


_COLUMNS = (
    *("volume_id", "revision", "path", "zarr_json", "dimensions", "shape"),
    *("slope", "intercept", "n_missing"),
)
