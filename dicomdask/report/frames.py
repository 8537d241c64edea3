"""The frames that stand for pictures, as JPEG: of the dataset, and of the sources."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
APART: Final = 4 / 255
"""Views that differ less on average show the same."""
N_PICTURES: Final = 400
PAGE_BYTES: Final = 32 << 20
"""How many pictures, and how many bytes of JPEG, a page holds at most."""

Array = np.ndarray[Any, np.dtype[Any]]
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame to show: what each view of it is called, and its JPEG."""

    number: int
    views: tuple[tuple[str, bytes], ...]

    @property
    def nbytes(self) -> int:
        """Return how many bytes its views have."""
        return sum(len(jpeg) for _, jpeg in self.views)


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
        views = _after(dataset, picture, row)
        url = urls.get(str(row["source_key"]))
        if sources is not None and url is not None:
            views = [*_before(dataset, picture, row, sources, url), *views]
        frame = Frame(int(row["frame_number"]), tuple(views))
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
    free = free or [0]  # the tiles of a mosaic share the number of their frame
    return _row(frames, free[len(free) // 2])


def _row(frames: Any, number: int) -> Row:
    return {name: frames[name].iloc[number] for name in _COLUMNS}


_COLUMNS: Final = ("t", "z", "frame_number", "tile", "source_key")


def _axes(dataset: Dataset, picture: Picture, row: Row) -> dict[str, int]:
    dimensions = dataset.row(picture.volume.volume_id)["dimensions"]
    return {axis: int(row[axis]) for axis in ("t", "z") if axis in dimensions}


def _after(dataset: Dataset, picture: Picture, row: Row) -> list[tuple[str, bytes]]:
    """Return a frame as it is displayed and, where that shows less, from end to end.

    A window makes all alike that lies beyond it, text as well.
    """
    volume_id, axes = picture.volume.volume_id, _axes(dataset, picture, row)
    shown = dataset.read(volume_id, **axes, values="display")
    views = [("after", _jpeg(shown))]
    values = dataset.read(volume_id, **axes, values="modality")
    finite = values[np.isfinite(values)]
    if shown.ndim == 2 and finite.size:
        low, high = float(finite.min()), float(finite.max())
        window = ((low + high + 1) / 2, high - low + 1)  # PS3.3 C.11.2.1.2.1
        whole = dataset.read(volume_id, **axes, values="display", window=window)
        if np.abs(whole - shown).mean() >= APART:
            views.append(("after, full range", _jpeg(whole)))
    return views


def _before(
    dataset: Dataset, picture: Picture, row: Row, sources: Sources, url: str
) -> list[tuple[str, bytes]]:
    stored = sources.frame(url, int(row["frame_number"]) - 1)
    if stored is None or not pd.isna(row["tile"]):
        return []
    if stored.ndim == 3:  # colour: samples are last there, and first here
        stored = np.moveaxis(stored, -1, 0)
    volume_id, axes = picture.volume.volume_id, _axes(dataset, picture, row)
    shown = dataset.convert(volume_id, stored, values="display", **axes)
    return [("before", _jpeg(shown))]


def _jpeg(shown: Array) -> bytes:
    return to_jpeg(
        np.moveaxis(shown, 0, -1) if shown.ndim == 3 else shown, longest=LONGEST
    )
