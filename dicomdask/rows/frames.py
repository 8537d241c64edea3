"""The frames of one shard after they were decoded, de-identified."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from dicomdask.model import Meaning, PlannedFrame, Redaction
from dicomdask.rows.header import Header, attribute

_NONE: Final[Header] = {}
FRAME_TEXTS: Final = ("modality_lut", "display")
LONG_TEXTS: Final = (*FRAME_TEXTS, "real_world_values")
"""Fields that hold tables as text; the former are told by frame where they differ."""
ONLY: Final = ("slope", "intercept", "site_key", "device_key", "text_look")
"""Columns of a volume that hold what all of its frames or instances share."""


@dataclass(frozen=True, slots=True)
class EncodedInstance:
    """What is known of one instance after its frames were decoded, de-identified.

    `text_look` says who looked for text in its pixels, `redactions` what was blanked in
    the frames that were decoded together. `region` is what part of the body its header
    speaks of: see `faces.region_of`.
    """

    source_key: str
    header: Header
    transfer_syntax_uid: str
    site_key: str | None
    device_key: str | None
    text_look: str = "none"
    redactions: tuple[Redaction, ...] = ()
    region: str = "unknown"


@dataclass(frozen=True, slots=True)
class EncodedFrame:
    """What is known of one frame after it was decoded, de-identified.

    `header` is what the header says of this frame alone, as text: its functional
    groups; None in an object of one frame. `time_ms` counts from the first frame of a
    cine.
    """

    planned: PlannedFrame
    meaning: Meaning
    header: str | None = None
    time_ms: float | None = None


class Frames:
    """The frames of one shard; a header is held as what differs from the first one."""

    def __init__(self) -> None:
        self.text_bytes = 0
        self._first: Header = {}
        self._varying: set[str] = set()
        self._held: list[tuple[EncodedInstance, str]] = []
        self._frames: list[tuple[EncodedFrame, str | None]] = []
        self._texts: dict[str | None, str | None] = {None: None}
        self._blanked: dict[tuple[str, Redaction], list[int]] = {}

    def add(self, instance: EncodedInstance, frames: Sequence[EncodedFrame]) -> None:
        """Take frames of one instance; its header counts where it comes first."""
        uid = attribute(instance.header, "SOPInstanceUID")
        if instance.source_key not in {one.source_key for one, _ in self._held[-1:]}:
            self._add_header(instance)
        for one in instance.redactions:
            place = instance.source_key, replace(one, frames=())
            self._blanked.setdefault(place, []).extend(one.frames)
        self.text_bytes += sum(len(frame.header or "") for frame in frames)
        self._frames += [(self._shared(frame), uid) for frame in frames]

    def _shared(self, frame: EncodedFrame) -> EncodedFrame:
        """Return a frame whose texts are those that are held already, if they are."""
        for name in LONG_TEXTS:
            text = getattr(frame.meaning, name)
            if text not in self._texts:
                self.text_bytes += len(text)
        texts: dict[str, Any] = {
            name: self._texts.setdefault(text, text)
            for name in LONG_TEXTS
            for text in [getattr(frame.meaning, name)]
        }
        return replace(frame, meaning=replace(frame.meaning, **texts))

    def _add_header(self, instance: EncodedInstance) -> None:
        self._first = self._first if self._held else instance.header
        other = {
            tag: instance.header.get(tag)
            for tag in self._first.keys() | instance.header.keys()
            if instance.header.get(tag) != self._first.get(tag)
        }
        text = json.dumps(other, separators=(",", ":"))
        self.text_bytes += len(text)
        self._varying |= other.keys()
        self._held.append((replace(instance, header=_NONE), text))

    def say(self, tag: str, element: Mapping[str, Any]) -> None:
        """Set an element in the headers of all instances."""
        self._first = {**self._first, tag: element}
        self._varying.discard(tag)
        told = ((one, json.loads(text)) for one, text in self._held)
        self._held = [
            (one, json.dumps({t: e for t, e in own.items() if t != tag}))
            for one, own in told
        ]

    @property
    def constant(self) -> dict[str, Any]:
        """Return the elements that all headers share, value and all."""
        return {t: e for t, e in self._first.items() if t not in self._varying}

    @property
    def first(self) -> EncodedInstance:
        """Return the first instance."""
        return next(self.instances())

    def only(self, name: str) -> Any:
        """Return the value of a field that all frames share, or None."""
        return only(self.every(name))

    def every(self, name: str) -> set[Any]:
        """Return the values of a field over all frames."""
        return {getattr(frame.meaning, name) for frame, _ in self._frames}

    @property
    def warnings(self) -> list[str]:
        """Return what any of the frames warns of."""
        return sorted({one for told in self.every("warnings") for one in told})

    def only_of_instances(self, name: str) -> Any:
        """Return the value of a field that all instances share, or None."""
        return only({getattr(one, name) for one, _ in self._held})

    @property
    def regions(self) -> set[str]:
        """Return what parts of the body the headers speak of."""
        return {one.region for one, _ in self._held}

    def redactions(self) -> Iterator[tuple[str, Redaction]]:
        """Yield what was blanked, each region once, with the key of its source."""
        for (source, one), frames in self._blanked.items():
            yield source, replace(one, frames=tuple(sorted(set(frames))))

    def __len__(self) -> int:
        return len(self._frames)

    def __iter__(self) -> Iterator[tuple[EncodedFrame, str | None]]:
        """Yield each frame with the SOP Instance UID of its instance."""
        return iter(self._frames)

    def instances(self) -> Iterator[EncodedInstance]:
        """Yield each instance, its header whole."""
        for instance, text in self._held:
            found = {**self._first, **json.loads(text)}
            header = {tag: e for tag, e in found.items() if e is not None}
            yield replace(instance, header=header)


def only(found: set[Any]) -> Any:
    """Return the one value of a set, or None."""
    return found.pop() if len(found) == 1 else None
