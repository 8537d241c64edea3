"""The read side: open a dataset, pick rows of its tables, read boxes of its arrays.

No DICOM and no Dask: a training node needs numpy, pandas, pyarrow, fsspec and codecs.
"""

from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
import pandas as pd

from dicomdask import arrays, commits, storage, tables
from dicomdask.commits import Commit
from dicomdask.errors import ReadError, StoreError
from dicomdask.shards import ArrayMeta, ShardReader, parse_metadata
from dicomdask.values import to_modality

Values = Literal["stored", "modality"]
Selector = int | slice | None

VALUES: Final = ("stored", "modality")


def open_dataset(store: str, *, commit: int | None = None) -> "Dataset":
    """Open one state of a dataset.

    Parameters
    ----------
    store
        Where the dataset is.
    commit
        The number of a commit; by default the newest. Whoever holds a dataset keeps
        reading this state, whatever is committed later.

    Raises
    ------
    StoreError
        If there is no dataset, or no such commit.

    Examples
    --------
    >>> ds = open_dataset("chest.zarr")  # doctest: +SKIP
    >>> ds.read(ds.volumes.volume_id[0], z=slice(10, 74))  # doctest: +SKIP
    """
    url = storage.require_local(store)
    if not storage.exists(storage.join(url, "zarr.json")):
        raise StoreError(f"there is no dataset at {store}; check the path")
    found = commits.read_commit(url, commit)
    if found is None:
        raise StoreError(
            f"{store} has no commit yet; run the `dicomdask convert` that began it "
            "again"
        )
    return Dataset(url, found)


class Dataset:
    """One state of a dataset, as `open_dataset` returns it.

    Tables are read when first used. An array costs no request for metadata: its row in
    `volumes` holds all there is to know.
    """

    def __init__(self, store: str, commit: Commit) -> None:
        self.store = store
        self.commit = commit
        self._metas: dict[str, ArrayMeta | None] = {}
        ranges = storage.Ranges(store)
        self._reader = ShardReader(ranges.get_range, ranges.get_tail)

    def __repr__(self) -> str:
        n = self.commit.counts["volumes"]
        return f"<dicomdask.Dataset {self.store} commit {self.commit.n}: {n} volumes>"

    def __len__(self) -> int:
        return int(self.commit.counts["volumes"])

    def _table(self, name: str) -> pd.DataFrame:
        return tables.to_frame(commits.read_table(self.store, self.commit, name))

    @cached_property
    def volumes(self) -> pd.DataFrame:
        """One row a volume."""
        return self._table("volumes")

    @cached_property
    def frames(self) -> pd.DataFrame:
        """One row a stored frame: its SOP instance, where it lies, slope, intercept."""
        return self._table("frames")

    @cached_property
    def instances(self) -> pd.DataFrame:
        """One row a stored instance: de-identified attributes."""
        return self._table("instances")

    @cached_property
    def inputs(self) -> pd.DataFrame:
        """One row an input: its outcome and the reason."""
        return self._table("inputs")

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.volumes["volume_id"])}

    def row(self, volume_id: str) -> "pd.Series[Any]":
        """Return a volume's row of `volumes`; raise KeyError if there is none."""
        try:
            return self.volumes.iloc[self._rows[volume_id]]
        except KeyError:
            raise KeyError(f"no volume {volume_id} in {self.store}") from None

    def read(
        self,
        volume_id: str,
        *,
        t: Selector = None,
        z: Selector = None,
        c: Selector = None,
        y: Selector = None,
        x: Selector = None,
        values: Values = "stored",
    ) -> np.ndarray[Any, np.dtype[Any]]:
        """Read a box of a volume; only the chunks it needs.

        Parameters
        ----------
        volume_id
            As in `volumes`.
        t, z, c, y, x
            What to read along each axis: None for all, a slice of step 1, or an index,
            which drops the axis.
        values
            `stored` as in the DICOM file, or `modality`: slope * stored + intercept as
            float64, in the `units` of the row.

        Returns
        -------
        numpy.ndarray
            In the order of the row's `dimensions`.

        Raises
        ------
        KeyError
            If there is no such volume.
        ValueError
            If the volume has no such axis, or a slice has a step.
        IndexError
            If an index is out of bounds.
        ReadError
            If a shard is missing, damaged or cut short: never zeros instead.
        """
        if values not in VALUES:
            raise ValueError(f"values is one of {', '.join(VALUES)}")
        row = self.row(volume_id)
        wanted = {"t": t, "z": z, "c": c, "y": y, "x": x}
        box = _box(row, wanted)
        array = self._read_box(row, box)
        if values == "modality":
            array = to_modality(array, *self._scale(row, box))
        dropped = [isinstance(wanted[axis], int) for axis in row["dimensions"]]
        return array[tuple(0 if drop else slice(None) for drop in dropped)]

    def _read_box(
        self, row: "pd.Series[Any]", box: tuple[slice, ...]
    ) -> np.ndarray[Any, np.dtype[Any]]:
        path = f"{row['path']}/0"
        if path not in self._metas:
            self._metas[path] = parse_metadata(row["zarr_json"])
        meta = self._metas[path]
        if meta is not None:
            return self._reader.read(path, meta, box)
        plain = arrays.array_from_metadata(row["zarr_json"], self.store, path)
        return np.asarray(plain[box])

    def _scale(self, row: "pd.Series[Any]", box: tuple[slice, ...]) -> tuple[Any, Any]:
        """Return slope and intercept: numbers, or arrays over the leading axes."""
        if not pd.isna(row["slope"]) and not pd.isna(row["intercept"]):
            return row["slope"], row["intercept"]
        frames = self.frames
        mine = frames[
            (frames["volume_id"] == row["volume_id"])
            & (frames["revision"] == row["revision"])
        ]
        if len(mine) != row["n_frames"]:
            raise ReadError(
                f"the frames table lacks frames of volume {row['volume_id']}; convert "
                "its series again"
            )
        leading = list(row["dimensions"][:-2])
        shape = tuple(row["shape"][:-2])
        ordered = mine.sort_values(leading)
        inside = box[: len(leading)]
        slope, intercept = (
            ordered[name].to_numpy(float).reshape(shape)[inside]
            for name in ("slope", "intercept")
        )
        return slope, intercept


def _box(row: "pd.Series[Any]", wanted: dict[str, Selector]) -> tuple[slice, ...]:
    dimensions = list(row["dimensions"])
    for axis, selector in wanted.items():
        if selector is not None and axis not in dimensions:
            raise ValueError(
                f"volume {row['volume_id']} has no axis {axis}; its axes are "
                f"{', '.join(dimensions)}"
            )
    pairs = zip(dimensions, row["shape"], strict=True)
    return tuple(_slice(wanted[axis], int(extent), axis) for axis, extent in pairs)


def _slice(selector: Selector, extent: int, axis: str) -> slice:
    if selector is None:
        return slice(0, extent)
    if not isinstance(selector, slice):
        index = int(selector)
        if not -extent <= index < extent:
            raise IndexError(f"index {index} is out of bounds of {axis}, {extent} long")
        return slice(index % extent, index % extent + 1)
    start, stop, step = selector.indices(extent)
    if step != 1:
        raise ValueError(f"a slice along {axis} has step 1; take every nth afterwards")
    return slice(start, max(start, stop))
