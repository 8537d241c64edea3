"""From cleaned headers and statistics to rows of the dataset's tables. Pure.

A task makes the rows of its own shard; `merge_parts` joins the shards of one volume.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, Final

import numpy as np
from pydicom.datadict import keyword_for_tag, tag_for_keyword

from dicomdask import tables
from dicomdask.model import Meaning, PlannedFrame, PlannedVolume
from dicomdask.values import Distribution, Statistics, Transform, merge, pool

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


PER_FRAME: Final = f"{tag_for_keyword('PerFrameFunctionalGroupsSequence'):08X}"
REGIONS: Final = f"{tag_for_keyword('SequenceOfUltrasoundRegions'):08X}"
SHARED: Final = f"{tag_for_keyword('SharedFunctionalGroupsSequence'):08X}"
_COLUMNS: Final = frozenset((*(TAGS[n] for n in tables.VOLUME_ATTRIBUTES), "00281053"))


@dataclass(frozen=True, slots=True)
class EncodedInstance:
    """What is known of one instance after its frames were decoded, de-identified."""

    source_key: str
    header: Header
    transfer_syntax_uid: str
    site_key: str | None
    device_key: str | None


@dataclass(frozen=True, slots=True)
class EncodedFrame:
    """What is known of one frame after it was decoded, de-identified.

    `header` is what the header says of this frame alone, as text: its functional
    groups; None in an object of one frame. `time_ms` counts from the first frame of a
    cine.
    """

    planned: PlannedFrame
    meaning: Meaning
    header: str | None = None
    time_ms: float | None = None


_NONE: Final[Header] = {}
_FRAME_TEXTS: Final = ("modality_lut", "display")
_LONG_TEXTS: Final = (*_FRAME_TEXTS, "real_world_values")
"""Fields that hold tables as text; the former are told by frame where they differ."""


def split_header(header: Header) -> tuple[Header, list[str]]:
    """Return a header without what it says of single frames, and that as texts."""
    groups = header.get(PER_FRAME, {}).get("Value", [])
    rest = {tag: element for tag, element in header.items() if tag != PER_FRAME}
    return rest, list(map(to_text, groups))


class Frames:
    """The frames of one shard; a header is held as what differs from the first one."""

    def __init__(self) -> None:
        self.text_bytes = 0
        self._first: Header = {}
        self._varying: set[str] = set()
        self._held: list[tuple[EncodedInstance, str]] = []
        self._frames: list[tuple[EncodedFrame, str | None]] = []
        self._texts: dict[str | None, str | None] = {None: None}

    def add(self, instance: EncodedInstance, frames: Sequence[EncodedFrame]) -> None:
        """Take frames of one instance; its header counts where it comes first."""
        uid = attribute(instance.header, "SOPInstanceUID")
        if instance.source_key not in {one.source_key for one, _ in self._held[-1:]}:
            self._add_header(instance)
        self.text_bytes += sum(len(frame.header or "") for frame in frames)
        self._frames += [(self._shared(frame), uid) for frame in frames]

    def _shared(self, frame: EncodedFrame) -> EncodedFrame:
        """Return a frame whose texts are those that are held already, if they are."""
        for name in _LONG_TEXTS:
            text = getattr(frame.meaning, name)
            if text not in self._texts:
                self.text_bytes += len(text)
        texts: dict[str, Any] = {
            name: self._texts.setdefault(text, text)
            for name in _LONG_TEXTS
            for text in [getattr(frame.meaning, name)]
        }
        return replace(frame, meaning=replace(frame.meaning, **texts))

    def _add_header(self, instance: EncodedInstance) -> None:
        self._first = self._first if self._held else instance.header
        other = {
            tag: instance.header.get(tag)
            for tag in self._first.keys() | instance.header.keys()
            if instance.header.get(tag) != self._first.get(tag)
        }
        text = json.dumps(other, separators=(",", ":"))
        self.text_bytes += len(text)
        self._varying |= other.keys()
        self._held.append((replace(instance, header=_NONE), text))

    @property
    def constant(self) -> dict[str, Any]:
        """Return the elements that all headers share, value and all."""
        return {t: e for t, e in self._first.items() if t not in self._varying}

    @property
    def first(self) -> EncodedInstance:
        """Return the first instance."""
        return next(self.instances())

    def only(self, name: str) -> Any:
        """Return the value of a field that all frames share, or None."""
        return _only(self.every(name))

    def every(self, name: str) -> set[Any]:
        """Return the values of a field over all frames."""
        return {getattr(frame.meaning, name) for frame, _ in self._frames}

    @property
    def warnings(self) -> list[str]:
        """Return what any of the frames warns of."""
        return sorted({one for told in self.every("warnings") for one in told})

    def only_of_instances(self, name: str) -> Any:
        """Return the value of a field that all instances share, or None."""
        return _only({getattr(one, name) for one, _ in self._held})

    def __len__(self) -> int:
        return len(self._frames)

    def __iter__(self) -> Iterator[tuple[EncodedFrame, str | None]]:
        """Yield each frame with the SOP Instance UID of its instance."""
        return iter(self._frames)

    def instances(self) -> Iterator[EncodedInstance]:
        """Yield each instance, its header whole."""
        for instance, text in self._held:
            found = {**self._first, **json.loads(text)}
            header = {tag: e for tag, e in found.items() if e is not None}
            yield replace(instance, header=header)


def part_of(
    volume: PlannedVolume,
    frames: Frames,
    statistics: Statistics,
    *,
    zarr_json: str,
    shard_bytes: int,
    intensities: Distribution | None = None,
) -> Row:
    """Return the part that one task hands to the commit; see `tables.PART`.

    Parameters
    ----------
    intensities
        The modality values, where `statistics` do not tell them: slopes vary.
    """
    constant = frames.constant
    names = {
        "volume_id": volume.volume_id,
        "revision": volume.revision,
        "series_key": volume.series_key,
    }
    return {
        "volume": _volume_row(volume, frames, constant, zarr_json, shard_bytes),
        "frames": [names | row for row in _frame_rows(volume, frames)],
        "instances": [
            names | _instance_row(one, constant) for one in frames.instances()
        ],
        "values": statistics.values.view(np.int64),  # floats by their bits
        "counts": statistics.counts,
        "n_padding": statistics.n_padding,
        "n_nonfinite": statistics.n_nonfinite,
        "intensities": _record(intensities),
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
    told = {**_of_groups(frames, constant), **constant}
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
        "units": units(told),
        "slope": frames.only("slope"),
        "intercept": frames.only("intercept"),
        **{name: frames.only(name) for name in _LONG_TEXTS},
        "axis_keyword": volume.axis_keyword,
        "axis_values": volume.axis_values or None,
        "n_frames": len(frames),
        "n_missing": volume.n_missing,
        "missing_slices": volume.missing or None,
        "n_duplicates": volume.n_duplicates,
        "tilt_degrees": volume.tilt_degrees,
        "uniform_spacing": volume.uniform_spacing,
        "stored_bytes": shard_bytes,
        "raw_bytes": volume.raw_bytes,
        "warnings": (*volume.warnings, *frames.warnings),
        "header": to_text(constant),
        "series_key": volume.series_key,
        "site_key": frames.only_of_instances("site_key"),
        "device_key": frames.only_of_instances("device_key"),
        **{name: attribute(told, name) for name in tables.VOLUME_ATTRIBUTES},
    }


def _of_groups(frames: Frames, constant: Header) -> Header:
    """Return what functional groups say of all frames alike (PS3.3 C.7.6.16)."""
    shared = constant.get(SHARED, {}).get("Value", [{}])[0]
    own = [_leaves(json.loads(frame.header)) for frame, _ in frames if frame.header]
    return _leaves(shared) | (constant_header(own) if len(own) == len(frames) else {})


def _leaves(group: Header, depth: int = 3) -> dict[str, Any]:
    """Return the attributes inside the macros of a group that are columns."""
    found: dict[str, Any] = {}
    for tag, element in group.items():
        if tag in _COLUMNS:
            found.setdefault(tag, element)
        elif element.get("vr") == "SQ" and depth:
            for item in element.get("Value", [])[:1]:
                found = _leaves(item, depth - 1) | found
    return found


def _only(found: set[Any]) -> Any:
    return found.pop() if len(found) == 1 else None


def _frame_rows(volume: PlannedVolume, frames: Frames) -> Iterator[Row]:
    varying = [name for name in _FRAME_TEXTS if len(frames.every(name)) > 1]
    for frame, uid in frames:
        texts = {name: getattr(frame.meaning, name) for name in varying}
        yield _frame_row(volume, frame, uid) | texts


def _frame_row(volume: PlannedVolume, frame: EncodedFrame, uid: str | None) -> Row:
    axes = (volume.dimensions[axis] for axis in volume.frame_axes)
    index = dict(zip(axes, frame.planned.index, strict=True))
    return {
        "t": index.get("t"),
        "z": index.get("z"),
        "SOPInstanceUID": uid,
        "frame_number": frame.planned.frame + 1,  # frames count from 1 in DICOM
        "tile": None if frame.planned.tile is None else frame.planned.tile + 1,
        "source_key": frame.planned.source_key,
        "ImagePositionPatient": frame.planned.position or None,
        "slope": frame.meaning.slope,
        "intercept": frame.meaning.intercept,
        "time_ms": frame.time_ms,
        "header": frame.header,
    }


def _instance_row(instance: EncodedInstance, constant: Header) -> Row:
    varying = {tag: e for tag, e in instance.header.items() if tag not in constant}
    return {
        "source_key": instance.source_key,
        "TransferSyntaxUID": instance.transfer_syntax_uid,
        "header": to_text(varying),
        **{name: attribute(instance.header, name) for name in INSTANCE_ATTRIBUTES},
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


def ultrasound_regions(header: Header) -> list[dict[str, Any]] | None:
    """Return the regions of an ultrasound image by keyword (PS3.3 C.8.5.5), or None.

    Each has its place in pixels, its physical deltas and their units' codes.
    """
    items = header.get(REGIONS, {}).get("Value", [])
    return [_by_keyword(item) for item in items] or None


def _by_keyword(item: Header) -> dict[str, Any]:
    pairs = ((keyword_for_tag(int(t, 16)), e.get("Value")) for t, e in item.items())
    return {k: value[0] for k, value in pairs if k and value and len(value) == 1}


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
    if len({row["units"] for row in rows}) > 1:
        volume["units"] = "unspecified"
    volume["n_frames"] = sum(row["n_frames"] for row in rows)
    volume["stored_bytes"] = sum(row["stored_bytes"] for row in rows)
    for name in ("slope", "intercept", "site_key", "device_key", *_LONG_TEXTS):
        volume[name] = _only({row[name] for row in rows})
    warned = [warning for row in rows for warning in row["warnings"]]
    volume["warnings"] = list(dict.fromkeys(warned))
    for name in tables.VOLUME_ATTRIBUTES:
        first, *others = (row[name] for row in rows)
        volume[name] = first if all(other == first for other in others) else None
    counted = [_statistics(part) for part in parts]
    volume["statistics"] = reduce(merge, counted).summary()
    instances: dict[str, Row] = {}  # one may have frames in several shards
    for part, header in zip(parts, headers, strict=True):
        for row in part["instances"]:
            whole = _with_elements(row, header, constant)
            instances.setdefault(row["source_key"], whole)
    return {
        "volume": volume,
        "frames": [
            _with_texts(row, part["volume"], volume)
            for part in parts
            for row in part["frames"]
        ],
        "instances": list(instances.values()),
        "fingerprint": _fingerprint_row(volume, _intensities(parts, counted)),
    }


def _with_texts(row: Row, shard: Row, volume: Row) -> Row:
    """Return a frame with what all of its shard share, but not all of the volume."""
    names = [name for name in _FRAME_TEXTS if shard[name] != volume[name]]
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


def _record(found: Distribution | None) -> Row | None:
    return None if found is None else found.to_record()


def _fingerprint_row(volume: Row, intensities: Distribution | None) -> Row:
    names = ("volume_id", "revision", "series_key", "Modality", "units", "spacing_mm")
    pairs = zip(volume["dimensions"], volume["shape"], strict=True)
    return {
        **{name: volume[name] for name in names},
        "shape": [extent for axis, extent in pairs if axis in "zyx"],
        "intensities": _record(intensities),
    }
