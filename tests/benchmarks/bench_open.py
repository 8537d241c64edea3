"""Opening: a dataset of very many volumes is opened, listed, and one chunk is read."""

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

import dicomdask
from tests.benchmarks.contest import Contender, Report, compete
from tests.benchmarks.inputs import SCALES
from tests.builders import make_series, write_series
from tests.many import add_volumes, measure_opening

N_VOLUMES = {"tiny": 300, "full": 100_000}
N_SLICES = 5


def run(scale_name: str) -> Report:
    """Compare with the bare bytes of the table, and with all of it in pandas."""
    n = N_VOLUMES[scale_name]
    with TemporaryDirectory(prefix="bench-open-") as folder:
        store = make(Path(folder), n)
        parts = [
            store / part.path
            for part in dicomdask.open_dataset(str(store)).commit.tables["volumes"]
        ]
        ids = sorted(pd.concat(map(pd.read_parquet, parts))["volume_id"])
        contenders = {
            "bytes and digests (limit)": lambda: bare(parts, ids),
            "dicomdask": lambda: opened(store),
            "pandas, the whole table": lambda: whole(parts),
        }
        contest = compete(
            f"open {n} volumes (rows are made, one array is real)",
            {name: Contender(one, 1) for name, one in contenders.items()},
            unit="times",
            reference="bytes and digests (limit)",
            rounds=SCALES[scale_name].few_rounds,
        )
        _, seconds, megabytes = measure_opening(store)
    measures = {"open: seconds": seconds, "open: peak MB": megabytes}
    return Report(
        (contest,),
        measures,
        (f"a fresh process: {seconds:.2f} s, {megabytes:.0f} MB at most",),
    )


def make(folder: Path, n: int) -> Path:
    """Return a dataset of one real volume and `n` more rows."""
    write_series(folder / "in", make_series(N_SLICES))
    store = folder / "store.zarr"
    dicomdask.convert(str(folder / "in"), str(store), scheduler="synchronous")
    add_volumes(str(store), n)
    return store


def bare(parts: list[Path], ids: list[str]) -> list[np.ndarray]:
    """Read all bytes and check them; what they hold is not looked at."""
    for part in parts:
        hashlib.sha256(part.read_bytes()).digest()
    return [np.array(ids)]


def opened(store: Path) -> list[np.ndarray]:
    """Open, list, and read a chunk."""
    ds = dicomdask.open_dataset(str(store))
    volumes = ds.volumes
    [name] = volumes[volumes["n_frames"] == N_SLICES]["volume_id"]
    ds.read(name, z=0)
    return [np.array(volumes["volume_id"].to_list())]


def whole(parts: list[Path]) -> list[np.ndarray]:
    """Read the whole table into plain objects."""
    table = pd.concat(map(pd.read_parquet, parts))
    return [np.array(sorted(table["volume_id"]))]
