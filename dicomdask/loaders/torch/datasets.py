"""Datasets to index: samples as tensors; what is asked together is read together."""

from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
import torch
from torch.utils import data

from dicomdask.dataset import Dataset
from dicomdask.errors import ReadError
from dicomdask.loaders.options import Batch, Options, Sample
from dicomdask.loaders.samplers import Random, Sampler, Tiles, Whole
from dicomdask.loaders.samples import Samples, sample_of

Index = tuple[int, int]
"""An epoch, and the number of a sample in it."""


class SampleDataset(data.Dataset[Sample]):
    """Samples of volumes as tensors; index it by number, or by epoch and number.

    A sample is a dict: `image`, a tensor of shape (channels, *size); `labels`, by name;
    `trace`, where it comes from.

    Parameters
    ----------
    dataset
        As `dicomdask.open_dataset` returns it.
    sampler
        Which boxes of a volume are samples; see `loaders.samplers`.
    **options
        See `loaders.options.Options`.
    """

    def __init__(
        self, dataset: Dataset, sampler: Sampler, **options: Unpack[Options]
    ) -> None:
        self.samples = Samples(dataset, sampler, **options)
        self.epoch = 0

    def __len__(self) -> int:
        return self.samples.n_samples(self.epoch)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of samples that are indexed by number alone."""
        self.epoch = epoch

    def __getitem__(self, index: int | Index) -> Sample:
        samples = self.__getitems__([index])
        if not samples:
            [left_out] = samples.batch["left_out"]
            raise ReadError(left_out.reason)
        return sample_of(samples.batch, 0)

    def __getitems__(self, indices: Sequence[int | Index]) -> "_Read":
        """Return samples that are read together."""
        pairs = [i if isinstance(i, tuple) else (self.epoch, i) for i in indices]
        [epoch] = {epoch for epoch, _ in pairs}
        batch = self.samples.read(epoch, [number for _, number in pairs])
        return _Read(_to_tensors(batch))


class _Read(Sequence[Sample]):
    """Samples of a batch, made as they are asked for, and the batch itself."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return len(self.batch.get("trace", ()))

    def __getitem__(self, i: Any) -> Any:
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        return sample_of(self.batch, i)


def _to_tensors(batch: Batch) -> Batch:
    if "image" not in batch:
        return batch
    labels = {name: _to_tensor(values) for name, values in batch["labels"].items()}
    return {**batch, "image": torch.from_numpy(batch["image"]), "labels": labels}


def _to_tensor(values: np.ndarray[Any, np.dtype[Any]]) -> Any:
    """Return numbers as a tensor and text as a list."""
    return torch.from_numpy(values) if values.dtype.kind in "biuf" else values.tolist()


def collate(samples: Sequence[Sample]) -> Batch:
    """Return samples that were read together as their batch, without a copy.

    Give it to a DataLoader as `collate_fn`; `Samples.read` says what a batch holds.
    """
    if isinstance(samples, _Read):
        return samples.batch
    names = samples[0]["labels"]
    return {
        "image": torch.stack([sample["image"] for sample in samples]),
        "labels": data.default_collate([sample["labels"] for sample in samples])
        if names
        else {},
        "trace": [sample["trace"] for sample in samples],
        "left_out": [],
    }


class SliceDataset(SampleDataset):
    """Slices: samples of shape (channels, rows, columns).

    Parameters
    ----------
    dataset
        As `dicomdask.open_dataset` returns it.
    size
        Rows and columns to crop or pad to, about the centre; padding wants `fill`.
    **options
        See `loaders.options.Options`.
    """

    def __init__(
        self,
        dataset: Dataset,
        size: tuple[int, int] | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(dataset, Whole(2, size), **options)


class VolumeDataset(SampleDataset):
    """Volumes: samples of shape (channels, slices, rows, columns).

    A time point of a series over time is a sample of its own.

    Parameters
    ----------
    dataset
        As `dicomdask.open_dataset` returns it.
    size
        Slices, rows and columns to crop or pad to, about the centre; padding wants
        `fill`.
    **options
        See `loaders.options.Options`.
    """

    def __init__(
        self,
        dataset: Dataset,
        size: tuple[int, int, int] | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(dataset, Whole(None, size), **options)


class PatchDataset(SampleDataset):
    """Patches at random places: samples of shape (channels, *size).

    Every epoch draws others. With `balance` or `weights`, it also draws the volumes.

    Parameters
    ----------
    dataset
        As `dicomdask.open_dataset` returns it.
    size
        Slices, rows and columns; two numbers draw from single slices.
    per_volume
        How many an epoch draws of a volume.
    **options
        See `loaders.options.Options`.
    """

    def __init__(
        self,
        dataset: Dataset,
        size: tuple[int, ...],
        *,
        per_volume: int = 8,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(dataset, Random(tuple(size), per_volume), **options)


class GridDataset(SampleDataset):
    """Patches on a grid that covers each volume to its edges.

    Parameters
    ----------
    dataset
        As `dicomdask.open_dataset` returns it.
    size
        Slices, rows and columns; two numbers tile single slices.
    overlap
        How many elements neighbours share at least; by default none.
    **options
        See `loaders.options.Options`.
    """

    def __init__(
        self,
        dataset: Dataset,
        size: tuple[int, ...],
        *,
        overlap: tuple[int, ...] | None = None,
        **options: Unpack[Options],
    ) -> None:
        overlap = (0,) * len(size) if overlap is None else tuple(overlap)
        super().__init__(dataset, Tiles(tuple(size), overlap), **options)
