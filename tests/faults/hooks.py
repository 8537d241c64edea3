"""What is patched into a process: failpoints at writes, and a decoder that crashes.

Light imports only: Python loads this before anything else in every process.
"""

import contextlib
import ctypes
import importlib.abc
import importlib.machinery
import json
import os
import re
import signal
import sys
import time
from dataclasses import asdict, dataclass

VARIABLE = "DICOMDASK_FAULTS"
MARK = "CRASHES THE DECODER"
"""The PatientComments of a file that crashes the decoder."""


@dataclass(frozen=True)
class Faults:
    """What is to go wrong.

    `log` is a file that each write and each decoded frame adds a line to. `at` is the
    line at whose `nth` writing the whole process group is killed. `crash` says what a
    marked file does to the process that decodes it, or, with `place`, blanks it.
    `seconds` is how long a frame takes, `patience` how long a call may take.
    """

    log: str
    at: str | None = None
    nth: int = 1
    crash: str | None = None
    seconds: float = 0.0
    place: str = "decode"
    patience: int | None = None

    def environment(self):
        return {VARIABLE: json.dumps(asdict(self))}


def kind_of(url):
    """Return the kind of object that a URL names: its path without digests and times.

    >>> kind_of("/tmp/run/store/volumes/ab/ab12/34cd/0/c/0/0/0")
    'store/volumes/*/*/*/*/c/*/*/*'
    """
    place, _, path = re.sub(r"^.*/(store|work)/", r"\1 ", url).partition(" ")
    path = re.sub(r"\d{8}T[\d.]+Z", "*", path)
    path = re.sub(r"(?<![^/.-])([0-9a-f]{2,}|\d)(?![^/.-])", "*", path)
    return f"{place}/{path}"


def note(faults, line):
    """Add a line to the log; kill the group if it is the one."""
    descriptor = os.open(faults.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f"{line}\n".encode())
    os.close(descriptor)
    if line != faults.at:
        return
    with open(faults.log) as file:
        if sum(one == f"{line}\n" for one in file) >= faults.nth:  # two at once
            os.killpg(os.getpgid(0), signal.SIGKILL)


def patch_storage(storage, faults):
    def watched(function):
        def call(url, data):
            kind = kind_of(url)
            note(faults, f"before {kind}")
            function(url, data)
            note(faults, f"after {kind}")

        return call

    storage.write = watched(storage.write)
    storage.write_passing = watched(storage.write_passing)
    storage.create = watched(storage.create)


def patch_renames(faults):
    """Note when an object is about to appear whose bytes lie beside it already."""

    def watched(function):
        def call(source, target, **options):
            if str(source).endswith(".tmp"):
                note(faults, f"within {kind_of(str(target))}")
            return function(source, target, **options)

        return call

    os.replace, os.link = watched(os.replace), watched(os.link)


def patch_pixels(pixels, faults):
    decode = pixels.FrameDecoder.decode

    def call(decoder, number):
        dataset = decoder._dataset
        note(faults, f"decode {dataset.SOPInstanceUID} {os.getpid()}")
        time.sleep(faults.seconds)
        meet("decode", dataset)
        return decode(decoder, number)

    def meet(place, dataset):
        is_marked = dataset.get("PatientComments") == MARK
        if faults.crash and faults.place == place and is_marked:
            CRASHES[faults.crash]()

    blank_frames = pixels.blank_frames

    def blank(dataset, boxes):
        meet("blank", dataset)
        return blank_frames(dataset, boxes)

    pixels.FrameDecoder.decode, pixels.blank_frames = call, blank


def patch_isolate(isolate, faults):
    """Let calls end sooner."""
    if faults.patience is not None:
        isolate.Cell.__init__.__kwdefaults__["seconds"] = faults.patience


def patch_watch(watch, faults):
    """See sooner what hangs."""
    if faults.patience is not None:
        watch.SECONDS, watch.TICK_SECONDS = faults.patience, 0.5


def allocate():
    """Take memory until something stops it."""
    kept = []
    while True:
        kept.append(b"\1" * (32 << 20))
        time.sleep(0.02)


def crash(name):
    """Crash as a name says."""
    CRASHES[name]()


CRASHES = {
    "abort": os.abort,
    "segfault": lambda: ctypes.string_at(0),
    "exit": lambda: os._exit(3),
    "hang": lambda: time.sleep(3600),
    "hold": lambda: ctypes.PyDLL(None).sleep(3600),  # keeps the interpreter's lock
    "memory": allocate,
}
PATCHES = {
    "dicomdask.storage": patch_storage,
    "dicomdask.pixels": patch_pixels,
    "dicomdask.tasks.isolate": patch_isolate,
    "dicomdask.tasks.watch": patch_watch,
}


class _Finder(importlib.abc.MetaPathFinder):
    """Patches a module right after it was imported."""

    def __init__(self, faults):
        self._faults = faults

    def find_spec(self, name, path, target=None):
        if name not in PATCHES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module

        def run(module):
            execute(module)
            PATCHES[name](module, self._faults)

        spec.loader.exec_module = run
        return spec


def install():
    """Patch what this process imports from now on, and what it has imported."""
    with contextlib.suppress(OSError):  # it aborts on purpose
        import resource  # noqa: PLC0415 - only where it is needed

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faults = Faults(**json.loads(os.environ[VARIABLE]))
    patch_renames(faults)
    sys.meta_path.insert(0, _Finder(faults))
    for name, patch in PATCHES.items():
        if name in sys.modules:
            patch(sys.modules[name], faults)
