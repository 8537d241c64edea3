"""Check a dataset by a path of its own: plain zarr against plain pydicom.

Nothing of the fast reader, of the encoder or of the planner is used; what links a
stored plane to a source is the lineage in tables/frames and the work's manifest.
"""

import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np

from dicomdask import arrays, commits, pixels, plan, storage
from dicomdask.errors import DicomDaskError, StoreError
from dicomdask.pseudonym import Key
from dicomdask.tasks.barrier import guard, quiet
from dicomdask.work import Work

Row = Mapping[str, Any]
Array = np.ndarray[Any, np.dtype[Any]]

TOLD_TWICE: Final = (
    "kind",
    "affine",
    "spacing_mm",
    "uniform_spacing",
    "tilt_degrees",
    "axis_keyword",
    "axis_values",
    "missing_slices",
)
"""What stands in a volume's group as well as in its row."""


SPATIAL: Final = ("z", "y", "x")


@dataclass(frozen=True, slots=True)
class Report:
    """What was checked, and what was wrong with it: one sentence each."""

    n_parts: int
    n_volumes: int
    n_frames: int
    n_unavailable: int
    problems: tuple[str, ...]


def verify(
    store: str,
    *,
    work: Work | None = None,
    key: Key | None = None,
    sample: int | None = None,
    seed: int = 0,
) -> Report:
    """Check tables, arrays and, with a work directory, voxels against the sources.

    Parameters
    ----------
    store
        Where the dataset is.
    work, key
        Where the sources are known from; without them voxels are read, which proves
        their checksums, but not compared.
    sample
        How many frames to compare at most; None for all of them.
    seed
        Decides the sample.

    Raises
    ------
    StoreError
        If there is no commit to check.
    """
    commit = commits.read_commit(store)
    if commit is None:
        raise StoreError(f"{store} has no commit; there is nothing to verify")
    problems: list[str] = []
    found: dict[str, list[dict[str, Any]]] = {}
    for name in commit.tables:
        try:
            found[name] = commits.read_rows(store, commit, name)
        except DicomDaskError as error:
            problems.append(str(error))
    volumes, frames = found.get("volumes", []), found.get("frames", [])
    problems += _check_counts(volumes, frames)
    redactions = found.get("redactions", [])
    problems += _check_redactions(volumes, redactions)
    for row in volumes:
        problems += _check_volume(store, row)
    chosen = _choose(frames, sample, seed)
    sources = _sources(work, key) if work and key else {}
    compared, unavailable = _compare(
        store, volumes, chosen, sources, problems, blanks=_blanks(redactions)
    )
    n_parts = sum(map(len, commit.tables.values()))
    return Report(n_parts, len(volumes), compared, unavailable, tuple(problems))


def _check_counts(volumes: Sequence[Row], frames: Sequence[Row]) -> Iterator[str]:
    """Yield where frames and volumes do not agree with each other."""
    planes: dict[tuple[str, str], set[tuple[Any, Any]]] = {}
    for row in frames:
        place = planes.setdefault((row["volume_id"], row["revision"]), set())
        place.add((row["t"], row["z"]))
    for row in volumes:
        found = planes.pop((row["volume_id"], row["revision"]), set())
        n, gone = len(found), {*(row.get("missing_slices") or ())}
        if gone & {z for _, z in found}:
            yield f"volume {row['volume_id']}: a missing slice is in tables/frames"
        if n != row["n_frames"] or n != _n_planes(row):
            yield f"volume {row['volume_id']}: frames are missing in tables/frames"
    for volume_id, _ in planes:
        yield f"volume {volume_id}: frames without a volume in tables/frames"


def _check_redactions(
    volumes: Sequence[Row], redactions: Sequence[Row]
) -> Iterator[str]:
    """Yield where the regions that were blanked are not those that volumes count."""
    found = Counter((row["volume_id"], row["revision"]) for row in redactions)
    for row in volumes:
        n = found.pop((row["volume_id"], row["revision"]), 0)
        if n != (row.get("n_redactions") or 0):
            yield f"volume {row['volume_id']}: regions are missing in tables/redactions"
    for volume_id, _ in found:
        yield f"volume {volume_id}: regions without a volume in tables/redactions"


Blanks = Mapping[tuple[Any, ...], list[Row]]
"""Regions by volume, revision, source and number of the frame."""


def _blanks(redactions: Sequence[Row]) -> Blanks:
    found: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in redactions:
        for number in row["frames"]:
            names = (row["volume_id"], row["revision"], row["source_key"], number)
            found[names].append(row)
    return found


def _blank_mask(shape: Sequence[int], boxes: Sequence[Row]) -> Array:
    """Return which pixels of a plane lie in any of some regions."""
    inside = np.zeros(shape, bool)
    for box in boxes:
        inside[box["top"] : box["bottom"], box["left"] : box["right"]] = True
    return inside


def _n_planes(row: Row) -> int:
    extents = dict(zip(row["dimensions"], row["shape"], strict=True))
    n_missing = len(row.get("missing_slices") or ())
    return int(extents.get("t", 1) * (extents.get("z", 1) - n_missing))


def _check_volume(store: str, row: Row) -> Iterator[str]:
    """Yield where the metadata of a volume in storage differ from its row."""
    path = f"{row['path']}/0"
    try:
        text = storage.read(storage.join(store, path, "zarr.json")).decode()
        if text != row["zarr_json"]:
            yield f"{path}/zarr.json differs from tables/volumes"
        array = arrays.open_array(store, path)
    except (OSError, ValueError) as error:
        yield f"{path}: the array cannot be opened ({type(error).__name__})"
        return
    if array.shape != tuple(row["shape"]) or str(array.dtype) != row["dtype"]:
        yield f"{path}: shape or dtype differ from tables/volumes"
    yield from _check_filled(array, row)
    yield from _check_group(store, row)


def _check_filled(array: Any, row: Row) -> Iterator[str]:
    """Yield the missing slices that hold more than one value."""
    for z in row.get("missing_slices") or ():
        axes = {"z": int(z)}
        plane = np.asarray(
            array[tuple(axes.get(a, slice(None)) for a in row["dimensions"])]
        )
        if (plane != plane.flat[0]).any():
            yield f"volume {row['volume_id']}: missing slice z={z} is not empty"


def _check_group(store: str, row: Row) -> Iterator[str]:
    """Yield where what viewers are told of a volume differs from its row."""
    path = f"{row['path']}/zarr.json"
    try:
        told = json.loads(storage.read(storage.join(store, path)))["attributes"]
        [multiscale] = told["ome"]["multiscales"]
        [dataset] = multiscale["datasets"]
        [transformation] = dataset["coordinateTransformations"]
        same = all(told["dicomdask"][name] == row[name] for name in TOLD_TWICE)
        spacing = row["spacing_mm"] or []
        axes = [axis["name"] for axis in multiscale["axes"]]
        pairs = zip(axes, transformation["scale"], strict=True)
        steps = [step for axis, step in pairs if axis in SPATIAL]
        scale = steps[-len(spacing) :] if spacing else []
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        yield f"{path} is missing or damaged"
        return
    if not same or scale != spacing or axes != row["dimensions"]:
        yield f"{path} differs from tables/volumes"


def _choose(frames: Sequence[Row], sample: int | None, seed: int) -> list[Row]:
    if sample is None or sample >= len(frames):
        return list(frames)
    numbers = random.Random(seed).sample(range(len(frames)), sample)  # noqa: S311
    return [frames[number] for number in sorted(numbers)]


def _sources(work: Work, key: Key) -> dict[str, str]:
    return {
        plan.source_key(file.url, key): file.url
        for part in work.manifest_parts()
        for file in work.read_manifest(part)
    }


def _compare(
    store: str,
    volumes: Sequence[Row],
    frames: Sequence[Row],
    sources: Mapping[str, str],
    problems: list[str],
    *,
    blanks: Blanks,
) -> tuple[int, int]:
    """Compare frames with their sources; return how many were, and how many not."""
    paths = {(row["volume_id"], row["revision"]): row["path"] for row in volumes}
    faceless = {
        (row["volume_id"], row["revision"])
        for row in volumes
        if row.get("faces") == "cleaned"
    }
    compared = unavailable = 0
    frames_of = lru_cache(maxsize=1)(_reference)  # of a long file, not each time anew
    with quiet():
        for row in frames:
            path = paths.get((row["volume_id"], row["revision"]))
            if path is None:
                continue
            where = f"volume {row['volume_id']} t={row['t']} z={row['z']}"
            try:
                stored = _read_plane(store, path, row)
            except Exception as error:  # noqa: BLE001 - zarr and codecs raise anything
                problems.append(f"{where}: cannot be read ({type(error).__name__})")
                continue
            names = (row["volume_id"], row["revision"], row["source_key"])
            boxes = blanks.get((*names, row["frame_number"]), [])
            if row.get("tile") is None:  # else they are in pixels of the mosaic
                problems += _not_blank(where, stored, boxes)
            source = sources.get(row["source_key"])
            if source is None or not storage.exists(source):
                unavailable += 1
                continue
            compared += 1
            is_faceless = names[:2] in faceless
            problems += _difference(
                *(where, stored, source, row, boxes, frames_of), is_faceless=is_faceless
            )
    return compared, unavailable


def _read_plane(store: str, path: str, row: Row) -> np.ndarray[Any, np.dtype[Any]]:
    array = arrays.open_array(store, f"{path}/0")
    _require_shard(store, f"{path}/0", array, row)
    index = (slice(None) if n is None else n for n in _place(array, row))
    return np.asarray(array[tuple(index)])


def _place(array: Any, row: Row) -> list[int | None]:
    """Return where a frame lies along each axis; None where it takes all of it."""
    names = array.metadata.dimension_names
    return [row[name] if name in ("t", "z") else None for name in names]


def _require_shard(store: str, path: str, array: Any, row: Row) -> None:
    """Check that the plane's shards exist: plain zarr reads a missing one as zeros."""
    pairs = zip(_place(array, row), array.shards, strict=True)
    corner = [0 if number is None else number // size for number, size in pairs]
    name = "/".join(["c", *map(str, corner)])
    if not storage.exists(storage.join(store, path, name)):
        raise FileNotFoundError(name)


def _difference(
    where: str,
    stored: np.ndarray[Any, np.dtype[Any]],
    source: str,
    row: Row,
    boxes: Sequence[Row],
    frames_of: Callable[[str], np.ndarray[Any, np.dtype[Any]]],
    *,
    is_faceless: bool,
) -> Iterator[str]:
    try:
        wanted = guard(lambda: frames_of(source)[row["frame_number"] - 1])
    except DicomDaskError as error:
        yield f"{where}: its source cannot be read any more ({error})"
        return
    inside = _blank_mask(wanted.shape[:2], boxes)
    if wanted.ndim == 3:  # colour: samples are last there, and first here
        wanted = np.moveaxis(wanted, -1, 0)
    if row.get("tile") is not None:  # of a mosaic, row by row
        height, width = stored.shape
        down, right = divmod(row["tile"] - 1, wanted.shape[1] // width)
        place = slice(down * height, None), slice(right * width, None)
        wanted, inside = (plane[place][:height, :width] for plane in (wanted, inside))
    if is_faceless and wanted.shape == stored.shape:
        inside = inside | _face(wanted, stored)
    native = wanted.dtype.newbyteorder("=")  # big endian sources are stored native
    if native != stored.dtype or not np.array_equal(
        wanted[..., ~inside], stored[..., ~inside]
    ):
        yield f"{where}: voxels differ from the source"


def _face(wanted: Array, stored: Array) -> Array:
    """Return where a face was removed: what differs and is all of one darkest value."""
    gone = wanted != stored
    values = stored[gone]
    if not len(values) or gone.all() or (values != values[0]).any():
        return np.zeros(stored.shape, bool)
    rest = stored[~gone]
    is_blank = values[0] in {np.fmin.reduce(rest), np.fmax.reduce(rest)}
    return gone if is_blank else np.zeros(stored.shape, bool)


def _not_blank(where: str, stored: Array, boxes: Sequence[Row]) -> Iterator[str]:
    """Yield where regions that were blanked hold anything.

    A blank pixel is the darkest that is displayed: of monochrome the least or the
    largest value outside, of colour no brighter than anything there.
    """
    inside = _blank_mask(stored.shape[-2:], boxes)
    if not inside.any():
        return
    values = np.atleast_2d(stored[..., inside])
    first, rest = values[:, :1], stored[..., ~inside]
    is_blank = bool((values == first).all())
    if is_blank and rest.size and stored.ndim == 2:
        is_blank = first.item() in {np.fmin.reduce(rest), np.fmax.reduce(rest)}
    elif is_blank and rest.size:
        is_blank = bool((_LUMA @ first).item() <= (_LUMA @ rest).min())
    if not is_blank:
        yield f"{where}: a region of tables/redactions is not blank"


_LUMA: Final = np.array([299, 587, 114])
"""Thousandths of Y that R, G and B give (PS3.3 section C.7.6.3.1.2)."""


def _reference(source: str) -> np.ndarray[Any, np.dtype[Any]]:
    return pixels.reference_frames(storage.read(source))
