"""What a header says in words that are never stored: of site, device and body."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from pydicom import Dataset

from dicomdask import header, pixels
from dicomdask.pseudonym import Key

SITE: Final = ("InstitutionName", "InstitutionAddress")
DEVICE: Final = (
    "Manufacturer",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "StationName",
)
_TOLD: Final = pixels.tags_of((*SITE, *DEVICE, *header.TEXTS))
_DEEPER: Final = pixels.tags_of((*header.CODES, *header.GROUPS))


@dataclass(frozen=True, slots=True)
class Said:
    """Words about site, device and part of the body (identified)."""

    site: tuple[str, ...]
    device: tuple[str, ...]
    body: tuple[str, ...]

    def site_key(self, key: Key) -> str | None:
        """Return one keyed name for the site, or None."""
        return key.digest(SITE[0], *self.site) if any(self.site) else None

    def device_key(self, key: Key) -> str | None:
        """Return one keyed name for the device, or None."""
        return key.digest(DEVICE[0], *self.device) if any(self.device) else None


def read_said(dataset: Dataset) -> Said:
    """Return what a header says; in a series it is read once."""
    told = pixels.excerpt(dataset, _TOLD, _DEEPER)
    return _read(dataset) if told is None else _remembered(told)


@lru_cache(pixels.REMEMBERED)
def _remembered(told: pixels.Excerpt) -> Said:
    return _read(told.dataset())


def _read(dataset: Dataset) -> Said:
    site, device = (
        tuple(str(dataset.get(keyword) or "").strip() for keyword in keywords)
        for keywords in (SITE, DEVICE)
    )
    return Said(site, device, tuple(header.body_texts(dataset)))
