"""Say who may hold text burned into the pixels, and what is known of a device's.

A missing flag says nothing: hardly any device writes it.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from dicomdask.model import Box, Instance, Look
from dicomdask.policy import LookRules, Policy

LOOKERS: Final = frozenset({"person", "detector"})
"""By whom pixels are clean once they are blanked: BurnedInAnnotation is NO then."""


def look_of(instance: Instance, policy: Policy) -> Look | None:
    """Return what has to be, or was, done about text in an instance's pixels.

    Returns
    -------
    Look or None
        None where it may hold text, and the policy has nobody who looks: it may not be
        stored.
    """
    if policy.name == "none":
        return "none"
    known = known_of(instance, policy)
    if known.is_looked:
        return "person"
    if not known.blank:
        if passes_without_look(instance, policy.looks):
            return "not-needed"
        if passes_without_look(instance, policy.looks, policy.trusted_pixels):
            return "trusted"
    return "detector" if policy.cleans_pixels else None


Kin = tuple[str, ...]


def kin_of(instance: Instance, policy: Policy) -> Kin | None:
    """Return what images have in common that may hold the same text.

    They are of one device, and alike in size and colours: a detector looks at a few,
    and compares the others with those.

    Returns
    -------
    Kin or None
        None where no detector looks, or the instance is a mosaic or has many frames.
    """
    if instance.number_of_frames != 1 or instance.is_mosaic:
        return None
    if look_of(instance, policy) != "detector":
        return None
    told = (
        instance.series_instance_uid,
        instance.modality,
        instance.manufacturer,
        instance.manufacturer_model_name,
        instance.sop_class_uid,
        instance.photometric_interpretation,
        instance.bits_stored,
        *instance.shape,
    )
    return tuple(map(str, told))


def why_none(looks: Collection[Look | None]) -> Look | None:
    """Return why nobody has to look at any of some instances; None if somebody has."""
    only = next(iter(looks)) if len(set(looks)) == 1 else None
    return None if only in LOOKERS else only


@dataclass(frozen=True, slots=True)
class Known:
    """What rules tell of an instance's pixels: where text is, and where there is none.

    `is_looked`: a person has looked, and only `blank` is to be blanked.
    """

    blank: tuple[Box, ...] = ()
    keep: tuple[Box, ...] = ()
    is_looked: bool = False


def known_of(instance: Instance, policy: Policy) -> Known:
    """Return what the rules for an instance's device tell together.

    Where a person has looked, the last rule that says so stands alone.
    """
    texts = {
        "manufacturer": instance.manufacturer,
        "model": instance.manufacturer_model_name,
        "modality": instance.modality,
    }
    found = [one for one in policy.devices if one.is_for(texts, instance.shape)]
    looked = [one for one in found if one.is_looked]
    chosen = looked[-1:] or found
    return Known(
        blank=tuple(box for one in chosen for box in one.blank),
        keep=tuple(box for one in chosen for box in one.keep),
        is_looked=bool(looked),
    )


def passes_without_look(
    instance: Instance, rules: LookRules, trusted: tuple[str, ...] = ()
) -> bool:
    """Tell whether an instance may be stored without a look at its pixels.

    Only monochrome CT, MR, PT and NM pass that are not captured, neither by Image Type
    (PS3.3 section C.7.6.1.1.2) nor SOP class nor Conversion Type, and whose Burned In
    Annotation is absent or NO: as `standard/pixels.toml` has it. Whatever cannot be
    read as NO counts as YES.

    Parameters
    ----------
    instance
        The instance.
    rules
        The policy's.
    trusted
        Modalities that the user has looked at; all of theirs pass but those that say
        themselves that they are marked.
    """
    if _upper(instance.burned_in_annotation) not in rules.burned_in:
        return False
    modality = _upper(instance.modality)
    if modality and modality in {name.strip().upper() for name in trusted}:
        return True
    photometric = _upper(instance.photometric_interpretation)
    if modality not in rules.modalities or photometric not in rules.photometric:
        return False
    return not (modality in rules.look_modalities or _is_captured(instance, rules))


def _is_captured(instance: Instance, rules: LookRules) -> bool:
    """Tell a secondary capture, by whatever says so."""
    uid = instance.sop_class_uid
    if any(uid == one or uid.startswith(f"{one}.") for one in rules.look_sop_classes):
        return True
    if _upper(instance.conversion_type) not in rules.conversion_types:
        return True
    return not set(rules.look_image_types).isdisjoint(map(_upper, instance.image_type))


def _upper(value: str | None) -> str:
    return (value or "").strip().upper()
