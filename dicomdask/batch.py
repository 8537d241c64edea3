"""Boxes of volumes, and batches of them that become one array. Pure arithmetic."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np

from dicomdask.errors import BatchError

Box = tuple[slice, ...]
Selector = int | slice | None
Found = TypeVar("Found")

N_NAMED: Final = 3
"""How many volumes a message names of each kind."""


def is_index(selector: Selector) -> bool:
    """Return whether a selector drops its axis."""
    return selector is not None and not isinstance(selector, slice)


def box_of(
    volume_id: str,
    dimensions: Sequence[str],
    shape: Sequence[int],
    wanted: Mapping[str, Selector],
) -> Box:
    """Return the box within a volume that selectors by axis stand for."""
    for axis, selector in wanted.items():
        if selector is not None and axis not in dimensions:
            raise ValueError(
                f"volume {volume_id} has no axis {axis}; its axes are "
                f"{', '.join(dimensions)}"
            )
    pairs = zip(dimensions, shape, strict=True)
    return tuple([_slice(wanted[axis], extent, axis) for axis, extent in pairs])


def _slice(selector: Selector, extent: int, axis: str) -> slice:
    if selector is None:
        return slice(0, extent)
    if not isinstance(selector, slice):
        index = int(selector)
        if not -extent <= index < extent:
            raise IndexError(f"index {index} is out of bounds of {axis}, {extent} long")
        return slice(index % extent, index % extent + 1)
    start, stop, step = selector.indices(extent)
    if step != 1:
        raise ValueError(f"a slice along {axis} has step 1; take every nth afterwards")
    return slice(start, max(start, stop))


@dataclass(frozen=True, slots=True)
class Item:
    """A box of a volume, and what of it lies within the array.

    Attributes
    ----------
    volume_id
        As in the volumes table.
    shape
        Of the box, in elements.
    inside
        The part of the box within the array, in the array's elements.
    target
        The same part, in the elements of the box.
    is_whole
        Whether nothing of the box lies outside.
    """

    volume_id: str
    shape: tuple[int, ...]
    inside: Box
    target: Box
    is_whole: bool


def item_of(
    volume_id: str,
    dimensions: Sequence[str],
    shape: Sequence[int],
    box: Box,
    *,
    may_reach_over: bool,
) -> Item:
    """Place a box on its volume.

    Raises
    ------
    ValueError
        If the box is not one slice of step 1 an axis, or reaches over the array's edge
        though it may not.
    """
    if len(box) != len(dimensions):
        raise ValueError(
            f"volume {volume_id} has the axes {', '.join(dimensions)}; give one slice "
            f"each, not {len(box)}"
        )
    whole, inside, target, is_whole = [], [], [], True
    for piece, extent, axis in zip(box, shape, dimensions, strict=True):
        start, stop = _ends(piece, extent, axis)
        if start < 0 or stop > extent:
            if not may_reach_over:
                raise ValueError(
                    f"the box {start}:{stop} along {axis} reaches over volume "
                    f"{volume_id}, {extent} long; give fill, or a box within it"
                )
            is_whole = False
        low = min(max(start, 0), extent)
        high = max(low, min(stop, extent))
        whole.append(stop - start)
        inside.append(slice(low, high))
        target.append(slice(low - start, high - start) if high > low else slice(0, 0))
    return Item(volume_id, tuple(whole), tuple(inside), tuple(target), is_whole)


def _ends(piece: slice, extent: int, axis: str) -> tuple[int, int]:
    if piece.step not in (None, 1):
        raise ValueError(f"a slice along {axis} has step 1; take every nth afterwards")
    start = 0 if piece.start is None else int(piece.start)
    stop = extent if piece.stop is None else int(piece.stop)
    return start, max(start, stop)


def common_shape(items: Sequence[Item]) -> tuple[int, ...]:
    """Return the shape that all boxes have.

    Raises
    ------
    BatchError
        If they differ, or if there is none.
    """
    if not items:
        raise BatchError("there is nothing to read; give one box or more")
    return _agreed(
        items,
        lambda item: item.shape,
        "boxes of other shapes",
        "crop or pad them to one shape (boxes may reach over the edge with fill), or "
        "read them one by one",
    )


def common_dtype(
    items: Sequence[Item], dtypes: Sequence[np.dtype[Any]], wanted: Any = None
) -> np.dtype[Any]:
    """Return the dtype of a batch: the wanted one, or that of all.

    Raises
    ------
    BatchError
        If they differ and none is wanted, or if the wanted one cannot hold a value.
    """
    held = {item.volume_id: own for item, own in zip(items, dtypes, strict=True)}
    if wanted is None:
        return _agreed(
            items,
            lambda item: held[item.volume_id],
            "other dtypes",
            "give dtype, such as dtype='float32', or read them one by one",
        )
    dtype: np.dtype[Any] = np.dtype(wanted)
    rule: Any = "same_kind" if dtype.kind == "f" else "safe"
    for volume_id, own in held.items():
        if not np.can_cast(own, dtype, rule):
            raise BatchError(
                f"{dtype} cannot hold all values of volume {volume_id}, which are "
                f"{own}; give a wider dtype, such as dtype='float32'"
            )
    return dtype


def _agreed(
    items: Sequence[Item], kind: Callable[[Item], Found], differ: str, advice: str
) -> Found:
    found = kind(items[0])
    if all(kind(item) == found for item in items):
        return found
    kinds: dict[Found, list[str]] = {}
    for item in items:
        kinds.setdefault(kind(item), []).append(item.volume_id)
    told = "; ".join(f"{_told(one)}: {_names(ids)}" for one, ids in kinds.items())
    raise BatchError(f"a batch cannot hold {differ} ({told}); {advice}")


def _told(kind: Any) -> str:
    return "x".join(map(str, kind)) if isinstance(kind, tuple) else str(kind)


def _names(volume_ids: Sequence[str]) -> str:
    names = list(dict.fromkeys(volume_ids))
    more = f" and {len(names) - N_NAMED} more" if len(names) > N_NAMED else ""
    return f"volume {', '.join(names[:N_NAMED])}{more}"


def checked_fill(fill: float, dtype: np.dtype[Any]) -> float:
    """Return what lies outside, or raise ValueError if the dtype cannot hold it."""
    low, high = (
        (-np.inf, np.inf)
        if dtype.kind == "f"
        else (0, 1)
        if dtype.kind == "b"
        else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    )
    is_exact = dtype.kind == "f" or fill == fill // 1
    if not is_exact or not (low <= fill <= high or fill != fill):
        raise ValueError(f"{dtype} cannot hold the fill; give another, or a dtype")
    return fill
