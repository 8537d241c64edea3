"""Whose pixels are looked at, and what is known of a device's: rules as data.

    [[pixels]]
    manufacturer = "acme.*"
    model = "echo 7"
    rows = 480
    columns = 640
    blank = [[0, 0, 30, 640]]

A rule is for the images whose maker, model, modality and size are those that it names;
texts are regular expressions, the whole text has to match, in whatever case, and a
missing one is empty. `blank` are boxes [top, left, bottom, right] that are blanked.
What the detector finds wholly within a box of `keep` is taken for no text. With
`looked = true` a person has looked at all images that the rule is for: its boxes are
blanked, and nothing else is.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from dicomdask.model import Box
from dicomdask.policy.data import text_of
from dicomdask.policy.lines import Lines

DEVICES: Final = "devices.toml"

_TEXTS: Final = ("manufacturer", "model", "modality")
_SIZES: Final = ("rows", "columns")
_BOXES: Final = ("blank", "keep")
_KEYS: Final = (*_TEXTS, *_SIZES, *_BOXES, "looked", "reason")
_LOOKED: Final = ("manufacturer", "model", *_SIZES)
LOOK_KEYS: Final = ("modalities", "image_types", "sop_classes")


@dataclass(frozen=True, slots=True)
class LookRules:
    """Who passes without a look: all of the first four hold, none of the others."""

    modalities: tuple[str, ...]
    photometric: tuple[str, ...]
    burned_in: tuple[str, ...]
    conversion_types: tuple[str, ...]
    look_modalities: tuple[str, ...]
    look_image_types: tuple[str, ...]
    look_sop_classes: tuple[str, ...]

    def stricter(self, more: Mapping[str, Sequence[str]]) -> "LookRules":
        """Return the rules with more that is looked at."""
        words = {name: tuple(map(_upper, more.get(name, ()))) for name in LOOK_KEYS}
        return LookRules(
            *(self.modalities, self.photometric),
            *(self.burned_in, self.conversion_types),
            look_modalities=(*self.look_modalities, *words["modalities"]),
            look_image_types=(*self.look_image_types, *words["image_types"]),
            look_sop_classes=(*self.look_sop_classes, *words["sop_classes"]),
        )


@dataclass(frozen=True, slots=True)
class DeviceRule:
    """What is known of the pixels of a kind of device; None is any.

    `told` says where it stands; `is_looked` that a person has looked at its images.
    """

    told: str
    manufacturer: str | None = None
    model: str | None = None
    modality: str | None = None
    rows: int | None = None
    columns: int | None = None
    blank: tuple[Box, ...] = ()
    keep: tuple[Box, ...] = ()
    is_looked: bool = False

    def is_for(
        self,
        texts: Mapping[str, str | None],
        shape: tuple[int, int],
    ) -> bool:
        """Return whether it is for images of a maker, a model, a modality, a size.

        Parameters
        ----------
        texts
            By `manufacturer`, `model` and `modality`.
        shape
            Rows and columns.
        """
        sizes = zip((self.rows, self.columns), shape, strict=True)
        return all(wanted in {None, found} for wanted, found in sizes) and all(
            wanted is None or _pattern(wanted).fullmatch((texts[name] or "").strip())
            for name, wanted in (
                ("manufacturer", self.manufacturer),
                ("model", self.model),
                ("modality", self.modality),
            )
        )


@cache
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text, re.IGNORECASE)


@cache
def look_rules() -> LookRules:
    """Return the rules of `standard/pixels.toml`."""
    data = tomllib.loads(text_of("pixels.toml"))
    passing, looking = data["pass"], data["look"]
    names = ("modalities", "photometric", "burned_in", "conversion_types")
    return LookRules(
        *(tuple(map(_upper, passing[name])) for name in names),
        *(tuple(map(_upper, looking[name])) for name in LOOK_KEYS),
    )


@cache
def device_rules() -> tuple[DeviceRule, ...]:
    """Return the rules of `standard/devices.toml`."""
    text = text_of(DEVICES)
    return parse_devices(tomllib.loads(text).get("pixels"), Lines(text), DEVICES)


def parse_look(table: Any, lines: Lines) -> dict[str, tuple[str, ...]]:
    """Return what the table `look` of a policy file adds.

    Raises
    ------
    PolicyError
        If it is damaged: which line, and what would be right.
    """
    if not isinstance(table, dict):
        raise lines.error("write [look] with lists below it", "look")
    for key, value in table.items():
        if key not in LOOK_KEYS or not _is_list(value, str):
            names = ", ".join(LOOK_KEYS)
            raise lines.error(f"{key} is unknown or no list; use {names}", key)
    return {key: tuple(value) for key, value in table.items()}


def parse_devices(
    tables: Any, lines: Lines, place: str = "policy file"
) -> tuple[DeviceRule, ...]:
    """Return the rules that tables `pixels` are.

    Raises
    ------
    PolicyError
        If one is damaged: which line, and what would be right.
    """
    if not _is_list(tables, dict):
        raise lines.error("write each rule about pixels under [[pixels]]", "pixels")
    return tuple(_device(one, lines, n, place) for n, one in enumerate(tables))


def _device(
    table: Mapping[str, Any], lines: Lines, number: int, place: str
) -> DeviceRule:
    for key, value in table.items():
        wrong = _wrong_with(key, value)
        if wrong:
            raise lines.error(wrong, key, number, table="pixels")
    is_looked = table.get("looked", False)
    needed = _LOOKED if is_looked else ()
    missing = [key for key in needed if key not in table]
    if missing or not any(key in table for key in _TEXTS):
        told = ", ".join(missing or _TEXTS[:1])
        raise lines.error(
            f'a rule names {told} too; manufacturer = "" is for images that tell none',
            "[[pixels]]",
            number,
            table="pixels",
        )
    told = f"{place}, line {lines.find('[[pixels]]', number, table='pixels')}"
    return DeviceRule(
        told=f"{told}: {table['reason']}" if table.get("reason") else told,
        manufacturer=table.get("manufacturer"),
        model=table.get("model"),
        modality=table.get("modality"),
        rows=table.get("rows"),
        columns=table.get("columns"),
        blank=tuple(Box(*box) for box in table.get("blank", ())),
        keep=tuple(Box(*box) for box in table.get("keep", ())),
        is_looked=is_looked,
    )


def _wrong_with(key: str, value: Any) -> str | None:
    """Return what is wrong with a key of a rule, or None."""
    if key not in _KEYS:
        return f"{key} is unknown; use {', '.join(_KEYS)}"
    if key in _SIZES:
        return None if _is_count(value) and value else f"{key} is a number of pixels"
    if key in _BOXES:
        if _is_list(value, list) and all(map(_is_box, value)):
            return None
        return f"{key} is a list of boxes [top, left, bottom, right] in pixels"
    if key == "looked":
        return None if isinstance(value, bool) else "looked is true or false"
    if not isinstance(value, str):
        return f"{key} is a text"
    try:
        re.compile(value)
    except re.error as error:
        return f"the regex does not compile: {error}"
    return None


def _is_box(value: Sequence[Any]) -> bool:
    if len(value) != 4 or not all(map(_is_count, value)):
        return False
    top, left, bottom, right = value
    return bool(top < bottom and left < right)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_list(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(one, kind) for one in value)


def _upper(value: str) -> str:
    return value.strip().upper()
