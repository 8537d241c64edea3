"""Say what becomes of each element of a header, and why; never a value."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from pydicom import Dataset
from pydicom.datadict import keyword_for_tag
from pydicom.tag import BaseTag, Tag

from dicomdask.deid.clean import (
    CODE_TAGS,
    MAX_DEPTH,
    PIXEL_GROUPS,
    clean_element,
    clean_sequence,
    context_of,
    items_of,
)
from dicomdask.deid.elements import decoded
from dicomdask.deid.private import clean_private
from dicomdask.deid.rules import Context
from dicomdask.policy import Policy
from dicomdask.pseudonym import Key

UNPROVED: Final = "what stands there does not show that it names nobody"
PIXELS: Final = "pixels are stored apart, or rejected where they may hold text"
MARKED: Final = frozenset({0x00100010, 0x00100020})
SAID: Final = frozenset({0x00120062, 0x00120063, 0x00120064, 0x00280303})
"""What `clean.mark` writes."""


@dataclass(frozen=True, slots=True)
class Explained:
    """What becomes of one element; `depth` counts the sequences around it."""

    depth: int
    tag: str
    vr: str
    name: str
    action: str
    reason: str


def explain(dataset: Dataset, policy: Policy) -> list[Explained]:
    """Return what a policy does to each element of a header, in its order.

    No value of the header is in what is returned. What hostile bytes raise may hold
    values: call it behind the barrier of `tasks`.
    """
    context = context_of(dataset, policy, Key(bytes(16)))
    return list(_explain(dataset, policy, context))


def _explain(dataset: Dataset, policy: Policy, context: Context) -> Iterator[Explained]:
    found = list(clean_private(dataset, context, clean_sequence))
    kept = {one.tag for one in found}
    sequences = {one.tag for one in found if one.VR == "SQ"}
    for tag in sorted(dataset.keys()):
        element: Any = dataset.get_item(tag)
        action, reason = _decide(dataset, tag, policy, context, kept)
        if tag in sequences:
            action, reason = "U", f"{reason}; looked into"
        yield Explained(
            depth=context.depth,
            tag=f"({tag.group:04X},{tag.element:04X})",
            vr=element.VR or "UN",
            name=keyword_for_tag(tag) or ("private" if tag.is_private else "unknown"),
            action=action,
            reason=reason,
        )
        is_sequence = tag in sequences or _is_sequence(tag, context)
        if action == "U" and context.depth < MAX_DEPTH and is_sequence:
            inner = replace(context, depth=context.depth + 1)
            for item in items_of(element, dataset):
                yield from _explain(item, policy, inner)


def _is_sequence(tag: BaseTag, context: Context) -> bool:
    rule = context.rules.get(int(tag))
    return rule is not None and rule.vr == "SQ"


def _decide(
    dataset: Dataset,
    tag: BaseTag,
    policy: Policy,
    context: Context,
    kept: set[BaseTag],
) -> tuple[str, str]:
    """Return the action and the reason; a value that cannot be kept goes."""
    element: Any = dataset.get_item(tag)
    if tag.group in PIXEL_GROUPS:
        return "K", PIXELS
    if tag in kept and tag.element < 0x1000:
        return "K", "names the creator of private elements that stay"
    owner = Tag(tag.group, tag.element >> 8)
    creator = decoded(dataset, owner) if tag.is_private and owner in dataset else None
    decision = policy.decision(int(tag), element.VR or "UN", creator=creator)
    if policy.name == "none":
        return decision.action, decision.reason
    if int(tag) in SAID and not context.depth:
        return "X", "written anew: it says what was done"
    if decision.action in {"X", "Z"}:
        return decision.action, decision.reason
    if int(tag) in MARKED and not context.depth:
        return "D", decision.reason
    if tag.is_private:
        return _proved(decision.action, decision.reason, stays=tag in kept)
    if int(tag) in CODE_TAGS:
        return decision.action, f"{decision.reason}: public codes only"
    rule = context.rules[int(tag)]
    stays = clean_element(dataset, tag, rule, context) is not None
    if rule.vr == "SQ":
        return ("U", f"{decision.reason}; looked into")
    return _proved(decision.action, decision.reason, stays=stays)


def _proved(action: str, reason: str, *, stays: bool) -> tuple[str, str]:
    return (action, reason) if stays else ("X", f"{reason}; {UNPROVED}")
