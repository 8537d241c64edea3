"""The `[[pixels]]` table of a device, for a person to put into a policy file."""

import json
import re
from typing import Final

from dicomdask.model import Box
from dicomdask.report.devices import Device
from dicomdask.report.pictures import MANY, Place, Places

SEEN: Final = 3
"""How many pictures tell what most pictures of a device have."""

SPECIAL: Final = re.compile(r"([.^$*+?{}\[\]\\|()])")

LOOKED: Final = """\
# looked = true  # blanks only the boxes above: nothing looks any more"""


def head(device: Device) -> str:
    """Return the lines that say of which pictures a rule is."""
    names = {"manufacturer": device.manufacturer, "model": device.model}
    lines = ["[[pixels]]"]  # a name that the images lack is empty
    lines += [f"{name} = {_pattern(text or '')}" for name, text in names.items()]
    if device.modality:
        lines.append(f"modality = {_text(device.modality)}")
    if device.rows and device.columns:
        lines += [f"rows = {device.rows}", f"columns = {device.columns}"]
    return "\n".join(lines)


def _pattern(name: str) -> str:
    """Return a regular expression that matches a name and no other."""
    return _text(SPECIAL.sub(r"\\\1", name))


def _text(text: str) -> str:
    """Return a TOML string; a literal one where it can be, as it is easier to read."""
    if "\\" in text and "'" not in text and text.isprintable():
        return f"'{text}'"
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def is_pinned(place: Place, places: Places) -> bool:
    """Tell whether a place is blanked by the rule from the start.

    What most pictures have is a text of the device: it goes even where a detector would
    miss it. The others are left to what finds them.
    """
    share = place.n_pictures / max(places.n_pictures, 1)
    is_usual = places.n_pictures >= SEEN and share > MANY
    return place.way == "detector" and is_usual


def rule_text(device: Device, places: Places) -> str:
    """Return a rule that takes over what was found, for a person to change.

    Every picture of the device is still looked at, unless the person says otherwise.
    """
    pinned = [one for one in places.found if is_pinned(one, places)]
    left = [one for one in places.found if not is_pinned(one, places)]
    lines = [head(device), "blank = ["]
    lines += [f"  {box_text(one.box)},  # {place_text(one, places)}" for one in pinned]
    lines += [f"  # {box_text(one.box)},  # {place_text(one, places)}" for one in left]
    return "\n".join([*lines, "]", "keep = []", LOOKED, ""])


def box_text(box: Box) -> str:
    """Return a box as a policy file has it."""
    return f"[{box.top}, {box.left}, {box.bottom}, {box.right}]"


def place_text(place: Place, places: Places) -> str:
    """Return what is known of a place: how it was found, and how often."""
    score = "" if place.score is None else f", lowest score {place.score:.2f}"
    return f"{place.way}, {place.n_pictures} of {places.n_pictures} pictures{score}"
