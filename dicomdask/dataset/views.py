"""From the stored values of a volume to those that are wanted."""

from dataclasses import dataclass
from math import prod
from typing import Any, Final, Literal, Self

import numpy as np
import pandas as pd

from dicomdask.dataset.opened import Opened
from dicomdask.errors import ReadError
from dicomdask.values import Transform, Window, to_modality

Values = Literal["stored", "modality", "display"]
Array = np.ndarray[Any, np.dtype[Any]]
Places = np.ndarray[Any, np.dtype[np.int64]]
Row = dict[str, Any]

VALUES: Final = ("stored", "modality", "display")
COLUMNS: Final = ("slope", "intercept", "modality_lut", "display", "statistics")


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """How the frames of a volume are turned into other values.

    Attributes
    ----------
    transforms
        One of all frames, or one each.
    places
        Which of them is for which place, over the axes that tell frames apart; -1 where
        a slice is missing, which is NaN, or black. None where there is one of all
        frames.
    axes
        The numbers of these axes.
    span
        The least and the largest modality value that frames can have.
    """

    transforms: tuple[Transform, ...]
    places: Places | None
    axes: tuple[int, ...]
    span: Window

    @classmethod
    def of(cls, row: Row, volume: Opened, frames: pd.DataFrame | None) -> Self:
        """Return the view that the rows of a volume tell of.

        Parameters
        ----------
        row
            `COLUMNS` of `tables/volumes`.
        volume
            Its arrays.
        frames
            The volume's rows of `tables/frames`, where frames differ.
        """
        rows = [row] if frames is None else [*map(dict, _records(frames, row))]
        transforms = tuple(
            Transform.of(
                _number(one["slope"], 1.0),
                _number(one["intercept"], 0.0),
                _text(one["modality_lut"]),
                _text(one["display"]),
            )
            for one in rows
        )
        told = row["statistics"]
        span = _span(transforms, told["min"], told["max"])
        found = None if frames is None else places(frames, volume)
        return cls(transforms, found, volume.frame_axes, span)

    def convert(
        self,
        stored: Array,
        box: tuple[slice, ...],
        values: Values,
        window: int | Window | None = None,
    ) -> Array:
        """Return the stored values of a box as `modality` or `display` values.

        Raises
        ------
        ValueError
            If there is no such window.
        """
        shown = values == "display"
        if self.places is None:
            return self._apply(self.transforms[0], stored, window, shown=shown)
        chosen = self.places[tuple(box[axis] for axis in self.axes)]
        if not shown and all(one.lut is None for one in self.transforms):
            scales = [(one.slope, one.intercept) for one in self.transforms]
            known = np.array([*scales, (np.nan, np.nan)])  # the last is that of -1
            scales_of = np.moveaxis(known[chosen], -1, 0)
            return to_modality(stored, *(self._over(stored, one) for one in scales_of))
        found = np.empty(stored.shape, dtype_of(values, stored.dtype))
        found.fill(0.0 if shown else np.nan)
        for place in zip(*np.nonzero(chosen >= 0), strict=True):
            one = self.transforms[chosen[place]]
            index: list[Any] = [slice(None)] * stored.ndim
            for axis, number in zip(self.axes, place, strict=True):
                index[axis] = number
            plane = stored[tuple(index)]
            found[tuple(index)] = self._apply(one, plane, window, shown=shown)
        return found

    def _over(self, stored: Array, of_frames: Array) -> Array:
        """Return one value a frame in a shape that goes with the stored values."""
        shape = [1] * stored.ndim
        for axis, extent in zip(self.axes, of_frames.shape, strict=True):
            shape[axis] = extent
        return of_frames.reshape(shape)

    def _apply(
        self,
        transform: Transform,
        stored: Array,
        window: int | Window | None,
        *,
        shown: bool,
    ) -> Array:
        if shown:
            return transform.to_display(stored, self.span, window)
        return transform.to_modality(stored)


def _records(frames: pd.DataFrame, row: Row) -> list[Row]:
    """Return what each frame has of its own, and the volume's where it has not."""
    names = [name for name in COLUMNS if name != "statistics"]
    shared = {name: row[name] for name in names}
    own = {name: frames[name].tolist() for name in names if name in frames}
    return [
        shared | {name: own[name][n] for name in own if not _is_missing(own[name][n])}
        for n in range(len(frames))
    ]


def places(frames: pd.DataFrame, volume: Opened) -> Places:
    """Return the number of each place's frame over its axes; -1 for none.

    Raises
    ------
    ReadError
        If frames are missing that the volume has.
    """
    shape = tuple(volume.shape[axis] for axis in volume.frame_axes)
    if len(frames) != prod(shape) - prod(shape[:-1]) * volume.n_missing:
        raise ReadError(
            f"the frames table lacks frames of volume {volume.volume_id}; convert its "
            "series again"
        )
    found = np.full(shape, -1)
    names = (volume.dimensions[axis] for axis in volume.frame_axes)
    where = tuple(frames[name].to_numpy(int) for name in names)
    found[where] = np.arange(len(frames)) if where else 0
    return found


def _span(transforms: tuple[Transform, ...], low: Any, high: Any) -> Window:
    if _is_missing(low):
        return 0.0, 0.0
    lows, highs = zip(*(one.span(low, high) for one in transforms), strict=True)
    return min(lows), max(highs)


def _is_missing(value: Any) -> bool:
    return value is None or value != value


def _number(value: Any, default: float) -> float:
    return default if _is_missing(value) else float(value)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def dtype_of(values: Values, stored: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype of values that are wanted, by that of the stored ones."""
    wider = {"modality": np.float64, "display": np.float32}
    return np.dtype(wider[values]) if values in wider else stored.newbyteorder("=")


def check(values: str, window: object) -> None:
    """Refuse values that there are not, and a window where none is used.

    Raises
    ------
    ValueError
        If they cannot be.
    """
    if values not in VALUES:
        raise ValueError(f"values is one of {', '.join(VALUES)}")
    if window is not None and values != "display":
        raise ValueError('a window is for values="display"')
