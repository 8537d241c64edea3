"""The record of a destination of `deidentify`: what it is, and whom it keeps out."""

import json
from collections.abc import Mapping
from typing import Any, Final

from dicomdask import storage

RECORD: Final = "_dicomdask"
"""The folder of a destination that holds what is no DICOM file; no value in it."""
INPUTS: Final = "inputs"
FORGOTTEN: Final = "forgotten"


def read_record(dest: str) -> dict[str, Any] | None:
    """Return the record of a destination; None where nothing was de-identified."""
    try:
        found: dict[str, Any] = json.loads(storage.read(_url(dest)))
    except FileNotFoundError:
        return None
    return found


def write_record(dest: str, record: Mapping[str, Any]) -> None:
    """Write the record of a destination."""
    text = json.dumps(record, indent=1) + "\n"
    with storage.room_at(dest):
        storage.write(_url(dest), text.encode())


def _url(dest: str) -> str:
    return storage.join(dest, RECORD, "record.json")
