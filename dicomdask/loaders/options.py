"""What loaders take and what their samples are: nouns only."""

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, NamedTuple, TypedDict

import numpy as np
import pandas as pd
from numpy.typing import DTypeLike

from dicomdask.dataset import Values
from dicomdask.loaders.samplers import Box

Sample = dict[str, Any]
Batch = dict[str, Any]
Volumes = pd.DataFrame | Sequence[str]
Transform = Callable[[Sample, np.random.Generator], Sample]
OnError = Literal["raise", "skip"]

ON_ERROR: Final = ("raise", "skip")


class Trace(NamedTuple):
    """Where a sample comes from.

    Attributes
    ----------
    volume_ids, revisions
        Of each channel.
    start, stop
        Of the box, in elements of the array; outside of it where the sample is padded.
    number
        Of the sample, within its epoch.
    """

    volume_ids: tuple[str, ...]
    revisions: tuple[str, ...]
    start: tuple[int, ...]
    stop: tuple[int, ...]
    number: int

    @property
    def box(self) -> Box:
        """Return the box as slices."""
        return tuple(map(slice, self.start, self.stop))


class LeftOut(NamedTuple):
    """A sample that could not be read, and the sentence that says why."""

    trace: Trace
    reason: str


class Options(TypedDict, total=False):
    """What every loader takes.

    Attributes
    ----------
    volumes
        Which volumes: rows of `Dataset.volumes`, perhaps with columns of your own, or
        volume_ids; by default all. A part of a split is such rows.
    apart_from
        Rows of volumes that may share no patient, study or frame of reference with
        these, such as ``[train.volumes]``.
    labels
        One row a patient, study, series or volume (see `join_labels`), or the path of a
        CSV or Parquet file of them; or a list of columns of `volumes`.
    channels
        Instead of `volumes`: rows or ids for each channel, one volume of each study, of
        one shape and affine.
    balance
        A column of the labels or volumes: each epoch draws its classes equally often.
    weights
        A column of numbers: each epoch draws volumes in proportion to it.
    values
        As in `Dataset.read`; by default `modality`, such as Hounsfield units.
    dtype
        Of the images, by default `float32`; None is that of the values.
    fill
        The value of what lies outside the volume; without it nothing may.
    window
        (center, width) of modality values that become [0, 1], and beyond it 0 and 1, as
        LINEAR_EXACT in PS3.3 C.11.2.1.3.2.
    transform
        Called as `transform(sample, rng)` where samples are read; returns the sample.
        Its generator depends on seed, epoch and number alone.
    seed
        Decides the order and all that is random.
    on_error
        `raise`, or `skip`: a sample whose shard is damaged or missing is left out of
        its batch and named in `left_out`.
    """

    volumes: Volumes | None
    apart_from: Sequence[pd.DataFrame]
    labels: pd.DataFrame | str | Sequence[str] | None
    channels: Sequence[Volumes] | None
    balance: str | None
    weights: str | None
    values: Values
    dtype: DTypeLike | None
    fill: float | None
    window: tuple[float, float] | None
    transform: Transform | None
    seed: int
    on_error: OnError
