"""The frames that stand for pictures, as JPEG: as written, and of the sources."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import Final

from dicomdask.report.pictures import Picture
from dicomdask.report.review import Group
from dicomdask.report.reviewed import Reviewed, View
from dicomdask.report.sources import Sources

N_PICTURES: Final = 400
PAGE_BYTES: Final = 32 << 20
"""How many pictures, and how many bytes of JPEG, a page holds at most."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame to show: what a person finds it by, and its views."""

    told: str
    views: tuple[View, ...]

    @property
    def nbytes(self) -> int:
        """Return how many bytes its views have."""
        return sum(len(jpeg) for _, jpeg in self.views)


def in_turn(groups: Sequence[Group]) -> Iterator[Picture]:
    """Yield the first picture of each group, then the second ones, and so on."""
    columns = [_alternating(one.blanked, one.empty) for one in groups]
    for rank in zip_longest(*columns):
        yield from (picture for picture in rank if picture is not None)


def _alternating(blanked: Sequence[Picture], empty: Sequence[Picture]) -> list[Picture]:
    pairs = zip_longest(blanked, empty)
    return [picture for pair in pairs for picture in pair if picture is not None]


def read_frames(
    reviewed: Reviewed,
    pictures: Iterable[Picture],
    sources: Sources | None,
    *,
    limit: int = PAGE_BYTES,
) -> dict[Picture, Frame]:
    """Return the frames of pictures, as many as a page may hold.

    Parameters
    ----------
    sources
        Where pictures before are to be shown as well.
    """
    found: dict[Picture, Frame] = {}
    left = limit
    chosen = islice(pictures, N_PICTURES)
    places = [(picture, reviewed.locate(picture)) for picture in chosen]
    names = {place.source_key for _, place in places} if sources else set()
    urls = sources.urls(names) if sources else {}
    for picture, place in places:
        shown = reviewed.after(picture, place)
        url = urls.get(place.source_key)
        stored = sources.frame(url, place.number) if sources and url else None
        if stored is not None:
            shown = [*reviewed.before(picture, place, stored), *shown]
        frame = Frame(place.told, tuple(shown))
        left -= frame.nbytes
        if left < 0:
            break
        found[picture] = frame
    return found
