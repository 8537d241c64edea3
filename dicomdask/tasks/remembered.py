"""What a work directory committed last, and what is to be compared with it."""

from dataclasses import asdict, dataclass
from typing import Final

from dicomdask import commits, plan
from dicomdask.commits import Commit
from dicomdask.work import Work

NOTE: Final = "committed.json"


@dataclass(frozen=True, slots=True)
class Remembered:
    """What this work directory committed last.

    `commit` is the identity of the commit; `is_alone` says that the store held nothing
    of another work directory. `parts` are those of the manifest that were in it, and
    `plans` the tokens of the parts of the plan.
    """

    commit: str
    is_alone: bool
    parts: tuple[str, ...]
    plans: dict[str, str]


def read_remembered(work: Work) -> Remembered | None:
    """Return what was committed last; None where that is not known."""
    try:
        found: Remembered = plan.from_plain(Remembered, work.read_note(NOTE))
    except TypeError:
        return None
    return found


def as_of(remembered: Remembered | None, commit: Commit | None) -> Remembered | None:
    """Return what is remembered if it is of this commit: nobody committed since."""
    if remembered is None or commit is None:
        return None
    return remembered if remembered.commit == commits.identity(commit) else None


def write_remembered(work: Work, remembered: Remembered | None) -> None:
    """Remember what is committed, or that it is about to change."""
    work.write_note(remembered and asdict(remembered), NOTE)


def open_buckets(work: Work, remembered: Remembered | None) -> list[str]:
    """Return the buckets whose plan may differ from what is remembered."""
    plans = remembered.plans if remembered else {}
    states = work.plan_states()
    return sorted(name for name, token in states.items() if plans.get(name) != token)
