"""The read side: open a dataset, pick rows of its tables, read boxes of its arrays.

No DICOM and no Dask: a training node needs numpy, pandas, pyarrow, fsspec and codecs.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike

from dicomdask import arrays, batch, commits, storage
from dicomdask.batch import Box, Selector
from dicomdask.commits import Commit
from dicomdask.dataset import views
from dicomdask.dataset.opened import Array, Opened
from dicomdask.dataset.tables import Tables
from dicomdask.dataset.views import VALUES, Values, View
from dicomdask.errors import ShardError, StoreError
from dicomdask.shards import Request, ShardReader
from dicomdask.values import Window, to_modality

__all__ = ["VALUES", "Dataset", "Values", "open_dataset"]

CACHE_FOLDER_BYTES: Final = 64 << 30


def open_dataset(
    store: str,
    *,
    commit: int | None = None,
    storage_options: Mapping[str, Any] | str | None = None,
    cache_bytes: int = 0,
    cache_folder: str | None = None,
    cache_folder_bytes: int = CACHE_FOLDER_BYTES,
) -> "Dataset":
    """Open one state of a dataset.

    Parameters
    ----------
    store
        Where the dataset is.
    commit
        The number of a commit; by default the newest. Whoever holds a dataset keeps
        reading this state, whatever is committed later. Only `vacuum` and `forget`
        delete of it: what they did is read as a ReadError.
    storage_options
        What opens the store: credentials, endpoint; see `storage.use_options`. They
        count for this URL in this process and in those it starts, and are not pickled
        with the dataset.
    cache_bytes
        Keeps decoded chunks in memory for later reads, at most so many bytes of them.
    cache_folder
        A local folder that keeps what is read of chunks, as it is stored, so that later
        epochs ask the store for nothing. Processes and datasets may share it.
    cache_folder_bytes
        Bounds the bytes of all files there; what was used longest ago goes first.

    Raises
    ------
    StoreError
        If there is no dataset, no such commit, or one of a newer format.
    StorageError
        If a distant store denies access or does not answer.

    Examples
    --------
    >>> ds = open_dataset("chest.zarr")  # doctest: +SKIP
    >>> ds.read(ds.volumes.volume_id[0], z=slice(10, 74))  # doctest: +SKIP
    """
    url = storage.resolve(store)
    if storage_options is not None:
        storage.use_options(storage_options, url=url)
    commits.require_dataset(url)
    found = commits.read_commit(url, commit)
    if found is None:
        raise StoreError(
            f"{store} has no commit yet; run the `dicomdask convert` that began it "
            "again"
        )
    kept = (
        None
        if cache_folder is None
        else storage.KeptRanges(cache_folder, cache_folder_bytes, origin=url)
    )
    return Dataset(url, found, cache_bytes=cache_bytes, kept=kept)


class Dataset(Tables):
    """One state of a dataset, as `open_dataset` returns it.

    Tables are read when first used. An array costs no request for metadata: its row in
    `volumes` holds all there is to know.
    """

    def __init__(
        self,
        store: str,
        commit: Commit,
        *,
        cache_bytes: int = 0,
        kept: storage.KeptRanges | None = None,
    ) -> None:
        super().__init__(store, commit)
        self._opened: dict[str, Opened] = {}
        self._views: dict[str, View] = {}
        self._reader = ShardReader(
            storage.Ranges(store), cache_bytes=cache_bytes, kept=kept
        )

    @property
    def cache_bytes(self) -> int:
        """How many bytes of decoded chunks are kept at most."""
        return self._reader.cache_bytes

    def with_cache(self, cache_bytes: int) -> "Dataset":
        """Return this dataset with another cache of decoded chunks, empty still."""
        other = object.__new__(Dataset)
        other.__dict__.update(self.__dict__)  # the tables too, which a copy leaves out
        other._reader = self._reader.with_cache(cache_bytes)
        return other

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
        window: int | Window | None = None,
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
            `stored` as in the DICOM file; `modality`: slope * stored + intercept, or
            the entries of the Modality LUT, as float64, in the `units` of the row; or
            `display`: what a screen shows, as float32 from 0, black, to 1, white, after
            the VOI LUT or window, with MONOCHROME1 inverted. Where none is valid, the
            least value of the volume is 0 and the largest 1. Colour is only scaled.
        window
            Of `display`: which of the volume's VOI LUTs or, where it has none, windows,
            from 0; or a centre and a width in modality values. By default the first.

        Returns
        -------
        numpy.ndarray
            In the order of the row's `dimensions`.

        Raises
        ------
        KeyError
            If there is no such volume.
        ValueError
            If the volume has no such axis or window, or a slice has a step.
        IndexError
            If an index is out of bounds.
        ShardError
            If a shard is missing, damaged or cut short: never zeros instead.
        """
        views.check(values, window)
        volume = self._open(volume_id)
        wanted = {"t": t, "z": z, "c": c, "y": y, "x": x}
        box = batch.box_of(volume.volume_id, volume.dimensions, volume.shape, wanted)
        stored = self._read_box(volume, box)
        array = self._converted(stored, volume, box, values, window)
        dropped = [batch.is_index(wanted[axis]) for axis in volume.dimensions]
        if not any(dropped):
            return array
        return array[tuple(0 if drop else slice(None) for drop in dropped)]

    def convert(
        self,
        volume_id: str,
        stored: Array,
        *,
        values: Values,
        t: int | None = None,
        z: int | None = None,
    ) -> Array:
        """Return stored values of a volume's frames as other values.

        What `read` does with those that it has read, for values that come from
        elsewhere, such as the DICOM file.

        Parameters
        ----------
        stored
            Of all that is at `t` and `z`, in the order of the row's `dimensions`.
        values, t, z
            As in `read`.

        Raises
        ------
        KeyError, ValueError, IndexError
            As in `read`.
        """
        views.check(values, None)
        volume = self._open(volume_id)
        wanted = {**dict.fromkeys(volume.dimensions), "t": t, "z": z}
        box = batch.box_of(volume.volume_id, volume.dimensions, volume.shape, wanted)
        shape = tuple(one.stop - one.start for one in box)
        found = self._converted(stored.reshape(shape), volume, box, values)
        return found.reshape(stored.shape)

    def read_many(
        self,
        requests: Sequence[tuple[str, Box]],
        *,
        values: Values = "stored",
        fill: float | None = None,
        out: Array | None = None,
        dtype: DTypeLike | None = None,
    ) -> Array:
        """Read boxes of one shape out of several volumes, into one array.

        A chunk that several boxes need is fetched and decoded once.

        Parameters
        ----------
        requests
            A volume_id and a box each: one slice of step 1 an axis, in the order of the
            volume's `dimensions`. A start below 0 lies before the array; None is its
            edge.
        values
            As in `read`.
        fill
            Given, boxes may reach over the edges of their volumes, and what lies
            outside is this value.
        out
            Filled and returned instead of a new array; shape (n, *box shape). Its dtype
            is that of the result.
        dtype
            The dtype of the result, which must hold all values (floats may round them);
            by default that of the volumes.

        Returns
        -------
        numpy.ndarray
            Shape (n, *box shape), in the order of the requests.

        Raises
        ------
        KeyError
            If there is no such volume.
        ValueError
            If a box reaches over an edge without `fill`, or does not fit its volume.
        BatchError
            If shapes or dtypes of the boxes differ, or the dtype cannot hold them.
        ShardError
            If a shard is missing, damaged or cut short: never zeros instead.
        """
        views.check(values, None)
        volumes = [self._open(volume_id) for volume_id, _ in requests]
        items = [
            batch.item_of(
                volume.volume_id,
                volume.dimensions,
                volume.shape,
                box,
                may_reach_over=fill is not None,
            )
            for volume, (_, box) in zip(volumes, requests, strict=True)
        ]
        shape = len(items), *batch.common_shape(items)
        dtypes = [self._dtype(volume, values) for volume in volumes]
        wanted = dtype if out is None else out.dtype
        common = batch.common_dtype(items, dtypes, wanted)
        if fill is not None:
            fill = batch.checked_fill(fill, common)
        found = np.empty(shape, common) if out is None else out
        if found.shape != shape:
            raise ValueError(f"out has the shape {found.shape}; the batch has {shape}")
        self._fill(found, items, volumes, values, fill)
        return found

    def _fill(
        self,
        out: Array,
        items: Sequence[batch.Item],
        volumes: Sequence[Opened],
        values: Values,
        fill: float | None,
    ) -> None:
        """Read the items of a batch into their places; what is outside is `fill`."""
        stored, targets = [], []
        for place, item, volume in zip(out, items, volumes, strict=True):
            if not item.is_whole:
                place.fill(fill)
            target = place[item.target]
            targets.append(target)
            if values != "stored":
                target = np.empty(target.shape, self._dtype(volume, "stored"))
            stored.append(target)
        boxes = [item.inside for item in items]
        self._read_boxes(volumes, boxes, stored)
        if values != "stored":
            for target, array, volume, box in zip(
                targets, stored, volumes, boxes, strict=True
            ):
                target[...] = self._converted(array, volume, box, values)

    def _dtype(self, volume: Opened, values: Values) -> np.dtype[Any]:
        meta = volume.meta
        stored = self._plain(volume).dtype if meta is None else meta.dtype
        return views.dtype_of(values, stored)

    def _converted(
        self,
        stored: Array,
        volume: Opened,
        box: Box,
        values: Values,
        window: int | Window | None = None,
    ) -> Array:
        """Return the stored values of a box as the values that are wanted."""
        if values == "stored":
            return stored
        if values == "modality" and volume.scale:
            return to_modality(stored, *volume.scale)
        view = self._views.get(volume.volume_id)
        if view is None:
            view = self._views[volume.volume_id] = self._view(volume)
        return view.convert(stored, box, values, window)

    def _view(self, volume: Opened) -> View:
        number = self.row_number(volume.volume_id)
        row = {name: self.volumes[name].array[number] for name in views.COLUMNS}
        alike = volume.scale is not None or row["modality_lut"] is not None
        frames = None
        if not alike or row["display"] is None:
            frames = self.frames_of(volume.volume_id)
        return View.of(row, volume, frames)

    def _open(self, volume_id: str) -> Opened:
        volume = self._opened.get(volume_id)
        if volume is None:
            volume = self._opened[volume_id] = Opened.of(
                self.volumes, self.row_number(volume_id)
            )
        return volume

    def _read_box(self, volume: Opened, box: Box) -> Array:
        if volume.meta is not None:
            try:
                return self._reader.read(volume.path, volume.meta, box)
            except ShardError as error:
                raise _of_volume(error, [volume]) from error.__cause__
        return np.asarray(self._plain(volume)[box])

    def _read_boxes(
        self, volumes: Sequence[Opened], boxes: Sequence[Box], outs: Sequence[Array]
    ) -> None:
        requests = []
        for volume, box, out in zip(volumes, boxes, outs, strict=True):
            if volume.meta is not None:
                requests.append(Request(volume.path, volume.meta, box, out))
            else:
                out[...] = self._plain(volume)[box]
        try:
            self._reader.read_many(requests)
        except ShardError as error:
            raise _of_volume(error, volumes) from error.__cause__

    def _plain(self, volume: Opened) -> Any:
        """Return zarr-python's array, for what our reader does not know."""
        return arrays.array_from_metadata(volume.zarr_json, self.store, volume.path)


def _of_volume(error: ShardError, volumes: Sequence[Opened]) -> ShardError:
    """Return the error of a shard as that of the volume that it belongs to."""
    for volume in volumes:
        if error.shard.startswith(f"{volume.path}/"):
            told = ShardError(f"volume {volume.volume_id}: {error}")
            told.shard, told.volume_id = error.shard, volume.volume_id
            return told
    return error
