"""Say what can be stored, and decode it: the values of frames, and their meaning.

Nothing damaged becomes pixels, and colour is held as RGB.
"""

from dicomdask.pixels.blanks import (
    Blanked,
    blank,
    blank_frames,
    blank_mask,
    without_loss,
)
from dicomdask.pixels.check import (
    check_pixels,
    decoded_bytes,
    stored_dtype,
    stored_samples,
)
from dicomdask.pixels.excerpt import REMEMBERED, Excerpt, excerpt, tags_of
from dicomdask.pixels.frames import FrameDecoder, cut_tile, decode_frame, decode_frames
from dicomdask.pixels.meaning import (
    modality_parameters,
    read_meaning,
)
from dicomdask.pixels.pictures import pictures
from dicomdask.pixels.reference import reference_frame, reference_frames
from dicomdask.pixels.thumbnail import to_jpeg

__all__ = [
    "REMEMBERED",
    "Blanked",
    "Excerpt",
    "FrameDecoder",
    "blank",
    "blank_frames",
    "blank_mask",
    "check_pixels",
    "cut_tile",
    "decode_frame",
    "decode_frames",
    "decoded_bytes",
    "excerpt",
    "modality_parameters",
    "pictures",
    "read_meaning",
    "reference_frame",
    "reference_frames",
    "stored_dtype",
    "stored_samples",
    "tags_of",
    "to_jpeg",
    "without_loss",
]
