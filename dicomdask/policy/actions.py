"""A policy as it is applied: an allow-list, with an action and a reason for each."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Final

from pydicom.datadict import dictionary_VR, keyword_for_tag

from dicomdask.errors import PolicyError
from dicomdask.policy.data import FILES, table_rows, text_of
from dicomdask.policy.decide import (
    DATE_VRS,
    GONE,
    PRIVATE,
    REPEATED,
    Decision,
    Private,
    decide,
    decisions,
    private_decisions,
)
from dicomdask.policy.files import FileRule, parse_policy
from dicomdask.policy.options import (
    BASIC_CODE,
    FACES,
    OPTION_CODES,
    PIXELS,
    POLICIES,
    check_options,
)
from dicomdask.policy.pixels import DeviceRule, LookRules, device_rules, look_rules

RULES_VERSION: Final = 3
"""Raised when the code changes what a policy does."""
FIRST_GROUP: Final = 8
"""Commands and file meta lie before it, and are never kept."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy as it is applied.

    Parameters
    ----------
    name
        One of `POLICIES`, or the name that a policy file has.
    options
        The options of PS3.15 that are in force, sorted.
    trusted_pixels
        The modalities whose pixels the user has looked at, and lets pass.
    rules, own_devices, own_looks
        Those of a policy file.
    detector
        What looks for text in pixels, by package, version and model; empty where
        nothing does.
    """

    name: str
    options: tuple[str, ...]
    trusted_pixels: tuple[str, ...]
    rules: tuple[FileRule, ...] = ()
    own_devices: tuple[DeviceRule, ...] = ()
    own_looks: LookRules | None = None
    detector: str = ""

    @property
    def digest(self) -> str:
        """Return a digest of all that changes what comes out."""
        texts = (text_of(name) for name in FILES)
        parts = (self.name, *self.options, "", *self.trusted_pixels, "", *texts)
        own = (*self.rules, *self.own_devices, self.own_looks, self.detector)
        told = (repr(one) for one in own if one)
        data = "\x1f".join((str(RULES_VERSION), *parts, *told)).encode()
        return hashlib.sha256(data).hexdigest()[:32]

    @property
    def cleans_pixels(self) -> bool:
        """Whether a detector looks for text in pixels (Clean Pixel Data Option)."""
        return PIXELS in self.options

    @property
    def cleans_faces(self) -> bool:
        """Whether faces are removed (Clean Recognizable Visual Features Option)."""
        return FACES in self.options

    @property
    def looks(self) -> LookRules:
        """Return who passes without a look at the pixels."""
        return self.own_looks or look_rules()

    @property
    def devices(self) -> tuple[DeviceRule, ...]:
        """Return what is known of the pixels of devices; later rules win."""
        return (*device_rules(), *self.own_devices)

    @property
    def codes(self) -> tuple[tuple[str, str], ...]:
        """Return what was applied as codes of CID 7050: (value, meaning)."""
        if self.name == "none":
            return ()
        return (BASIC_CODE, *(OPTION_CODES[option] for option in self.options))

    @property
    def decisions(self) -> Mapping[int, Decision]:
        """Return the decision on every tag that stays in some form."""
        return _staying(self.options, self.rules)

    @property
    def all_decisions(self) -> Mapping[int, Decision]:
        """Return the decision on every tag that is named, removed ones included."""
        return decisions(self.options, self.rules)

    @property
    def actions(self) -> Mapping[int, str]:
        """Return the action of every tag that is not removed."""
        return {tag: one.action for tag, one in self.decisions.items()}

    @property
    def private(self) -> Mapping[Private, tuple[Decision, str, int]]:
        """Return the decision on private elements that may stay, with their VR."""
        return private_decisions(self.options, self.rules)

    def decision(self, tag: int, vr: str, *, creator: str | None = None) -> Decision:
        """Return what becomes of an element, and why.

        Parameters
        ----------
        tag
            Group and element as one number.
        vr
            The value representation in the file.
        creator
            The private creator of the element's block; None if there is none.
        """
        if self.name == "none":
            return Decision("K", "policy none keeps everything but pixels")
        if tag >> 16 & 1:
            return self.private_decision(tag, creator)
        found = decisions(self.options, self.rules).get(tag)
        if found is None:
            return REPEATED if tag >> 24 in {0x50, 0x60} else GONE
        if _is_claimed(tag, vr, found.action):
            return Decision("X", f"a date that claims to be {vr}")
        return found

    def private_decision(self, tag: int, creator: str | None) -> Decision:
        """Return what becomes of a private element."""
        named = creator or ""
        exact = self.private.get((named, tag >> 16, tag & 0xFF))
        found = exact or self.private.get((named, 0, None))
        return PRIVATE if found is None else found[0]

    def action(self, tag: int, vr: str, private: bool) -> str:
        """Return the action for an element, private or not."""
        if self.name != "none" and (private or tag >> 16 < FIRST_GROUP):
            return "X"
        return self.decision(tag, vr).action


def load_policy(
    name: str,
    *,
    options: Iterable[str] = (),
    trusted_pixels: Iterable[str] = (),
    text: str | None = None,
) -> Policy:
    """Return the policy of a name, with further options.

    Parameters
    ----------
    name
        `research` (Basic Profile, dates shifted), `basic` (dates go) or `none`
        (nothing is removed); anything with `text`.
    options
        More options of PS3.15, such as `retain-patient-characteristics`.
    trusted_pixels
        Modalities whose pixels pass without a look.
    text
        What a policy file says; it names itself.

    Raises
    ------
    PolicyError
        If the policy or an option is not supported, or the file is damaged.
    """
    trusted = tuple(sorted({modality.upper() for modality in trusted_pixels}))
    if text is not None:
        file = parse_policy(text)
        chosen = tuple(sorted({*POLICIES[file.extends], *file.options, *options}))
        check_options(file.extends, chosen)
        return Policy(
            *(file.name, chosen, trusted, file.rules, file.devices),
            own_looks=file.looks,
        )
    if name not in POLICIES:
        raise PolicyError(
            f"there is no policy {name!r}; choose one of {', '.join(POLICIES)}, or a "
            "policy file that ends with .toml"
        )
    chosen = tuple(sorted({*POLICIES[name], *options}))
    check_options(name, chosen)
    return Policy(name, chosen, trusted)


def describe(policy: Policy) -> list[tuple[str, str, str]]:
    """Return (keyword or tag, action, reason) of each row of table and lists."""
    if policy.name == "none":
        return [("*", "K", "policy none keeps everything but pixels")]
    words = {row.tag: row.keyword for row in table_rows()}
    rows = {row.keyword: decide(row, policy.options) for row in table_rows()}
    for tag, one in decisions(policy.options, policy.rules).items():
        digits = f"{tag:08x}"
        rows[words.get(digits) or keyword_for_tag(tag) or digits] = one
    told = [(word, one.action, one.reason) for word, one in rows.items()]
    return [*told, ("*", GONE.action, GONE.reason)]


def patient_identity(
    patient_id: str | None, issuer: str | None, study_instance_uid: str
) -> str:
    """Return the text that stands for one patient in keyed digests and date shifts.

    A patient is (IssuerOfPatientID, PatientID); without a PatientID, the study is all
    that is known. Only ever hand the result to a `Key`: it is identified.
    """
    number = (patient_id or "").strip("\0 \t\r\n")
    if not number:
        return f"study\x1f{study_instance_uid.strip(chr(0) + ' ')}"
    return f"patient\x1f{(issuer or '').strip(chr(0) + ' ')}\x1f{number}"


@cache
def _staying(
    options: tuple[str, ...], rules: tuple[FileRule, ...]
) -> Mapping[int, Decision]:
    found = decisions(options, rules)
    return MappingProxyType(
        {
            tag: one
            for tag, one in found.items()
            if one.action != "X" and tag >> 16 >= FIRST_GROUP
        }
    )


def _is_claimed(tag: int, vr: str, action: str) -> bool:
    """Return whether something is to be shifted that says it is no date."""
    is_date = action == "C" and dictionary_VR(tag) in DATE_VRS
    return is_date and vr not in {*DATE_VRS, "UN"}
