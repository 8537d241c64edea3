"""Mutate real headers and pixel streams, and watch what becomes of each.

Run in a process of its own: `python -m tests.fuzz SEED N [FOLDER]` prints what it found
as JSON. Decoders are C, so a crash ends that process; the numbers of the cases are
printed as they start.
"""

import io
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from dicomdask import header, pixels
from dicomdask.errors import InputError
from dicomdask.model import SourceFile
from dicomdask.tasks.barrier import guard, quiet
from tests.builders import make_instance, to_bytes

CANARY = "CANARY^ZEBRAFISH"
MAX_REAL_BYTES = 60_000
RAW = (
    *(ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian),
    DeflatedExplicitVRLittleEndian,
)
PACKED = (RLELossless, JPEG2000Lossless, JPEGLSLossless)


def seeds(folder: Path | None) -> list[bytes]:
    """Return whole files: made ones of each syntax, and small real ones."""
    found = []
    for syntax in (*RAW, *PACKED):
        values = np.random.default_rng(1).integers(0, 4096, (2, 36, 40)).astype("u2")
        big = syntax == ExplicitVRBigEndian
        first = values.astype(">u2") if big else values
        raw = syntax if syntax in RAW else ExplicitVRLittleEndian
        for frames in (first[0], first):
            ds = make_instance(pixels=frames, transfer_syntax=raw, PatientName=CANARY)
            ds.WindowCenter, ds.WindowWidth = 40, 400
            if syntax in PACKED:
                ds.compress(syntax, generate_instance_uid=False)
            found.append(to_bytes(ds))
    for path in sorted(folder.rglob("*")) if folder else ():
        if path.is_file() and path.stat().st_size <= MAX_REAL_BYTES:
            data = path.read_bytes()
            if data[128:132] == b"DICM":
                found.append(data)
    return found


def flip(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def overwrite(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    n = rng.choice((1, 2, 4, 16))
    data[start : start + n] = rng.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * n


def cut(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    del data[start : start + rng.choice((1, 2, 7, 100, 10_000))]


def insert(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    data[start:start] = rng.randbytes(rng.choice((1, 2, 4, 50)))


def shorten(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(1, len(data)) :]


def move(data: bytearray, rng: random.Random) -> None:
    start, stop = rng.randrange(len(data)), rng.randrange(len(data))
    n = rng.choice((2, 8, 100))
    data[start : start + n] = data[stop : stop + n]


MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    *(flip, flip, overwrite, cut, insert, shorten, move),
)


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Return the data with a few changes, half of the time in its pixels only."""
    start = data.rfind(b"\xe0\x7f\x10\x00") + 8 if rng.random() < 0.5 else 0
    changed = bytearray(data[start:]) or bytearray(b"\0")
    for _ in range(rng.choice((1, 1, 1, 3))):
        if len(changed) > 1:
            rng.choice(MUTATIONS)(changed, rng)
    return data[:start] + bytes(changed)


def decode(data: bytes) -> tuple[Any, np.ndarray]:
    """Go the way of a file: header, check, pixels and what they mean."""
    source = SourceFile("a.dcm", len(data), "e")
    instance = header.read_instance(io.BytesIO(data), source)
    pixels.check_pixels(instance, limit=1 << 26)
    dataset = header.read_dataset(data, limit=1 << 26)
    decoder = pixels.FrameDecoder(dataset)
    frames = np.stack([decoder.decode(n) for n in range(min(len(decoder), 4))])
    pixels.read_meaning(dataset, decoder, 0)
    return instance, frames


def expected(data: bytes, syntax: str, n: int) -> np.ndarray | None:
    """Return what pydicom alone makes of the file; None where it refuses."""
    try:
        ds: Dataset = pydicom.dcmread(io.BytesIO(data), force=True)
        ds.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
        if syntax == RLELossless:  # pylibjpeg-rle panics on damaged frames
            ds.pixel_array_options(decoding_plugin="pydicom")
        found = ds.pixel_array
        if ds.PhotometricInterpretation == "PALETTE COLOR":
            found = pydicom.pixels.apply_color_lut(found, ds)
        colour = ds.SamplesPerPixel > 1 or ds.PhotometricInterpretation[:3] == "PAL"
        return found.reshape(-1, *found.shape[-3 if colour else -2 :])[:n]
    except Exception:  # noqa: BLE001
        return None


def run(seed: int, n: int, folder: Path | None) -> dict[str, Any]:
    """Try `n` cases; return outcomes by code and what was wrong."""
    rng, files = random.Random(seed), seeds(folder)
    codes: Counter[str] = Counter()
    wrong: list[str] = []
    slowest = 0.0
    for case in range(n):
        print(case, file=sys.stderr, flush=True)
        number = rng.randrange(len(files))
        data = mutate(files[number], rng)
        started = time.monotonic()
        try:
            with quiet():
                instance, frames = guard(decode, data)
        except InputError as error:
            codes[error.code] += 1
            if "CANARY" in str(error) or "ZEBRA" in str(error):
                wrong.append(f"case {case}: a value in a message")
            continue
        finally:
            slowest = max(slowest, time.monotonic() - started)
        with quiet():
            wanted = expected(data, instance.transfer_syntax_uid, len(frames))
        same = wanted is not None and np.array_equal(frames, wanted)
        codes["equal" if same else "alone" if wanted is None else "different"] += 1
        if wanted is not None and not same:
            wrong.append(f"case {case}: file {number} differs from pydicom")
    return {"codes": codes, "wrong": wrong, "slowest": round(slowest, 3)}


if __name__ == "__main__":
    place = Path(sys.argv[3]) if len(sys.argv) > 3 else None
    print(json.dumps(run(int(sys.argv[1]), int(sys.argv[2]), place)))
