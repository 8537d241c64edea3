"""How tests run commands that are to fail: in a fork, or in processes of their own."""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.faults.hooks import Faults

ROOT = Path(__file__).parents[2]
SITE = Path(__file__).parent / "site"


def environment(faults=None):
    """Return the environment in which every Python loads the hooks."""
    places = [str(ROOT), str(SITE), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    found = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))}
    return found | (faults.environment() if faults else {})


@dataclass
class Ended:
    """How a command ended: its status (negative: the signal) and what it printed."""

    status: int
    output: str

    @property
    def last_line(self):
        lines = self.output.strip().splitlines()
        return lines[-1] if lines else ""


class Server:
    """Runs commands in forks, one after the other."""

    def __init__(self, folder):
        self._output = folder / "output"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
            cwd=ROOT,
            text=True,
        )

    def run(self, words, faults: Faults | None = None, seconds: float | None = None):
        request = {
            "words": list(map(str, words)),
            "faults": asdict(faults) if faults else None,
            "seconds": seconds,
            "output": str(self._output),
        }
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        return Ended(status, self._output.read_text())

    def close(self):
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@dataclass
class Command:
    """A command in a process group of its own."""

    words: list
    faults: Faults | None = None
    more: dict = field(default_factory=dict)

    def start(self):
        return subprocess.Popen(
            [sys.executable, "-m", "dicomdask", *map(str, self.words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment(self.faults) | self.more,
            start_new_session=True,
            text=True,
        )

    def run(self):
        with self.running() as process:
            return finished(process)

    @contextmanager
    def running(self):
        """Start the command, and end what is left of its group."""
        process = self.start()
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process.stdout.close()


def finished(process, seconds=240):
    """Return how a started command ends."""
    output, _ = process.communicate(timeout=seconds)
    return Ended(process.returncode, output)
