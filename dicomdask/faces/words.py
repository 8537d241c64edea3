"""What part of the body a scan is of, by the words of its header."""

import re
import tomllib
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final, Literal

Region = Literal["head", "other", "unknown"]

_WORD: Final = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True, slots=True)
class _Words:
    words: frozenset[str]
    parts: tuple[str, ...]

    def name(self, texts: Iterable[str]) -> bool:
        """Tell whether any of some words is, or holds, one of these."""
        return any(
            word in self.words or any(part in word for part in self.parts)
            for word in texts
        )


@cache
def _table() -> tuple[_Words, _Words, tuple[str, ...]]:
    text = (files("dicomdask.standard") / "regions.toml").read_text("utf-8")
    found = tomllib.loads(text)
    head, other = (
        _Words(frozenset(found[name]["words"]), tuple(found[name]["parts"]))
        for name in ("head", "other")
    )
    return head, other, tuple(found["whole"]["phrases"])


def region_of(texts: Iterable[str]) -> Region:
    """Return whether a scan is of the head, of another part, or nobody knows.

    Parameters
    ----------
    texts
        What the header says of the body part, in any language (identified). A word of
        the head, or of the whole body, wins over all others.

    >>> region_of(["CT Schädel nativ"]), region_of(["KNEE"]), region_of(["axial 3mm"])
    ('head', 'other', 'unknown')
    """
    head, other, whole = _table()
    plain = [_plain(text) for text in texts]
    words = [word for text in plain for word in _WORD.findall(text)]
    if head.name(words) or any(phrase in text for text in plain for phrase in whole):
        return "head"
    return "other" if other.name(words) else "unknown"


def _plain(text: str) -> str:
    """Return a text in small letters, without accents."""
    parts = unicodedata.normalize("NFKD", text.casefold())
    return " ".join("".join(c for c in parts if not unicodedata.combining(c)).split())
