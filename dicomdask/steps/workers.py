"""The workers of a scheduler that somebody else started: asked before they work."""

from collections import Counter
from typing import Any

from dicomdask.errors import PlanError
from dicomdask.pipeline import Runner
from dicomdask.pseudonym import Key
from dicomdask.tasks import ready
from dicomdask.work import Work


def check_workers(
    runner: Runner, work: Work, key: Key, *, store: str | None = None
) -> None:
    """Check that each worker reaches and resolves by itself what its work needs.

    Parameters
    ----------
    store
        The store once its first object is written; None before.

    Raises
    ------
    PlanError
        If some cannot: which ability they lack, how many, and what helps.
    """
    if runner.is_own:
        return
    wanted = ready.describe_run(work, key, store=store)
    answers = runner.ask_workers(ready.lacking, wanted)
    problems = describe_problems(answers)
    if problems:
        raise PlanError("; ".join(problems))


def describe_problems(answers: list[Any]) -> list[str]:
    """Return one clause for each ability that workers lack; none where all is well.

    Parameters
    ----------
    answers
        One a worker: the names of what it lacks, or the exception that it raised.
    """
    lacks = Counter(
        name
        for answer in answers
        for name in (["version"] if isinstance(answer, Exception) else answer)
    )
    return [
        f"{lacks[name]} of {len(answers)} workers cannot {ability}"
        for name, ability in ready.ABILITIES.items()
        if lacks[name]
    ]
