"""From the bytes of a portion to planes: parsed, decoded, and cut as a volume's."""

import io
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from pydicom.dataset import FileDataset

from dicomdask import header, pixels, plan, rows
from dicomdask.errors import InputError
from dicomdask.model import Instance, PlannedFrame, PlannedVolume, SourceFile, Task
from dicomdask.tasks.sources import Portion

Plane = np.ndarray[Any, np.dtype[Any]]
Numbered = tuple[int, Plane]
"""The number of a frame, from 0, and the frame: of a mosaic with all of its tiles."""
Known = tuple[rows.EncodedInstance, list[rows.EncodedFrame]]
Decoded = tuple[list[Plane], Known]
Reader = Callable[[Portion, bytes, PlannedVolume], Decoded]
"""What returns the planes of a portion and what is known of them."""


def place(
    volume: PlannedVolume, task: Task, frame: PlannedFrame
) -> tuple[int | slice, ...]:
    """Return the index of a frame within its shard."""
    index: list[int | slice] = [slice(None)] * len(volume.shape)
    for axis, number in zip(volume.frame_axes, frame.index, strict=True):
        index[axis] = number - task.corner[axis] * volume.layout.shards[axis]
    return tuple(index)


def parse(portion: Portion, data: bytes, volume: PlannedVolume) -> FileDataset:
    """Return the data set of a portion: of its frames, where it has no others."""
    if portion.header_bytes is None:
        return header.read_dataset(data, limit=plan.inflated_bytes(volume))
    head, body = data[: portion.header_bytes], data[portion.header_bytes :]
    return header.read_piece(head, body, len(portion.frames))


def read_header(portion: Portion, data: bytes) -> Instance:
    """Return the instance that a portion is of, as its header tells it now."""
    file = portion.file
    source = SourceFile(file.url, file.size, file.etag, file.token)
    return header.read_instance(io.BytesIO(data), source)


def decode(decoder: pixels.FrameDecoder, portion: Portion) -> Iterator[Numbered]:
    """Yield the frames of a portion, each once: a mosaic is decoded for all tiles."""
    last = -1
    for place, frame in enumerate(portion.frames):
        if frame.frame != last:
            number = frame.frame if portion.header_bytes is None else place
            yield frame.frame, decoder.decode(number)
        last = frame.frame


def fit(
    numbered: Iterable[Numbered], portion: Portion, volume: PlannedVolume
) -> Iterator[Plane]:
    """Yield the planes of a portion as their volume has them, from its frames.

    Raises
    ------
    InputError
        `bad-pixels` if they are none of the volume's.
    """
    frames, (number, whole) = iter(numbered), (-1, np.empty(0))
    for frame in portion.frames:
        if frame.frame != number:
            number, whole = next(frames)
        plane = whole
        if frame.tile is not None:
            plane = pixels.cut_tile(whole, frame.tile, volume.frame_shape)
        if "c" in volume.dimensions:
            plane = np.moveaxis(plane, -1, 0)
        if plane.shape != volume.frame_shape or plane.dtype != np.dtype(volume.dtype):
            raise InputError("bad-pixels", "Pixels differ from what the header says.")
        yield plane
