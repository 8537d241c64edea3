"""Look: find the text in the frames of one instance, and say what has to be blanked.

The first, the middle and the last frame are looked at as a whole, if they differ at
all. What is found counts for all frames. Each other frame is compared with those that
were looked at, and is looked at itself where it shows something else: so text that
stands still costs a few looks, and text that moves or comes up later is found as well.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from dicomdask.burnedin.changes import Picture, changed, is_alike, whole_of
from dicomdask.errors import InputError
from dicomdask.model import Box, Redaction, Way

Find = Callable[[Picture], Sequence[tuple[Box, float]]]

MARGIN: Final = 2
"""How far a box is grown beyond what was found, in pixels."""
COMPARED: Final = 8
"""With so many frames that were looked at a frame is compared at most."""
OVERLAP: Final = 0.6
"""Boxes that share more of what both take are one."""
SECONDS, SECONDS_PER_FRAME = 120.0, 10.0
"""How long a look at one instance may take: it is rejected then."""
LATE: Final = "The look for text took too long; none of the pixels was kept."


PicturesOf = Callable[[int], Sequence[Picture]]


@dataclass(frozen=True, slots=True)
class Ground:
    """What is known of a frame before the detector looks.

    `fixed` is blanked in any case. What is found within a box of `keep` is no text.
    """

    fixed: tuple[tuple[Box, Way], ...] = ()
    keep: tuple[Box, ...] = ()


@dataclass(frozen=True, slots=True)
class _Found:
    """A box that was found in a frame, and what is to be seen in it."""

    number: int
    box: Box
    score: float
    patch: Picture


def look(
    frames: Sequence[int], pictures_of: PicturesOf, ground: Ground, find: Find
) -> tuple[Redaction, ...]:
    """Return what has to be blanked in some frames of one instance.

    Parameters
    ----------
    frames
        Their numbers.
    pictures_of
        Returns a frame as it is displayed, in one or more contrasts of one size.
    ground
        What is known of the frames already.
    find
        The detector.

    Raises
    ------
    InputError
        With the code ``unclean-pixels`` if it took too long, or what `find` raises.
    """
    ends = time.monotonic() + SECONDS + SECONDS_PER_FRAME * len(frames)

    def shown(number: int) -> list[Picture]:
        if time.monotonic() > ends:
            raise InputError("unclean-pixels", LATE)
        hidden = [box for box, _ in ground.fixed]
        return [without(picture, hidden) for picture in pictures_of(number)]

    found: list[_Found] = []
    parts: dict[int, Box] = {}
    looked: deque[list[Picture]] = deque(maxlen=COMPARED)
    sample, others = _sampled(frames)
    for number in (*sample, *others):
        pictures = shown(number)
        if number in sample:
            part = None if _is_among(pictures, looked) else whole_of(pictures)
        else:
            part = changed(pictures, reversed(looked))
        if part is not None:
            found += _look_at(number, pictures, part, ground, find)
            parts[number] = part
            looked.append(pictures)
    every = _by_frame(frames, found, parts, shown)
    return (*fixed(frames, ground.fixed), *_merged(found, every))


def _sampled(frames: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return the frames that are a sample of all, and the others."""
    sample = sorted({frames[0], frames[len(frames) // 2], frames[-1]})
    return sample, [number for number in frames if number not in sample]


def _is_among(pictures: Sequence[Picture], looked: Iterable[Sequence[Picture]]) -> bool:
    """Tell whether a frame is the same as one that was looked at."""
    return any(
        len(other) == len(pictures) and all(map(np.array_equal, pictures, other))
        for other in looked
    )


def fixed(
    frames: Sequence[int], boxes: Iterable[tuple[Box, Way]]
) -> Iterator[Redaction]:
    """Yield what is blanked in all frames without a look."""
    for box, way in boxes:
        yield Redaction(box, tuple(frames), way)


def _look_at(
    number: int,
    pictures: Sequence[Picture],
    part: Box,
    ground: Ground,
    find: Find,
) -> Iterator[_Found]:
    """Yield what is found in a part of a frame, in any of its contrasts."""
    for picture in pictures:
        for box, score in find(_cut(picture, part)):
            placed = _moved(box, part)
            if not any(contains(kept, placed) for kept in ground.keep):
                wide = grown(placed, picture.shape)
                yield _Found(number, wide, score, _cut(pictures[0], wide).copy())


def _by_frame(
    frames: Sequence[int],
    found: Sequence[_Found],
    parts: Mapping[int, Box],
    shown: PicturesOf,
) -> list[tuple[int, ...]]:
    """Return for each box that was found the frames in which it is blanked.

    All of them, but those that were looked at there themselves and show something else.
    """
    holders: list[list[int]] = [[] for _ in found]
    for number in frames:
        part, picture = parts.get(number), None
        for one, holding in zip(found, holders, strict=True):
            if part is not None and one.number != number and contains(part, one.box):
                picture = shown(number)[0] if picture is None else picture
                if not is_alike(_cut(picture, one.box), one.patch):
                    continue
            holding.append(number)
    return [tuple(holding) for holding in holders]


def _merged(
    found: Sequence[_Found], every: Sequence[tuple[int, ...]]
) -> Iterator[Redaction]:
    """Yield what was found; boxes that are about the same are one around both."""
    merged: list[Redaction] = []
    for one, frames in zip(found, every, strict=True):
        made = Redaction(one.box, frames, "detector", round(one.score, 4))
        for other in [other for other in merged if _is_same(made.box, other.box)]:
            merged.remove(other)
            made = Redaction(
                made.box.around(other.box),
                tuple(sorted({*made.frames, *other.frames})),
                "detector",
                max(made.score or 0.0, other.score or 0.0),
            )
        merged.append(made)
    for region in sorted(merged, key=lambda one: (one.box.top, one.box.left)):
        if not any(_holds(other, region) for other in merged):
            yield region


def _holds(outer: Redaction, inner: Redaction) -> bool:
    """Tell whether another region blanks all that one does, and more."""
    return (
        outer.box != inner.box
        and contains(outer.box, inner.box)
        and set(outer.frames) >= set(inner.frames)
    )


def _is_same(one: Box, other: Box) -> bool:
    top, left = max(one.top, other.top), max(one.left, other.left)
    bottom, right = min(one.bottom, other.bottom), min(one.right, other.right)
    shared = max(0, bottom - top) * max(0, right - left)
    return shared > OVERLAP * (one.area + other.area - shared)


def _cut(picture: Picture, box: Box) -> Picture:
    return picture[box.top : box.bottom, box.left : box.right]


def _moved(box: Box, part: Box) -> Box:
    """Return a box of a part of a frame as one of the frame."""
    return Box(
        box.top + part.top,
        box.left + part.left,
        box.bottom + part.top,
        box.right + part.left,
    )


def without(picture: Picture, boxes: Iterable[Box]) -> Picture:
    """Return a picture in which some boxes are black."""
    rest = picture.copy()
    for box in boxes:
        rest[box.top : box.bottom, box.left : box.right] = 0
    return rest


def contains(outer: Box, inner: Box) -> bool:
    """Tell whether a box lies wholly within another."""
    return (
        outer.top <= inner.top
        and outer.left <= inner.left
        and inner.bottom <= outer.bottom
        and inner.right <= outer.right
    )


def grown(box: Box, shape: Sequence[int]) -> Box:
    """Return a box with a margin, as far as the frame reaches."""
    return Box(
        max(0, box.top - MARGIN),
        max(0, box.left - MARGIN),
        min(shape[0], box.bottom + MARGIN),
        min(shape[1], box.right + MARGIN),
    )
