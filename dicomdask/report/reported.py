"""What `report` says in a terminal of the page that it wrote."""

from dataclasses import dataclass
from typing import Any, Final

from dicomdask.report.cards import counts_text, device_text, has_rule
from dicomdask.report.page import Heading, counts
from dicomdask.report.review import Review
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

    def document(self) -> dict[str, Any]:
        """Return it as plain data: the rules too, for whoever has no browser."""
        return {
            "page": self.page,
            "bytes": self.nbytes,
            "is_identified": self.heading.is_identified,
            "counts": {told: n for n, told in self._counts()},
            "devices": [
                {
                    "device": device_text(one.device),
                    "volumes": one.n_volumes,
                    "frames": one.n_frames,
                    "regions": dict(sorted(one.ways.items())),
                    "doubt": one.doubt,
                    "rule": rule_text(one.device, one.places)
                    if has_rule(one)
                    else None,
                }
                for one in self.review.groups
            ],
        }

    def text(self) -> str:
        """Return what people read of it."""
        told = [f"{n:>8,}  {what}" for n, what in self._counts()]
        devices = [
            f"  {device_text(one.device)}: {counts_text(one)}"
            for one in self.review.groups[:N_DEVICES]
        ]
        more = len(self.review.groups) - len(devices)
        if more > 0:
            devices.append(f"  and {more:,} more, on the page")
        warning = (
            ["IDENTIFIED: keep it in the work directory, delete it after the review"]
            if self.heading.is_identified
            else []
        )
        return "\n".join([*told, *devices, *warning, f"open {self.page}"])

    def _counts(self) -> list[tuple[int, str]]:
        return counts(self.heading, self.review, self.n_shown)
