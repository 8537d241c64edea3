"""Index: from files to the typed values of their headers."""

import re
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pydicom
from pydicom.datadict import tag_for_keyword
from pydicom.multival import MultiValue

from dicomdask import header, storage
from dicomdask.header.values import known_values
from dicomdask.model import Instance, SourceFile
from tests.benchmarks.contest import Contender, Report, compete
from tests.benchmarks.inputs import SCALES, write_inputs

HEADER_BYTES = 1 << 14
KINDS = {field.name: str(field.type) for field in fields(Instance)}


def _keyword(name: str) -> str:
    words = (
        word.upper() if word in {"id", "uid", "sop"} else word.capitalize()
        for word in name.split("_")
    )
    return "".join(words)


KEYWORDS = {
    name: _keyword(name)
    for name in KINDS
    if tag_for_keyword(_keyword(name)) is not None and not name.startswith("transfer")
}
"""The fields of an instance that are attributes of the dataset."""


def run(scale_name: str) -> Report:
    """Compare with pydicom, and with reading the bytes alone."""
    scale = SCALES[scale_name]
    with TemporaryDirectory() as folder:
        series = write_inputs(Path(folder) / "series", scale)
        readers = {
            "read 16 KB (limit)": _read_bytes,
            "dicomdask": _read_instance,
            "pydicom full": _read_pydicom,
            "pydicom specific_tags": _read_specific,
        }
        contest = compete(
            f"index: {series.told}",
            {
                name: Contender(partial(_each, read, series.paths), scale.n_slices)
                for name, read in readers.items()
            },
            unit="headers",
            reference="pydicom full",
            rounds=scale.rounds,
            outputs=_outputs(series.paths),
        )
    ratio = contest.ratio("dicomdask", "pydicom full")
    return Report((contest,), {"index / pydicom full": ratio})


def _outputs(paths: Sequence[Path]) -> dict[str, Any]:
    """Return the values that all but the limit read, to be equal."""
    return {
        "pydicom full": _each(_read_pydicom, paths),
        "pydicom specific_tags": _each(_read_specific, paths),
        "dicomdask": [_values(_read_instance(path)) for path in paths],
    }


def _each(read: Callable[[Path], Any], paths: Sequence[Path]) -> list[Any]:
    known_values.cache_clear()  # or a file's own values were known from the last round
    return [read(path) for path in paths]


def _read_bytes(path: Path) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read(HEADER_BYTES)


def _read_instance(path: Path) -> Instance:
    url = str(path)
    with storage.open_blocks(url) as file:
        return header.read_instance(file, SourceFile(url, 0, ""))


def _values(instance: Instance) -> dict[str, Any]:
    return {name: getattr(instance, name) for name in KEYWORDS}


def _read_pydicom(path: Path) -> dict[str, Any]:
    return _typed(pydicom.dcmread(path, stop_before_pixels=True))


def _read_specific(path: Path) -> dict[str, Any]:
    tags: list[Any] = list(KEYWORDS.values())
    return _typed(pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags))


def _typed(ds: pydicom.Dataset) -> dict[str, Any]:
    found = {
        name: _convert(ds.get(keyword), KINDS[name])
        for name, keyword in KEYWORDS.items()
    }
    found["number_of_frames"] = found["number_of_frames"] or 1
    return found


def _convert(value: Any, kind: str) -> Any:
    parts = list(value) if isinstance(value, MultiValue) else [value]
    parts = [part for part in parts if part is not None and part != ""]
    cast = next(cast for cast in (float, int, str) if re.search(cast.__name__, kind))
    if kind.startswith("tuple"):
        return tuple(map(cast, parts))
    return cast(parts[0]) if parts else None
