"""The rows of one volume from those of its shards."""

import json
from collections import Counter
from collections.abc import Sequence
from functools import reduce

import numpy as np

from dicomdask import tables
from dicomdask.rows.frames import FRAME_TEXTS, LONG_TEXTS, ONLY, only
from dicomdask.rows.header import Header, Row, constant_header, record, to_text
from dicomdask.values import Distribution, Statistics, Transform, merge, pool


def merge_parts(parts: Sequence[Row]) -> Row:
    """Return one part for a volume from the parts of all its shards.

    Statistics are taken here, of all values at once; elements that are constant in a
    shard but not in the volume move to the instances.
    """
    rows = [part["volume"] for part in parts]
    headers = [json.loads(row["header"]) for row in rows]
    constant = constant_header(headers)
    volume = dict(rows[0])
    volume["header"] = to_text(constant)
    if len({row["units"] for row in rows}) > 1:
        volume["units"] = "unspecified"
    volume["n_frames"] = sum(row["n_frames"] for row in rows)
    volume["stored_bytes"] = sum(row["stored_bytes"] for row in rows)
    for name in (*ONLY, *LONG_TEXTS):
        volume[name] = only({row[name] for row in rows})
    warned = [warning for row in rows for warning in row["warnings"]]
    volume["warnings"] = list(dict.fromkeys(warned))
    for name in tables.VOLUME_ATTRIBUTES:
        first, *others = (row[name] for row in rows)
        volume[name] = first if all(other == first for other in others) else None
    volume["faces"] = _faces({row.get("faces") for row in rows})
    counted = [_statistics(part) for part in parts]
    volume["statistics"] = reduce(merge, counted).summary()
    instances: dict[str, Row] = {}  # one may have frames in several shards
    for part, header in zip(parts, headers, strict=True):
        for row in part["instances"]:
            whole = _with_elements(row, header, constant)
            instances.setdefault(row["source_key"], whole)
    redactions = _merge_redactions(parts)
    blanked = Counter(row["source_key"] for row in redactions)
    volume["n_redactions"] = len(redactions)
    return {
        "volume": volume,
        "frames": [
            _with_texts(row, part["volume"], volume)
            for part in parts
            for row in part["frames"]
        ],
        "instances": [
            row | {"n_redactions": blanked[source]} for source, row in instances.items()
        ],
        "redactions": redactions,
        "fingerprint": _fingerprint_row(volume, _intensities(parts, counted)),
    }


def _faces(told: set[str | None]) -> str | None:
    """Return what is told of a volume: that which warns most of its shards."""
    return next((one for one in ("possible", "cleaned", "none") if one in told), None)


def _merge_redactions(parts: Sequence[Row]) -> list[Row]:
    """Return what was blanked in all shards: a region once, with all its frames."""
    merged: dict[str, Row] = {}
    for row in (row for part in parts for row in part["redactions"]):
        place = repr({name: value for name, value in row.items() if name != "frames"})
        before = merged.get(place, {"frames": []})["frames"]
        merged[place] = row | {"frames": sorted({*before, *row["frames"]})}
    return list(merged.values())


def _with_texts(row: Row, shard: Row, volume: Row) -> Row:
    """Return a frame with what all of its shard share, but not all of the volume."""
    names = [name for name in FRAME_TEXTS if shard[name] != volume[name]]
    return row | {name: shard[name] for name in names if shard[name] is not None}


def _with_elements(row: Row, header: Header, constant: Header) -> Row:
    moved = {tag: element for tag, element in header.items() if tag not in constant}
    if not moved:
        return row
    return row | {"header": to_text(json.loads(row["header"]) | moved)}


def _statistics(part: Row) -> Statistics:
    values = np.asarray(part["values"], np.int64)
    if part["volume"]["dtype"].startswith("float"):
        values = values.view(np.float64)
    counts = np.asarray(part["counts"], np.int64)
    return Statistics(values, counts, part["n_padding"], part["n_nonfinite"])


def _intensities(
    parts: Sequence[Row], counted: Sequence[Statistics]
) -> Distribution | None:
    """Return the modality values of a volume; None where a shard does not tell them."""
    found = [*map(_modality_values, parts, counted)]
    known = [one for one in found if one is not None]
    return pool(known) if len(known) == len(found) else None


def _modality_values(part: Row, counted: Statistics) -> Distribution | None:
    told = part.get("intensities")  # tasks of earlier versions left none
    if told is not None:
        return Distribution.from_record(told)
    row = part["volume"]
    is_scaled = row["slope"] is not None and row["intercept"] is not None
    if not is_scaled and row["modality_lut"] is None:
        return None
    slope, intercept = (row["slope"], row["intercept"]) if is_scaled else (1, 0)
    transform = Transform.of(slope, intercept, row["modality_lut"])
    return transform.distribution(counted)


def _fingerprint_row(volume: Row, intensities: Distribution | None) -> Row:
    names = ("volume_id", "revision", "series_key", "Modality", "units", "spacing_mm")
    pairs = zip(volume["dimensions"], volume["shape"], strict=True)
    return {
        **{name: volume[name] for name in names},
        "shape": [extent for axis, extent in pairs if axis in "zyx"],
        "intensities": record(intensities),
    }
