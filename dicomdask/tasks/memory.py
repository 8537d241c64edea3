"""What a work directory committed last, and what is to be compared with it."""

from dataclasses import asdict, dataclass
from typing import Final

from dicomdask import commits, plan
from dicomdask.commits import Commit
from dicomdask.work import Work

NOTE: Final = "committed.json"


@dataclass(frozen=True, slots=True)
class Memory:
    """What this work directory committed last.

    `commit` is the identity of the commit; `is_alone` says that the store held nothing
    of another work directory. `parts` are those of the manifest that were in it, and
    `plans` the tokens of the parts of the plan.
    """

    commit: str
    is_alone: bool
    parts: tuple[str, ...]
    plans: dict[str, str]


def read_memory(work: Work) -> Memory | None:
    """Return what was committed last; None where that is not known."""
    try:
        found: Memory = plan.from_plain(Memory, work.read_note(NOTE))
    except TypeError:
        return None
    return found


def as_of(memory: Memory | None, commit: Commit | None) -> Memory | None:
    """Return what is remembered if it is of this commit: nobody committed since."""
    if memory is None or commit is None:
        return None
    return memory if memory.commit == commits.identity(commit) else None


def write_memory(work: Work, memory: Memory | None) -> None:
    """Remember what is committed, or that it is about to change."""
    work.write_note(memory and asdict(memory), NOTE)


def open_buckets(work: Work, memory: Memory | None) -> list[str]:
    """Return the buckets whose plan may differ from what is remembered."""
    plans = memory.plans if memory else {}
    states = work.plan_states()
    return sorted(name for name, token in states.items() if plans.get(name) != token)
