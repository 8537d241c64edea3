"""Look at the pixels of an instance that may hold text, or refuse it."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileDataset

from dicomdask import burnedin, pixels
from dicomdask.burnedin import detector
from dicomdask.errors import InputError
from dicomdask.model import Box, Instance, Look, Redaction
from dicomdask.policy import Policy
from dicomdask.tasks.barrier import guard_as

Plane = np.ndarray[Any, np.dtype[Any]]

MISSED: Final = (
    "The header says that there is text in the pixels, and none was found; look "
    "yourself, and say what you saw by a [[pixels]] rule in a policy file."
)


@dataclass(frozen=True, slots=True)
class Looked:
    """Who looked at the pixels of an instance, and what is to be blanked in them.

    `seen` is what others of its series may be compared with.
    """

    by: Look
    redactions: tuple[Redaction, ...] = ()
    seen: burnedin.Seen | None = None

    def boxes(self, number: int) -> list[Box]:
        """Return what is to be blanked in a frame, from 0."""
        return [one.box for one in self.redactions if number in one.frames]


def need(instance: Instance, policy: Policy) -> Look:
    """Return who has to look at an instance's pixels.

    Raises
    ------
    InputError
        `burned-in-risk` where nobody would, though it may hold text.
    """
    by = burnedin.look_of(instance, policy)
    if by is None:
        raise InputError("burned-in-risk")
    return by


def look(
    dataset: Dataset,
    instance: Instance,
    policy: Policy,
    by: Look,
    *,
    form: Any,
    frames: Sequence[int],
    plane_of: Callable[[int], Plane],
    seen: Sequence[burnedin.Seen] = (),
) -> Looked:
    """Look at some frames of an instance for text.

    Parameters
    ----------
    dataset, instance
        The instance, parsed.
    by
        Who has to look: one of `LOOKERS`.
    form
        How its pixels are written.
    frames
        The numbers of the frames, from 0.
    plane_of
        Returns the decoded frame of a number.
    seen
        What was seen in others of the series: a single image is compared with them.

    Raises
    ------
    InputError
        `unclean-pixels` where the look failed, or the header says that there is text
        and none was found; or what decoding raises.
    """
    known = burnedin.known_of(instance, policy)
    ground = _ground(dataset, instance, known)
    if by == "person":
        return Looked(by, tuple(burnedin.fixed(frames, ground.fixed)))

    def pictures_of(number: int) -> Sequence[Any]:
        return pixels.pictures(dataset, form, plane_of(number), number)

    eye = (pictures_of, ground, detector.find_text)
    mine = None
    if instance.number_of_frames == 1 and not instance.is_mosaic:
        found, mine = blame(burnedin.look_beside, *eye, seen)
    else:
        found = blame(burnedin.look, frames, *eye)
    if not found and (instance.burned_in_annotation or "").strip().upper() == "YES":
        raise InputError("unclean-pixels", MISSED)
    return Looked(by, found, mine)


Found = Sequence[tuple[Box, float]]


def see(
    dataset: Dataset,
    instance: Instance,
    policy: Policy,
    *,
    form: Any,
    plane: Plane,
    told: Found | None = None,
) -> burnedin.Seen:
    """Return what is seen in an image that others of its series are compared with.

    Parameters
    ----------
    dataset, instance
        The instance, parsed.
    form
        How its pixels are written.
    plane
        Its decoded frame.
    told
        What was found in it before; None: a detector looks.

    Raises
    ------
    InputError
        As `look`.
    """
    ground = _ground(dataset, instance, burnedin.known_of(instance, policy))

    def pictures_of(number: int) -> Sequence[Any]:
        return pixels.pictures(dataset, form, plane, number)

    if told is None:
        eye = (pictures_of, ground, detector.find_text)
        seen: burnedin.Seen = blame(burnedin.look_beside, *eye)[1]
        return seen
    return burnedin.recall(pictures_of, ground, told)


def look_at(
    dataset: Dataset,
    instance: Instance,
    policy: Policy,
    form: Any,
    planes: Mapping[int, Plane],
    seen: Sequence[burnedin.Seen] = (),
) -> tuple[Looked, Iterator[tuple[int, Plane]]]:
    """Return who looked at decoded frames, and the frames with what was found blank.

    Parameters
    ----------
    planes
        Decoded frames by their numbers, from 0.
    seen
        As in `look`.

    Raises
    ------
    InputError
        As `need` and `look`.
    """
    by = need(instance, policy)
    if by not in burnedin.LOOKERS:
        return Looked(by), iter(planes.items())
    looked = look(
        *(dataset, instance, policy, by),
        form=form,
        frames=list(planes),
        plane_of=planes.__getitem__,
        seen=seen,
    )
    return looked, (
        (n, blame(pixels.blank, plane, looked.boxes(n), form.photometric))
        for n, plane in planes.items()
    )


def look_at_file(
    dataset: FileDataset,
    instance: Instance,
    policy: Policy,
    by: Look,
    seen: Sequence[burnedin.Seen] = (),
) -> tuple[Looked, FileDataset]:
    """Return who looked at all frames of a file, and it with what was found blank.

    Raises
    ------
    InputError
        As `look`, `pixels.FrameDecoder` and `pixels.blank_frames`.
    """
    if by not in burnedin.LOOKERS:
        return Looked(by), dataset
    decoder = pixels.FrameDecoder(dataset)
    frames = range(len(decoder))
    looked = look(
        *(dataset, instance, policy, by),
        form=decoder.form,
        frames=frames,
        plane_of=decoder.decode,
        seen=seen,
    )
    boxes = [looked.boxes(number) for number in frames]
    if any(boxes):
        dataset = blame(pixels.blank_frames, dataset, boxes).dataset
    dataset.BurnedInAnnotation = "NO"
    return looked, dataset


def to_texts(redactions: Iterable[Redaction]) -> tuple[str, ...]:
    """Return redactions as a row in the work directory holds them; frames from 1."""
    return tuple(
        json.dumps(
            {
                "frames": [number + 1 for number in one.frames],
                **asdict(one.box),
                "way": one.way,
                "score": one.score,
            }
        )
        for one in redactions
    )


def _ground(
    dataset: Dataset, instance: Instance, known: burnedin.Known
) -> burnedin.Ground:
    rows, columns = instance.shape
    whole = (
        Box(b.top, b.left, min(b.bottom, rows), min(b.right, columns))
        for b in known.blank
        if b.top < rows and b.left < columns
    )
    fixed: list[tuple[Box, Any]] = [(box, "rule") for box in whole]
    if not known.is_looked:
        outside = burnedin.outside_regions(dataset, instance.shape)
        fixed += [(box, "region") for box in outside]
    return burnedin.Ground(tuple(fixed), known.keep)


def blame(function: Callable[..., Any], *args: Any) -> Any:
    """Call what cleans pixels; what is unforeseen is that they are not clean."""
    told = "The pixels could not be cleaned"
    return guard_as("unclean-pixels", told, function, *args)
