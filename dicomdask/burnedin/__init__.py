"""Text burned into the pixels: who may hold it, where it is."""

from dicomdask.burnedin.risk import passes_without_look

__all__ = ["passes_without_look"]
