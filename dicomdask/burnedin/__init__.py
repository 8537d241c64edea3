"""Text burned into the pixels: who may hold it, where it is."""

from dicomdask.burnedin.look import Find, Ground, fixed, look
from dicomdask.burnedin.regions import outside_regions
from dicomdask.burnedin.risk import (
    LOOKERS,
    Known,
    known_of,
    look_of,
    passes_without_look,
    why_none,
)

__all__ = [
    "LOOKERS",
    "Find",
    "Ground",
    "Known",
    "fixed",
    "known_of",
    "look",
    "look_of",
    "outside_regions",
    "passes_without_look",
    "why_none",
]
