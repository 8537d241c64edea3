"""The files that `deidentify` wrote, as they are reviewed: each is its own volume."""

from dataclasses import astuple, dataclass, fields
from functools import cached_property

import numpy as np
import pandas as pd

from dicomdask import header, pixels, storage
from dicomdask.errors import InputError, ReadError, StoreError
from dicomdask.report.pictures import Picture
from dicomdask.report.review import CODES, REDACTION_COLUMNS, VOLUME_COLUMNS
from dicomdask.report.reviewed import About, Array, Located, View, jpeg, views
from dicomdask.tasks.barrier import guard, quiet
from dicomdask.tasks.record import (
    LOOKS,
    REDACTIONS,
    FileLook,
    FileRedaction,
    read_record,
    read_rows,
)
from dicomdask.values import Transform, Window


@dataclass(frozen=True, slots=True)
class _Frame:
    """A frame of a file: its stored values, and what they mean."""

    stored: Array
    transform: Transform

    def show(self, stored: Array, window: Window | None = None) -> Array:
        """Return what a screen shows of stored values like these."""
        return self.transform.to_display(stored, self.span, window)

    @property
    def values(self) -> Array:
        """Its modality values."""
        return self.transform.to_modality(self.stored)

    @property
    def span(self) -> Window:
        """The least and the largest of them."""
        values = np.nan_to_num(self.values)
        return float(values.min()), float(values.max())


class Written:
    """The files of a destination in whose pixels somebody looked.

    Parameters
    ----------
    url
        A destination with a record.

    Raises
    ------
    StoreError
        If it was made by a version that did not note what is needed here.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._record = read_record(url) or {}
        looks = read_rows(url, LOOKS, FileLook)
        self._looks = {one.SOPInstanceUID: one for one in looks}
        if not all(one.path and one.rows for one in self._looks.values()):
            raise StoreError(
                f"{url} was made by an earlier version, which did not note what a "
                "review needs; deidentify into another destination"
            )

    @property
    def about(self) -> About:
        """What the page says of it."""
        codes = self._record.get("codes_found", {})
        return About(
            name=self.url.rstrip("/").rsplit("/", 1)[-1],
            unit="file",
            state=f"de-identified files: {codes.get('stored', 0):,}",
            policy=str(self._record["policy"]),
            codes=tuple(str(code) for code, _ in self._record["codes"]),
            rejected={one: codes[one] for one in CODES if one in codes},
            n_passed=codes.get("stored", 0) - len(self._looks),
        )

    @cached_property
    def volumes(self) -> pd.DataFrame:
        """One row for each file in which somebody looked."""
        rows = [
            {
                **{name: getattr(one, name, None) for name in VOLUME_COLUMNS},
                "volume_id": one.SOPInstanceUID,
                "dimensions": ("y", "x"),
                "shape": (one.rows, one.columns),
            }
            for one in self._looks.values()
        ]
        return pd.DataFrame(rows, columns=list(VOLUME_COLUMNS))

    @cached_property
    def redactions(self) -> pd.DataFrame:
        """One row for each region that was blanked."""
        names = [one.name for one in fields(FileRedaction)]
        rows = map(astuple, read_rows(self.url, REDACTIONS, FileRedaction))
        table = pd.DataFrame(rows, columns=names)
        table["volume_id"] = table["SOPInstanceUID"]
        return table[list(REDACTION_COLUMNS)]

    def source_of(self, volume_id: str) -> str:
        """Return the keyed name of the source of a file."""
        return self._looks[volume_id].source_key

    def locate(self, picture: Picture) -> Located:
        """Return the frame that stands for a picture."""
        one = self._looks[picture.volume.volume_id]
        number = _free(one, picture) if picture.shown is None else picture.shown[1]
        told = f"file {one.SOPInstanceUID}.dcm, frame {number + 1}"
        return Located(one.source_key, number, told, {})

    def after(self, picture: Picture, located: Located) -> list[View]:
        """Return the views of a frame as it was written."""
        frame = self._frame(picture, located)
        return views(lambda window: frame.show(frame.stored, window), frame.values)

    def before(self, picture: Picture, located: Located, stored: Array) -> list[View]:
        """Return the view of the stored values of its source."""
        return [("before", jpeg(self._frame(picture, located).show(stored)))]

    def _frame(self, picture: Picture, located: Located) -> _Frame:
        path = self._looks[picture.volume.volume_id].path
        url = storage.join(self.url, *path.split("/"))
        try:
            with quiet():
                return guard(_decoded, storage.read(url), located.number)
        except FileNotFoundError:
            raise ReadError(f"{url} is gone; run deidentify again") from None
        except InputError as error:
            raise ReadError(f"{url} cannot be read: {error.reason}") from None


def _free(look: FileLook, picture: Picture) -> int:
    """Return a frame in which nothing is blanked."""
    uid = look.SOPInstanceUID
    free = [n for n in range(look.n_frames) if (uid, n) not in picture.others]
    return free[len(free) // 2]


def _decoded(data: bytes, number: int) -> _Frame:
    dataset = header.read_dataset(data)
    decoder = pixels.FrameDecoder(dataset)
    stored = decoder.decode(number)
    told = pixels.read_meaning(dataset, decoder, number)
    slope, intercept = told.slope or 0, told.intercept or 0
    lut, display = told.modality_lut, told.display
    return _Frame(stored, Transform.of(slope, intercept, lut, display))
