"""A dataset, as it is reviewed."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from dicomdask.dataset import Dataset
from dicomdask.report.pictures import Picture
from dicomdask.report.review import CODES, VOLUME_COLUMNS
from dicomdask.report.reviewed import About, Array, Located, View, jpeg, views
from dicomdask.values import Window

Row = Mapping[str, Any]

COLUMNS: Final = ("t", "z", "frame_number", "tile", "source_key")


class Stored:
    """The volumes of a dataset."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self.url = dataset.store
        self.volumes = dataset.volumes[list(VOLUME_COLUMNS)]

    @property
    def about(self) -> About:
        """What the page says of it."""
        commit = self._dataset.commit
        return About(
            name=self.url.rstrip("/").rsplit("/", 1)[-1],
            unit="volume",
            state=f"commit {commit.n} of {commit.created}",
            policy=str(commit.policy["name"]),
            codes=tuple(str(code) for code, _ in commit.policy["codes"]),
            rejected={one: commit.codes[one] for one in CODES if one in commit.codes},
        )

    @property
    def redactions(self) -> pd.DataFrame:
        """One row for each region that was blanked."""
        return self._dataset.redactions

    def source_of(self, volume_id: str) -> str:
        """Return the keyed name of its first source."""
        return str(self._dataset.frames_of(volume_id)["source_key"].iloc[0])

    def locate(self, picture: Picture) -> Located:
        """Return the frame that stands for a picture, by the row of tables/frames."""
        volume_id = picture.volume.volume_id
        row = self._row(volume_id, picture)
        dimensions = self._dataset.row(volume_id)["dimensions"]
        number = int(row["frame_number"])
        return Located(
            source_key=str(row["source_key"]),
            number=number - 1,
            told=f"volume {volume_id[:12]}, frame {number}",
            axes={axis: int(row[axis]) for axis in ("t", "z") if axis in dimensions},
            is_tile=not pd.isna(row["tile"]),
        )

    def _row(self, volume_id: str, picture: Picture) -> Row:
        frames = self._dataset.frames_of(volume_id)
        numbers = (frames["frame_number"].astype(int) - 1).tolist()
        places = list(zip(frames["SOPInstanceUID"].tolist(), numbers, strict=True))
        if picture.shown is not None:
            return _row(frames, places.index(picture.shown))
        free = [n for n, place in enumerate(places) if place not in picture.others]
        free = free or [0]  # the tiles of a mosaic share the number of their frame
        return _row(frames, free[len(free) // 2])

    def after(self, picture: Picture, located: Located) -> list[View]:
        """Return the views of a frame as it is stored."""
        volume_id = picture.volume.volume_id

        def show(window: Window | None) -> Array:
            axes: Any = located.axes
            read = self._dataset.read
            return _last(read(volume_id, **axes, values="display", window=window))

        values = self._dataset.read(volume_id, **located.axes, values="modality")
        return views(show, values)

    def before(self, picture: Picture, located: Located, stored: Array) -> list[View]:
        """Return the view of the stored values of its source; none of a tile."""
        if located.is_tile:
            return []
        if stored.ndim == 3:  # samples are first in a dataset
            stored = np.moveaxis(stored, -1, 0)
        volume_id = picture.volume.volume_id
        shown = self._dataset.convert(
            volume_id, stored, values="display", **located.axes
        )
        return [("before", jpeg(_last(shown)))]


def _row(frames: Any, number: int) -> Row:
    return {name: frames[name].iloc[number] for name in COLUMNS}


def _last(shown: Array) -> Array:
    return np.moveaxis(shown, 0, -1) if shown.ndim == 3 else shown
