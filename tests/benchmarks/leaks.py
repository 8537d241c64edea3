"""How many planted markers each tool leaves: `python -m tests.benchmarks.leaks`.

Every byte of a tool's output is searched, and every decoded value. A tool that refuses
an object leaves nothing of it.
"""

import io
import logging
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import pydicom

from tests.benchmarks.contest import align
from tests.benchmarks.peers import Tool, tools
from tests.planted import plant_kinds
from tests.test_leaks import Markers


def count(work: Tool, data: bytes, markers: Markers, folder: Path) -> int | None:
    """Return how many markers a tool leaves of a file; None if it refuses it."""
    source, target = folder / "in.dcm", folder / "out.dcm"
    source.write_bytes(data)
    target.unlink(missing_ok=True)
    try:
        work(source, target)
        left = target.read_bytes()
    except Exception:  # noqa: BLE001 - foreign tools raise anything
        return None
    return len(markers.find(left + b"\n" + _decoded(left)))


def _decoded(data: bytes) -> bytes:
    ds = pydicom.dcmread(io.BytesIO(data), force=True)
    values = (e.value for e in ds.iterall() if e.VR not in {"SQ", "OW", "OB"})
    return "\n".join(map(str, values)).encode("utf-8", "replace")


def main() -> None:
    """Print one table: a line a kind of object, a column a tool."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    found = tools()
    rows = [("markers left", "planted", *found)]
    with TemporaryDirectory() as folder:
        for kind in plant_kinds(Markers()):
            markers = Markers()
            data = plant_kinds(markers)[kind]
            planted = len(markers.find(data + b"\n" + _decoded(data)))
            counts = [
                count(work, data, markers, Path(folder)) for work in found.values()
            ]
            told = ["refused" if n is None else str(n) for n in counts]
            rows.append((kind, str(planted), *told))
    print(align(rows))


if __name__ == "__main__":
    main()
