"""Excerpts: some elements of a header, as bytes, that something is read from.

In a series most of them are the same in file after file; what was read from an excerpt
once need not be read again, and cannot depend on anything that is not in it.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag, Tag

MOST_BYTES: Final = 1 << 10
"""A longer value is in no excerpt, so that few bytes are held."""
REMEMBERED: Final = 64
"""Of so many excerpts it is held what was read from them."""

Written = tuple[BaseTag, str | None, bytes | None]


class Excerpt(NamedTuple):
    """The elements of a data set that are there of some, as they lie in the file."""

    is_implicit: bool
    is_little: bool
    charset: tuple[str, ...]
    elements: tuple[Written, ...]

    def dataset(self) -> Dataset:
        """Return a data set that has these elements and no others."""
        made = {
            tag: RawDataElement(
                *(tag, vr, len(value or b""), value, 0),
                *(self.is_implicit, self.is_little),
            )
            for tag, vr, value in self.elements
        }
        dataset = Dataset(made)  # type: ignore[arg-type]
        charset = list(self.charset)
        dataset.set_original_encoding(self.is_implicit, self.is_little, charset)
        return dataset


def tags_of(keywords: Sequence[str]) -> tuple[BaseTag, ...]:
    """Return the tags of keywords, as `excerpt` wants them."""
    return tuple(map(Tag, keywords))


def excerpt(
    dataset: Dataset, tags: Sequence[BaseTag], none_of: Sequence[BaseTag] = ()
) -> Excerpt | None:
    """Return an excerpt; None where there is none, and all has to be asked anew.

    Parameters
    ----------
    tags
        Which elements it is to hold, where they are there: not sequences.
    none_of
        If one of these elements is there, there is no excerpt.
    """
    there = dataset.keys()
    if any(tag in there for tag in none_of):
        return None
    is_implicit, is_little = dataset.original_encoding
    if is_implicit is None or is_little is None:
        return None
    elements: list[Written] = []
    for tag in tags:
        if tag not in there:
            continue
        element = dataset.get_item(tag, keep_deferred=True)
        # What was read or set before is in another form, which may be changed.
        if not isinstance(element, RawDataElement) or element.length > MOST_BYTES:
            return None
        elements.append((tag, element.VR, element.value))
    charset = dataset.original_character_set
    charsets = (charset,) if isinstance(charset, str) else tuple(charset)
    return Excerpt(is_implicit, is_little, charsets, tuple(elements))
