"""Ways to find text in a displayed frame: dicomdask's, and those it is held against.

Each returns the boxes that it would blank. What is not installed is left out: tesseract
is a command, rapidocr as it comes and ddddocr are packages.
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import cv2
import numpy as np

from dicomdask.burnedin import detector
from dicomdask.model import Box

Array = np.ndarray[Any, np.dtype[Any]]
Finder = Callable[[Array], list[Box]]

OURS = "dicomdask"


def finders() -> dict[str, Finder]:
    """Return what is installed here, by name."""
    found = {OURS: ours, "morphology": morphology}
    found["rapidocr, detection"] = rapidocr_detection
    found["rapidocr, detection and recognition"] = rapidocr_recognition
    if find_spec("ddddocr"):
        found["ddddocr, detection"] = ddddocr_detection
    if shutil.which("tesseract"):
        found["tesseract"] = tesseract
    return found


def ours(image: Array) -> list[Box]:
    """Return what would be blanked."""
    return [box for box, _ in detector.find_text(image)]


def morphology(image: Array) -> list[Box]:
    """Return blobs of strong gradients that are as wide and high as lines are."""
    grey = _grey(image)
    gradient = cv2.morphologyEx(grey, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    _, marked = cv2.threshold(gradient, 0, 255, cv2.THRESH_OTSU)
    joined = cv2.morphologyEx(marked, cv2.MORPH_CLOSE, np.ones((3, 11), np.uint8))
    joined = cv2.morphologyEx(joined, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    n, _, stats, _ = cv2.connectedComponentsWithStats(joined)
    boxes = []
    for left, top, width, height, area in stats[1:n].tolist():
        if 6 <= height <= 60 and width >= 2 * height and area >= 0.5 * width * height:
            boxes.append(Box(top - 1, left - 1, top + height + 1, left + width + 1))
    return [_clipped(box, image) for box in boxes]


def rapidocr_detection(image: Array) -> list[Box]:
    """Return what the package finds with its own settings."""
    return _quadrangles(_rapidocr()(_rgb(image), use_cls=False, use_rec=False), image)


def rapidocr_recognition(image: Array) -> list[Box]:
    """Return what it also reads."""
    return _quadrangles(_rapidocr()(_rgb(image), use_cls=False, use_rec=True), image)


@cache
def _rapidocr() -> Any:
    options = {
        "Global.log_level": "critical",
        "EngineConfig.onnxruntime.intra_op_num_threads": 1,
        "EngineConfig.onnxruntime.inter_op_num_threads": 1,
    }
    return import_module("rapidocr").RapidOCR(params=options)


def _quadrangles(found: Any, image: Array) -> list[Box]:
    corners = [] if found.boxes is None else np.asarray(found.boxes)
    return [
        _clipped(
            Box(
                *np.floor(one.min(axis=0)[::-1]).astype(int).tolist(),
                *np.ceil(one.max(axis=0)[::-1]).astype(int).tolist(),
            ),
            image,
        )
        for one in corners
    ]


@cache
def _ddddocr() -> Any:
    package = import_module("ddddocr")
    return package.DdddOcr(det=True, ocr=False, show_ad=False)


def ddddocr_detection(image: Array) -> list[Box]:
    """Return what a detector that was trained on captchas finds."""
    found = _ddddocr().detection(cv2.imencode(".png", _rgb(image))[1].tobytes())
    return [
        _clipped(Box(top, left, bottom, right), image)
        for left, top, right, bottom in found
    ]


def tesseract(image: Array) -> list[Box]:
    """Return the words that are read, wherever they stand."""
    done = subprocess.run(
        ["tesseract", "stdin", "stdout", "--psm", "11", "tsv"],
        input=cv2.imencode(".png", _rgb(image)[..., ::-1])[1].tobytes(),
        env=os.environ | {"OMP_THREAD_LIMIT": "1"},
        capture_output=True,
        check=True,
    )
    boxes = []
    for line in done.stdout.decode().splitlines()[1:]:
        fields = line.split("\t")
        if fields[0] == "5" and float(fields[10]) >= 0:  # a word, and how sure
            left, top, width, height = map(int, fields[6:10])
            boxes.append(Box(top, left, top + height, left + width))
    return boxes


def _grey(image: Array) -> Array:
    return image if image.ndim == 2 else image.max(axis=-1)


def _rgb(image: Array) -> Array:
    return image if image.ndim == 3 else np.stack([image] * 3, axis=-1)


def _clipped(box: Box, image: Array) -> Box:
    rows, columns = image.shape[:2]
    return Box(
        max(0, box.top),
        max(0, box.left),
        min(rows, box.bottom),
        min(columns, box.right),
    )
