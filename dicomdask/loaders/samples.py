"""The samples of a dataset's volumes, as numpy arrays: what every framework loads.

Samples are numbered within an epoch. What one is depends on the seed, the epoch and its
number alone: not on the process, the worker or what was read before.
"""

import hashlib
import logging
from collections.abc import Sequence
from math import prod
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import DTypeLike

from dicomdask import splits
from dicomdask.dataset import VALUES, Dataset, Values
from dicomdask.errors import BatchError, OptionError, ReadError
from dicomdask.loaders.labels import align_channels
from dicomdask.loaders.options import (
    ON_ERROR,
    Batch,
    LeftOut,
    OnError,
    Sample,
    Trace,
    Transform,
    Volumes,
)
from dicomdask.loaders.order import (
    VERSION,
    Floats,
    Integers,
    Order,
    key_of,
    starts_of,
    uniform,
)
from dicomdask.loaders.samplers import Sampler
from dicomdask.loaders.shares import Leg, State
from dicomdask.loaders.volumes import (
    check_one,
    grids_of,
    labels_of,
    rows_of,
    shape_of,
    weights_of,
)

Array = np.ndarray[Any, np.dtype[Any]]

PLACE, DRAW, CHANCE = range(3)
"""What keys are for: where a sample lies, which blocks, what a transform does."""

MOST_KEPT_BYTES: Final = 512 << 20
"""A process keeps at most so many bytes of decoded chunks, unless it was told to."""

ENTRY_BYTES: Final = 1 << 10
"""What a kept chunk takes besides its elements, at most."""

CROP: Final = "give size, which crops and pads them"

_Placed = tuple[int, Trace]  # which volume of the table, and where in it

logger = logging.getLogger(__name__)


class Samples:
    """The samples that a sampler makes of some volumes.

    Parameters
    ----------
    dataset
        As `dicomdask.open_dataset` returns it.
    sampler
        Makes samples of a volume; see `samplers`.
    volumes, apart_from, labels, channels, balance, weights, values, dtype, fill, window
        See `Options`.
    transform, seed, on_error
        See `Options`.

    Raises
    ------
    OptionError
        If options contradict each other or the tables.
    BatchError
        If a volume has not the axes that a sample spans.
    SplitError
        If these volumes share a patient with those of `apart_from`.
    """

    def __init__(
        self,
        dataset: Dataset,
        sampler: Sampler,
        *,
        volumes: Volumes | None = None,
        apart_from: Sequence[pd.DataFrame] = (),
        labels: pd.DataFrame | str | Sequence[str] | None = None,
        channels: Sequence[Volumes] | None = None,
        balance: str | None = None,
        weights: str | None = None,
        values: Values = "modality",
        dtype: DTypeLike | None = "float32",
        fill: float | None = None,
        window: tuple[float, float] | None = None,
        transform: Transform | None = None,
        seed: int = 0,
        on_error: OnError = "raise",
    ) -> None:
        _check(values, window, on_error)
        self.dataset, self.seed, self._sampler = dataset, seed, sampler
        if channels is None:
            tables = [rows_of(dataset, volumes)]
        else:
            tables = align_channels([rows_of(dataset, one) for one in channels])
        for other in apart_from:
            splits.check_disjoint({"these volumes": tables[0], "the others": other})
        self._ids = [table["volume_id"].to_list() for table in tables]
        self._revisions = [table["revision"].to_list() for table in tables]
        found = labels_of(tables[0], labels)
        self._labels = {name: found[name].to_numpy() for name in found}
        self._lay_out(tables[0], weights_of(tables[0], found, balance, weights))
        self._values, self._fill, self._window = values, fill, window
        self._dtype: DTypeLike | None = "float32" if window else dtype
        self._transform, self._on_error = transform, on_error

    @property
    def volumes(self) -> pd.DataFrame:
        """Return the volumes' rows of the volumes table, those of the first channel."""
        return rows_of(self.dataset, self._ids[0])

    # --- which samples there are --------------------------------------------------

    def _lay_out(self, volumes: pd.DataFrame, weights: Floats | None) -> None:
        """Give numbers to the blocks; a volume's are one run of them."""
        self._grids, self._grid_of = grids_of(volumes)
        sizes = [self._sampler.sizes(grid) for grid in self._grids]
        self._sizes = np.concatenate([sizes[kind] for kind in self._grid_of])
        self._itemsizes = np.array([np.dtype(one).itemsize for one in volumes["dtype"]])
        counts = np.array([len(sizes[kind]) for kind in self._grid_of])
        self._first_blocks = starts_of(counts)
        self._shares: Floats | None = None
        if weights is not None:
            self._shares = np.cumsum(np.repeat(weights / counts, counts))
        self._drawn: tuple[int, Integers, Integers] | None = None

    def _epoch(self, epoch: int) -> tuple[Integers, Integers]:
        """Return the blocks that an epoch has, and where the samples of each start."""
        if self._drawn is None or self._drawn[0] != epoch:
            n = len(self._sizes)
            blocks = np.arange(n)
            if self._shares is not None:
                # One draw for all: classes are drawn as often as can be, give or take 1
                chance = uniform(key_of(VERSION, self.seed, epoch, DRAW), 0)
                wanted = (blocks + chance) / n * self._shares[-1]
                blocks = np.searchsorted(self._shares, wanted, side="right")
                blocks = np.minimum(blocks, n - 1)
            self._drawn = epoch, blocks, starts_of(self._sizes[blocks])
        return self._drawn[1:]

    def n_samples(self, epoch: int = 0) -> int:
        """Return how many samples an epoch has."""
        return int(self._epoch(epoch)[1][-1])

    def order(self, epoch: int, *, mix: int = 8) -> Order:
        """Return the order of an epoch; `mix` blocks are mixed, or none with 0."""
        sizes = self._sizes[self._epoch(epoch)[0]]
        return Order(sizes, seed=self.seed, epoch=epoch, window=mix)

    def begin(self, epoch: int, leg: Leg, *, mix: int = 8) -> State:
        """Return the state of an epoch of which nothing is consumed yet."""
        n = self.n_samples(epoch)
        return State(self.seed, epoch, mix, self._digest(), n, (leg,))

    def _digest(self) -> str:
        """Return what tells these samples from others."""
        found = hashlib.blake2b(repr(self._sampler).encode(), digest_size=16)
        for names in (*self._ids, *self._revisions):
            found.update("/".join(names).encode())
        if self._shares is not None:
            found.update(self._shares.tobytes())
        return found.hexdigest()

    def trace(self, epoch: int, number: int) -> Trace:
        """Return where a sample comes from; nothing is read."""
        return self._locate(epoch, number)[1]

    def _locate(self, epoch: int, number: int) -> tuple[int, Trace]:
        """Return the place of a sample's volume in the table, and its trace."""
        blocks, starts = self._epoch(epoch)
        if not 0 <= number < starts[-1]:
            raise IndexError(f"sample {number} of {starts[-1]}")
        draw = int(np.searchsorted(starts, number, side="right")) - 1
        block = int(blocks[draw])
        volume = int(np.searchsorted(self._first_blocks, block, side="right")) - 1
        box = self._sampler.box(
            self._grids[self._grid_of[volume]],
            block - int(self._first_blocks[volume]),
            number - int(starts[draw]),
            key_of(VERSION, self.seed, epoch, PLACE, number),
        )
        return volume, Trace(
            tuple(ids[volume] for ids in self._ids),
            tuple(revisions[volume] for revisions in self._revisions),
            tuple(piece.start for piece in box),
            tuple(piece.stop for piece in box),
            number,
        )

    def frames_of(self, trace: Trace) -> pd.DataFrame:
        """Return the rows of `Dataset.frames` that a sample shows."""
        parts = [self.dataset.frames_of(name) for name in trace.volume_ids]
        frames = pd.concat(parts, ignore_index=True)
        mine = np.ones(len(frames), bool)
        axes = self.dataset.row(trace.volume_ids[0])["dimensions"]
        for axis, start, stop in zip(axes, trace.start, trace.stop, strict=True):
            if axis in ("t", "z"):
                mine &= frames[axis].between(start, stop - 1).to_numpy(bool)
        return frames[mine]

    def keep_window(self, mix: int) -> None:
        """Keep the decoded chunks of a window of the order, if it has blocks to share.

        Then each is decoded once. A dataset that was opened with a cache keeps it.
        """
        if not self.dataset.cache_bytes and self._sizes.max(initial=0) > 1:
            wanted = (
                2 * max(1, mix) * self._block_bytes()
            )  # the cache turns half by half
            self.dataset = self.dataset.with_cache(min(wanted, MOST_KEPT_BYTES))

    def _block_bytes(self) -> int:
        """Return what the chunks of a block take, decoded, at most or about."""
        n_chunks = [
            prod(-(-n // c) for n, c in zip(grid.shape, grid.chunks, strict=True))
            for grid in self._grids
        ]
        elements = np.array([prod(grid.chunks) for grid in self._grids])
        sizes = elements[self._grid_of] * self._itemsizes + ENTRY_BYTES
        per_block = np.array(n_chunks)[self._grid_of] / np.diff(self._first_blocks)
        return int((sizes * per_block).max())

    def check_one_shape(self) -> None:
        """Refuse volumes whose samples cannot be batched, before any is read.

        Raises
        ------
        BatchError
            If their samples differ in shape, or in dtype where none is given.
        """
        shapes = [shape_of(grid, self._sampler) for grid in self._grids]
        check_one(
            [shapes[kind] for kind in self._grid_of],
            self._ids[0],
            "shapes",
            CROP,
        )
        if self._dtype is None and self._values == "stored":
            dtypes = self.volumes["dtype"].to_list()
            check_one(dtypes, self._ids[0], "dtypes", "give dtype")

    # --- reading ------------------------------------------------------------------

    def read(self, epoch: int, numbers: Sequence[int]) -> Batch:
        """Read some samples of an epoch.

        Returns
        -------
        dict
            `image`, shape (n, channels, *size); `labels`, an array of n by name;
            `trace`, a list of n; `left_out`, a list of what could not be read, empty
            unless `on_error` is `skip`. Where nothing could be read there is only
            `left_out`.

        Raises
        ------
        BatchError
            If the samples have several shapes or dtypes.
        ReadError
            If a shard is missing or damaged, and `on_error` is `raise`.
        """
        placed = [self._locate(epoch, int(number)) for number in numbers]
        placed, images, left_out = self._images(placed)
        if not placed:
            return {"left_out": left_out}
        rows = [volume for volume, _ in placed]
        batch = {
            "image": images,
            "labels": {name: values[rows] for name, values in self._labels.items()},
            "trace": [trace for _, trace in placed],
        }
        if self._transform is not None:
            batch = self._transformed(epoch, batch, self._transform)
        return {**batch, "left_out": left_out}

    def _images(
        self, placed: list[_Placed]
    ) -> tuple[list[_Placed], Array, list[LeftOut]]:
        """Return what could be read, its images, and what could not."""
        try:
            return placed, self._read(placed), []
        except ReadError:
            if self._on_error == "raise":
                raise
        kept, images, left_out = [], [], []
        for one in placed:
            try:
                images.append(self._read([one]))
                kept.append(one)
            except ReadError as error:
                left_out.append(LeftOut(one[1], str(error)))
                logger.warning("sample %d is left out: %s", one[1].number, error)
        return kept, np.concatenate(images) if images else np.empty(0), left_out

    def _read(self, placed: Sequence[_Placed]) -> Array:
        """Read the boxes of samples: shape (n, channels, *size)."""
        alike: dict[int, list[int]] = {}
        for i, (_, trace) in enumerate(placed):
            alike.setdefault(len(trace.start), []).append(i)
        parts = [self._read_alike([placed[i] for i in some]) for some in alike.values()]
        if len(parts) == 1:
            return parts[0]
        shapes = [part.shape[1:] for part in parts]
        check_one(
            shapes,
            [placed[some[0]][1].volume_ids[0] for some in alike.values()],
            "shapes",
            CROP,
        )
        order = np.argsort(np.concatenate([*alike.values()]))
        joined: Array = np.concatenate(parts)[order]
        return joined

    def _read_alike(self, placed: Sequence[_Placed]) -> Array:
        """Read boxes of volumes that have as many axes."""
        found = self.dataset.read_many(
            [(name, trace.box) for _, trace in placed for name in trace.volume_ids],
            values=self._values,
            fill=self._fill,
            dtype=self._dtype,
        )
        grid = self._grids[self._grid_of[placed[0][0]]]
        n_axes = len(self._sampler.shape(grid))
        size = found.shape[found.ndim - n_axes :]
        images = found.reshape(len(placed), -1, *size)
        return images if self._window is None else _windowed(images, *self._window)

    def _transformed(self, epoch: int, batch: Batch, transform: Transform) -> Batch:
        done = [
            transform(sample_of(batch, i), self._chance(epoch, trace.number))
            for i, trace in enumerate(batch["trace"])
        ]
        images = [np.asarray(sample["image"]) for sample in done]
        shapes = {image.shape for image in images}
        if len(shapes) > 1:
            raise BatchError(
                f"the transform returns images of {len(shapes)} shapes for one batch; "
                "let it return one, or read samples one by one"
            )
        names = done[0]["labels"]
        return {
            "image": np.stack(images),
            "labels": {n: np.array([one["labels"][n] for one in done]) for n in names},
            "trace": batch["trace"],
        }

    def _chance(self, epoch: int, number: int) -> np.random.Generator:
        key = key_of(VERSION, self.seed, epoch, CHANCE, number)
        return np.random.Generator(np.random.Philox(key=key))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_drawn": None}  # another process draws it again


def sample_of(batch: Batch, i: int) -> Sample:
    """Return one sample of a batch, which shares its memory."""
    return {
        "image": batch["image"][i],
        "labels": {name: values[i] for name, values in batch["labels"].items()},
        "trace": batch["trace"][i],
    }


def _check(values: str, window: tuple[float, float] | None, on_error: str) -> None:
    if values not in VALUES:
        raise OptionError(f"values is one of {', '.join(VALUES)}")
    if on_error not in ON_ERROR:
        raise OptionError(f"on_error is one of {', '.join(ON_ERROR)}")
    if window is not None and (values != "modality" or window[1] <= 0):
        raise OptionError(
            "a window is (center, width) of modality values, its width above 0"
        )


def _windowed(images: Array, center: float, width: float) -> Array:
    images -= center - width / 2
    images /= width
    clipped: Array = np.clip(images, 0, 1, out=images)
    return clipped
