"""What the sources show and say, by the work directory: pictures before, device names.

All of it is identified.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from dicomdask import header, pixels, plan, storage
from dicomdask.errors import InputError
from dicomdask.pseudonym import Key
from dicomdask.report.devices import Names
from dicomdask.report.reviewed import Reviewed
from dicomdask.tasks.barrier import guard, quiet
from dicomdask.work import Work

Array = np.ndarray[Any, np.dtype[Any]]

DEVICE: Final = ("Manufacturer", "ManufacturerModelName")


@dataclass(slots=True)
class Sources:
    """The files that a work directory knows; the frames of the last one are at hand."""

    work: Work
    key: Key
    _last: tuple[str, Array] | None = field(default=None)

    def urls(self, names: Collection[str]) -> dict[str, str]:
        """Return the URLs of sources by their keyed names."""
        wanted, found = set(names), dict[str, str]()
        for part in self.work.manifest_parts():
            for file in self.work.read_manifest(part) if wanted else ():
                name = plan.source_key(file.url, self.key)
                if name in wanted:
                    wanted.discard(name)
                    found[name] = file.url
        return found

    def frame(self, url: str, number: int) -> Array | None:
        """Return the stored values of a frame, from 0; None where they are not here."""
        if self._last is None or self._last[0] != url:
            frames = _read(url, pixels.reference_frames)
            if frames is None:
                return None
            self._last = url, frames
        frames = self._last[1]
        return frames[number] if number < len(frames) else None


def _read(url: str, parse: Any) -> Any:
    """Return what is made of a file; None where it is gone or damaged."""
    try:
        data = storage.read(url)
        with quiet():
            return guard(parse, data)
    except (OSError, InputError):
        return None


def device_names(reviewed: Reviewed, sources: Sources) -> Names:
    """Return what the sources say of devices whose names the tables lack.

    One file of each device is read.
    """
    volumes = reviewed.volumes
    lacking = volumes[list(DEVICE)].isna().any(axis=1) & volumes["device_key"].notna()
    first = volumes[lacking].drop_duplicates("device_key")
    pairs = zip(first["device_key"], first["volume_id"], strict=True)
    keys = {key: reviewed.source_of(name) for key, name in pairs}
    urls = sources.urls(keys.values())
    return {
        key: names
        for key, source in keys.items()
        if source in urls
        if (names := _read(urls[source], _names)) is not None
    }


def _names(data: bytes) -> tuple[str, str]:
    dataset = header.read_dataset(data)
    manufacturer, model = (str(dataset.get(name) or "").strip() for name in DEVICE)
    return manufacturer, model
