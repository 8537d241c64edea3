"""The process that a server lives in, apart from the tests.

`hosted` runs a server's module as a child process, the host, and reads from it one
line of JSON: what a client needs to know. The host owns all processes of the server,
orphans too. It waits for the end of its standard input, which comes when the tests
let go or die, however they die; then it kills what it owns and removes its folder.
"""

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parent.parent.parent
PR_SET_PDEATHSIG: Final = 1
PR_SET_CHILD_SUBREAPER: Final = 36
LAST_LINES: Final = 15

Facts = dict[str, Any]


class HostError(Exception):
    """A server did not start."""


# --- the side of the tests ----------------------------------------------------


@contextlib.contextmanager
def hosted(module: str, *arguments: str) -> Iterator[Facts]:
    """Run a server's module in a process of its own; give the facts it tells."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        line = process.stdout.readline()
        if not line:
            raise HostError(process.stderr.read())
        try:
            yield json.loads(line)
        finally:
            process.stdin.close()
            process.wait(30)


def free_port() -> int:
    """Return a port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# --- the side of the server ---------------------------------------------------


class Host:
    """Starts the processes of one server, in one private folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def log(self, name: str) -> Path:
        """Return the file that holds what a process says."""
        return self.folder / f"{name}.log"

    def run(self, *command: str, env: Mapping[str, str] | None = None) -> str:
        """Run a command to its end; return what it prints."""
        done = subprocess.run(
            command,
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            timeout=60,
        )
        if done.returncode != 0:
            raise HostError(f"{command}: {done.stdout}{done.stderr}")
        return done.stdout

    def spawn(
        self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a process that runs until the host ends."""
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                command,
                env={**os.environ, **(env or {})},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=_die_with_parent,
            )
        self.processes[name] = process
        return process

    def wait(self, name: str, ready: Callable[[], bool], seconds: float = 45) -> None:
        """Wait until `ready`, or raise HostError if the process ends or time is up."""
        end = time.monotonic() + seconds
        while not ready():
            if self.processes[name].poll() is not None:
                raise HostError(f"{name} ended: {self.last_lines(name)}")
            if time.monotonic() > end:
                raise HostError(f"{name} is not ready: {self.last_lines(name)}")
            time.sleep(0.05)

    def wait_for_port(self, name: str, port: int, seconds: float = 45) -> None:
        """Wait until a process listens on a port."""
        self.wait(name, lambda: _listens(port), seconds)

    def last_lines(self, name: str) -> str:
        """Return the end of what a process has said."""
        lines = self.log(name).read_text(errors="replace").splitlines()
        return "\n".join(lines[-LAST_LINES:])

    def pids(self) -> dict[str, int]:
        """Return the number of each process by its name."""
        return {name: process.pid for name, process in self.processes.items()}


def serve(run: Callable[[Host], Facts], *, tries: int = 2) -> None:
    """Be the host: start a server, tell the facts, end it when the input ends."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    start = time.monotonic()
    with _removed_folder() as folder:
        facts = _try_to_run(run, folder, tries)
        print(json.dumps(facts), flush=True)
        if sys.stdin.isatty():
            print(_cost(time.monotonic() - start), file=sys.stderr)
        with contextlib.suppress(KeyboardInterrupt):
            sys.stdin.read()


def _try_to_run(run: Callable[[Host], Facts], folder: Path, tries: int) -> Facts:
    for number in range(tries):
        place = folder / str(number)
        place.mkdir()
        try:
            return run(Host(place))
        except (HostError, subprocess.TimeoutExpired) as error:
            print(f"try {number}: {error}", file=sys.stderr)
            _kill_descendants()
    sys.exit(1)


@contextlib.contextmanager
def _removed_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(
        prefix="dicomdask-server-", ignore_cleanup_errors=True
    ) as folder:
        os.chmod(folder, 0o711)
        try:
            yield Path(folder)
        finally:
            _kill_descendants()


def _kill_descendants(seconds: float = 10) -> None:
    """Kill all processes below this one; as a subreaper it inherits the orphans."""
    end = time.monotonic() + seconds
    while (found := descendants(os.getpid())) and time.monotonic() < end:
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        time.sleep(0.01)


def descendants(root: int) -> list[int]:
    """Return the numbers of all processes below one."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                after_name = (entry / "stat").read_text().rpartition(")")[2]
                parents[int(entry.name)] = int(after_name.split()[1])
    found, level = [], {root}
    while level := {pid for pid, parent in parents.items() if parent in level}:
        found += level
    return found


def resident_bytes(root: int) -> int:
    """Return the memory that a process and all below it hold."""
    pages = 0
    for pid in [root, *descendants(root)]:
        with contextlib.suppress(OSError):
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def _cost(seconds: float) -> str:
    mebibytes = resident_bytes(os.getpid()) / 2**20
    return f"up in {seconds:.1f} s, {mebibytes:.0f} MiB; Ctrl-C ends it"


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _die_with_parent() -> None:
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
