"""Choose the images of a series that its others are compared with, in search of text.

What looks for text takes a second for an image. So a few images of those that are alike
are looked at as a whole, and each other where it differs. Which they are depends on
their UIDs and the key alone: another image changes them rarely, another order never.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from dicomdask import burnedin
from dicomdask.model import Instance, PlannedFrame, PlannedVolume
from dicomdask.plan.volume import state_of
from dicomdask.policy import Policy
from dicomdask.pseudonym import Key

REFERENCES: Final = 3
"""So many images of those that are alike are looked at as a whole."""


def with_references(
    volumes: Sequence[PlannedVolume],
    instances: Iterable[Instance],
    policy: Policy,
    key: Key,
) -> list[PlannedVolume]:
    """Return the volumes of one series with the images that theirs are compared with.

    A reference is compared with itself only. The states of others go into the revision:
    what is blanked depends on them.

    Parameters
    ----------
    volumes
        All that are planned of the series.
    instances
        Those of their frames, and perhaps others.
    """
    at_risk = [one for one in volumes if one.look is None]
    frames = {frame.url: frame for one in at_risk for frame in one.frames}
    chosen = _chosen([one for one in instances if one.url in frames], policy, key)
    return [_with(volume, chosen, frames, key) for volume in volumes]


Chosen = dict[str, list[Instance]]


def _with(
    volume: PlannedVolume, chosen: Chosen, frames: Mapping[str, PlannedFrame], key: Key
) -> PlannedVolume:
    mine = {frame.url for frame in volume.frames}
    used = {state_of(one): one.url for url in mine for one in chosen.get(url, ())}
    if not used:
        return volume
    references = tuple(frames[url] for _, url in sorted(used.items()))
    revision = volume.revision
    if mine != {*used.values()}:
        revision = key.digest("revision", revision, *sorted(used), nbytes=8)
    return replace(volume, revision=revision, references=references)


def _chosen(instances: Iterable[Instance], policy: Policy, key: Key) -> Chosen:
    """Return the references of each instance that is compared, by its URL."""
    groups: dict[burnedin.Kin, list[Instance]] = defaultdict(list)
    for one in instances:
        kin = burnedin.kin_of(one, policy)
        if kin is not None:
            groups[kin].append(one)
    found: Chosen = {}
    for group in groups.values():
        if len(group) <= REFERENCES:
            continue
        ranks = {
            one.url: key.digest("reference", one.sop_instance_uid) for one in group
        }
        few = sorted(group, key=lambda one: ranks[one.url])[:REFERENCES]
        found |= {one.url: few for one in group}
        found |= {one.url: [one] for one in few}
    return found
