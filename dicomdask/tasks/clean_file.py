"""Clean: the bytes of one file become those of its de-identified file.

Headers are read and cleaned here. Where pixels have to be decoded, to be looked at or
blanked, all of it is done in a process apart: a decoder or an encoder that crashes,
hangs or takes too much memory costs its file and nothing else.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pydicom.dataset import FileDataset

from dicomdask import burnedin, deid, header, pixels
from dicomdask.errors import InputError
from dicomdask.model import Look, SourceFile
from dicomdask.policy import GRAPHICS, Policy
from dicomdask.pseudonym import Key
from dicomdask.tasks.barrier import guard
from dicomdask.tasks.encode import Context, warm_context
from dicomdask.tasks.isolate import Cell
from dicomdask.tasks.looks import Looked, look_at_file, need
from dicomdask.tasks.masks import read_masks, without_face
from dicomdask.tasks.references import Neighbours
from dicomdask.tasks.said import read_said
from dicomdask.work import Job

Cleaned = tuple[deid.CleanedFile, Looked, str]
"""A cleaned file, who looked at it, and its device: see `tasks.files.FileRow`."""

FILE_FACTOR: Final = 6
FRAME_FACTOR: Final = 8
"""How many times its bytes, and those of a decoded frame, a file takes at most."""

_SR: Final = "1.2.840.10008.5.1.4.1.1.88."
_RT: Final = "1.2.840.10008.5.1.4.1.1.481."
_WITHOUT_PIXELS: Final = frozenset(
    {
        *(_RT + end for end in ("3", "5")),  # structure sets and plans
        "1.2.840.10008.5.1.4.1.1.66.1",  # spatial registration
        "1.2.840.10008.5.1.4.1.1.67",  # real world value mapping
    }
)
"""What has no pixels and is cleaned by the policy; all structured reports besides."""
_PRESENTATIONS: Final = frozenset(
    "1.2.840.10008.5.1.4.1.1.11." + end for end in ("1", "2")
)
"""Softcopy presentation states in grey and in colour: with `clean-graphics` only."""


@dataclass(frozen=True, slots=True)
class _Opened:
    """A parsed file: who has to look at its pixels, and what masks them.

    `decoded_bytes` and `frame_bytes` are what its pixels and one frame of them take,
    0 where they stay as they are. `kin` is what files have in common with it that may
    hold the same text.
    """

    dataset: FileDataset
    by: Look = "none"
    masks: bytes | None = None
    decoded_bytes: int = 0
    frame_bytes: int = 0
    kin: burnedin.Kin | None = None


def clean(
    data: bytes,
    file: SourceFile,
    context: Context,
    job: Job,
    cell: Cell,
    neighbours: Neighbours,
    *,
    crosswalk: bool,
    memory: int | None = None,
) -> Cleaned:
    """Return the de-identified file of the bytes of a listed one.

    Parameters
    ----------
    job
        What `context` is of: the process apart makes its own of it.
    cell
        A cell that `warm_context` warms, of that job.
    neighbours
        Files that were looked at before, which it is compared with; it joins them.
    memory
        What bytes it may take, if anything limits them.

    Raises
    ------
    InputError
        Whatever keeps it from being clean.
    """
    opened = guard(_open, data, file, context)
    taken = FILE_FACTOR * len(data) + FRAME_FACTOR * opened.frame_bytes
    if memory is not None and taken > memory:
        raise InputError("too-large")
    if not opened.decoded_bytes:
        return guard(_clean_header, opened.dataset, opened.by, context, crosswalk)
    seen = neighbours.of(opened.kin)
    told = (opened.by, opened.masks, job, crosswalk, seen)
    nbytes = len(data) + opened.decoded_bytes
    found: Cleaned = cell.call(_clean_pixels, data, file, *told, nbytes=nbytes)
    cleaned, looked, device = found
    neighbours.add(opened.kin, looked.seen)
    return cleaned, replace(looked, seen=None), device


def _open(data: bytes, file: SourceFile, context: Context) -> _Opened:
    try:
        instance = header.read_instance(io.BytesIO(data), file)
    except InputError as error:
        if error.code != "no-pixels":
            raise
        dataset = header.read_dataset(data)
        require_cleanable(dataset, context.policy)
        return _Opened(dataset)
    by = need(instance, context.policy)
    dataset = header.read_dataset(data)
    masks = read_masks(dataset, instance, file, context)
    if by not in burnedin.LOOKERS and masks is None:
        return _Opened(dataset, by)
    decoded_bytes = max(1, pixels.decoded_bytes(instance))
    frame_bytes = decoded_bytes // max(1, instance.number_of_frames)
    kin = burnedin.kin_of(instance, context.policy)
    return _Opened(dataset, by, masks, decoded_bytes, frame_bytes, kin)


def _clean_header(
    dataset: FileDataset, by: Look, context: Context, crosswalk: bool
) -> Cleaned:
    args = (dataset, context.policy, context.key)
    return deid.clean_file(*args, crosswalk=crosswalk), Looked(by), "{}"


def _clean_pixels(
    data: bytes,
    file: SourceFile,
    by: Look,
    masks: bytes | None,
    job: Job,
    crosswalk: bool,
    seen: Sequence[burnedin.Seen],
) -> Cleaned:
    """Return a cleaned file whose pixels are decoded: called in the process apart."""
    context = warm_context(job)
    instance = header.read_instance(io.BytesIO(data), file)
    dataset = header.read_dataset(data)
    looked, dataset = look_at_file(dataset, instance, context.policy, by, seen)
    if masks is not None:
        dataset = without_face(dataset, masks)
    cleaned, _, device = _clean_header(dataset, by, context, crosswalk)
    if by in burnedin.LOOKERS:
        device = _device(dataset, cleaned.data, context.key)
    return cleaned, looked, device


def _device(dataset: FileDataset, cleaned: bytes, key: Key) -> str:
    """Return what tells devices and sizes apart; of names those that were kept."""
    written = header.read_dataset(cleaned)
    texts = {
        name: [str(one.get(name) or "").strip() for one in (dataset, written)]
        for name in ("Modality", "Manufacturer", "ManufacturerModelName")
    }
    told: dict[str, Any] = {
        name: kept if kept and kept == own else None
        for name, (own, kept) in texts.items()
    }
    told |= {"rows": int(written.Rows), "columns": int(written.Columns)}
    told |= {"n_frames": int(written.get("NumberOfFrames") or 1)}
    return json.dumps(told | {"device_key": read_said(dataset).device_key(key)})


def require_cleanable(dataset: FileDataset, policy: Policy) -> None:
    """Let pass what has no pixels only where the policy knows what is in it."""
    uid = str(dataset.get("SOPClassUID") or "")
    is_drawn = uid in _PRESENTATIONS and GRAPHICS in policy.options
    if not (uid.startswith(_SR) or uid in _WITHOUT_PIXELS or is_drawn):
        raise InputError("unsupported-object")
    if 0x7FE00010 in dataset:
        raise InputError("unsupported-object")
