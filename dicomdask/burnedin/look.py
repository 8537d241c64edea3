"""Look: find the text in the frames of one instance, and say what has to be blanked.

The first, the middle and the last frame are looked at as a whole, if they differ at
all. What is found counts for all frames. Each other frame is compared with those that
were looked at, and is looked at itself where it shows something else: so text that
stands still costs a few looks, and text that moves or comes up later is found as well.
An image that is one of many of a series is compared in the same way with others that
were looked at: `look_beside`.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from dicomdask.burnedin.changes import Picture, changed, is_alike, is_plain, whole_of
from dicomdask.errors import InputError
from dicomdask.model import Box, Redaction, Way

Find = Callable[[Picture, float], Sequence[tuple[Box, float]]]
"""Returns where text is in a picture, and how sure that is, in so many seconds."""
PicturesOf = Callable[[int], Sequence[Picture]]
"""Returns a frame as it is displayed, in one or more contrasts of one size."""

MARGIN: Final = 2
"""How far a box is grown beyond what was found, in pixels."""
COMPARED: Final = 8
"""With so many frames that were looked at a frame is compared at most."""
OVERLAP: Final = 0.6
"""Boxes that share more of what both take are one."""
SECONDS, SECONDS_PER_FRAME = 120.0, 10.0
"""How long a look at one instance may take: it is rejected then. At one picture the
detector may look for the first."""
LATE: Final = "The look for text took too long; none of the pixels was kept."


@dataclass(frozen=True, slots=True)
class Ground:
    """What is known of a frame before the detector looks.

    `fixed` is blanked in any case. What is found within a box of `keep` is no text.
    """

    fixed: tuple[tuple[Box, Way], ...] = ()
    keep: tuple[Box, ...] = ()


@dataclass(frozen=True, slots=True)
class Seen:
    """An image that was looked at, and the text in it.

    `pictures` are its contrasts, without what was known before; `keep` is that of its
    ground.
    """

    pictures: tuple[Picture, ...]
    found: tuple[tuple[Box, float], ...]
    keep: tuple[Box, ...] = ()


@dataclass(frozen=True, slots=True)
class _Found:
    """A box that was found in a frame, and what is to be seen in it."""

    number: int
    box: Box
    score: float
    patch: Picture


@dataclass(frozen=True, slots=True)
class _Eye:
    """What looks at the frames of one instance, until a time."""

    pictures_of: PicturesOf
    ground: Ground
    find: Find
    ends: float

    def left(self) -> float:
        """Return how many seconds one picture may take; raise where all are over."""
        seconds = self.ends - time.monotonic()
        if seconds <= 0:
            raise InputError("unclean-pixels", LATE)
        return min(seconds, SECONDS)

    def shown(self, number: int) -> list[Picture]:
        """Return a frame without what is blanked in any case."""
        self.left()
        hidden = [box for box, _ in self.ground.fixed]
        return [without(picture, hidden) for picture in self.pictures_of(number)]

    def look(
        self, number: int, pictures: Sequence[Picture], parts: Iterable[Box]
    ) -> Iterator[_Found]:
        """Yield what is found in parts of a frame, in any of its contrasts."""
        for part in parts:
            for picture in pictures:
                for box, score in self.find(_cut(picture, part), self.left()):
                    placed = _moved(box, part)
                    if not any(contains(kept, placed) for kept in self.ground.keep):
                        wide = grown(placed, picture.shape)
                        patch = _cut(pictures[0], wide).copy()
                        yield _Found(number, wide, score, patch)


def _eye(n: int, pictures_of: PicturesOf, ground: Ground, find: Find) -> _Eye:
    ends = time.monotonic() + SECONDS + SECONDS_PER_FRAME * n
    return _Eye(pictures_of, ground, find, ends)


def look(
    frames: Sequence[int], pictures_of: PicturesOf, ground: Ground, find: Find
) -> tuple[Redaction, ...]:
    """Return what has to be blanked in some frames of one instance.

    Parameters
    ----------
    frames
        Their numbers.
    pictures_of
        Returns a frame.
    ground
        What is known of the frames already.
    find
        The detector.

    Raises
    ------
    InputError
        With the code ``unclean-pixels`` if it took too long, or what `find` raises.
    """
    eye = _eye(len(frames), pictures_of, ground, find)
    found: list[_Found] = []
    parts: dict[int, tuple[Box, ...]] = {}
    looked: deque[list[Picture]] = deque(maxlen=COMPARED)
    sample, others = _sampled(frames)
    for number in (*sample, *others):
        pictures = eye.shown(number)
        if number not in sample:
            new = changed(pictures, reversed(looked))
        else:
            new = () if _is_among(pictures, looked) else (whole_of(pictures),)
        if new:
            found += eye.look(number, pictures, new)
            parts[number] = new
            looked.append(pictures)
    every = _by_frame(frames, found, parts, eye.shown)
    return (*fixed(frames, ground.fixed), *_merged(found, every))


def look_beside(
    pictures_of: PicturesOf, ground: Ground, find: Find, seen: Sequence[Seen] = ()
) -> tuple[tuple[Redaction, ...], Seen | None]:
    """Return what has to be blanked in an image, and what was seen in it.

    It is looked at where it differs from the others. What was found in one of those is
    blanked in it as well, but where it was looked at itself and shows something else.
    Nothing was seen in it where it needed no look.

    Parameters
    ----------
    pictures_of, ground, find
        As in `look`; the image has one frame, of number 0.
    seen
        Images that were looked at; without any it is looked at as a whole.

    Raises
    ------
    InputError
        As `look`.
    """
    eye = _eye(1, pictures_of, ground, find)
    pictures = eye.shown(0)
    shape, keep = pictures[0].shape, ground.keep
    like = [one for one in seen if (one.pictures[0].shape, one.keep) == (shape, keep)]
    new = changed(pictures, [one.pictures for one in like])
    found = [*_held(pictures, new, like), *eye.look(0, pictures, new)]
    regions = tuple(_merged(found, [(0,)] * len(found)))
    told = tuple((one.box, one.score or 0.0) for one in regions)
    mine = Seen(tuple(pictures), told, keep) if new else None
    return (*fixed([0], ground.fixed), *regions), mine


def _held(
    pictures: Sequence[Picture], parts: Sequence[Box], seen: Sequence[Seen]
) -> Iterator[_Found]:
    """Yield what was found in other images and may be in this one as well."""
    for one in seen:
        for box, score in one.found:
            patch = _cut(one.pictures[0], box)
            is_seen = any(contains(part, box) for part in parts)
            if is_seen and not is_alike(_cut(pictures[0], box), patch):
                continue
            if not _is_free(pictures, box, one, seen):
                yield _Found(0, box, score, patch)


def _is_free(
    pictures: Sequence[Picture], box: Box, holder: Seen, seen: Sequence[Seen]
) -> bool:
    """Tell whether an image has nothing of what another has in a box.

    It is plain there, or shows what a third does in which nothing was found there.
    """
    if is_plain(pictures, box):
        return True
    others = [
        one.pictures for one in seen if not any(_meet(box, b) for b, _ in one.found)
    ]
    is_same = is_plain(pictures, box, [holder.pictures])
    return not is_same and is_plain(pictures, box, others)


def _meet(one: Box, other: Box) -> bool:
    """Tell whether two boxes share a pixel."""
    return max(one.top, other.top) < min(one.bottom, other.bottom) and max(
        one.left, other.left
    ) < min(one.right, other.right)


def recall(
    pictures_of: PicturesOf, ground: Ground, found: Iterable[tuple[Box, float]]
) -> Seen:
    """Return what was seen in an image before, by what was found in it."""
    eye = _eye(1, pictures_of, ground, lambda *_: ())
    return Seen(tuple(eye.shown(0)), tuple(found), ground.keep)


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


def _by_frame(
    frames: Sequence[int],
    found: Sequence[_Found],
    parts: Mapping[int, Sequence[Box]],
    shown: PicturesOf,
) -> list[tuple[int, ...]]:
    """Return for each box that was found the frames in which it is blanked.

    All of them, but those that were looked at there themselves and show something else.
    """
    holders: list[list[int]] = [[] for _ in found]
    for number in frames:
        mine, picture = parts.get(number, ()), None
        for one, holding in zip(found, holders, strict=True):
            is_seen = any(contains(part, one.box) for part in mine)
            if is_seen and one.number != number:
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
