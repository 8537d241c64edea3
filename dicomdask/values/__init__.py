"""What stored values mean: modality and display values, and statistics that merge."""

from dicomdask.values.display import FUNCTIONS, Display, Window, is_valid
from dicomdask.values.distribution import Distribution, distribution, pool
from dicomdask.values.fingerprint import (
    Fingerprint,
    fingerprint_of,
    merge_fingerprints,
)
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
    "Distribution",
    "Fingerprint",
    "Lut",
    "Statistics",
    "Transform",
    "Window",
    "distribution",
    "fingerprint_of",
    "is_valid",
    "lut_text",
    "merge",
    "merge_fingerprints",
    "parse_lut",
    "pool",
    "statistics",
    "to_modality",
]
