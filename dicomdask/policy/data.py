"""The tables of the standard and the lists beside them, as they are read."""

import csv
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Final

MODULES: Final = "modules.csv"
FILES: Final = (
    MODULES,
    "table_e1_1.csv",
    "safe_private.csv",
    "retain.toml",
    "terms.toml",
    "words.toml",
    "pixels.toml",
    "devices.toml",
)
"""What decides what a policy does."""

MANY: Final = 65536
SAFE_PRIVATE_EDITION: Final = "PS3.15 2020c table E.3.10-1"


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row of table E.1-1; `options` maps an option's name to its code."""

    tag: str
    keyword: str
    basic: str
    options: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Retained:
    """An attribute outside the table that stays: its list, and the option it needs."""

    keyword: str
    group: str
    option: str | None = None


@dataclass(frozen=True, slots=True)
class PrivateRow:
    """A private element that is thought to be safe; `element` has two hex digits.

    `max_values` is the last number of its multiplicity.
    """

    group: int
    element: int
    creator: str
    vr: str
    max_values: int


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Which text may stay: terms in upper case, and patterns, by keyword."""

    common: frozenset[str]
    terms: Mapping[str, frozenset[str]]
    patterns: Mapping[str, re.Pattern[str]]

    def allows(self, keyword: str, vr: str, text: str) -> bool:
        """Return whether `text` may stay as a value of `keyword`."""
        term = text.upper()
        if term in self.terms.get(keyword, ()) or (vr == "CS" and term in self.common):
            return True
        pattern = self.patterns.get(keyword)
        return pattern is not None and pattern.fullmatch(text) is not None

    def knows(self, keyword: str, vr: str) -> bool:
        """Return whether any text may stay as a value of `keyword`."""
        return vr == "CS" or keyword in self.terms or keyword in self.patterns


@cache
def text_of(name: str) -> str:
    """Return the text of one file of `dicomdask.standard`."""
    return files("dicomdask.standard").joinpath(name).read_text(encoding="utf-8")


@cache
def vocabulary() -> Vocabulary:
    """Return the vocabularies of `standard/terms.toml`."""
    data = tomllib.loads(text_of("terms.toml"))
    terms = {word: _upper(values) for word, values in data["terms"].items()}
    patterns = {word: re.compile(text) for word, text in data["patterns"].items()}
    return Vocabulary(_upper(data["common"]["terms"]), terms, patterns)


@cache
def safe_words() -> tuple[frozenset[str], re.Pattern[str]]:
    """Return the words, and the pattern of short numbers, that name nobody."""
    data = tomllib.loads(text_of("words.toml"))
    groups = (" ".join(group).split() for group in data["words"].values())
    words = frozenset(word.upper() for group in groups for word in group)
    return words, re.compile("|".join(data["patterns"].values()), re.ASCII)


@cache
def table_rows() -> tuple[TableRow, ...]:
    """Return table E.1-1."""
    return tuple(_parse_row(row) for row in _csv("table_e1_1.csv"))


@cache
def retained() -> tuple[Retained, ...]:
    """Return the attributes outside the table that stay."""
    lists = tomllib.loads(text_of("retain.toml")).items()
    return tuple(
        Retained(keyword, group, content.get("option"))
        for group, content in lists
        for keyword in content["keywords"]
    )


@cache
def safe_private() -> tuple[PrivateRow, ...]:
    """Return table E.3.10-1."""
    return tuple(
        PrivateRow(
            group=int(row["group"], 16),
            element=int(row["element"], 16),
            creator=row["creator"],
            vr=row["vr"],
            max_values=_last(row["vm"]),
        )
        for row in _csv("safe_private.csv")
    )


def _last(multiplicity: str) -> int:
    number = multiplicity.split("-")[-1]
    return int(number) if number.isdigit() else MANY


@cache
def strictest_types() -> Mapping[str, str]:
    """Return the strictest type (1, 2 or 3) that an attribute has in any module."""
    found: dict[str, str] = {}
    for row in _csv(MODULES):
        found[row["keyword"]] = min(found.get(row["keyword"], "3"), row["type"])
    return MappingProxyType(found)


def _csv(name: str) -> Iterator[dict[str, Any]]:
    lines = [line for line in text_of(name).splitlines() if line[:1] != "#"]
    return csv.DictReader(lines)


def _upper(values: Iterable[str]) -> frozenset[str]:
    return frozenset(value.upper() for value in values)


def _parse_row(row: Mapping[str, Any]) -> TableRow:
    names = [name for name in row if name.startswith(("retain_", "clean_"))]
    options = {name.replace("_", "-"): row[name] for name in names if row[name]}
    return TableRow(row["tag"], row["keyword"], row["basic"], options)
