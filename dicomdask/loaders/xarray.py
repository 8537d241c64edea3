"""Volumes as lazy xarray objects, backed by Dask."""

from typing import Any

import dask.array as da
import numpy as np

from dicomdask.dataset import Dataset, Values
from dicomdask.dataset.views import dtype_of

try:
    import xarray as xr
except ModuleNotFoundError:
    raise ModuleNotFoundError(
        "xarray is not installed; run: pip install 'dicomdask[xarray]'"
    ) from None


class _Lazy:
    """What `dask.array.from_array` needs of an array: shape, dtype and slicing."""

    def __init__(self, dataset: Dataset, volume_id: str, values: Values) -> None:
        row = dataset.row(volume_id)
        self._read = dataset.read
        self._volume_id, self._values = volume_id, values
        self._dimensions = tuple(row["dimensions"])
        self.shape = tuple(int(extent) for extent in row["shape"])
        self.dtype = dtype_of(values, np.dtype(row["dtype"]))
        self.ndim = len(self.shape)

    def __getitem__(self, box: tuple[slice, ...]) -> np.ndarray[Any, np.dtype[Any]]:
        selectors: dict[str, Any] = dict(zip(self._dimensions, box, strict=True))
        return self._read(self._volume_id, values=self._values, **selectors)


def open_volume(
    dataset: Dataset, volume_id: str, *, values: Values = "stored"
) -> xr.DataArray:
    """Open a volume as a lazy `xarray.DataArray`; reading happens chunk by chunk.

    Parameters
    ----------
    dataset
        As `dicomdask.open_dataset` returns it.
    volume_id
        As in `dataset.volumes`.
    values
        `stored`, `modality` or `display`; see `Dataset.read`.

    Returns
    -------
    xarray.DataArray
        Dimensions as in the volume's row. Coordinates of spatial axes are distances in
        mm along the axis, from the centre of the first voxel; the attributes hold the
        affine to patient coordinates (LPS) and the units.

    Raises
    ------
    KeyError
        If there is no such volume.
    """
    row = dataset.row(volume_id)
    lazy = _Lazy(dataset, volume_id, values)
    chunks = tuple(int(chunk) for chunk in row["chunks"])
    name = f"volume-{row['volume_id']}-{row['revision']}-{values}"
    data = da.from_array(lazy, chunks=chunks, name=name, asarray=True)
    attributes = {
        "units": row["units"] if values == "modality" else values,
        "affine": None if row["affine"] is None else np.reshape(row["affine"], (4, 4)),
        "volume_id": row["volume_id"],
        "revision": row["revision"],
    }
    return xr.DataArray(
        data,
        dims=tuple(row["dimensions"]),
        coords=_coordinates(row),
        name=row["kind"],
        attrs=attributes,
    )


def _coordinates(row: Any) -> dict[str, Any]:
    spacing = row["spacing_mm"]
    if spacing is None:
        return {}
    spatial = [axis for axis in row["dimensions"] if axis in "zyx"]
    extents = dict(zip(row["dimensions"], row["shape"], strict=True))
    return {
        axis: (axis, np.arange(int(extents[axis])) * step, {"units": "mm"})
        for axis, step in zip(spatial, spacing, strict=True)
    }
