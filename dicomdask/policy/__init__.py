"""What becomes of each element: table E.1-1 of PS3.15, and what is listed beside it.

A policy is an allow-list. An element stays only if the table or `standard/retain.toml`
says so; everything else, known or not, is removed. The actions are the standard's
codes: `X` remove, `Z` empty, `D` replace by a keyed pseudonym, `U` replace UIDs (in a
sequence: look inside), `C` clean (shift a date, keep the harmless words of a text), `K`
keep.
"""

from dicomdask.policy.actions import Policy, describe, load_policy, patient_identity
from dicomdask.policy.data import (
    retained,
    safe_words,
    strictest_types,
    table_rows,
    vocabulary,
)
from dicomdask.policy.decide import (
    DATE_VRS,
    PSEUDONYMS,
    TEXT_VRS,
    TIME_ZONE,
    Decision,
    reference_tags,
)
from dicomdask.policy.files import parse_policy
from dicomdask.policy.options import (
    CHARACTERISTICS,
    FULL_DATES,
    GRAPHICS,
    MODIFIED_DATES,
    OPTION_CODES,
    PIXELS,
    POLICIES,
    SAFE_PRIVATE,
    UIDS,
)
from dicomdask.policy.pixels import LookRules

__all__ = [
    "CHARACTERISTICS",
    "DATE_VRS",
    "FULL_DATES",
    "GRAPHICS",
    "MODIFIED_DATES",
    "OPTION_CODES",
    "PIXELS",
    "POLICIES",
    "PSEUDONYMS",
    "SAFE_PRIVATE",
    "TEXT_VRS",
    "TIME_ZONE",
    "UIDS",
    "Decision",
    "LookRules",
    "Policy",
    "describe",
    "load_policy",
    "parse_policy",
    "patient_identity",
    "reference_tags",
    "retained",
    "safe_words",
    "strictest_types",
    "table_rows",
    "vocabulary",
]
