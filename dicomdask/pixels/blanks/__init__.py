"""Blank rectangles of pixels: in decoded frames, and inside the files they are of."""

from dicomdask.pixels.blanks.files import Blanked, blank_frames, without_loss
from dicomdask.pixels.blanks.rule import blank, blank_mask

__all__ = ["Blanked", "blank", "blank_frames", "blank_mask", "without_loss"]
