"""Add made volumes to a real dataset, as many and as large in rows as in life.

Only their rows are there, written by the real writers; their arrays are not.
"""

import json
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dicomdask import commits, tables
from dicomdask.commits import Change, Commit, TablePart

BATCH = 1 << 12
HEADER_UIDS = 12
HEADER_TEXTS = 48


@dataclass(frozen=True)
class Many:
    """Rows of made volumes, in batches in the order of their keys."""

    n: int
    frames: int
    like: Mapping[str, Any]
    like_frame: Mapping[str, Any]

    def __len__(self) -> int:
        return -(-self.n // BATCH)

    def __contains__(self, _: object) -> bool:
        return False

    def __iter__(self) -> Iterator[dict[str, tables.Table]]:
        rng = random.Random(0)
        for start in range(0, self.n, BATCH):
            numbers = range(start, min(start + BATCH, self.n))
            rows = [self._volume(number, rng) for number in numbers]
            frames = [one for row in rows for one in self._frames(row)]
            yield {
                "volumes": tables.to_table("volumes", rows),
                "frames": tables.to_table("frames", frames),
            }

    def _volume(self, number: int, rng: random.Random) -> dict[str, Any]:
        volume_id, revision = f"{rng.getrandbits(128):032x}", f"{number:016x}"
        varies = number % 10 == 0
        depth = rng.choice(range(20, 400, 20))
        edges = sorted(rng.uniform(-1000, 3000) for _ in range(65))
        meta = json.loads(self.like["zarr_json"])
        meta["shape"][0] = depth
        return {
            **self.like,
            "volume_id": volume_id,
            "revision": revision,
            "path": f"volumes/{volume_id[:2]}/{volume_id}/{revision}",
            "series_key": f"{number * (1 << 128) // self.n:032x}",
            "shape": [depth, *self.like["shape"][1:]],
            "zarr_json": json.dumps(meta),
            "affine": [rng.uniform(-300, 300) for _ in range(12)] + [0, 0, 0, 1],
            "slope": None if varies else 1.0,
            "intercept": None if varies else -1024.0,
            "n_frames": depth,
            "statistics": {
                **self.like["statistics"],
                "mean": rng.uniform(-500, 500),
                "std": rng.uniform(0, 900),
                "histogram": [rng.randrange(10**6) for _ in range(64)],
                "histogram_edges": edges,
                "percentiles": edges[::10],
            },
            "header": make_header(rng),
            "PatientID": f"{number // 4:032x}",
            "StudyInstanceUID": make_uid(rng),
            "SeriesInstanceUID": make_uid(rng),
            "FrameOfReferenceUID": make_uid(rng),
            "Modality": rng.choice(("CT", "MR", "PT")),
            "site_key": f"{number % 20:032x}",
        }

    def _frames(self, row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        own = {name: row[name] for name in ("volume_id", "revision", "series_key")}
        for z in range(self.frames):
            yield {**self.like_frame, **own, "z": z, "slope": 1.0 + z}


def make_uid(rng: random.Random) -> str:
    """Return a UID as the pseudonyms are."""
    return f"2.25.{rng.getrandbits(128)}"


def make_header(rng: random.Random) -> str:
    """Return the constant header of a volume: 3 to 4 kB of JSON."""
    found: dict[str, Any] = {
        f"0020{number:04X}": {"vr": "UI", "Value": [make_uid(rng)]}
        for number in range(HEADER_UIDS)
    }
    for number in range(HEADER_TEXTS):
        value = rng.choice(("ORIGINAL", "PRIMARY", "AXIAL", round(rng.random(), 4)))
        vr = "CS" if isinstance(value, str) else "DS"
        found[f"0018{number:04X}"] = {"vr": vr, "Value": [value, value]}
    return json.dumps(found, separators=(",", ":"), sort_keys=True)


def add_volumes(store: str, n: int, *, frames: int = 2) -> Commit:
    """Commit the rows of `n` more volumes to a dataset; return the commit."""
    parent = commits.read_commit(store)
    assert parent is not None
    [like, *_] = commits.read_rows(store, parent, "volumes")
    [like_frame, *_] = commits.read_rows(store, parent, "frames")
    many = Many(n, frames, like, like_frame)

    def describe(number: int, parts: Mapping[str, tuple[TablePart, ...]]) -> Commit:
        counts = {**parent.counts, "volumes": parent.counts["volumes"] + n}
        return replace(parent, n=number, tables=parts, counts=counts)

    made = commits.publish(store, lambda _: Change(rows=many), describe)
    assert made is not None
    return made


MEASURE = """
import re, sys, time
from pathlib import Path
import dicomdask
dicomdask.open_dataset
start = time.perf_counter()
ds = dicomdask.open_dataset(sys.argv[1])
volumes = ds.volumes
[name] = volumes[volumes["n_frames"] == 5]["volume_id"]
ds.read(name, z=0)
seconds = time.perf_counter() - start
status = Path("/proc/self/status").read_text()
peak = int(re.search(r"VmHWM:\\s*(\\d+)", status)[1]) / 1e3
print(len(volumes), seconds, peak)
"""


def measure_opening(store: Path) -> tuple[int, float, float]:
    """Open a dataset in a fresh process; return its volumes, seconds and peak MB.

    The dataset has one volume of 5 frames, of which a chunk is read.
    """
    found = subprocess.run(
        [sys.executable, "-c", MEASURE, str(store)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent.parent,
    )
    rows, seconds, megabytes = found.stdout.split()
    return int(rows), float(seconds), float(megabytes)
