"""From instances to a plan: every instance ends in a volume or in an outcome."""

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from dicomdask import burnedin, pixels
from dicomdask.errors import CODES, InputError, OptionError
from dicomdask.model import Instance, Outcome, PlannedVolume, Settings, column_name
from dicomdask.plan.references import with_references
from dicomdask.plan.split import split_series
from dicomdask.plan.stack import Refusal, Stack
from dicomdask.plan.tasks import volume_tasks
from dicomdask.plan.volume import plan_volume, series_key, source_key
from dicomdask.plan.where import check_where
from dicomdask.policy import Policy
from dicomdask.pseudonym import Key

WIDE_GAP: Final = (
    "A gap is wider than the slices of a shard; use --on-irregular split to store the "
    "pieces."
)


@dataclass(frozen=True, slots=True)
class Plan:
    """Volumes to encode, and what became of the inputs that are in none."""

    volumes: tuple[PlannedVolume, ...]
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True, slots=True)
class Rules:
    """What decides the plan besides the instances."""

    settings: Settings
    policy: Policy
    key: Key
    duplicates: Mapping[str, int]


def plan_instances(
    instances: Sequence[Instance],
    settings: Settings,
    *,
    policy: Policy,
    key: Key,
    duplicates: Mapping[str, int] | None = None,
) -> Plan:
    """Plan whole series.

    Parameters
    ----------
    instances
        All instances of the series, in any order, each SOP Instance UID once.
    settings, policy, key
        What decides the output.
    duplicates
        How many further copies each SOP Instance UID has.
    """
    rules = Rules(settings, policy, key, duplicates or {})
    made = [
        result
        for _, series in sorted(_group_by_series(instances, key).items())
        for result in _plan_series(series, rules)
    ]
    volumes = (one for one in made if isinstance(one, PlannedVolume))
    outcomes = (one for one in made if isinstance(one, Outcome))
    return Plan(
        tuple(sorted(volumes, key=lambda volume: volume.volume_id)),
        tuple(sorted(outcomes, key=lambda outcome: outcome.source_key)),
    )


def _group_by_series(
    instances: Sequence[Instance], key: Key
) -> Mapping[str, list[Instance]]:
    groups: dict[str, list[Instance]] = defaultdict(list)
    for instance in instances:
        groups[series_key(instance, key)].append(instance)
    return groups


def _plan_series(
    series: Sequence[Instance], rules: Rules
) -> Iterator[PlannedVolume | Outcome]:
    fit: list[Instance] = []
    for instance in series:
        try:
            check_instance(instance, rules.policy)
        except InputError as error:
            yield refuse(instance, error.code, error.reason, rules.key)
        else:
            fit.append(instance)
    while fit:
        made = _try_volumes(fit, rules)
        refused = _refused(made)
        stored = [one for one in made if isinstance(one, PlannedVolume)]
        yield from (refuse(*told, rules.key) for told in refused.values())
        # An object is stored with all of its frames, or not at all.
        if not any(frame.url in refused for one in stored for frame in one.frames):
            yield from with_references(stored, fit, rules.policy, rules.key)
            return
        fit = [instance for instance in fit if instance.url not in refused]


def _try_volumes(
    series: Sequence[Instance], rules: Rules
) -> list[PlannedVolume | Refusal]:
    results = split_series(series, rules.settings.on_irregular)
    return [
        one if isinstance(one, Refusal) else _try_volume(one, rules) for one in results
    ]


def _try_volume(stack: Stack, rules: Rules) -> PlannedVolume | Refusal:
    try:
        volume = plan_volume(
            stack,
            rules.settings,
            policy_digest=rules.policy.digest,
            key=rules.key,
            duplicates=rules.duplicates,
        )
        if stack.missing and not all(task.frames for task in volume_tasks(volume)):
            raise InputError("missing-slices", WIDE_GAP)
        looks = {burnedin.look_of(one, rules.policy) for one in stack.instances}
        return dataclasses.replace(volume, look=burnedin.why_none(looks))
    except InputError as error:
        return Refusal(stack.instances, error.code, error.reason)


def _refused(
    results: Sequence[PlannedVolume | Refusal],
) -> dict[str, tuple[Instance, str, str | None]]:
    """Return the instances that are refused by URL, each with its first reason."""
    found: dict[str, tuple[Instance, str, str | None]] = {}
    for result in results:
        if isinstance(result, Refusal):
            for instance in result.instances:
                told = (instance, result.code, result.reason)
                found.setdefault(instance.url, told)
    return found


def check_instance(instance: Instance, policy: Policy) -> None:
    """Raise InputError for what may not or cannot be stored, by its header alone."""
    pixels.check_pixels(instance)
    if burnedin.look_of(instance, policy) is None:
        raise InputError("burned-in-risk")


def refuse(instance: Instance, code: str, reason: str | None, key: Key) -> Outcome:
    """Return the outcome of an instance that the plan rejects."""
    return Outcome(
        source_key=source_key(instance.url, key),
        outcome="rejected",
        stage="plan",
        code=code,
        reason=reason or CODES[code],
        source_bytes=instance.size,
    )


def filter_instances(
    instances: Sequence[Instance], where: str
) -> tuple[list[Instance], list[Instance]]:
    """Return the instances for which an expression holds, and the others.

    Parameters
    ----------
    where
        An expression over DICOM keywords; see `check_where`.

    Raises
    ------
    OptionError
        If the expression cannot be evaluated.
    """
    check_where(where)
    table = pd.DataFrame(list(map(_fields, instances)))
    table.columns = pd.Index([column_name(name) for name in table.columns])
    try:
        holds: Any = table.eval(where, engine="python", local_dict={}, global_dict={})
        if not pd.api.types.is_bool_dtype(holds) or len(holds) != len(table):
            raise TypeError("not one truth value for each instance")
        kept = set(table.index[holds])
    except Exception as error:  # noqa: BLE001 - pandas raises anything here
        raise OptionError(
            f"--where cannot be evaluated ({type(error).__name__}); write an "
            "expression over DICOM keywords, such as \"Modality == 'CT'\""
        ) from None
    chosen = [one for number, one in enumerate(instances) if number in kept]
    others = [one for number, one in enumerate(instances) if number not in kept]
    return chosen, others


def _fields(instance: Instance) -> dict[str, Any]:
    names = (field.name for field in dataclasses.fields(instance))
    return {name: getattr(instance, name) for name in names}
