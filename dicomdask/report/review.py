"""What a person looks at before a dataset is released: chosen from its tables. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from typing import Any, Final

import pandas as pd

from dicomdask.model import Box, Redaction
from dicomdask.report.devices import (
    Device,
    Looked,
    Names,
    Unit,
    group,
    name_device,
)
from dicomdask.report.pictures import (
    Picture,
    Places,
    counts_of_ways,
    pictures_of,
    with_doubt,
)

N_BLANKED: Final = 12
N_EMPTY: Final = 6
"""How many pictures of a device are shown, of those with and without blanked text."""

LOOKERS: Final = ("person", "detector")
CODES: Final = ("burned-in-risk", "unclean-pixels")
"""Of what was refused for text in its pixels."""

VOLUME_COLUMNS: Final = (
    *("volume_id", "shape", "dimensions", "n_frames", "device_key"),
    *("Manufacturer", "ManufacturerModelName", "Modality"),
    *("text_look", "n_redactions"),
)
REDACTION_COLUMNS: Final = (
    *("volume_id", "SOPInstanceUID", "frames", "top", "left", "bottom", "right"),
    *("way", "score"),
)


@dataclass(frozen=True, slots=True)
class Group:
    """The pictures of one device and size.

    Attributes
    ----------
    unit
        What is counted as a volume.
    ways
        How many regions were found by which way.
    n_blanked, n_empty
        How many pictures there are with and without blanked text.
    blanked, empty
        Some of them, the most doubtful first.
    """

    device: Device
    unit: Unit
    n_volumes: int
    n_frames: int
    ways: Mapping[str, int]
    places: Places
    n_blanked: int
    n_empty: int
    blanked: tuple[Picture, ...]
    empty: tuple[Picture, ...]

    @property
    def doubt(self) -> float:
        """Return the doubt of its most doubtful picture."""
        return max((one.doubt for one in (*self.blanked, *self.empty)), default=0.0)


@dataclass(frozen=True, slots=True)
class Review:
    """All groups, the most doubtful first; how many volumes were not looked at, why."""

    groups: tuple[Group, ...]
    looks: Mapping[str, int]


def looked_at(volumes: pd.DataFrame, names: Names) -> Iterator[Looked]:
    """Yield the volumes that were looked at, or in which a rule blanked something."""
    columns = [volumes[name].tolist() for name in VOLUME_COLUMNS]
    for values in zip(*columns, strict=True):
        row = dict(zip(VOLUME_COLUMNS, values, strict=True))
        if row["text_look"] not in LOOKERS and not _or_none(row["n_redactions"]):
            continue
        sizes = dict(zip(row["dimensions"], row["shape"], strict=True))
        device_key = _or_none(row["device_key"])
        told = (_or_none(row["Manufacturer"]), _or_none(row["ManufacturerModelName"]))
        manufacturer, model, is_named = name_device(device_key, told, names)
        rows, columns_ = int(sizes["y"]), int(sizes["x"])
        device = Device(
            manufacturer,
            model,
            _or_none(row["Modality"]),
            rows,
            columns_,
            None if is_named else device_key,
            is_named,
        )
        n_frames = int(row["n_frames"])
        yield Looked(row["volume_id"], rows, columns_, n_frames, device)


def _or_none(value: Any) -> Any:
    return None if pd.isna(value) else value


def redactions_of(
    redactions: pd.DataFrame,
) -> Mapping[str, list[tuple[str, Redaction]]]:
    """Return SOP Instance UIDs and what is blanked in their frames, by volume."""
    found: dict[str, list[tuple[str, Redaction]]] = defaultdict(list)
    columns = [redactions[name].tolist() for name in REDACTION_COLUMNS]
    for volume_id, uid, frames, *sides, way, score in zip(*columns, strict=True):
        numbers = tuple(int(number) - 1 for number in frames)  # from 1 in DICOM
        one = Redaction(Box(*map(int, sides)), numbers, way, _or_none(score))
        found[volume_id].append((uid, one))
    return found


def make_review(
    volumes: pd.DataFrame,
    redactions: pd.DataFrame,
    names: Names,
    *,
    unit: Unit = "volume",
) -> Review:
    """Return what is to be looked at of a dataset.

    Parameters
    ----------
    volumes, redactions
        The tables.
    names
        Of devices whose names the tables lack.
    unit
        What a row of the volumes is of.
    """
    found = redactions_of(redactions)
    groups = [
        _group(device, members, found, unit)
        for device, members in group(looked_at(volumes, names)).items()
    ]
    groups.sort(key=lambda one: (-one.doubt, -one.n_volumes, repr(one.device)))
    looks = volumes["text_look"].value_counts()
    return Review(tuple(groups), {str(name): int(n) for name, n in looks.items()})


def _group(
    device: Device,
    members: Sequence[Looked],
    found: Mapping[str, list[tuple[str, Redaction]]],
    unit: Unit,
) -> Group:
    pictures = [
        picture
        for volume in members
        for picture in pictures_of(volume, found.get(volume.volume_id, ()))
    ]
    places = Places(pictures if device.rows else ())
    pictures = [with_doubt(one, places) for one in pictures]
    blanked = [one for one in pictures if one.redactions]
    empty = [one for one in pictures if not one.redactions]
    return Group(
        device,
        unit,
        len(members),
        sum(one.n_frames for one in members),
        counts_of_ways(pictures),
        places,
        len(blanked),
        len(empty),
        _most_doubtful(blanked, N_BLANKED),
        _most_doubtful(empty, N_EMPTY),
    )


def _most_doubtful(pictures: Iterable[Picture], n: int) -> tuple[Picture, ...]:
    """Return the most doubtful pictures.

    Names of volumes are keyed digests, so of equals any are chosen, always the same.
    """
    return tuple(
        nsmallest(n, pictures, key=lambda one: (-one.doubt, one.volume.volume_id))
    )
