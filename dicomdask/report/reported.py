"""What `report` says in a terminal of the page that it wrote."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from dicomdask.report.cards import counts_text, device_text, has_rule
from dicomdask.report.page import Heading, counts
from dicomdask.report.review import Group, Review
from dicomdask.report.rules import rule_text

N_DEVICES: Final = 10


@dataclass(frozen=True, slots=True)
class Reported:
    """A page that was written, and what it comes to."""

    page: str
    nbytes: int
    heading: Heading
    review: Review
    n_shown: int

    @property
    def _told(self) -> Sequence[Group]:
        """Return the devices that may be named outside of the page."""
        return () if self.heading.is_identified else self.review.groups

    @property
    def _counts(self) -> list[tuple[int, str]]:
        return counts(self.heading, self.review, self.n_shown)

    def document(self) -> dict[str, Any]:
        """Return it as plain data: the rules too, for whoever has no browser."""
        return {
            "page": self.page,
            "bytes": self.nbytes,
            "is_identified": self.heading.is_identified,
            "counts": {told: n for n, told in self._counts},
            "devices": [_device_document(one) for one in self._told],
        }

    def text(self) -> str:
        """Return what people read of it."""
        lines = [f"{n:>8,}  {what}" for n, what in self._counts]
        first = self._told[:N_DEVICES]
        lines += [f"  {device_text(one.device)}: {counts_text(one)}" for one in first]
        if len(self._told) > N_DEVICES:
            lines.append(f"  and {len(self._told) - N_DEVICES:,} more, on the page")
        if self.heading.is_identified:
            lines.append("identified: leave it in the work directory, and delete it")
        return "\n".join([*lines, f"open {self.page}"])


def _device_document(group: Group) -> dict[str, Any]:
    return {
        "device": device_text(group.device),
        "volumes": group.n_volumes,
        "frames": group.n_frames,
        "regions": dict(sorted(group.ways.items())),
        "doubt": group.doubt,
        "rule": rule_text(group.device, group.places) if has_rule(group) else None,
    }
