"""Encode: one task writes one shard, its de-identified rows and, last, its receipt."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Final

import numpy as np

from dicomdask import (
    arrays,
    burnedin,
    deid,
    faces,
    header,
    pixels,
    plan,
    rows,
    shards,
    storage,
    tables,
)
from dicomdask.burnedin import detector
from dicomdask.errors import InputError
from dicomdask.limits import HEADER_TEXT_BYTES
from dicomdask.model import Faces, PlannedVolume, Receipt, Task, Verdict
from dicomdask.policy import Policy
from dicomdask.pseudonym import Key, resolve_key
from dicomdask.tasks.attempts import Attempts
from dicomdask.tasks.barrier import guard, kind_of, quiet
from dicomdask.tasks.decode import (
    Decoded,
    Plane,
    Reader,
    decode,
    fit,
    parse,
    place,
    read_header,
)
from dicomdask.tasks.faces import clean_faces, whole_volume
from dicomdask.tasks.isolate import Cell
from dicomdask.tasks.looks import Looked, look_at
from dicomdask.tasks.measure import Counts, measured
from dicomdask.tasks.policies import job_policy
from dicomdask.tasks.references import References
from dicomdask.tasks.rehearse import rehearse
from dicomdask.tasks.resolve import make_verdict
from dicomdask.tasks.said import read_said
from dicomdask.tasks.sources import Portion, fetch, portions, take
from dicomdask.tasks.watch import watched
from dicomdask.values import Distribution, Statistics, Transform, pool, statistics
from dicomdask.work import Job, Work

Sights = Sequence[burnedin.Seen]


@dataclass(frozen=True, slots=True)
class Context:
    """What a task needs besides its plan."""

    work: Work
    store: str
    policy: Policy
    key: Key
    references: References


@measured
def encode_batch(batch: tuple[str, int, int], *, work_url: str) -> Counts:
    """Encode tasks [start, stop) of one part of the plan; return counts.

    Tasks that have a receipt are left alone. A task in which a frame turns out to be
    unfit writes its verdicts instead of a receipt. A task at which processes died
    before is decoded apart, so that its crashing frame becomes a verdict as well.
    """
    name, start, stop = batch
    work = Work(work_url)
    job = work.require_job()
    context = open_context(work, job)
    names = ("pieces", "piece_bytes", "tasks", "frames", "unfit", "raw_bytes")
    counts: Counts = {**dict.fromkeys(names, 0), "found": Counter()}
    attempts = Attempts(work)
    with quiet(), Cell(warm_context, job) as cell:
        for volume, task in plan_tasks(work.read_plan(name))[start:stop]:
            counts["pieces"] += 1
            counts["piece_bytes"] += source_bytes(volume, task)
            digest = plan.task_digest(volume, task, context.key)
            if work.has_receipt(digest):
                _count(counts, work.read_receipt(digest))
                continue
            with attempts.mark(digest):
                read = partial(read_here, context)
                if attempts.is_careful:
                    read = partial(read_apart, cell, job, context)
                _count(counts, encode_task(volume, task, context, read=read))
    counts["found"] = dict(counts["found"])
    return counts


def open_context(work: Work, job: Job) -> Context:
    """Return what the tasks of a work directory need besides their plan."""
    policy, key = job_policy(job), resolve_key(job.key)
    return Context(work, str(job.store), policy, key, References(work, policy, key))


@cache
def warm_context(job: Job) -> Context:
    """Return the context in the process apart, which reads and writes nothing."""
    context = open_context(Work(""), job)
    rehearse(context.policy, context.key)
    if context.policy.cleans_pixels:
        detector.load()
    return context


def _count(counts: Counts, result: Receipt | list[Verdict]) -> None:
    if isinstance(result, list):
        counts["unfit"] += len(result)
        counts["found"].update(kind_of(one.code, one.reason) for one in result)
        return
    counts["tasks"] += 1
    counts["frames"] += result.n_frames
    counts["raw_bytes"] += result.raw_bytes


def source_bytes(volume: PlannedVolume, task: Task) -> int:
    """Return the bytes of the files that a task reads."""
    frames = (volume.frames[number] for number in task.frames)
    return sum({frame.url: frame.size for frame in frames}.values())


def plan_tasks(part: plan.Plan) -> list[tuple[PlannedVolume, Task]]:
    """Return all tasks of one part of a plan, in order."""
    return [
        (volume, task) for volume in part.volumes for task in plan.volume_tasks(volume)
    ]


def encode_task(
    volume: PlannedVolume, task: Task, context: Context, *, read: Reader
) -> Receipt | list[Verdict]:
    """Write one shard, its rows and, last, its receipt; or say which are unfit.

    Parameters
    ----------
    read
        Returns frames and what is known of them, in this process or apart; raises
        InputError only.
    """
    digest = plan.task_digest(volume, task, context.key)
    started = time.monotonic()
    written = _write_shard(volume, task, context, read)
    if not isinstance(written, _Written):
        name = f"{context.work.next_verdict():06d}-encode-{digest[:16]}"
        context.work.write_verdicts(name, written)
        return written
    receipt = _write_rows(volume, task, written, context, digest)
    receipt = replace(receipt, seconds=round(time.monotonic() - started, 6))
    context.work.write_receipt(receipt)
    return receipt


@dataclass(frozen=True, slots=True)
class _Written:
    """What is left to tell of a shard once its pixels are stored."""

    shard_bytes: int
    raw_bytes: int
    statistics: Statistics
    intensities: Distribution | None
    frames: rows.Frames
    faces: Faces


def _write_shard(
    volume: PlannedVolume, task: Task, context: Context, read: Reader
) -> _Written | list[Verdict]:
    """Write the pixels of one shard, and hold none of them any more.

    What is alive at the same time is what `plan.memory_bytes` adds up.
    """
    array = _room_for(volume, task)
    frames, verdicts = rows.Frames(), list[Verdict]()
    wanted = portions(volume, (volume.frames[number] for number in task.frames))
    for portion, fetched in fetch(wanted):
        try:
            data = guard(take, portion, fetched)
            for batch in portion.batches():
                decoded, found = read(replace(portion, frames=batch), data, volume)
                for planned, plane in zip(batch, decoded, strict=True):
                    array[place(volume, task, planned)] = plane
                frames.add(*found)
                del decoded
        except InputError as error:
            told = (error.code, error.reason)
            verdicts.append(make_verdict(portion.file, "encode", *told))
        data = b""
        if frames.text_bytes > HEADER_TEXT_BYTES:
            return whole_volume(volume, InputError("too-large", LONG_HEADERS))
    if verdicts:
        return verdicts
    try:
        seen = clean_faces(
            *(volume, task, array, frames),
            policy=context.policy,
            key=context.key,
            read=read,
        )
    except InputError as error:
        return whole_volume(volume, error)
    n_filled = array.size - len(frames) * int(np.prod(volume.frame_shape))
    counted = statistics(array, volume.padding).without(volume.fill_value, n_filled)
    spread = _intensities(volume, task, array, frames)
    cut = volume.layout
    data = shards.encode_shard(array, cut.chunks, cut.shards, cut.codec)
    raw_bytes = array.nbytes
    del array
    key = shards.shard_key(task.corner)
    with storage.room_at(context.store):
        storage.write(storage.join(context.store, volume.path, "0", key), data)
    return _Written(len(data), raw_bytes, counted, spread, frames, seen)


def _intensities(
    volume: PlannedVolume, task: Task, array: Plane, frames: rows.Frames
) -> Distribution | None:
    """Return the modality values of a shard; None where all frames share a scale.

    Then what was counted of stored values tells them.
    """
    scales = ("slope", "intercept", "modality_lut")
    if all(len(frames.every(name)) == 1 for name in scales):
        return None
    found = pool([])
    for frame, _ in frames:
        slope, intercept, lut = (getattr(frame.meaning, name) for name in scales)
        transform = Transform.of(slope or 0, intercept or 0, lut)
        plane = array[place(volume, task, frame.planned)]
        counted = statistics(plane, volume.padding)
        found = pool([found, transform.distribution(counted)])
    return found


LONG_HEADERS: Final = "The headers of the series differ in more than a task may hold."


def _room_for(volume: PlannedVolume, task: Task) -> Plane:
    """Return the array of a task; where no frame comes, it is filled already."""
    shape = _region(volume, task)
    n_planes = np.prod([shape[axis] for axis in volume.frame_axes], dtype=int)
    if len({volume.frames[number].index for number in task.frames}) == n_planes:
        return np.empty(shape, volume.dtype)
    return np.full(shape, volume.fill_value, volume.dtype)


def _region(volume: PlannedVolume, task: Task) -> tuple[int, ...]:
    """Return the shape of the task's shard within the array's bounds."""
    return tuple(
        min(shard, extent - corner * shard)
        for corner, shard, extent in zip(
            task.corner, volume.layout.shards, volume.shape, strict=True
        )
    )


def read_here(
    context: Context, portion: Portion, data: bytes, volume: PlannedVolume
) -> Decoded:
    """Read frames in this process, which ends where they hang."""
    seen = context.references.of(volume, portion.file)
    with watched(_taken(portion, data)):
        return guard(_read_frames, portion, data, volume, context, seen)


def read_apart(
    cell: Cell,
    job: Job,
    context: Context,
    portion: Portion,
    data: bytes,
    volume: PlannedVolume,
) -> Decoded:
    """Read frames in a process apart, which resolves the key by itself."""
    seen = context.references.of(volume, portion.file, cell.call)
    lone = replace(volume, frames=(), references=())
    taken = _taken(portion, data)
    return cell.call(_read_warm, portion, data, lone, job, seen, nbytes=taken)


def _taken(portion: Portion, data: bytes) -> int:
    return len(data) + len(portion.frames) * portion.frame_bytes


def _read_warm(
    portion: Portion, data: bytes, volume: PlannedVolume, job: Job, seen: Sights
) -> Decoded:
    return _read_frames(portion, data, volume, warm_context(job), seen)


def _read_frames(
    portion: Portion,
    data: bytes,
    volume: PlannedVolume,
    context: Context,
    seen: Sights,
) -> Decoded:
    """Decode the frames of a portion, and tell what is known of them."""
    dataset = parse(portion, data, volume)
    decoder = pixels.FrameDecoder(dataset)
    numbered = decode(decoder, portion)
    looked = Looked(volume.look or "none")
    if volume.look is None:
        described = read_header(portion, data)
        looked, numbered = look_at(
            *(dataset, described, context.policy, decoder.form, dict(numbered)),
            seen,
        )
    if looked.by in burnedin.LOOKERS:
        dataset.BurnedInAnnotation = "NO"
    decoded = list(fit(numbered, portion, volume))
    said = read_said(dataset)
    cleaned = deid.clean_header(dataset, context.policy, context.key)
    told, groups = rows.split_header(deid.header_json(cleaned))
    instance = rows.EncodedInstance(
        source_key=portion.file.source_key,
        header=told,
        transfer_syntax_uid=str(dataset.file_meta.TransferSyntaxUID),
        site_key=said.site_key(context.key),
        device_key=said.device_key(context.key),
        text_look=looked.by,
        redactions=looked.redactions,
        region=faces.region_of(said.body),
    )
    times = header.frame_times(dataset)
    frames = [
        rows.EncodedFrame(
            frame,
            pixels.read_meaning(dataset, decoder, frame.frame),
            header=groups[frame.frame] if frame.frame < len(groups) else None,
            time_ms=times(frame.frame),
        )
        for frame in portion.frames
    ]
    return decoded, (instance, frames)


def _write_rows(
    volume: PlannedVolume, task: Task, written: _Written, context: Context, digest: str
) -> Receipt:
    frames = written.frames
    zarr_json = arrays.array_metadata(
        volume.shape, volume.dtype, volume.dimensions, volume.layout
    )
    part = rows.part_of(
        volume,
        frames,
        written.statistics,
        zarr_json=zarr_json,
        shard_bytes=written.shard_bytes,
        intensities=written.intensities,
        faces=written.faces,
    )
    if not any(task.corner):
        told = part["volume"]["units"], frames.first.header
        with storage.room_at(context.store):
            write_groups(volume, zarr_json, *told, store=context.store)
    context.work.write_part(digest, tables.part_to_parquet(part))
    return Receipt(
        task=digest,
        part=context.work.part_url(digest).removeprefix(context.work.url),
        n_frames=len(frames),
        shard_bytes=written.shard_bytes,
        raw_bytes=written.raw_bytes,
        source_bytes=source_bytes(volume, task),
        seconds=0.0,
    )


def write_groups(
    volume: PlannedVolume, zarr_json: str, units: str, first: rows.Header, *, store: str
) -> None:
    """Write the metadata of a volume's array and of the groups above it."""
    attributes = {
        "kind": volume.kind,
        "affine": volume.affine or None,
        "spacing_mm": volume.spacing_mm or None,
        "uniform_spacing": volume.uniform_spacing,
        "tilt_degrees": volume.tilt_degrees,
        "units": units,
        "axis_keyword": volume.axis_keyword,
        "axis_values": volume.axis_values or None,
        "missing_slices": volume.missing or None,
        "ultrasound_regions": rows.ultrasound_regions(first),
        "window_center": rows.attribute(first, "WindowCenter"),
        "window_width": rows.attribute(first, "WindowWidth"),
    }
    group = arrays.volume_group_metadata(
        volume.dimensions, volume.spacing_mm, attributes, name=volume.volume_id
    )
    base = storage.join(store, volume.path)
    plain = arrays.group_metadata().encode()
    names = volume.path.split("/")
    above = (
        storage.join(store, *names[:depth], "zarr.json")
        for depth in range(1, len(names))
    )
    storage.write_all(
        [
            *((url, plain) for url in above if not storage.exists(url)),
            (storage.join(base, "zarr.json"), group.encode()),
            (storage.join(base, "0", "zarr.json"), zarr_json.encode()),
        ]
    )
