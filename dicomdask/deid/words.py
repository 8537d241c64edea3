"""Clean a text: keep the words that are known to name nobody."""

import re
from collections.abc import Iterable
from typing import Final

from dicomdask.policy import safe_words

SPACES: Final = re.compile(r"([\s_^,;:()\[\]{}|\"']+)")
JOINS: Final = re.compile(r"[-/+.&]")
NUMBER: Final = re.compile(r"[\d.,/+-]*\d[\d.,/+-]*")
PARTS: Final = re.compile(r"[^0-9A-Za-z]+")
MIN_NAME: Final = 2
"""Names shorter than that are found in any text."""


def identity_words(texts: Iterable[str]) -> frozenset[str]:
    """Return the words in upper case of texts that name somebody."""
    words = (word.upper() for text in texts for word in PARTS.split(text))
    return frozenset(word for word in words if len(word) >= MIN_NAME)


def clean_text(text: str, names: frozenset[str]) -> str:
    """Return the words of a text that name nobody, in their order.

    Parameters
    ----------
    text
        A description; identified.
    names
        The words of the names, numbers and addresses of the same header.
    """
    words = [word for word in SPACES.split(text) if not SPACES.fullmatch(word)]
    kept = [
        word
        for before, word, after in zip(
            ["", *words], words, [*words[1:], ""], strict=False
        )
        if word and _is_safe(word, names) and not _is_long(before, word, after)
    ]
    return " ".join(kept)


def _is_long(before: str, word: str, after: str) -> bool:
    """Tell a number beside another: a date or a telephone number in pieces."""
    return bool(NUMBER.fullmatch(word)) and any(
        NUMBER.fullmatch(other) for other in (before, after)
    )


def _is_safe(word: str, names: frozenset[str]) -> bool:
    """Tell whether a word, or each part of a compound, is known and no name."""
    upper = word.strip(".-!?").upper()
    if not upper.isascii() or upper in names:
        return False
    known, pattern = safe_words()
    if upper in known or pattern.fullmatch(upper):
        return True
    parts = [part for part in JOINS.split(upper) if part]
    return len(parts) > 1 and all(
        (part in known or (pattern.fullmatch(part) and not part.isdigit()))
        and part not in names
        for part in parts
    )
