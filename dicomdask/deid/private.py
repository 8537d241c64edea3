"""Private elements: those of a safe list, or of a policy file, with their creators."""

from collections.abc import Callable, Iterator
from typing import Any

from pydicom import DataElement, Dataset
from pydicom.tag import BaseTag, Tag

from dicomdask.deid.elements import decoded, decoded_values, make_element
from dicomdask.deid.rules import Context, Rule
from dicomdask.deid.values import FORMATS, TEXT_VRS, read_values

CleanSequence = Callable[[Dataset, BaseTag, Context], DataElement | None]


def clean_private(
    dataset: Dataset, context: Context, clean_sequence: CleanSequence
) -> Iterator[DataElement]:
    """Yield the private elements of one level that stay, and their creators."""
    told: set[BaseTag] = set()
    for tag in sorted(filter(_is_private, dataset.keys())):
        if tag.element < 0x1000:
            continue
        owner = Tag(tag.group, tag.element >> 8)
        creator = decoded(dataset, owner) if owner in dataset else ""
        rule = _rule_for(creator, tag, context)
        if rule is None:
            continue
        found = _clean(dataset, tag, rule, context, clean_sequence)
        if found is None:
            continue
        if owner not in told:
            told.add(owner)
            yield make_element(owner, "LO", [creator])
        yield found


def _is_private(tag: BaseTag) -> bool:
    return tag.group % 2 == 1


def _rule_for(creator: str, tag: BaseTag, context: Context) -> Rule | None:
    exact = context.private.get((creator, tag.group, tag.element & 0xFF))
    return exact or context.private.get((creator, 0, None))


def _clean(
    dataset: Dataset,
    tag: BaseTag,
    rule: Rule,
    context: Context,
    clean_sequence: CleanSequence,
) -> DataElement | None:
    element: Any = dataset.get_item(tag)
    if "SQ" in {rule.vr, element.VR}:
        told = rule.vr or "SQ"
        return clean_sequence(dataset, tag, context) if told == "SQ" else None
    vr = rule.vr or element.VR
    if vr in FORMATS or rule.vr:
        read = read_values(element, vr, signed=context.signed)
    elif vr in TEXT_VRS:
        texts = decoded_values(dataset, tag, vr)
        read = None if texts is None else (vr, texts)
    else:
        read = None
    if read is None:
        return None
    found, values = read
    cleaned = rule.clean(rule, values, context) if values else values
    return None if cleaned is None else make_element(tag, found, cleaned)
