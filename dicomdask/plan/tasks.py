"""From a volume to tasks: each owns one shard, and its memory is arithmetic."""

from collections.abc import Iterator
from itertools import product
from math import prod
from typing import Final

import numpy as np

from dicomdask.model import PlannedVolume, Task
from dicomdask.pseudonym import Key

BASE_BYTES: Final = 160 << 20
"""What a worker's interpreter, pydicom, zarr and pyarrow take before any pixel."""


def volume_tasks(volume: PlannedVolume) -> Iterator[Task]:
    """Yield the tasks of a volume; together they hold each frame exactly once."""
    shards = volume.layout.shards
    n_leading = len(volume.shape) - 2
    grid = [
        range(-(-extent // shard))
        for extent, shard in zip(volume.shape, shards, strict=True)
    ]
    places = {frame.index: number for number, frame in enumerate(volume.frames)}
    for corner in product(*grid):
        ranges = [
            range(c * s, min((c + 1) * s, extent))
            for c, s, extent in zip(corner, shards, volume.shape, strict=True)
        ]
        inside = product(*ranges[:n_leading])
        yield Task(corner, tuple(places[index] for index in inside if index in places))


def task_digest(volume: PlannedVolume, task: Task, key: Key) -> str:
    """Return the name of a task's receipt: all that its output depends on."""
    corner = ",".join(map(str, task.corner))
    return key.digest("task", volume.volume_id, volume.revision, corner)


def shard_raw_bytes(volume: PlannedVolume) -> int:
    """Return the decoded bytes of one whole shard, padding of its chunks included."""
    return prod(volume.layout.shards) * np.dtype(volume.dtype).itemsize


def memory_bytes(volume: PlannedVolume) -> int:
    """Return the peak memory of one of the volume's tasks on a worker.

    The interpreter + the shard's array + its encoded chunks (at most as large, plus one
    joined copy) + the largest source file, its decoded frames and one copy of them.
    """
    shard = shard_raw_bytes(volume)
    largest = max(frame.size for frame in volume.frames)
    frame = prod(volume.shape[-2:]) * 8
    return BASE_BYTES + shard + 2 * shard + largest + 2 * frame
