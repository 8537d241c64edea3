"""Wiring: each bag is a plain map of a task over names of parts in the work directory.

No pixels, no headers and no keys travel through the graph, and its keys name stages and
numbers only.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import dask.bag as db
from dask.base import tokenize

from dicomdask import storage, tables
from dicomdask.errors import PlanError
from dicomdask.model import Instance, column_name
from dicomdask.tasks import encode, files, index, masks, planning, resolve, settle_files

if TYPE_CHECKING:
    import dask.dataframe as dd

FILES_PER_PARTITION: Final = 256
MAX_PARTITIONS: Final = 50_000
"""A graph has as many tasks, and less than 20 MB."""


def index_bag(parts: Sequence[str], *, work_url: str) -> db.Bag:
    """Return a lazy bag of counts, one manifest part a partition."""
    return _map("index", index.index_part, [[one] for one in parts], work_url)


def resolve_bag(
    batches: Sequence[str], *, work_url: str, memory: int | None = None
) -> db.Bag:
    """Return a lazy bag of counts, one batch of repeated instances a partition."""
    function = partial(resolve.resolve_batch, memory=memory)
    return _map("resolve", function, [[one] for one in batches], work_url)


def plan_bag(batches: Sequence[Sequence[str]], *, work_url: str) -> db.Bag:
    """Return a lazy bag of counts, some buckets of the index a partition."""
    return _map("plan", planning.plan_buckets, [[one] for one in batches], work_url)


def encode_bag(
    batches: Sequence[Sequence[tuple[str, int, int]]], *, work_url: str
) -> db.Bag:
    """Return a lazy bag of counts, some (plan part, start, stop) a partition."""
    return _map("encode", encode.encode_batch, batches, work_url)


def files_bag(
    batches: Sequence[tuple[str, int, int]],
    *,
    work_url: str,
    crosswalk: bool = False,
    memory: int | None = None,
) -> db.Bag:
    """Return a lazy bag of counts, one (manifest part, start, stop) a partition."""
    function = partial(files.deidentify_batch, crosswalk=crosswalk, memory=memory)
    return _map("deidentify", function, [[one] for one in batches], work_url)


def masks_bag(parts: Sequence[str], *, work_url: str) -> db.Bag:
    """Return a lazy bag of counts, one part of the plan a partition."""
    return _map("faces", masks.mask_part, [[one] for one in parts], work_url)


def settle_bag(
    buckets: Sequence[str], *, work_url: str, crosswalk: bool = False
) -> db.Bag:
    """Return a lazy bag of counts, one bucket of de-identified files a partition."""
    function = partial(settle_files.settle_bucket, crosswalk=crosswalk)
    return _map("settle", function, [[one] for one in buckets], work_url)


def _map(
    name: str,
    function: Callable[..., Any],
    partitions: Sequence[Sequence[Any]],
    work_url: str,
) -> db.Bag:
    """Return a bag of one task a partition, which the dashboard shows by the name.

    It is what `from_sequence` and `map` make, without a second task that only names it.
    """
    joined = -(-len(partitions) // MAX_PARTITIONS) or 1
    partitions = [
        [one for some in partitions[at : at + joined] for one in some]
        for at in range(0, len(partitions), joined)
    ]
    full = f"{name}-{tokenize(function, partitions, work_url)}"
    each = partial(_each, function=function, work_url=work_url)
    graph = {(full, at): (each, list(some)) for at, some in enumerate(partitions)}
    return db.Bag(graph, full, max(1, len(partitions)))


def _each(
    elements: Iterable[Any], *, function: Callable[..., Any], work_url: str
) -> list[Any]:
    return [function(element, work_url=work_url) for element in elements]


def index_sources(sources: str | Sequence[str]) -> db.Bag:
    """Return a lazy bag of the instances of some sources, for trusted pipelines.

    The sources are listed now; no file is opened before the bag is computed. Inputs
    that are no instances are left out: `dicomdask.convert` accounts for them.

    Parameters
    ----------
    sources
        Files, folders or glob patterns.

    Returns
    -------
    dask.bag.Bag
        Of `dicomdask.model.Instance`: identified values, keep them private.

    Raises
    ------
    SourceError
        If a source does not exist.
    """
    names = [sources] if isinstance(sources, str) else list(sources)
    found = {file.url: file for file in index.list_sources(names, exclude=())}
    files = [found[url] for url in sorted(found)]
    n_partitions = max(1, -(-len(files) // FILES_PER_PARTITION))
    return db.from_sequence(files, npartitions=n_partitions).map_partitions(
        index.read_instances
    )


def index_dataframe(work: str) -> "dd.DataFrame":
    """Return a lazy dataframe over the index of a work directory (identified).

    Parameters
    ----------
    work
        The work directory that `dicomdask index` or `convert` filled.

    Returns
    -------
    dask.dataframe.DataFrame
        One row an instance, one typed column a field of `dicomdask.model.Instance`;
        DICOM attributes under their keywords.
    """
    import dask.dataframe as dd  # noqa: PLC0415 - takes a second that nobody else pays

    url = storage.join(storage.resolve(work), "index")
    listed = storage.list_below(url)
    paths = [storage.join(url, one.name) for one in listed if _is_part(one.name)]
    if not paths:
        raise PlanError(f"{work} has no index; run `dicomdask index` first")
    meta = tables.empty_frame(Instance)
    frame = dd.from_map(_read_frame, paths, meta=meta)
    return frame.rename(columns={name: column_name(name) for name in meta.columns})


def _is_part(name: str) -> bool:
    return name.endswith(".parquet") and name.rsplit("/", 1)[-1][0] != "."


def _read_frame(url: str) -> Any:
    return tables.frame_from_parquet(storage.read(url))
