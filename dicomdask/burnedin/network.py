"""Run a text detector: a network that tells, pixel by pixel, how likely text is there.

The network is of the kind "differentiable binarization" (Liao et al., 2020): it marks
the core of a line, which is then grown by what training had shrunk it by. Lines are
found as upright rectangles; what is slanted gets the rectangle around it.

A frame is looked at several times: enlarged, with all contrasts made alike, for what is
small or faint; and reduced, as it is, for what is large. It takes lines that are turned
or mirrored like others. A body looks like one big letter to the network, so what is
higher than lines are is text only where it is drawn like it: thin, and of one grey.
"""

from collections.abc import Iterator
from pathlib import Path
from threading import Timer, local
from time import monotonic
from typing import Any, Final

import cv2
import numpy as np
import openvino

from dicomdask.burnedin.letters import are_letters
from dicomdask.model import Box

Array = np.ndarray[Any, np.dtype[Any]]
Found = list[tuple[Box, float]]

_STRIDE: Final = 32
"""The network halves its input five times."""

_TILE: Final = 768
"""The largest side of what the network sees at once: about 200 MB of memory."""
_OVERLAP: Final = 64
_FLAT: Final = 8
"""Grey levels, of 255; where a window spans fewer, nothing could be read."""
_WINDOW: Final = 9
_BESIDE: Final = 32
"""Pixels of flat surroundings that are shown to the network."""

_LIKELY: Final = 0.3
_SURE: Final = 0.5
_LEAST_CORE: Final = 3
"""In pixels of the network's input."""
_GROWTH: Final = 1.6
_HIGHEST_CORE: Final = 32
"""In pixels of the image, where it is not larger than 800; a line is twice as high."""
_HIGHEST_SHARES: Final = 1 / 25, 1 / 6
"""Of the longest side of the image, the same: of a large image, and of a tiny one."""
_SURE_OF_LARGE: Final = 0.75

_SETTINGS: Final = {
    "INFERENCE_NUM_THREADS": 1,
    "NUM_STREAMS": 0,
    "ENABLE_CPU_PINNING": False,
    "CPU_RUNTIME_CACHE_CAPACITY": "0",  # it would keep 3 MB for each shape
    "INFERENCE_PRECISION_HINT": "f32",
}
"""The same on all machines; no thread (a fork has it too), and no core of its own."""
_OF_THREAD: Final = local()

_ENLARGED: Final = 768
_MOST_ENLARGED: Final = 2.0
_COARSE: Final = 0.5, 0.25
_NEIGHBOURS: Final = 16
"""How far the surroundings reach that contrasts are made alike in: one deviation."""
_LEAST_VARIED: Final = 6
_CONTRAST: Final = 50
"""What one standard deviation of the surroundings becomes, of 255."""


def find(image: Array, *, model: Path, deadline_s: float) -> Found:
    """Return the boxes of text in an image, and their scores; see `detector`."""
    network = _Network(model, deadline_s)
    busy = _busy(image)
    part = _around(busy)
    if part is None:
        return []
    there = np.s_[part.top : part.bottom, part.left : part.right]
    enlarged = min(max(1.0, _ENLARGED / max(image.shape)), _MOST_ENLARGED)
    looks = [(_evened(image[there]), enlarged)]
    looks += [(image[there], scale) for scale in _COARSE]
    highest = _highest(image)
    found = []
    for shown, scale in looks:
        for core, score in _look(shown, busy[there], scale, network):
            box = _grown(core, scale, part)
            height = min(core.bottom - core.top, core.right - core.left) / scale
            if height <= highest or (
                score >= _SURE_OF_LARGE and are_letters(image, box)
            ):
                found.append((box, score))
    return _outermost(found)


class _Network:
    """The loaded network, for the looks of one frame."""

    def __init__(self, model: Path, deadline_s: float) -> None:
        self._request = load(model).create_infer_request()
        self._ends = monotonic() + deadline_s

    def run(self, values: Array) -> Array:
        """Return what it makes of its input.

        Raises
        ------
        TimeoutError
            If the deadline passes; what runs is stopped.
        """
        timer = Timer(max(0, self._ends - monotonic()), self._request.cancel)
        timer.daemon = True
        timer.start()
        try:
            (found,) = self._request.infer([values], share_inputs=True).values()
        except RuntimeError:
            if self._is_late():
                raise TimeoutError from None
            raise
        finally:
            timer.cancel()
            timer.join()  # or the end of the process might find it within the runtime
        if self._is_late():
            raise TimeoutError
        return np.asarray(found)

    def _is_late(self) -> bool:
        return monotonic() >= self._ends


def load(model: Path) -> Any:
    """Return the network as this thread has loaded it; forks of the thread have it."""
    if getattr(_OF_THREAD, "model", None) != model:
        cv2.setNumThreads(1)
        _OF_THREAD.network = openvino.Core().compile_model(model, "CPU", _SETTINGS)
        _OF_THREAD.model = model
    return _OF_THREAD.network


def _evened(image: Array) -> Array:
    """Return the image with its contrasts made alike, so that what is faint shows."""
    values = image.astype(np.float32)
    mean = _surroundings(values)
    varied = np.sqrt(np.maximum(_surroundings(values**2) - mean**2, 0))
    evened = 128 + _CONTRAST * (values - mean) / (varied + _LEAST_VARIED)
    return np.asarray(np.clip(evened, 0, 255).astype(np.uint8))


def _surroundings(values: Array) -> Array:
    """Return a Gaussian mean, made at a quarter of the size to be quick."""
    rows, columns = values.shape[:2]
    size = max(1, columns // 4), max(1, rows // 4)
    small = cv2.resize(values, size, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), _NEIGHBOURS / 4)
    return np.asarray(cv2.resize(small, (columns, rows)))


def _look(shown: Array, busy: Array, scale: float, network: _Network) -> Found:
    """Return the cores that the network finds in what is shown to it at a scale."""
    rows, columns = (max(1, round(n * scale)) for n in shown.shape[:2])
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    resized = cv2.resize(shown, (columns, rows), interpolation=how)
    likely = np.zeros((rows, columns), np.float32)
    for down in _cuts(rows):
        for across in _cuts(columns):
            if _is_flat(busy, (down, across), scale):
                continue
            seen = _run(resized[down, across], network)
            np.maximum(likely[down, across], seen, out=likely[down, across])
    return list(_cores(likely))


def _highest(image: Array) -> float:
    """Return how high the core of a line is at most, in pixels of the image."""
    longest = float(max(image.shape[:2]))
    large, tiny = (share * longest for share in _HIGHEST_SHARES)
    return max(large, min(tiny, _HIGHEST_CORE))


def _cuts(length: int) -> list[slice]:
    """Return overlapping pieces of a side, each no longer than a tile."""
    n = max(1, -(-(length - _OVERLAP) // (_TILE - _OVERLAP)))
    step = -(-(length - _OVERLAP) // n)
    return [slice(k * step, min(k * step + step + _OVERLAP, length)) for k in range(n)]


def _busy(image: Array) -> Array:
    """Return where an image holds more than a flat surface."""
    window = np.ones((_WINDOW, _WINDOW), np.uint8)
    spans = cv2.morphologyEx(image, cv2.MORPH_GRADIENT, window)
    return np.asarray(spans.reshape(*image.shape[:2], -1).max(axis=-1) >= _FLAT)


def _around(busy: Array) -> Box | None:
    """Return the box around what is busy, with some of what is beside it."""
    rows, columns = (np.flatnonzero(busy.any(axis=n)) for n in (1, 0))
    if not rows.size:
        return None
    return Box(
        max(0, int(rows[0]) - _BESIDE),
        max(0, int(columns[0]) - _BESIDE),
        min(busy.shape[0], int(rows[-1]) + 1 + _BESIDE),
        min(busy.shape[1], int(columns[-1]) + 1 + _BESIDE),
    )


def _is_flat(busy: Array, tile: tuple[slice, slice], scale: float) -> bool:
    """Tell whether a tile of the enlarged image holds nothing that could be read."""
    there = tuple(
        slice(int(side.start / scale), int(np.ceil(side.stop / scale))) for side in tile
    )
    return not busy[there].any()


def _run(shown: Array, network: _Network) -> Array:
    """Return how likely each pixel is the core of a line of text."""
    rows, columns = shown.shape[:2]
    planes = shown if shown.ndim == 3 else np.stack([shown] * 3, axis=-1)
    padding = [(0, -rows % _STRIDE), (0, -columns % _STRIDE), (0, 0)]
    padded = np.pad(planes, padding, mode="edge").astype(np.float32)
    scaled = np.ascontiguousarray((padded / 127.5 - 1).transpose(2, 0, 1)[np.newaxis])
    return network.run(scaled)[0, 0, :rows, :columns]


def _cores(likely: Array) -> Iterator[tuple[Box, float]]:
    """Yield the cores of lines, in pixels of the network's input."""
    mask = (likely > _LIKELY).astype(np.uint8)
    n, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    totals = np.bincount(labels.ravel(), weights=likely.ravel(), minlength=n)
    for label in range(1, n):
        left, top, width, height, area = map(int, stats[label])
        score = float(totals[label] / area)
        if score >= _SURE and min(width, height) >= _LEAST_CORE:
            yield Box(top, left, top + height, left + width), score


def _grown(core: Box, scale: float, part: Box) -> Box:
    """Return the box of a line in pixels of the image, from that of its core.

    The network has seen a part of the image, at a scale.
    """
    height, width = core.bottom - core.top, core.right - core.left
    margin = _GROWTH * height * width / (2 * (height + width))
    return Box(
        max(part.top, part.top + int((core.top - margin) / scale)),
        max(part.left, part.left + int((core.left - margin) / scale)),
        min(part.bottom, part.top + int(np.ceil((core.bottom + margin) / scale))),
        min(part.right, part.left + int(np.ceil((core.right + margin) / scale))),
    )


def _outermost(found: Found) -> Found:
    """Leave out boxes within others; the one around takes the better score."""
    kept: Found = []
    for box, score in sorted(found, key=lambda one: _area(one[0]), reverse=True):
        around = next((n for n, one in enumerate(kept) if _within(box, one[0])), None)
        if around is None:
            kept.append((box, score))
        else:
            kept[around] = (kept[around][0], max(kept[around][1], score))
    return kept


def _area(box: Box) -> int:
    return (box.bottom - box.top) * (box.right - box.left)


def _within(box: Box, other: Box) -> bool:
    return (
        other.top <= box.top
        and other.left <= box.left
        and box.bottom <= other.bottom
        and box.right <= other.right
    )
