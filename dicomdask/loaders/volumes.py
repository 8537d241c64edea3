"""Which volumes a loader reads, what is known of them, and whether they go together."""

from collections import Counter
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import pandas as pd

from dicomdask import splits
from dicomdask.dataset import Dataset
from dicomdask.errors import BatchError, OptionError
from dicomdask.loaders.labels import class_weights, join_labels, with_numbers
from dicomdask.loaders.options import Volumes
from dicomdask.loaders.order import Floats, Integers
from dicomdask.loaders.samplers import Grid, Sampler


def rows_of(dataset: Dataset, chosen: Volumes | None) -> pd.DataFrame:
    """Return rows of the volumes table, with the columns that the chosen have more."""
    table = dataset.volumes
    if chosen is None:
        chosen = table
    ids = (
        list(chosen["volume_id"]) if isinstance(chosen, pd.DataFrame) else list(chosen)
    )
    places = pd.Index(table["volume_id"]).get_indexer(ids)
    absent = int((places < 0).sum())
    if absent or not ids:
        raise OptionError(
            f"{absent} of {len(ids)} chosen volumes are not in commit "
            f"{dataset.commit.n} of {dataset.store}; choose of ds.volumes, at least one"
        )
    rows: pd.DataFrame = table.iloc[places].reset_index(drop=True)
    if isinstance(chosen, pd.DataFrame):
        more: Any = [name for name in chosen if name not in table]
        rows[more] = chosen[more].reset_index(drop=True)
    return rows


def labels_of(
    volumes: pd.DataFrame, labels: pd.DataFrame | str | Sequence[str] | None
) -> pd.DataFrame:
    """Return the labels of each volume: of a table that is joined, or of columns."""
    if isinstance(labels, str):
        labels = with_numbers(splits.read_table(labels))
    if isinstance(labels, pd.DataFrame):
        return join_labels(volumes, labels)
    return volumes[list(labels or ())]


def weights_of(
    volumes: pd.DataFrame,
    labels: pd.DataFrame,
    balance: str | None,
    weights: str | None,
) -> Floats | None:
    """Return how often each volume is wanted, relative to others; None is alike."""
    name = balance or weights
    if name is None:
        return None
    if balance and weights:
        raise OptionError("give balance or weights, not both")
    if name not in labels and name not in volumes:
        raise OptionError(f"neither labels nor volumes have a column {name!r}")
    column = labels[name] if name in labels else volumes[name]
    if column.isna().any():
        raise OptionError(
            f"{column.isna().sum()} of {len(column)} volumes have no {name!r}; leave "
            "them out with volumes="
        )
    if balance:
        return class_weights(column)
    found = column.to_numpy(np.float64)
    if found.min() < 0 or not 0 < found.sum() < np.inf:
        raise OptionError(f"weights of {name!r} are 0 or more, and not all 0")
    return found


def grids_of(volumes: pd.DataFrame) -> tuple[list[Grid], Integers]:
    """Return how volumes are cut, each way once, and the way of each volume."""
    kinds: dict[Grid, int] = {}
    columns = (volumes[name] for name in ("volume_id", "dimensions", "shape", "chunks"))
    of_volume = [
        kinds.setdefault(
            Grid(name, tuple(axes), _ints(shape), _ints(chunks)), len(kinds)
        )
        for name, axes, shape, chunks in zip(*columns, strict=True)
    ]
    return list(kinds), np.array(of_volume)


def _ints(numbers: Any) -> tuple[int, ...]:
    return tuple(map(int, numbers))


def shape_of(grid: Grid, sampler: Sampler) -> tuple[int, ...]:
    """Return the shape of a sample, channels first."""
    axes = zip(grid.dimensions, grid.shape, strict=True)
    return (prod(n for axis, n in axes if axis == "c"), *sampler.shape(grid))


def check_one(found: Sequence[Any], ids: Sequence[str], what: str, do: str) -> None:
    """Refuse samples that differ, naming one volume of each kind."""
    counts = Counter(found)
    if len(counts) > 1:
        named = dict(zip(reversed(found), reversed(ids), strict=True))
        told = "; ".join(
            f"{_told(kind)} in {n} volumes such as {named[kind]}"
            for kind, n in counts.most_common(3)
        )
        raise BatchError(
            f"samples of {len(counts)} {what} cannot be batched ({told}); {do}, or "
            "choose volumes that are alike with volumes="
        )


def _told(kind: Any) -> str:
    return "x".join(map(str, kind)) if isinstance(kind, tuple) else str(kind)
