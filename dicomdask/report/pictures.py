"""What is shown of a volume: frames that are blanked alike, most doubtful first. Pure.

Doubt is from 0 to 1. It grows with what makes a false box (a low score, a large box, a
box within the region of an ultrasound image) and with what makes a missed one: nothing
was found where most pictures of the same device have text.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from dicomdask.model import Box, Redaction
from dicomdask.report.devices import Looked

OF_A_VOLUME: Final = 4
"""How many pictures there are of one volume at most."""
LARGE: Final = 0.25
"""The share of a frame that a box of the detector may not well be text."""
WITHIN_REGION: Final = 0.2
"""What the region of an ultrasound image adds to the doubt of a box within."""
MANY: Final = 0.5
"""The share of a device's pictures with text at a place where others should have it."""
N_PLACES: Final = 40

Frame = tuple[str, int]
"""A SOP Instance UID and the number of a frame, from 0."""


@dataclass(frozen=True, slots=True)
class Picture:
    """Frames of one volume in which the same regions are blanked.

    Attributes
    ----------
    shown
        The frame that stands for them; None for one in which nothing is blanked.
    n_frames
        How many they are.
    others
        Where nothing is blanked: the frames of the volume in which something is.
    """

    volume: Looked
    shown: Frame | None
    n_frames: int
    redactions: tuple[Redaction, ...] = ()
    others: frozenset[Frame] = frozenset()
    doubt: float = 0.0
    because: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Boxes of many pictures that lie at about the same place: what holds them all."""

    box: Box
    way: str
    n_pictures: int
    score: float | None


def pictures_of(
    volume: Looked, found: Iterable[tuple[str, Redaction]]
) -> list[Picture]:
    """Return the pictures of a volume.

    Parameters
    ----------
    found
        SOP Instance UIDs, and what is blanked in their frames.
    """
    blanked: dict[Frame, list[Redaction]] = defaultdict(list)
    for uid, redaction in found:
        for number in redaction.frames:
            blanked[uid, number].append(redaction)
    alike: dict[frozenset[tuple[Box, str]], list[Frame]] = defaultdict(list)
    for frame, ones in blanked.items():
        alike[frozenset((one.box, one.way) for one in ones)].append(frame)
    pictures = []
    for frames in alike.values():
        worst = min(frames, key=lambda frame: _lowest(blanked[frame]))
        pictures.append(
            Picture(volume, worst, len(frames), tuple(blanked[worst])),
        )
    pictures.sort(key=lambda one: _lowest(one.redactions))
    left = volume.n_frames - len(blanked)
    if left > 0:
        empty = Picture(volume, None, left, others=frozenset(blanked))
        pictures = [*pictures[: OF_A_VOLUME - 1], empty]
    return pictures[:OF_A_VOLUME]


def _lowest(redactions: Iterable[Redaction]) -> float:
    scores = (one.score for one in redactions)
    return min((score for score in scores if score is not None), default=1.0)


def _is_alike(one: Box, other: Box) -> bool:
    """Tell whether two boxes are of one place: a name may be longer than another."""
    heights = sorted((one.bottom - one.top, other.bottom - other.top))
    rows = min(one.bottom, other.bottom) - max(one.top, other.top)
    columns = min(one.right, other.right) - max(one.left, other.left)
    if rows <= 0 or columns <= 0 or heights[1] > 2 * heights[0]:
        return False
    return 2 * rows * columns >= min(one.area, other.area)


Key = tuple[Box, str]


class Places:
    """The places of one device's boxes, the most frequent first.

    Attributes
    ----------
    found
        At most `N_PLACES` of them.
    n_pictures
        Of how many pictures.
    """

    def __init__(self, pictures: Sequence[Picture]) -> None:
        self.n_pictures = len(pictures)
        counts = Counter(key for one in pictures for key in _keys(one))
        boxes: list[tuple[Box, str]] = []
        self._at: dict[Key, int] = {}
        for (box, way), _ in sorted(counts.items(), key=_by_count):
            self._at[box, way] = self._join(boxes, box, way)
        numbers = Counter(n for one in pictures for n in self.numbers(one))
        scores = self._scores(pictures)
        self.found = tuple(
            Place(box, way, numbers[n], scores.get(n))
            for n, (box, way) in enumerate(boxes)
        )

    def _join(self, boxes: list[tuple[Box, str]], box: Box, way: str) -> int:
        """Return the number of the place that a box joins; -1 where it finds none."""
        for number, (other, same) in enumerate(boxes):
            if way == same and _is_alike(box, other):
                boxes[number] = box.around(other), way
                return number
        if len(boxes) == N_PLACES:
            return -1
        boxes.append((box, way))
        return len(boxes) - 1

    def _scores(self, pictures: Iterable[Picture]) -> dict[int, float]:
        scores: dict[int, float] = {}
        for one in pictures:
            for found in one.redactions:
                number = self._at[found.box, found.way]
                if found.score is not None:
                    scores[number] = min(found.score, scores.get(number, 1.0))
        return scores

    def numbers(self, picture: Picture) -> frozenset[int]:
        """Return the numbers of the places where a picture has boxes."""
        return frozenset(self._at[key] for key in _keys(picture)) - {-1}

    def number(self, redaction: Redaction) -> int:
        """Return the number of the place of a box; -1 where it has none."""
        return self._at.get((redaction.box, redaction.way), -1)

    def share(self, number: int) -> float:
        """Return of which share of the pictures a place has a box."""
        return self.found[number].n_pictures / self.n_pictures


def _keys(picture: Picture) -> Iterable[Key]:
    return {(one.box, one.way) for one in picture.redactions}


def _by_count(item: tuple[Key, int]) -> tuple[int, str, tuple[int, ...]]:
    (box, way), count = item
    return -count, way, (box.top, box.left, box.bottom, box.right)


def with_doubt(picture: Picture, places: Places) -> Picture:
    """Return a picture with how doubtful it is, and why."""
    doubts = [*_of_boxes(picture), *_of_what_lacks(picture, places)]
    doubt, because = max(doubts, default=(0.0, _calm(picture)))
    return replace(picture, doubt=round(min(doubt, 1.0), 4), because=because)


def _calm(picture: Picture) -> str:
    return "by rule or region" if picture.redactions else "nothing was found"


def _of_boxes(picture: Picture) -> Iterable[tuple[float, str]]:
    whole = picture.volume.rows * picture.volume.columns
    ways = {one.way for one in picture.redactions}
    for one in picture.redactions:
        if one.way != "detector":
            continue
        score, told = 1.0 if one.score is None else one.score, ""
        if "region" in ways:  # all outside of the regions is blanked already
            told = ", within the ultrasound region"
        yield 1 - score + bool(told) * WITHIN_REGION, f"score {score:.2f}{told}"
        share = one.box.area / max(whole, 1)
        yield share / LARGE, f"a box of {share:.1%} of the frame"


def _of_what_lacks(picture: Picture, places: Places) -> Iterable[tuple[float, str]]:
    here = places.numbers(picture)
    for number, place in enumerate(places.found):
        share = places.share(number)
        if number not in here and share > MANY and not _is_covered(place.box, picture):
            box = place.box
            yield (
                share,
                f"nothing at row {box.top}, column {box.left}, "
                f"where {share:.0%} of the pictures have text",
            )


def _is_covered(box: Box, picture: Picture) -> bool:
    return any(_is_alike(box, one.box) for one in picture.redactions)


def counts_of_ways(pictures: Iterable[Picture]) -> Mapping[str, int]:
    """Return how many regions were found by which way."""
    return Counter(one.way for picture in pictures for one in picture.redactions)
