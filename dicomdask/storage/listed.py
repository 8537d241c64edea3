"""What a listing tells of an object."""

from typing import Final, NamedTuple

NOT_A_FILE: Final = -1
"""The size of a listed entry that cannot be read as a file."""

OUTSIDE: Final = -2
"""The size of a listed entry that leads out of the sources; it is never opened."""


class Listed(NamedTuple):
    """One object below a folder: its name from there, and its state.

    `modified` is in seconds since 1970; 0.0 where the store does not say. `etag`
    changes with the content; empty where the time alone tells.
    """

    name: str
    bytes: int
    modified: float
    etag: str = ""
