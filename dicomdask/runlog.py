"""What a run tells: how far it is, where its time went, and a log of its own.

The log is JSON lines in the work directory, one small object a run, written anew at the
end of each stage so that it works on object stores too. It holds counts, codes, classes
of errors and versions: no value, no URL, no key and no credential.
"""

import datetime
import json
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

from dicomdask import storage

MAX_LOG_BYTES: Final = 900_000
"""A run that loops for long stops adding lines here; the last line is always there."""
REST: Final = "rest"
"""What is no stage: opening, checking, reading the plan."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stage is.

    `done` of `total` pieces, counted in `unit`, after `seconds`; `done_bytes` of
    `total_bytes` of the sources, both 0 where the stage does not read them whole, or of
    memory: what the largest task takes, and what it may take, told as stage `memory`;
    `outcomes` counts what was found so far, inputs that are not stored by their code.
    """

    stage: str
    done: int
    total: int
    unit: str = "parts"
    seconds: float = 0.0
    done_bytes: int = 0
    total_bytes: int = 0
    outcomes: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        """Return whether nothing of the stage is left."""
        return self.done >= self.total

    @property
    def seconds_left(self) -> float | None:
        """Return about how long the stage still takes; None where nothing tells."""
        done, total = (
            (self.done_bytes, self.total_bytes)
            if self.total_bytes
            else (self.done, self.total)
        )
        return self.seconds * (total - done) / done if done else None


@dataclass(slots=True)
class StageUse:
    """What a stage took: wall seconds, and the bytes and tasks of all workers."""

    stage: str
    seconds: float = 0.0
    read_bytes: int = 0
    written_bytes: int = 0
    tasks: int = 0
    task_seconds: float = 0.0

    def add_task(self, counts: Mapping[str, Any]) -> None:
        """Add what a task says it took; see `tasks.measure`."""
        self.tasks += 1
        self.task_seconds += counts.get("seconds", 0.0)
        self.read_bytes += counts.get("read_bytes", 0)
        self.written_bytes += counts.get("written_bytes", 0)


class RunLog:
    """The log of one run, and the account of where its time and bytes went.

    Parameters
    ----------
    folder
        The URL below which the log is written.
    traffic
        Counts the bytes of this process.
    facts
        What is to stand in its first line.
    """

    def __init__(self, folder: str, traffic: storage.Traffic, **facts: Any) -> None:
        started = datetime.datetime.now(datetime.UTC)
        name = f"{started:%Y%m%dT%H%M%S.%fZ}-{secrets.token_hex(4)}.jsonl"
        self.url = storage.join(folder, name)
        self._lines: list[bytes] = []
        self._nbytes = 0
        self._began = self._mark = time.monotonic()
        self._uses = {REST: StageUse(REST)}
        self._inside = [REST]
        self._traffic, self._seen = traffic, (0, 0)
        self.note("run", started=started.isoformat(timespec="seconds"), **facts)

    def note(self, event: str, **facts: Any) -> None:
        """Add a line; it is written at the end of the stage."""
        seconds = round(time.monotonic() - self._began, 3)
        line = json.dumps({"event": event, "at_s": seconds, **facts}).encode() + b"\n"
        if self._nbytes + len(line) <= MAX_LOG_BYTES or event in ("error", "end"):
            self._lines.append(line)
            self._nbytes += len(line)

    def flush(self) -> None:
        """Write the log; a full disk is told by what the run itself writes."""
        with suppress(OSError), storage.counted():  # not among the run's own bytes
            storage.write_passing(self.url, b"".join(self._lines))

    @contextmanager
    def stage(self, name: str) -> Iterator[StageUse]:
        """Account for a stage; another one inside it counts for itself alone."""
        use = self._uses.setdefault(name, StageUse(name))
        if self._inside[-1] == name:
            yield use
            return
        self._settle()
        before = replace(use)
        self._inside.append(name)
        self.note("stage", stage=name)
        try:
            yield use
        finally:
            self._settle()
            self._inside.pop()
            self.note("stage-end", **_difference(use, before))
            self.flush()

    def _settle(self) -> None:
        """Give what passed since the last time to the innermost stage."""
        now = time.monotonic()
        use = self._uses[self._inside[-1]]
        use.seconds += now - self._mark
        read, written = self._traffic.read_bytes, self._traffic.written_bytes
        use.read_bytes += read - self._seen[0]
        use.written_bytes += written - self._seen[1]
        self._mark, self._seen = now, (read, written)

    def uses(self) -> tuple[StageUse, ...]:
        """Return what each stage took so far, in order of their starts."""
        self._settle()
        rest = self._uses[REST]
        return (*(use for use in self._uses.values() if use is not rest), rest)

    def close(self, error: BaseException | None = None) -> None:
        """Write the last line, and the class and code of what ended the run."""
        if error is not None:
            code = getattr(error, "code", None)
            kind = type(error).__name__
            self.note("error", error=kind, code=code if isinstance(code, str) else None)
        self._settle()
        total = sum(use.seconds for use in self._uses.values())
        self.note("end", is_done=error is None, seconds=round(total, 3))
        self.flush()


def _difference(use: StageUse, before: StageUse) -> dict[str, Any]:
    """Return what a stage took this time, and its rates."""
    seconds = use.seconds - before.seconds
    read = use.read_bytes - before.read_bytes
    written = use.written_bytes - before.written_bytes
    return {
        "stage": use.stage,
        "seconds": round(seconds, 3),
        "tasks": use.tasks - before.tasks,
        "task_seconds": round(use.task_seconds - before.task_seconds, 3),
        "read_bytes": read,
        "written_bytes": written,
        "read_bytes_per_s": round(read / seconds) if seconds else None,
        "written_bytes_per_s": round(written / seconds) if seconds else None,
    }
