"""Samples for PyTorch: datasets to index, the order to index them in, and a loader.

`Loader` is a DataLoader whose epochs resume in the middle, with workers or without. The
pieces it is made of go with a plain DataLoader as well.
"""

try:
    import torch  # noqa: F401
except ModuleNotFoundError:
    raise ModuleNotFoundError(
        "torch is not installed; run: pip install 'dicomdask[torch]'"
    ) from None

from dicomdask.loaders.options import LeftOut, Options, Trace
from dicomdask.loaders.torch.batches import BatchOrder
from dicomdask.loaders.torch.datasets import (
    GridDataset,
    Index,
    PatchDataset,
    SampleDataset,
    SliceDataset,
    VolumeDataset,
    collate,
)
from dicomdask.loaders.torch.loader import BatchStream, Loader

__all__ = [
    "BatchOrder",
    "BatchStream",
    "GridDataset",
    "Index",
    "LeftOut",
    "Loader",
    "Options",
    "PatchDataset",
    "SampleDataset",
    "SliceDataset",
    "Trace",
    "VolumeDataset",
    "collate",
]
