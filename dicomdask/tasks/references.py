"""What is seen in the few images of a series that its others are compared with.

Where text was found in them is noted in the work directory, so that whichever worker
needs one after that looks at nothing. Their pixels are decoded anew, and kept nowhere.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from dicomdask import pixels, plan
from dicomdask.burnedin import Kin, Seen
from dicomdask.errors import InputError
from dicomdask.model import Box, PlannedFrame, PlannedVolume
from dicomdask.policy import Policy
from dicomdask.pseudonym import Key
from dicomdask.tasks import looks
from dicomdask.tasks.barrier import guard
from dicomdask.tasks.decode import decode, parse, read_header
from dicomdask.tasks.sources import Portion, fetch, portions, take
from dicomdask.tasks.watch import watched
from dicomdask.work import Work

Call = Callable[..., Any]
"""Calls a function here or apart; it knows about how many bytes that takes."""


@dataclass(frozen=True, slots=True)
class _Noted:
    """Where text was found in a reference."""

    boxes: tuple[Box, ...] = ()
    scores: tuple[float, ...] = ()


def here(function: Callable[..., Any], *args: Any, nbytes: int = 0) -> Any:
    """Call a function in this process, which ends where it hangs."""
    with watched(nbytes):
        return guard(function, *args)


class References:
    """What is seen in the references of a volume; those of the last one are held.

    Parameters
    ----------
    work
        Where it is noted.
    policy, key
        Those of the job.
    """

    def __init__(self, work: Work, policy: Policy, key: Key) -> None:
        self._work, self._policy, self._key = work, policy, key
        self._held: dict[str, Seen | None] = {}

    def of(
        self, volume: PlannedVolume, file: PlannedFrame, call: Call = here
    ) -> tuple[Seen, ...]:
        """Return what a file of a volume is compared with: a reference with itself.

        A reference that cannot be looked at is left out: its own task refuses it, and
        its series is planned again without it.
        """
        names = {self._name(one): one for one in volume.references}
        self._held = {name: self._held[name] for name in names if name in self._held}
        own = {name: one for name, one in names.items() if one.url == file.url}
        for name, one in (own or names).items():
            if name not in self._held:
                self._held[name] = self._seen(volume, one, name, call)
        found = (self._held[name] for name in own or names)
        return tuple(one for one in found if one is not None)

    def _name(self, file: PlannedFrame) -> str:
        state = (file.source_key, str(file.size), file.token)
        return self._key.digest("reference", *state, self._policy.digest)

    def _seen(
        self, volume: PlannedVolume, file: PlannedFrame, name: str, call: Call
    ) -> Seen | None:
        note = ("looks", name[:2], f"{name}.json")
        try:
            noted = plan.from_plain(_Noted, self._work.read_note(*note))
            told = tuple(zip(noted.boxes, noted.scores, strict=True))
        except (TypeError, ValueError):
            told = None
        [(portion, fetched)] = fetch(portions(volume, [file]))
        try:
            data = guard(take, portion, fetched)
            nbytes = len(data) + portion.frame_bytes
            lone = replace(volume, frames=(), references=())
            args = (portion, data, lone, self._policy, told)
            seen: Seen = call(_see, *args, nbytes=nbytes)
        except InputError:
            return None
        if told is None:
            boxes, scores = zip(*seen.found, strict=True) if seen.found else ((), ())
            self._work.write_note(asdict(_Noted(boxes, scores)), *note)
        return seen


def _see(
    portion: Portion,
    data: bytes,
    volume: PlannedVolume,
    policy: Policy,
    told: looks.Found | None,
) -> Seen:
    dataset = parse(portion, data, volume)
    decoder = pixels.FrameDecoder(dataset)
    [(_, plane)] = decode(decoder, portion)
    described = read_header(portion, data)
    return looks.see(
        dataset, described, policy, form=decoder.form, plane=plane, told=told
    )


HELD_BYTES: Final = 128 << 20
LAST_SEEN: Final = 4


class Neighbours:
    """What was seen in the last files of a batch, by what they have in common."""

    def __init__(self) -> None:
        self._held: dict[Kin, deque[Seen]] = {}

    def of(self, kin: Kin | None) -> tuple[Seen, ...]:
        """Return what a file is compared with, what was seen last first."""
        return tuple(reversed(self._held.get(kin, ()))) if kin else ()

    def add(self, kin: Kin | None, seen: Seen | None) -> None:
        """Hold what was seen in a file, and no more of what is longest ago."""
        if kin is None or seen is None:
            return
        mine = self._held.pop(kin, deque(maxlen=LAST_SEEN))
        mine.append(seen)
        self._held[kin] = mine
        while self._held and self._nbytes() > HELD_BYTES:
            del self._held[next(iter(self._held))]

    def _nbytes(self) -> int:
        every = (seen for some in self._held.values() for seen in some)
        return sum(picture.nbytes for seen in every for picture in seen.pictures)
