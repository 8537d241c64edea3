"""Who goes where: keyed hashes, shares and quotas. Pure; no row order matters."""

import hashlib
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import accumulate
from math import ceil, floor, isclose
from typing import Final

from dicomdask.errors import OptionError

DEFAULT_FRACTIONS: Final[Mapping[str, float]] = {"train": 0.8, "val": 0.1, "test": 0.1}
WELL_KNOWN: Final = "1.2.840.10008."
"""Begins the frames of reference of atlases, which are no patient's (PS3.6 A-2)."""

Profile = Hashable
"""What the classes of a group's volumes are; equal ones are shared out together."""

_TINY: Final = 1e-9


def check_fractions(fractions: Mapping[str, float]) -> None:
    """Refuse fractions that share nothing out.

    Raises
    ------
    OptionError
        If there are none, one is not above 0, or they do not sum to 1.
    """
    total = sum(fractions.values())
    if not fractions or not all(fraction > 0 for fraction in fractions.values()):
        raise OptionError(
            "each split has a fraction above 0, such as train=0.8,val=0.1,test=0.1"
        )
    if not isclose(total, 1, abs_tol=1e-6):
        raise OptionError(
            f"the fractions of {', '.join(fractions)} sum to {total:g}; they must sum "
            "to 1"
        )


def unit_hash(patient: str, seed: int) -> float:
    """Return a number in [0, 1) that is the same everywhere and for ever."""
    digest = hashlib.blake2b(
        patient.encode("utf-8", "surrogateescape"),
        key=str(seed).encode(),
        person=b"dicomdask.split",
        digest_size=8,
    ).digest()
    return (int.from_bytes(digest, "big") >> 11) / (1 << 53)  # exact in float64


def group_patients(links: Iterable[tuple[str, str | None]]) -> dict[str, str]:
    """Join patients that share a study or a frame of reference.

    Parameters
    ----------
    links
        A patient, and a UID of one of their volumes or None; in any order.

    Returns
    -------
    dict
        The group of each patient: the name of its first patient in text order.
    """
    first_of: dict[str, str] = {}
    parents: dict[str, str] = {}
    for patient, uid in links:
        parents.setdefault(patient, patient)
        if uid is None or uid.startswith(WELL_KNOWN):
            continue
        one, other = _root(parents, first_of.setdefault(uid, patient)), patient
        other = _root(parents, other)
        parents[max(one, other)] = min(one, other)
    return {patient: _root(parents, patient) for patient in parents}


def _root(parents: dict[str, str], patient: str) -> str:
    while (parent := parents[patient]) != patient:
        parents[patient] = parents[parent]
        patient = parent
    return patient


def by_hash(
    groups: Iterable[str], fractions: Mapping[str, float], seed: int
) -> dict[str, str]:
    """Return the split of each group by its own hash alone: others never move it."""
    names, bounds = list(fractions), list(accumulate(fractions.values()))
    last = len(names) - 1
    return {
        group: names[min(last, bisect_right(bounds, unit_hash(group, seed)))]
        for group in groups
    }


def by_profile(
    groups: Mapping[str, Profile],
    fractions: Mapping[str, float],
    seed: int,
    placed: Mapping[str, str],
) -> dict[str, str]:
    """Return the split of each group, so that each profile is shared out alike.

    Those in `placed` stay; the others fill what their profile lacks in the order of
    their hashes. What cannot be shared out within a profile (of 7 patients, two splits
    get 3 and one is left) goes where all profiles together lack most.

    Parameters
    ----------
    groups
        The profile of each group.
    placed
        The split of groups that have one already, `fractions` naming it.
    """
    strata: dict[Profile, list[str]] = defaultdict(list)
    for group, profile in groups.items():
        strata[profile].append(group)
    found = {group: placed[group] for group in groups if group in placed}
    overall = Counter(found.values())
    share = {name: part * len(groups) for name, part in fractions.items()}
    ordered = sorted(strata.items(), key=lambda one: (-len(one[1]), repr(one[0])))
    for _, members in ordered:
        new = [group for group in members if group not in found]
        new.sort(key=lambda group: (unit_hash(group, seed), group))
        here = Counter(found[group] for group in members if group in found)
        for group in new:
            name = _neediest(fractions, len(members), here, share, overall)
            found[group] = name
            here[name] += 1
            overall[name] += 1
    return found


def _neediest(
    fractions: Mapping[str, float],
    size: int,
    here: Counter[str],
    share: Mapping[str, float],
    overall: Counter[str],
) -> str:
    """Return the split that lacks most: first of a profile's whole seats, then of all.

    No split gets more of a profile than its share rounded up.
    """
    whole = [n for n, part in fractions.items() if here[n] < floor(part * size + _TINY)]
    if whole:
        return max(whole, key=lambda name: fractions[name] * size - here[name])
    free = [n for n, part in fractions.items() if here[n] < ceil(part * size - _TINY)]
    names: Sequence[str] = free or list(fractions)
    return max(names, key=lambda name: share[name] - overall[name])
