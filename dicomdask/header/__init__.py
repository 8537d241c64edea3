"""From the bytes of a file to an `Instance`, or to a whole data set."""

from dicomdask.header.body import CODES, GROUPS, TEXTS, body_texts
from dicomdask.header.read import (
    MAX_INFLATED_BYTES,
    frame_times,
    read_dataset,
    read_instance,
    read_patient,
    read_piece,
)

__all__ = [
    "CODES",
    "GROUPS",
    "MAX_INFLATED_BYTES",
    "TEXTS",
    "body_texts",
    "frame_times",
    "read_dataset",
    "read_instance",
    "read_patient",
    "read_piece",
]
