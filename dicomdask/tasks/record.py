"""The record of a destination of `deidentify`: what it is, and whom it keeps out."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from dicomdask import storage, tables

RECORD: Final = "_dicomdask"
"""The folder of a destination that holds what is no DICOM file; no value in it."""
INPUTS: Final = "inputs"
LOOKS: Final = "looks"
REDACTIONS: Final = "redactions"
FORGOTTEN: Final = "forgotten"

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class FileLook:
    """A de-identified file in whose pixels somebody looked for text.

    `path` is where it lies below the destination. Its device is told as the file tells
    it; `device_key` stands for what the policy does not keep, as in `tables/volumes`.
    """

    source_key: str
    SOPInstanceUID: str
    text_look: str
    n_redactions: int
    path: str = ""
    rows: int = 0
    columns: int = 0
    n_frames: int = 0
    Modality: str | None = None
    Manufacturer: str | None = None
    ManufacturerModelName: str | None = None
    device_key: str | None = None


@dataclass(frozen=True, slots=True)
class FileRedaction:
    """A region that is blanked in a de-identified file; as in `tables/redactions`."""

    source_key: str
    SOPInstanceUID: str
    frames: tuple[int, ...]
    top: int
    left: int
    bottom: int
    right: int
    way: str
    score: float | None


def read_record(dest: str) -> dict[str, Any] | None:
    """Return the record of a destination; None where nothing was de-identified."""
    try:
        found: dict[str, Any] = json.loads(storage.read(_url(dest)))
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found


def write_record(dest: str, record: Mapping[str, Any]) -> None:
    """Write the record of a destination."""
    text = json.dumps(record, indent=1) + "\n"
    with storage.room_at(dest):
        storage.write(_url(dest), text.encode())


def uid_of(path: str) -> str:
    """Return the new SOP Instance UID of a file below a destination: its name."""
    return path.rpartition("/")[2].removesuffix(".dcm")


def read_rows(dest: str, name: str, record: type[Row]) -> Iterator[Row]:
    """Yield the rows of a table beside the files."""
    folder = storage.join(dest, RECORD, name)
    for one in storage.list_names(folder):
        data = storage.read(storage.join(folder, one))
        yield from tables.records_from_parquet(record, data)


def write_rows(
    dest: str, name: str, bucket: str, record: type[Any], rows: list[Any]
) -> None:
    """Write a bucket of a table beside the files; without rows there is none."""
    url = storage.join(dest, RECORD, name, f"{bucket}.parquet")
    if rows:
        with storage.room_at(dest):
            storage.write(url, tables.records_to_parquet(record, rows))
    elif storage.exists(url):
        storage.remove(url)


def _url(dest: str) -> str:
    return storage.join(dest, RECORD, "record.json")
