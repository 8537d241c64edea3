"""From cleaned headers and statistics to rows of the dataset's tables. Pure.

A task makes the rows of its own shard; `merge_parts` joins the shards of one volume.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from pydicom.datadict import tag_for_keyword

from dicomdask import tables
from dicomdask.model import PlannedFrame, PlannedVolume
from dicomdask.values import Statistics, merge

Header = Mapping[str, Mapping[str, Any]]
"""A de-identified header in the DICOM JSON model (PS3.18 F.2)."""

Row = dict[str, Any]

INSTANCE_ATTRIBUTES: Final = (
    "PatientID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SOPInstanceUID",
    "SOPClassUID",
    "InstanceNumber",
)
TAGS: Final = {
    keyword: f"{tag_for_keyword(keyword):08X}"
    for keyword in {*tables.VOLUME_ATTRIBUTES, *INSTANCE_ATTRIBUTES}
}


@dataclass(frozen=True, slots=True)
class EncodedFrame:
    """What is known of one frame after it was decoded, de-identified."""

    planned: PlannedFrame
    header: Header
    transfer_syntax_uid: str
    slope: float
    intercept: float
    site_key: str | None
    device_key: str | None


_NONE: Final[Header] = {}


class Frames:
    """The frames of one shard; a header is held as what differs from the first one."""

    def __init__(self) -> None:
        self.text_bytes = 0
        self._first: Header = {}
        self._varying: set[str] = set()
        self._held: list[tuple[EncodedFrame, str]] = []

    def add(self, frame: EncodedFrame) -> None:
        """Take one more frame."""
        self._first = self._first if self._held else frame.header
        other = {
            tag: frame.header.get(tag)
            for tag in self._first.keys() | frame.header.keys()
            if frame.header.get(tag) != self._first.get(tag)
        }
        text = json.dumps(other, separators=(",", ":"))
        self.text_bytes += len(text)
        self._varying |= other.keys()
        self._held.append((replace(frame, header=_NONE), text))

    @property
    def constant(self) -> dict[str, Any]:
        """Return the elements that all headers share, value and all."""
        return {t: e for t, e in self._first.items() if t not in self._varying}

    @property
    def first(self) -> EncodedFrame:
        """Return the first frame."""
        return next(iter(self))

    def only(self, name: str) -> Any:
        """Return the value of a field that all frames share, or None."""
        return _only({getattr(frame, name) for frame, _ in self._held})

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[EncodedFrame]:
        for frame, text in self._held:
            found = {**self._first, **json.loads(text)}
            header = {tag: e for tag, e in found.items() if e is not None}
            yield replace(frame, header=header)


def part_of(
    volume: PlannedVolume,
    frames: Frames,
    statistics: Statistics,
    *,
    zarr_json: str,
    shard_bytes: int,
) -> Row:
    """Return the part that one task hands to the commit; see `tables.PART`."""
    constant = frames.constant
    names = {
        "volume_id": volume.volume_id,
        "revision": volume.revision,
        "series_key": volume.series_key,
    }
    frame_rows: list[Row] = []
    instance_rows: list[Row] = []
    for frame in frames:
        frame_rows.append(names | _frame_row(volume, frame))
        instance_rows.append(names | _instance_row(frame, constant))
    return {
        "volume": _volume_row(volume, frames, constant, zarr_json, shard_bytes),
        "frames": frame_rows,
        "instances": instance_rows,
        "values": statistics.values,
        "counts": statistics.counts,
        "n_padding": statistics.n_padding,
    }


def constant_header(headers: Sequence[Header]) -> dict[str, Any]:
    """Return the elements that all headers share, value and all."""
    first, *others = headers
    return {
        tag: element
        for tag, element in first.items()
        if all(other.get(tag) == element for other in others)
    }


def _volume_row(
    volume: PlannedVolume,
    frames: Frames,
    constant: Header,
    zarr_json: str,
    shard_bytes: int,
) -> Row:
    return {
        "volume_id": volume.volume_id,
        "revision": volume.revision,
        "path": volume.path,
        "kind": volume.kind,
        "shape": volume.shape,
        "dimensions": volume.dimensions,
        "dtype": volume.dtype,
        "chunks": volume.layout.chunks,
        "shards": volume.layout.shards,
        "codec": volume.layout.codec,
        "zarr_json": zarr_json,
        "affine": volume.affine or None,
        "spacing_mm": volume.spacing_mm or None,
        "units": units(constant),
        "slope": frames.only("slope"),
        "intercept": frames.only("intercept"),
        "axis_keyword": volume.axis_keyword,
        "axis_values": volume.axis_values or None,
        "n_frames": len(frames),
        "n_missing": volume.n_missing,
        "n_duplicates": volume.n_duplicates,
        "tilt_degrees": volume.tilt_degrees,
        "uniform_spacing": volume.uniform_spacing,
        "stored_bytes": shard_bytes,
        "raw_bytes": volume.raw_bytes,
        "warnings": volume.warnings,
        "header": to_text(constant),
        "series_key": volume.series_key,
        "site_key": frames.only("site_key"),
        "device_key": frames.only("device_key"),
        **{name: attribute(constant, name) for name in tables.VOLUME_ATTRIBUTES},
    }


def _only(found: set[Any]) -> Any:
    return found.pop() if len(found) == 1 else None


def _frame_row(volume: PlannedVolume, frame: EncodedFrame) -> Row:
    leading = volume.dimensions[: volume.n_leading]
    index = dict(zip(leading, frame.planned.index, strict=True))
    return {
        "t": index.get("t"),
        "z": index.get("z"),
        "SOPInstanceUID": attribute(frame.header, "SOPInstanceUID"),
        "frame_number": frame.planned.frame + 1,  # frames count from 1 in DICOM
        "source_key": frame.planned.source_key,
        "ImagePositionPatient": frame.planned.position or None,
        "slope": frame.slope,
        "intercept": frame.intercept,
    }


def _instance_row(frame: EncodedFrame, constant: Header) -> Row:
    varying = {tag: e for tag, e in frame.header.items() if tag not in constant}
    return {
        "source_key": frame.planned.source_key,
        "TransferSyntaxUID": frame.transfer_syntax_uid,
        "header": to_text(varying),
        **{name: attribute(frame.header, name) for name in INSTANCE_ATTRIBUTES},
    }


def to_text(header: Header) -> str:
    """Return a header as compact JSON in the order of its tags."""
    return json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def attribute(header: Header, keyword: str) -> Any:
    """Return the value of an attribute as its column holds it, or None."""
    value = header.get(TAGS[keyword], {}).get("Value")
    if not value:
        return None
    if tables.is_list(keyword):
        return value
    return value[0]


def units(header: Header) -> str:
    """Return the units of the modality values.

    PS3.3 C.11.1.1.2 (Rescale Type), C.8.9.1.1.3 (PET Units); CT is in HU by C.8.2.1.
    """
    if attribute(header, "Units"):
        return str(attribute(header, "Units"))
    if attribute(header, "RescaleType") not in (None, "US"):
        return str(attribute(header, "RescaleType"))
    is_scaled = "00281053" in header
    if attribute(header, "Modality") == "CT" and is_scaled:
        return "HU"
    return "unspecified" if is_scaled else "stored"


# --- several shards of one volume ---------------------------------------------


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
    volume["units"] = units(constant)
    volume["n_frames"] = sum(row["n_frames"] for row in rows)
    volume["stored_bytes"] = sum(row["stored_bytes"] for row in rows)
    for name in ("slope", "intercept", "site_key", "device_key"):
        volume[name] = _only({row[name] for row in rows})
    for name in tables.VOLUME_ATTRIBUTES:
        volume[name] = attribute(constant, name)
    volume["statistics"] = _statistics(parts).summary()
    return {
        "volume": volume,
        "frames": [row for part in parts for row in part["frames"]],
        "instances": [
            _with_elements(row, header, constant)
            for part, header in zip(parts, headers, strict=True)
            for row in part["instances"]
        ],
    }


def _with_elements(row: Row, header: Header, constant: Header) -> Row:
    moved = {tag: element for tag, element in header.items() if tag not in constant}
    if not moved:
        return row
    return row | {"header": to_text(json.loads(row["header"]) | moved)}


def _statistics(parts: Sequence[Row]) -> Statistics:
    total: Statistics | None = None
    for part in parts:
        values = np.asarray(part["values"], np.int64)
        counts = np.asarray(part["counts"], np.int64)
        one = Statistics(values, counts, part["n_padding"])
        total = one if total is None else merge(total, one)
    if total is None:
        raise ValueError("a volume has at least one part")
    return total
