"""Big piles of small effort, and how much memory processes take over them."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from tests.builders import ROOT, make_instance, to_bytes

MIB = 1 << 20


def write_slices(
    folder: Path, n: int, width: int, *, n_series: int = 1, first: int = 0
) -> None:
    """Write `n` CT slices of `width`² noise in all, spread evenly over the series.

    `first` is the number of the first series.
    """
    folder.mkdir(parents=True)
    each = n // n_series
    pixels = np.zeros((width, width), np.int16)
    head, tail = _template(pixels)
    noise = os.urandom(2 * pixels.nbytes)
    for number in range(n):
        series, place = divmod(number, each)
        text = {
            b"<uid>": f"1{first + series:06d}.1{number:08d}",
            b"<series>": f"1{first + series:06d}",
            b"<z>": f"{place:08.1f}",
        }
        start = number * 257 % pixels.nbytes
        data = noise[start : start + pixels.nbytes]
        path = folder / f"{number // 1000:03d}" / f"{number:06d}.dcm"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(_filled(head, text) + data + tail)


MARKS = {b"<uid>": b"9999997.999999997", b"<series>": b"9999998", b"<z>": b"999997.5"}


def _template(pixels: np.ndarray) -> tuple[bytes, bytes]:
    """Return what comes before and behind the pixels, with marks of a fixed width."""
    series = f"{ROOT}.{MARKS[b'<series>'].decode()}"
    data = to_bytes(
        make_instance(
            pixels=pixels,
            SOPInstanceUID=f"{ROOT}.{MARKS[b'<uid>'].decode()}",
            StudyInstanceUID=f"{series}.1",
            SeriesInstanceUID=f"{series}.2",
            FrameOfReferenceUID=f"{series}.3",
            ImagePositionPatient=f"0\\0\\{MARKS[b'<z>'].decode()}".split("\\"),
        )
    )
    start = data.rindex(bytes(pixels.nbytes))
    return data[:start], data[start + pixels.nbytes :]


def _filled(head: bytes, text: dict[bytes, str]) -> bytes:
    for mark, value in text.items():
        head = head.replace(MARKS[mark], value.encode())
    return head


def write_claim(path: Path, *, nbytes: int = 0, **elements: Any) -> None:
    """Write a slice whose header claims something, with `nbytes` holes for pixels."""
    ds = make_instance(**elements)
    data = to_bytes(ds)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(data[: data.rindex(ds.PixelData) - 4])
        file.write((nbytes or len(ds.PixelData)).to_bytes(4, "little"))
        file.write(ds.PixelData)
        if nbytes:
            file.truncate(file.tell() - len(ds.PixelData) + nbytes)


@dataclass(frozen=True)
class Run:
    """What a command said, and the peaks of its processes in bytes."""

    code: int
    out: str
    err: str
    driver: int
    workers: tuple[int, ...]


def run_measured(*args: object) -> Run:
    """Run dicomdask as a process, and watch the memory of it and of its workers."""
    command = [sys.executable, "-m", "dicomdask", *map(str, args)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    peaks: dict[int, tuple[str, int]] = {}
    is_over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(process.pid, peaks, is_over))
    watcher.start()
    try:
        out, err = process.communicate()
    finally:
        is_over.set()
        watcher.join()
    workers = [n for role, n in peaks.values() if role == "worker"]
    return Run(process.returncode, out, err, peaks[process.pid][1], tuple(workers))


def _watch(
    pid: int, peaks: dict[int, tuple[str, int]], is_over: threading.Event
) -> None:
    while not is_over.is_set():
        for process in _family(pid):
            try:
                role = _role(process, pid)
                peaks[process.pid] = (role, peak_bytes(process.pid))
            except (psutil.Error, OSError, ValueError):
                continue
        time.sleep(0.05)


def _family(pid: int) -> Iterator[psutil.Process]:
    try:
        root = psutil.Process(pid)
        yield root
        yield from root.children(recursive=True)
    except psutil.Error:
        return


def _role(process: psutil.Process, driver: int) -> str:
    if process.pid == driver:
        return "driver"
    # A nanny starts its worker by multiprocessing.
    return "worker" if "spawn_main" in " ".join(process.cmdline()) else "other"


def peak_bytes(pid: int) -> int:
    """Return the most memory that a process ever held."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ValueError("a process that is over")
