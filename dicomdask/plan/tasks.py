"""From a volume to tasks: each owns one shard."""

from collections.abc import Iterator
from itertools import product

from dicomdask.model import PlannedVolume, Task
from dicomdask.pseudonym import Key


def volume_tasks(volume: PlannedVolume) -> Iterator[Task]:
    """Yield the tasks of a volume; together they hold each frame exactly once."""
    shards = volume.layout.shards
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
        inside = product(*(ranges[axis] for axis in volume.frame_axes))
        yield Task(corner, tuple(places[index] for index in inside if index in places))


def task_digest(volume: PlannedVolume, task: Task, key: Key) -> str:
    """Return the name of a task's receipt: all that its output depends on."""
    corner = ",".join(map(str, task.corner))
    return key.digest("task", volume.volume_id, volume.revision, corner)
