"""Ultrasound: what lies outside the calibrated regions is annotation."""

from typing import Any, Final

from pydicom import Dataset

from dicomdask.model import Box

SMALLEST_SHARE: Final = 0.1
"""Regions that take less of the image tell nothing: most of it would be blank."""

Interval = tuple[int, int]


def outside_regions(dataset: Dataset, shape: tuple[int, int]) -> tuple[Box, ...]:
    """Return what an ultrasound image has outside its regions (PS3.3 C.8.5.5).

    Nothing where it tells no regions, or they cannot be meant: one is empty or lies
    beyond the image, or all of them take hardly any of it. Then all of the image is
    there to look at.

    Parameters
    ----------
    dataset
        Identified; its SequenceOfUltrasoundRegions is read.
    shape
        Rows and columns.
    """
    try:
        items = list(dataset.get("SequenceOfUltrasoundRegions") or ())
        regions = [_region(item) for item in items]
    except (AttributeError, TypeError, ValueError):
        return ()
    if not regions or not all(_is_within(one, shape) for one in regions):
        return ()
    boxes = _complement(regions, shape)
    left = 1 - sum(map(_area, boxes)) / (shape[0] * shape[1])
    return boxes if left >= SMALLEST_SHARE else ()


def _region(item: Any) -> Box:
    """Return a region; its last row and column are told, and belong to it."""
    ends = (int(item.RegionLocationMaxY1), int(item.RegionLocationMaxX1))
    starts = (int(item.RegionLocationMinY0), int(item.RegionLocationMinX0))
    return Box(*starts, ends[0] + 1, ends[1] + 1)


def _is_within(box: Box, shape: tuple[int, int]) -> bool:
    """Tell whether a region may be meant; some devices tell one row too many."""
    rows, columns = shape
    return (
        0 <= box.top < box.bottom - 1 <= rows
        and 0 <= box.left < box.right - 1 <= columns
    )


def _area(box: Box) -> int:
    return (box.bottom - box.top) * (box.right - box.left)


def _complement(regions: list[Box], shape: tuple[int, int]) -> tuple[Box, ...]:
    """Return boxes, none over another, that with the regions cover the image."""
    rows, columns = shape
    ends = {0, rows, *(r.top for r in regions), *(min(r.bottom, rows) for r in regions)}
    edges = sorted(ends)
    open_gaps: dict[Interval, int] = {}
    boxes: list[Box] = []
    for top, bottom in zip(edges, [*edges[1:], rows], strict=True):
        taken = [r for r in regions if r.top <= top and bottom <= r.bottom]
        gaps = _gaps(taken, columns) if top < bottom else []
        closed = [gap for gap in open_gaps if gap not in gaps]
        boxes += [Box(open_gaps.pop(gap), gap[0], top, gap[1]) for gap in closed]
        for gap in gaps:
            open_gaps.setdefault(gap, top)
    return tuple(sorted(boxes, key=lambda box: (box.top, box.left)))


def _gaps(taken: list[Box], columns: int) -> list[Interval]:
    """Return the intervals of columns that none of some regions takes."""
    gaps, start = [], 0
    for box in sorted(taken, key=lambda box: box.left):
        if box.left > start:
            gaps.append((start, box.left))
        start = max(start, box.right)
    return [*gaps, (start, columns)] if start < columns else gaps
