"""From the bytes of a file to an `Instance`, or to a whole data set."""

from dicomdask.header.elements import MAX_HEADER_BYTES
from dicomdask.header.read import (
    MAX_INFLATED_BYTES,
    read_dataset,
    read_instance,
    read_patient,
)

__all__ = [
    "MAX_HEADER_BYTES",
    "MAX_INFLATED_BYTES",
    "read_dataset",
    "read_instance",
    "read_patient",
]
