"""Settle: what a bucket's plan changes against what is committed of its series.

A series is replaced as a whole. Slices that another work directory stored are never
dropped: where the plan lacks them, the series stays as it is.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from dicomdask import plan
from dicomdask.errors import CODES
from dicomdask.model import (
    Committed,
    CommittedSeries,
    Outcome,
    PlannedFrame,
    PlannedVolume,
)
from dicomdask.pseudonym import Key
from dicomdask.tasks.index import make_outcome, stored_outcome

ELSEWHERE: Final = "series-elsewhere"

UidsOf = Callable[[Collection[PlannedVolume]], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Before:
    """One series as it is committed.

    `sources` gives the SOPInstanceUID of each stored source that is not of this work
    directory, and `own` the sources that are.
    """

    states: frozenset[str]
    own: frozenset[str]
    others: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Settled:
    """What becomes of one bucket.

    Of the series in its plan, `added` are new or replaced; `dropped` leave their old
    rows. `inputs` are the outcomes of its inputs, `taken` the sources of another work
    directory whose slices are replaced by the same of this one.
    """

    added: frozenset[str]
    dropped: frozenset[str]
    inputs: Mapping[str, Outcome]
    taken: frozenset[str]
    committed: Committed


def state_of(volume: PlannedVolume) -> str:
    """Return all that may change of a volume while its series stays."""
    return f"{volume.volume_id}/{volume.revision}/{volume.n_duplicates}"


def settle(
    part: plan.Plan,
    inputs: Mapping[str, Outcome],
    before: Mapping[str, Before],
    *,
    uids_of: UidsOf,
    key: Key,
) -> Settled:
    """Settle one bucket.

    Parameters
    ----------
    part
        The bucket's plan.
    inputs
        The outcomes of its inputs by source key, as the plan has them.
    before
        Its series as they are committed.
    uids_of
        Returns the SOPInstanceUID of each source of encoded volumes.
    """
    series: dict[str, list[PlannedVolume]] = defaultdict(list)
    for volume in part.volumes:
        series[volume.series_key].append(volume)
    added, dropped, taken = set[str](), set[str](), set[str]()
    kept: dict[str, Before] = {}
    corrected = dict(inputs)
    for name, volumes in series.items():
        old = before.get(name)
        if old is None:
            added.add(name)
            continue
        same = old.states == set(map(state_of, volumes))
        refused = _refused(volumes, old, same=same, uids_of=uids_of)
        if refused is not None:
            corrected |= _outcomes(refused, key)
        elif not same:
            added.add(name)
            dropped.add(name)
            taken |= set(old.others)
            continue
        kept[name] = old
    spared = {one.source_key for one in part.outcomes if one.outcome == "stored"}
    for name in before.keys() - series.keys():
        old = before[name]
        if old.others or old.own & spared:
            kept[name] = old
        else:
            dropped.add(name)
    held = _held(series, added, kept, corrected)
    return Settled(
        frozenset(added), frozenset(dropped), corrected, frozenset(taken), held
    )


def _frames(volumes: Collection[PlannedVolume]) -> list[PlannedFrame]:
    return [frame for volume in volumes for frame in volume.frames]


def _refused(
    volumes: Collection[PlannedVolume], old: Before, *, same: bool, uids_of: UidsOf
) -> list[tuple[PlannedFrame, str]] | None:
    """Return frames that are not stored, with a code, if the series has to stay.

    It has to where another work directory stored slices that the plan lacks. Where the
    plan has them all, nothing is lost with the series.
    """
    if not old.others:
        return None
    stored, uids = set(old.others.values()), uids_of(volumes)
    if stored <= set(uids.values()) and not same:
        return None
    return [
        (frame, "duplicate" if uids[frame.source_key] in stored else ELSEWHERE)
        for frame in _frames(volumes)
        if frame.source_key not in old.own
    ]


def _outcomes(
    refused: Collection[tuple[PlannedFrame, str]], key: Key
) -> dict[str, Outcome]:
    return {
        frame.source_key: make_outcome(frame, "resolve", code, CODES[code], key)
        for frame, code in refused
    }


def _held(
    series: Mapping[str, Collection[PlannedVolume]],
    added: Collection[str],
    kept: Mapping[str, Before],
    inputs: Mapping[str, Outcome],
) -> Committed:
    """Return what is to be remembered as committed."""
    found = [
        CommittedSeries(
            name,
            tuple(sorted(map(state_of, series[name]))),
            tuple(frame.source_key for frame in _frames(series[name])),
            tuple(frame.size for frame in _frames(series[name])),
        )
        for name in sorted(added)
    ]
    for name, old in sorted(kept.items()):
        own = sorted(old.own & inputs.keys())
        sizes = tuple(inputs[source].source_bytes for source in own)
        found.append(
            CommittedSeries(name, tuple(sorted(old.states)), tuple(own), sizes)
        )
    stored = {source for one in found for source in one.sources}
    others = tuple(one for name, one in sorted(inputs.items()) if name not in stored)
    return Committed(tuple(found), others)


def recall(committed: Committed) -> tuple[dict[str, Before], dict[str, Outcome]]:
    """Return the series and the outcomes of what was remembered of a bucket."""
    series = {
        one.series_key: Before(frozenset(one.states), frozenset(one.sources))
        for one in committed.series
    }
    inputs = {one.source_key: one for one in committed.outcomes}
    for one in committed.series:
        for source, size in zip(one.sources, one.sizes, strict=True):
            inputs[source] = stored_outcome(source, size)
    return series, inputs
