"""The frames that stand for pictures, as JPEG: of the dataset, and of the sources."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, zip_longest
from typing import Any, Final

import numpy as np
import pandas as pd

from dicomdask.dataset import Dataset
from dicomdask.pixels import to_jpeg
from dicomdask.report.pictures import Picture
from dicomdask.report.review import Group
from dicomdask.report.sources import Sources

LONGEST: Final = 1024
"""Pixels of the longer side of a picture: text of usual size can still be read."""
N_PICTURES: Final = 400
PAGE_BYTES: Final = 32 << 20
"""How many pictures, and how many bytes of JPEG, a page holds at most."""

Array = np.ndarray[Any, np.dtype[Any]]
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame to show; `before` is that of the source, if it was wanted and found."""

    after: bytes
    before: bytes | None
    number: int

    @property
    def nbytes(self) -> int:
        """Return how many bytes its pictures have."""
        return len(self.after) + len(self.before or b"")


def in_turn(groups: Sequence[Group]) -> Iterator[Picture]:
    """Yield the first picture of each group, then the second ones, and so on."""
    columns = [_alternating(one.blanked, one.empty) for one in groups]
    for rank in zip_longest(*columns):
        yield from (picture for picture in rank if picture is not None)


def _alternating(blanked: Sequence[Picture], empty: Sequence[Picture]) -> list[Picture]:
    pairs = zip_longest(blanked, empty)
    return [picture for pair in pairs for picture in pair if picture is not None]


def read_frames(
    dataset: Dataset,
    pictures: Iterable[Picture],
    sources: Sources | None,
    *,
    limit: int = PAGE_BYTES,
) -> dict[Picture, Frame]:
    """Return the frames of pictures, as many as a page may hold.

    Parameters
    ----------
    sources
        Where pictures before are to be shown as well.
    """
    found: dict[Picture, Frame] = {}
    left = limit
    chosen = islice(pictures, N_PICTURES)
    rows = [(picture, _row_of(dataset, picture)) for picture in chosen]
    names = {str(row["source_key"]) for _, row in rows} if sources else set()
    urls = sources.urls(names) if sources else {}
    for picture, row in rows:
        url = urls.get(str(row["source_key"]))
        frame = _read_frame(dataset, picture, row)
        if sources is not None and url is not None:
            frame = replace(frame, before=_before(dataset, picture, row, sources, url))
        left -= frame.nbytes
        if left < 0:
            break
        found[picture] = frame
    return found


def _row_of(dataset: Dataset, picture: Picture) -> Row:
    """Return the row of tables/frames of the frame that stands for a picture."""
    frames = dataset.frames_of(picture.volume.volume_id)
    numbers = (frames["frame_number"].astype(int) - 1).tolist()
    places = list(zip(frames["SOPInstanceUID"].tolist(), numbers, strict=True))
    if picture.shown is not None:
        return _row(frames, places.index(picture.shown))
    free = [n for n, place in enumerate(places) if place not in picture.others]
    return _row(frames, free[len(free) // 2])


def _row(frames: Any, number: int) -> Row:
    return {name: frames[name].iloc[number] for name in _COLUMNS}


_COLUMNS: Final = ("t", "z", "frame_number", "tile", "source_key")


def _axes(dataset: Dataset, picture: Picture, row: Row) -> dict[str, int]:
    dimensions = dataset.row(picture.volume.volume_id)["dimensions"]
    return {axis: int(row[axis]) for axis in ("t", "z") if axis in dimensions}


def _read_frame(dataset: Dataset, picture: Picture, row: Row) -> Frame:
    axes = _axes(dataset, picture, row)
    volume_id = picture.volume.volume_id
    shown = dataset.read(volume_id, **axes, values="display")
    return Frame(_jpeg(shown), None, int(row["frame_number"]))


def _before(
    dataset: Dataset, picture: Picture, row: Row, sources: Sources, url: str
) -> bytes | None:
    stored = sources.frame(url, int(row["frame_number"]) - 1)
    if stored is None or not pd.isna(row["tile"]):
        return None
    if stored.ndim == 3:  # colour: samples are last there, and first here
        stored = np.moveaxis(stored, -1, 0)
    volume_id, axes = picture.volume.volume_id, _axes(dataset, picture, row)
    return _jpeg(dataset.convert(volume_id, stored, values="display", **axes))


def _jpeg(shown: Array) -> bytes:
    return to_jpeg(
        np.moveaxis(shown, 0, -1) if shown.ndim == 3 else shown, longest=LONGEST
    )
