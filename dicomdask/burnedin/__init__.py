"""Text burned into the pixels: who may hold it, where it is."""

from dicomdask.burnedin.look import Find, Ground, Seen, fixed, look, look_beside, recall
from dicomdask.burnedin.regions import outside_regions
from dicomdask.burnedin.risk import (
    LOOKERS,
    Kin,
    Known,
    kin_of,
    known_of,
    look_of,
    passes_without_look,
    why_none,
)

__all__ = [
    "LOOKERS",
    "Find",
    "Ground",
    "Kin",
    "Known",
    "Seen",
    "fixed",
    "kin_of",
    "known_of",
    "look",
    "look_beside",
    "look_of",
    "outside_regions",
    "passes_without_look",
    "recall",
    "why_none",
]
