"""Run a text detector: a network that tells, pixel by pixel, how likely text is there.

The network is of the kind "differentiable binarization" (Liao et al., 2020): it marks
the core of a line, which is then grown by what training had shrunk it by. Lines are
found as upright rectangles; what is slanted gets the rectangle around it.
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

_STRIDE: Final = 32
"""The network halves its input five times."""

_LIKELY: Final = 0.3
_SURE: Final = 0.5
_GROWTH: Final = 1.6
_LEAST_SIDE: Final = 640
_LARGEST_SIDE: Final = 1280


def find(image: Array, *, model: Path, deadline_s: float) -> list[tuple[Box, float]]:
    """Return the boxes of text in an image, and their scores; see `detector`."""
    rows, columns = image.shape[:2]
    scale = _scale(max(rows, columns))
    likely = _run(_input(image, scale), model=model, deadline_s=deadline_s)
    height, width = round(rows * scale), round(columns * scale)
    return [
        (_grown(box, scale, (rows, columns)), score)
        for box, score in _cores(likely[:height, :width])
    ]


def _scale(longest: int) -> float:
    if longest < _LEAST_SIDE:
        return min(2.0, _LEAST_SIDE / longest)
    return min(1.0, _LARGEST_SIDE / longest)


def _input(image: Array, scale: float) -> Array:
    """Return what the network takes: (1, 3, rows, columns), from -1 to 1, padded."""
    rows, columns = (max(1, round(n * scale)) for n in image.shape[:2])
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    resized = cv2.resize(image, (columns, rows), interpolation=how)
    planes = resized if resized.ndim == 3 else np.stack([resized] * 3, axis=-1)
    padding = [(0, -rows % _STRIDE), (0, -columns % _STRIDE), (0, 0)]
    padded = np.pad(planes, padding, mode="edge").astype(np.float32)
    return np.ascontiguousarray((padded / 127.5 - 1.0).transpose(2, 0, 1)[np.newaxis])


def _run(planes: Array, *, model: Path, deadline_s: float) -> Array:
    """Return how likely each pixel is the core of a line of text."""
    session = _session(model)
    options = onnxruntime.RunOptions()
    timer = Timer(deadline_s, lambda: setattr(options, "terminate", True))
    timer.daemon = True
    timer.start()
    try:
        (output,) = session.run(None, {session.get_inputs()[0].name: planes}, options)
    finally:
        timer.cancel()
    return np.asarray(output[0, 0])


@cache
def _session(model: Path) -> Any:
    """Return the loaded network: one thread, so that it is the worker's own."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    cv2.setNumThreads(1)
    providers = ["CPUExecutionProvider"]
    return onnxruntime.InferenceSession(str(model), options, providers=providers)


def _cores(likely: Array) -> Iterator[tuple[Box, float]]:
    """Yield the cores of lines, in pixels of the network's input."""
    mask = (likely > _LIKELY).astype(np.uint8)
    n, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    totals = np.bincount(labels.ravel(), weights=likely.ravel(), minlength=n)
    for label in range(1, n):
        left, top, width, height, area = map(int, stats[label])
        score = float(totals[label] / area)
        if score >= _SURE and min(width, height) >= 3:
            yield Box(top, left, top + height, left + width), score


def _grown(core: Box, scale: float, shape: tuple[int, int]) -> Box:
    """Return the box of a line in pixels of the image, from that of its core."""
    height, width = core.bottom - core.top, core.right - core.left
    margin = _GROWTH * height * width / (2 * (height + width))
    return Box(
        max(0, int((core.top - margin) / scale)),
        max(0, int((core.left - margin) / scale)),
        min(shape[0], int(np.ceil((core.bottom + margin) / scale))),
        min(shape[1], int(np.ceil((core.right + margin) / scale))),
    )
