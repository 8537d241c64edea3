"""What stored values mean: modality and display values, and statistics that merge."""

from dicomdask.values.display import FUNCTIONS, Display, Window, is_valid
from dicomdask.values.modality import Lut, lut_text, parse_lut, to_modality
from dicomdask.values.statistics import (
    PERCENTILES,
    SUMMARY,
    Statistics,
    merge,
    statistics,
)
from dicomdask.values.transform import Transform

__all__ = [
    "FUNCTIONS",
    "PERCENTILES",
    "SUMMARY",
    "Display",
    "Lut",
    "Statistics",
    "Transform",
    "Window",
    "is_valid",
    "lut_text",
    "merge",
    "parse_lut",
    "statistics",
    "to_modality",
]
