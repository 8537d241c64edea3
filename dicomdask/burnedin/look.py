"""Look: find the text in the frames of one instance, and say what has to be blanked."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from dicomdask.errors import InputError
from dicomdask.model import Box, Redaction, Way

Picture = np.ndarray[Any, np.dtype[np.uint8]]
Find = Callable[[Picture], Sequence[tuple[Box, float]]]

MARGIN: Final = 2
"""How far a box is grown beyond what was found, in pixels."""
SECONDS, SECONDS_PER_FRAME = 120.0, 10.0
"""How long a look at one instance may take: it is rejected then."""
LATE: Final = "The look for text took too long; none of the pixels was kept."


@dataclass(frozen=True, slots=True)
class Ground:
    """What is known of a frame before the detector looks.

    `fixed` is blanked in any case. What is found within a box of `keep` is no text.
    """

    fixed: tuple[tuple[Box, Way], ...] = ()
    keep: tuple[Box, ...] = ()


def look(
    frames: Sequence[int],
    pictures_of: Callable[[int], Sequence[Picture]],
    ground: Ground,
    find: Find,
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
    found: dict[tuple[Box, float], list[int]] = defaultdict(list)
    for number in frames:
        for one in _look_at(pictures_of(number), ground, find):
            found[one].append(number)
        if time.monotonic() > ends:
            raise InputError("unclean-pixels", LATE)
    return (
        *fixed(frames, ground.fixed),
        *(
            Redaction(box, tuple(numbers), "detector", round(score, 4))
            for (box, score), numbers in found.items()
        ),
    )


def fixed(
    frames: Sequence[int], boxes: Iterable[tuple[Box, Way]]
) -> Iterator[Redaction]:
    """Yield what is blanked in all frames without a look."""
    for box, way in boxes:
        yield Redaction(box, tuple(frames), way)


def _look_at(
    pictures: Sequence[Picture], ground: Ground, find: Find
) -> list[tuple[Box, float]]:
    """Return the boxes of one frame, grown; of alike ones the score of the surest."""
    found: dict[Box, float] = {}
    for picture in pictures:
        rest = without(picture, [box for box, _ in ground.fixed])
        for box, score in find(rest):
            if not any(contains(kept, box) for kept in ground.keep):
                wide = grown(box, picture.shape)
                found[wide] = max(score, found.get(wide, 0.0))
    return sorted(found.items(), key=lambda one: (one[0].top, one[0].left))


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
