"""From the frames of one shard to rows of the dataset's tables."""

import json
from collections.abc import Iterator

import numpy as np

from dicomdask import tables
from dicomdask.model import Box, Faces, PlannedVolume
from dicomdask.rows.frames import (
    FRAME_TEXTS,
    LONG_TEXTS,
    EncodedFrame,
    EncodedInstance,
    Frames,
)
from dicomdask.rows.header import (
    INSTANCE_ATTRIBUTES,
    SHARED,
    Header,
    Row,
    attribute,
    constant_header,
    leaves,
    record,
    to_text,
    units,
)
from dicomdask.values import Distribution, Statistics


def part_of(
    volume: PlannedVolume,
    frames: Frames,
    statistics: Statistics,
    *,
    zarr_json: str,
    shard_bytes: int,
    intensities: Distribution | None = None,
    faces: Faces | None = None,
) -> Row:
    """Return the part that one task hands to the commit; see `tables.PART`.

    Parameters
    ----------
    intensities
        The modality values, where `statistics` do not tell them: slopes vary.
    faces
        Whether a face may be seen.
    """
    constant = frames.constant
    names = {
        "volume_id": volume.volume_id,
        "revision": volume.revision,
        "series_key": volume.series_key,
    }
    return {
        "volume": _volume_row(volume, frames, constant, zarr_json, shard_bytes)
        | {"faces": faces},
        "frames": [names | row for row in _frame_rows(volume, frames)],
        "instances": [
            names | _instance_row(one, constant) for one in frames.instances()
        ],
        "redactions": [names | row for row in _redaction_rows(frames)],
        "values": statistics.values.view(np.int64),  # floats by their bits
        "counts": statistics.counts,
        "n_padding": statistics.n_padding,
        "n_nonfinite": statistics.n_nonfinite,
        "intensities": record(intensities),
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
        **{name: frames.only(name) for name in LONG_TEXTS},
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
        "text_look": frames.only_of_instances("text_look"),
        **{name: attribute(told, name) for name in tables.VOLUME_ATTRIBUTES},
    }


def _of_groups(frames: Frames, constant: Header) -> Header:
    """Return what functional groups say of all frames alike (PS3.3 C.7.6.16)."""
    shared = constant.get(SHARED, {}).get("Value", [{}])[0]
    own = [leaves(json.loads(frame.header)) for frame, _ in frames if frame.header]
    return leaves(shared) | (constant_header(own) if len(own) == len(frames) else {})


def _frame_rows(volume: PlannedVolume, frames: Frames) -> Iterator[Row]:
    varying = [name for name in FRAME_TEXTS if len(frames.every(name)) > 1]
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
        "text_look": instance.text_look,
        "header": to_text(varying),
        **{name: attribute(instance.header, name) for name in INSTANCE_ATTRIBUTES},
    }


def _redaction_rows(frames: Frames) -> Iterator[Row]:
    uids = {
        one.source_key: attribute(one.header, "SOPInstanceUID")
        for one in frames.instances()
    }
    for source, one in frames.redactions():
        yield {
            "source_key": source,
            "SOPInstanceUID": uids[source],
            "frames": [number + 1 for number in one.frames],  # from 1 in DICOM
            **{field: getattr(one.box, field) for field in Box.__slots__},
            "way": one.way,
            "score": one.score,
        }
