"""How many planted markers each tool leaves: `python -m tests.benchmarks.leaks`.

Every byte of a tool's output is searched, and every decoded value. A tool that refuses
an object leaves nothing of it. The bytes behind the pixels are left out: most tools
refuse such files.
"""

import io
import logging
import warnings
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pydicom

from tests.benchmarks.contest import align
from tests.benchmarks.peers import Tool, tools
from tests.markers import Markers
from tests.planted import plant_kinds

BULK = {"SQ", "OW", "OB"}


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
    """Return all values as text; those that cannot be read are searched as bytes."""
    found: list[str] = []
    with suppress(Exception):  # what is planted behind the pixels is no element
        ds = pydicom.dcmread(io.BytesIO(data), force=True)
        for element in ds.iterall():
            found += [str(element.value)] if element.VR not in BULK else []
    return "\n".join(found).encode("utf-8", "replace")


def _without_tail(data: bytes) -> bytes:
    """Return a file without the three markers behind its pixels."""
    return data[:-24] if data[-8:] == data[-16:-8] == data[-24:-16] else data


def main() -> None:
    """Print one table: a line a kind of object, a column a tool."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    found = tools()
    rows = [("markers left", "planted", *found)]
    with TemporaryDirectory() as folder:
        for kind in plant_kinds(Markers()):
            markers = Markers()
            data = _without_tail(plant_kinds(markers)[kind])
            planted = len(markers.find(data + b"\n" + _decoded(data)))
            counts = [
                count(work, data, markers, Path(folder)) for work in found.values()
            ]
            told = ["refused" if n is None else str(n) for n in counts]
            rows.append((kind, str(planted), *told))
    print(align(rows))


if __name__ == "__main__":
    main()
