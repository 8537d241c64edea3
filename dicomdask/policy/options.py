"""The options of PS3.15 Annex E, and what their codes are (PS3.16 CID 7050)."""

import difflib
from collections.abc import Iterable
from types import MappingProxyType
from typing import Final

from dicomdask.errors import PolicyError

SAFE_PRIVATE: Final = "retain-safe-private"
UIDS: Final = "retain-uids"
DEVICE: Final = "retain-device-identity"
INSTITUTION: Final = "retain-institution-identity"
CHARACTERISTICS: Final = "retain-patient-characteristics"
FULL_DATES: Final = "retain-longitudinal-full-dates"
MODIFIED_DATES: Final = "retain-longitudinal-modified-dates"
DESCRIPTORS: Final = "clean-descriptors"
STRUCTURED: Final = "clean-structured-content"
GRAPHICS: Final = "clean-graphics"
PIXELS: Final = "clean-pixels"
FACES: Final = "clean-faces"

_LONGITUDINAL: Final = "Retain Longitudinal Temporal Information"
OPTION_CODES: Final = MappingProxyType(
    {
        PIXELS: ("113101", "Clean Pixel Data Option"),
        FACES: ("113102", "Clean Recognizable Visual Features Option"),
        GRAPHICS: ("113103", "Clean Graphics Option"),
        STRUCTURED: ("113104", "Clean Structured Content Option"),
        DESCRIPTORS: ("113105", "Clean Descriptors Option"),
        FULL_DATES: ("113106", f"{_LONGITUDINAL} Full Dates Option"),
        MODIFIED_DATES: ("113107", f"{_LONGITUDINAL} Modified Dates Option"),
        CHARACTERISTICS: ("113108", "Retain Patient Characteristics Option"),
        DEVICE: ("113109", "Retain Device Identity Option"),
        UIDS: ("113110", "Retain UIDs Option"),
        SAFE_PRIVATE: ("113111", "Retain Safe Private Option"),
        INSTITUTION: ("113112", "Retain Institution Identity Option"),
    }
)
"""The options that a policy may have, with their codes."""

BASIC_CODE: Final = ("113100", "Basic Application Confidentiality Profile")
POLICIES: Final = MappingProxyType(
    {"research": (MODIFIED_DATES,), "basic": (), "none": ()}
)
"""The shipped policies, and the options in force by their names."""


def check_options(name: str, options: Iterable[str]) -> None:
    """Raise PolicyError where options are unknown, or do not go together."""
    chosen = tuple(options)
    unknown = [option for option in chosen if option not in OPTION_CODES]
    if unknown or (name == "none" and chosen):
        near = difflib.get_close_matches(unknown[0], OPTION_CODES, 1) if unknown else []
        advice = f"did you mean {near[0]}? " if near else ""
        raise PolicyError(
            f"the options {', '.join(unknown or chosen)} are not supported with policy"
            f" {name}; {advice}research and basic support "
            f"{', '.join(sorted(OPTION_CODES))}"
        )
    if {MODIFIED_DATES, FULL_DATES} <= set(chosen):
        raise PolicyError(
            f"dates are either modified or full: use --policy basic with {FULL_DATES}"
        )
