"""The numbers that bound memory, for those who keep them and those who add them up."""

from typing import Final

AHEAD_BYTES: Final = 64 << 20
"""What was fetched ahead from a network and not yet taken is at most about this."""
AHEAD_FILES: Final = 64
"""At most so many requests run ahead."""

MAX_HEADER_BYTES: Final = 1 << 27
"""A longer header is refused; the pixels are not part of it."""
SMALL_HEADER_BYTES: Final = 1 << 20
"""Headers up to here are read many at once, longer ones one at a time."""
MAX_VALUE_BYTES: Final = 1 << 16
"""A longer value of an element that decides the plan is refused (PS3.5 section 7.1.2
allows less)."""

HEADER_TEXT_BYTES: Final = 16 << 20
"""What the headers of one shard's frames have not in common takes at most this."""
TRAILER_BYTES: Final = 1 << 20
"""A deflated data set may hold so much besides its header and its pixels."""

BATCH_BYTES: Final = 16 << 20
"""Frames of one file are read and decoded together up to about this, or one by one."""
MAX_FRAMES: Final = 1 << 16
"""An object of more frames that functional groups describe is refused."""
