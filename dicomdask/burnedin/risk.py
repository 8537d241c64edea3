"""Say who may hold text burned into the pixels.

Nothing looks into pixels yet, so this rule is all there is between a name on an image
and a dataset. A missing flag says nothing: hardly any device writes it.
"""

from typing import Final

from dicomdask.model import Instance

_MODALITIES: Final = {"CT", "MR", "PT", "NM"}
_MONOCHROME: Final = {"MONOCHROME1", "MONOCHROME2"}
_SECONDARY_CAPTURE: Final = "1.2.840.10008.5.1.4.1.1.7"
# PS3.3 section C.8.6.1: SYN is a computed image; all others were caught from a screen,
# a film or paper. Secondary captures of either kind are told by their SOP class.
_COMPUTED: Final = "SYN"
_CAPTURES: Final = {"SECONDARY", "SCREEN SAVE", "SCREEN SHOT", "SCREENSAVE"}


def passes_without_look(instance: Instance, trusted: tuple[str, ...] = ()) -> bool:
    """Tell whether an instance may be stored without a look at its pixels.

    Only monochrome CT, MR, PT and NM pass that are not captured, neither by Image Type
    (PS3.3 section C.7.6.1.1.2) nor SOP class nor Conversion Type, and whose Burned In
    Annotation is absent or NO. Whatever cannot be read as NO counts as YES.

    Parameters
    ----------
    instance
        The instance.
    trusted
        Modalities that the user has looked at; all of theirs pass but those that say
        themselves that they are marked.
    """
    if _upper(instance.burned_in_annotation) not in {"", "NO"}:
        return False
    modality = _upper(instance.modality)
    if modality and modality in {name.strip().upper() for name in trusted}:
        return True
    photometric = _upper(instance.photometric_interpretation)
    if modality not in _MODALITIES or photometric not in _MONOCHROME:
        return False
    return not _is_captured(instance)


def _is_captured(instance: Instance) -> bool:
    """Tell a secondary capture, by whatever says so."""
    uid = instance.sop_class_uid
    if uid == _SECONDARY_CAPTURE or uid.startswith(_SECONDARY_CAPTURE + "."):
        return True
    if _upper(instance.conversion_type) not in {"", _COMPUTED}:
        return True
    return not _CAPTURES.isdisjoint(map(_upper, instance.image_type))


def _upper(value: str | None) -> str:
    return (value or "").strip().upper()
