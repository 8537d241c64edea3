"""Whose pictures are shown: volumes that were looked at, by device and size. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

MANY_SIZES: Final = 8
FEW_VOLUMES: Final = 3
"""A device of more sizes than that: those of fewer volumes are shown together."""

Unit = Literal["volume", "file"]
"""What is looked at as one: a volume of a dataset, or a file of `deidentify`."""

Names = Mapping[str, tuple[str, str]]
"""By device_key: manufacturer and model of the sources, empty where they lack."""


@dataclass(frozen=True, slots=True)
class Device:
    """What makes pictures of one kind, as a rule of a policy file names it.

    Attributes
    ----------
    manufacturer, model
        Of the tables or, where the policy keeps none, of the sources.
    rows, columns
        None where they differ from picture to picture.
    device_key
        Stands for the names where they are not known.
    is_named
        Whether its names are known: a rule could be written for it.
    """

    manufacturer: str | None
    model: str | None
    modality: str | None
    rows: int | None
    columns: int | None
    device_key: str | None
    is_named: bool


@dataclass(frozen=True, slots=True)
class Looked:
    """A volume, or a file, at whose pixels somebody or something has looked."""

    volume_id: str
    rows: int
    columns: int
    n_frames: int
    device: Device


def name_device(
    device_key: str | None,
    names: tuple[str | None, str | None],
    found: Names,
) -> tuple[str | None, str | None, bool]:
    """Return manufacturer, model, and whether they are all that the sources say.

    A name that the tables lack may be missing in the sources or not kept by the policy,
    which nobody can tell from the tables alone; but what has no key has no name either.
    """
    manufacturer, model = names
    if device_key is None or (manufacturer and model):
        return manufacturer, model, True
    told = found.get(device_key)
    if told is None:
        return manufacturer, model, False
    return told[0] or None, told[1] or None, True


def group(volumes: Iterable[Looked]) -> dict[Device, list[Looked]]:
    """Return volumes by device and size.

    Boxes of one size are of no use for another. Of a device of many sizes, such as
    radiographs that are cut by hand, the rare ones are one group without a size.
    """
    groups: dict[Device, list[Looked]] = defaultdict(list)
    for volume in volumes:
        groups[volume.device].append(volume)
    sizes = Counter(_any_size(device) for device in groups)
    found: dict[Device, list[Looked]] = defaultdict(list)
    for device, members in groups.items():
        alike = _any_size(device)
        is_rare = sizes[alike] > MANY_SIZES and len(members) < FEW_VOLUMES
        found[alike if is_rare else device] += members
    return dict(found)


def _any_size(device: Device) -> Device:
    return replace(device, rows=None, columns=None)
