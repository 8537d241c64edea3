"""What a task costs: added to the counts that it returns."""

import time
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from dicomdask import storage

Counts = dict[str, Any]
Task = TypeVar("Task", bound=Callable[..., Counts])


def measured(task: Task) -> Task:
    """Let a task add the bytes it read and wrote, and its seconds, to its counts."""

    @wraps(task)
    def run(*args: Any, **options: Any) -> Counts:
        started = time.monotonic()
        with storage.counted() as traffic:
            counts = task(*args, **options)
        return {
            **counts,
            "read_bytes": traffic.read_bytes,
            "written_bytes": traffic.written_bytes,
            "seconds": round(time.monotonic() - started, 6),
        }

    return run  # type: ignore[return-value]
