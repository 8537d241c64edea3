"""What people read of a policy: its actions, and its conformance statement. Pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from dicomdask.deid import Explained
from dicomdask.policy import OPTION_CODES, Policy, describe


def policy_document(policy: Policy) -> dict[str, Any]:
    """Return a policy as a document: what is in force, and each row's action."""
    return {
        "name": policy.name,
        "options": list(policy.options),
        "digest": policy.digest,
        "codes": [list(code) for code in policy.codes],
        "actions": [list(row) for row in describe(policy)],
        "pixels": {
            "passing": asdict(policy.looks),
            "devices": [one.told for one in policy.devices],
            "detector": policy.detector or None,
        },
    }


def policy_text(policy: Policy) -> str:
    """Return what a policy does, one line an attribute."""
    return _aligned([("attribute", "action", "because"), *describe(policy)])


def explained_text(found: Sequence[Explained]) -> str:
    """Return what becomes of each element of a file, one line an element."""
    rows = [
        ("  " * one.depth + one.tag, one.vr, one.name, one.action, one.reason)
        for one in found
    ]
    return _aligned([("element", "VR", "attribute", "action", "because"), *rows])


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = (
        [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        for row in rows
    )
    return "\n".join("  ".join(row).rstrip() for row in cells)


STATEMENT = """\
# De-identification: policy {name}

Digest of all rules: `{digest}`.
Table E.1-1 of PS3.15 2024e, safe private elements of table E.3.10-1 (2020c).

Applied, and written to De-identification Method Code Sequence (0012,0064):

| DCM | meaning (PS3.16 CID 7050) |
|---|---|
{codes}

Options not in force: {off}.

| action | attributes | is |
|---|---|---|
{actions}

- What neither the table nor a list names is removed, at any depth.
- Patient ID and Patient's Name become a keyed pseudonym. UIDs become keyed UIDs under
  2.25, the same wherever they stand, unless they are retained.
- Pixels that may hold burned-in text are {pixels}.
  Images that pass as somebody has looked: those of {looked} rules for devices, and of
  trusted modalities ({trusted}).
- Faces are {faces} CT and MR of the head.
"""
BLANKED = (
    "looked at, of many frames what is new in each, and blanked where text is found"
)
REJECTED = "not passed: the instance is rejected"
ACTIONS = {
    "X": "removed",
    "Z": "emptied",
    "D": "replaced by a keyed pseudonym",
    "U": "UIDs replaced; sequences looked into",
    "C": "dates shifted; of texts the words that name nobody kept",
    "K": "kept: as it is by an option, else where the value proves harmless",
}


def statement_text(policy: Policy) -> str:
    """Return a conformance statement (PS3.15 E.1.1) of a policy, in Markdown."""
    actions = Counter(action for _, action, _ in describe(policy)[:-1])
    off = [name for name in OPTION_CODES if name not in policy.options]
    return STATEMENT.format(
        name=policy.name,
        digest=policy.digest,
        codes="\n".join(f"| {code} | {meaning} |" for code, meaning in policy.codes),
        off=", ".join(sorted(off)) or "none",
        actions="\n".join(f"| {a} | {actions[a]} | {ACTIONS[a]} |" for a in ACTIONS),
        pixels=BLANKED if policy.cleans_pixels else REJECTED,
        looked=sum(one.is_looked for one in policy.devices),
        trusted=", ".join(policy.trusted_pixels) or "none",
        faces="removed from" if policy.cleans_faces else "not removed from",
    )
