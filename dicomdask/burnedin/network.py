"""Run a text detector: a network that tells, pixel by pixel, how likely text is there.

The network is of the kind "differentiable binarization" (Liao et al., 2020): it marks
the core of a line, which is then grown by what training had shrunk it by. Lines are
found as upright rectangles; what is slanted gets the rectangle around it.

A frame is looked at twice: enlarged, with all contrasts made alike, for what is small
or faint; and halved, as it is, for what is large. A body looks like one big letter to
the network, so what is higher than a line can be is no text.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from threading import Timer
from typing import Any, Final

import cv2
import numpy as np
import onnxruntime

from dicomdask.model import Box

Array = np.ndarray[Any, np.dtype[Any]]
Found = list[tuple[Box, float]]

_STRIDE: Final = 32
"""The network halves its input five times."""

_TILE: Final = 768
"""The largest side of what the network sees at once: about 200 MB of memory."""
_OVERLAP: Final = 64
_FLAT: Final = 8
"""Grey levels, of 255; a tile that spans fewer holds nothing that could be read."""

_LIKELY: Final = 0.3
_SURE: Final = 0.5
_LEAST_CORE: Final = 3
"""In pixels of the network's input."""
_GROWTH: Final = 1.6
_HIGHEST_CORE: Final = 32
"""In pixels of the image, where it is not larger than 1280; a line is twice as high."""
_HIGHEST_SHARE: Final = 1 / 40
"""Of the longest side of the image, the same."""

_ENLARGED: Final = 768
_MOST_ENLARGED: Final = 2.0
_COARSE: Final = 0.5
_NEIGHBOURS: Final = 16
"""How far the surroundings reach that contrasts are made alike in: one deviation."""
_LEAST_VARIED: Final = 6
_CONTRAST: Final = 50
"""What one standard deviation of the surroundings becomes, of 255."""


def find(image: Array, *, model: Path, deadline_s: float) -> Found:
    """Return the boxes of text in an image, and their scores; see `detector`."""
    session = load(model)
    options = onnxruntime.RunOptions()
    timer = Timer(deadline_s, lambda: setattr(options, "terminate", True))
    timer.daemon = True
    timer.start()
    try:
        enlarged = min(max(1.0, _ENLARGED / max(image.shape)), _MOST_ENLARGED)
        found = _look(_evened(image), image, enlarged, (session, options))
        return _outermost(found + _look(image, image, _COARSE, (session, options)))
    except Exception:
        if options.terminate:
            raise TimeoutError from None
        raise
    finally:
        timer.cancel()


@cache
def load(model: Path) -> Any:
    """Return the loaded network: one thread, so that it is the worker's own."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    cv2.setNumThreads(1)
    providers = ["CPUExecutionProvider"]
    return onnxruntime.InferenceSession(str(model), options, providers=providers)


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


def _look(shown: Array, image: Array, scale: float, network: tuple[Any, Any]) -> Found:
    """Return what the network finds in an image that is shown to it at a scale."""
    rows, columns = (max(1, round(n * scale)) for n in image.shape[:2])
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    resized = cv2.resize(shown, (columns, rows), interpolation=how)
    likely = np.zeros((rows, columns), np.float32)
    for down in _cuts(rows):
        for across in _cuts(columns):
            if _is_flat(image, (down, across), scale):
                continue
            seen = _run(resized[down, across], network)
            np.maximum(likely[down, across], seen, out=likely[down, across])
    highest = max(_HIGHEST_CORE, _HIGHEST_SHARE * max(image.shape[:2])) * scale
    return [
        (_grown(core, scale, image.shape), score)
        for core, score in _cores(likely)
        if min(core.bottom - core.top, core.right - core.left) <= highest
    ]


def _cuts(length: int) -> list[slice]:
    """Return overlapping pieces of a side, each no longer than a tile."""
    n = max(1, -(-(length - _OVERLAP) // (_TILE - _OVERLAP)))
    step = -(-(length - _OVERLAP) // n)
    return [slice(k * step, min(k * step + step + _OVERLAP, length)) for k in range(n)]


def _is_flat(image: Array, tile: tuple[slice, slice], scale: float) -> bool:
    there = tuple(
        slice(int(side.start / scale), int(np.ceil(side.stop / scale))) for side in tile
    )
    pixels = image[there].reshape(-1, *image.shape[2:])
    return bool(np.all(np.ptp(pixels, axis=0) < _FLAT))


def _run(shown: Array, network: tuple[Any, Any]) -> Array:
    """Return how likely each pixel is the core of a line of text."""
    rows, columns = shown.shape[:2]
    planes = shown if shown.ndim == 3 else np.stack([shown] * 3, axis=-1)
    padding = [(0, -rows % _STRIDE), (0, -columns % _STRIDE), (0, 0)]
    padded = np.pad(planes, padding, mode="edge").astype(np.float32)
    scaled = np.ascontiguousarray((padded / 127.5 - 1).transpose(2, 0, 1)[np.newaxis])
    session, options = network
    (output,) = session.run(None, {session.get_inputs()[0].name: scaled}, options)
    return np.asarray(output[0, 0, :rows, :columns])


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


def _grown(core: Box, scale: float, shape: tuple[int, ...]) -> Box:
    """Return the box of a line in pixels of the image, from that of its core."""
    height, width = core.bottom - core.top, core.right - core.left
    margin = _GROWTH * height * width / (2 * (height + width))
    return Box(
        max(0, int((core.top - margin) / scale)),
        max(0, int((core.left - margin) / scale)),
        min(shape[0], int(np.ceil((core.bottom + margin) / scale))),
        min(shape[1], int(np.ceil((core.right + margin) / scale))),
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
