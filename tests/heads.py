"""A head whose parts are known: of ellipsoids, seen by CT and MR, posed at will."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset
from scipy import ndimage

from tests.builders import make_instance, write_series

STEP = 1.5
LOW = np.array([-105.0, -135.0, -210.0])
HIGH = np.array([105.0, 120.0, 105.0])
SHADED = np.array([[76.0], [0.0]])
"""Where a shade is deepest: at the tips of the frontal lobes (posterior, superior)."""

AIR, SKIN, MUSCLE, BONE, FLUID, BRAIN, EYE, NOSE, EAR = range(9)
PARTS = ("air", "skin", "muscle", "bone", "fluid", "brain", "eye", "nose", "ear")
CONTRASTS = {
    "CT": (-1000, 20, 45, 900, 8, 35, 12, 20, 20),
    "T1": (0, 135, 65, 10, 30, 95, 25, 120, 120),
    "T2": (0, 110, 35, 8, 210, 95, 200, 100, 100),
}


@dataclass(frozen=True)
class Scan:
    """Values and labels on one grid, (z, y, x), and the affine in mm, LPS."""

    values: np.ndarray
    labels: np.ndarray
    affine: np.ndarray


@cache
def anatomy() -> np.ndarray:
    """Return the parts on a grid along (left, posterior, superior)."""
    axes = [np.arange(a, b, STEP) for a, b in zip(LOW, HIGH, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)

    def ball(center, radii):
        parts = zip((x, y, z), center, radii, strict=True)
        return sum(((a - c) / r) ** 2 for a, c, r in parts) <= 1

    def pair(center, radii):
        left = (-center[0], *center[1:])
        return ball(center, radii) | ball(left, radii)

    brain = ball((0, 0, 8), (66, 84, 64)) & (z > -28) & ~((y < -38) & (z < -16))
    brain |= pair((40, -16, -22), (24, 38, 24))
    brain |= ball((0, 46, -36), (52, 32, 26))
    stem = (x**2 + (y - 18) ** 2 <= 12**2) & (z <= -10) & (z > -62)
    cord = (x**2 + (y - 30) ** 2 <= 6**2) & (z <= -55)
    brain |= stem
    outside = ndimage.distance_transform_edt(~(brain | cord), sampling=STEP)
    around = ndimage.distance_transform_edt(~brain, sampling=STEP)
    face = ball((0, -24, -62), (62, 70, 78))
    neck = (x / 58) ** 2 + ((y - 14) / 60) ** 2 <= 1
    eyes, nose = pair((32, -74, -34), (12, 12, 12)), ball((0, -95, -58), (14, 22, 24))
    ears = pair((83, 8, -32), (5, 16, 30))
    body = (around <= 16) | face | (neck & (z < -50))
    body = ndimage.binary_closing(body, iterations=4) | body
    label = np.full(body.shape, AIR, np.uint8)
    label[nose] = NOSE
    label[ears] = EAR
    label[body] = SKIN
    depth = ndimage.distance_transform_edt(body, sampling=STEP)
    label[depth > 5] = MUSCLE
    jaw = face & ~ball((0, -20, -62), (52, 60, 70)) & (z < -80) & (y < 0) & (depth > 9)
    teeth = ball((0, -70, -82), (24, 20, 10)) & (depth > 6)
    spine = (x**2 + (y - 30) ** 2 <= 20**2) & (z < -66) & (z % 24 < 18)
    label[jaw | teeth | spine] = BONE
    label[(around > 3) & (around <= 9)] = BONE
    hole = (x**2 + (y - 20) ** 2 <= 15**2) & (z < -50)
    label[hole & (outside > 3) & (z > -70)] = MUSCLE
    air = ball((0, -58, -52), (13, 38, 14)) | ball((0, -66, -92), (22, 22, 4))
    air |= pair((28, -58, -62), (13, 16, 14))
    label[air & (around > 9)] = AIR
    label[eyes & (around > 9)] = EYE
    label[outside <= 3] = FLUID
    label[brain | cord] = BRAIN
    return label


def rotation(pitch: float, yaw: float, roll: float) -> np.ndarray:
    """Return how the head is turned, by degrees about left, superior, posterior."""
    turned = np.eye(3)
    for axis, degrees in ((0, pitch), (2, yaw), (1, roll)):
        a, b = (other for other in range(3) if other != axis)
        angle, one = np.radians(degrees), np.eye(3)
        one[a, a] = one[b, b] = np.cos(angle)
        one[a, b], one[b, a] = -np.sin(angle), np.sin(angle)
        turned = one @ turned
    return turned


def scan(
    contrast: str,
    *,
    spacing: tuple[float, float, float] = (4.0, 2.0, 2.0),
    plane: str = "axial",
    turn: tuple[float, float, float] = (0.0, 0.0, 0.0),
    tilt: tuple[float, float, float] = (0.0, 0.0, 0.0),
    low: tuple[float, float, float] = (-105.0, -130.0, -150.0),
    high: tuple[float, float, float] = (105.0, 118.0, 100.0),
    reverse: bool = False,
    size: float = 1.0,
    shade: float = 0.0,
    seed: int = 0,
) -> Scan:
    """Return the head as a scanner would.

    `turn` is how the head lies, `tilt` how the volume does, both in degrees; `low` and
    `high` bound the volume in mm. `size` is 1 for an adult. `shade` is
    the share of its signal that MR loses at the front of the brain, as far from a coil.
    """
    axes = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}[plane]
    turned = rotation(*tilt)
    low, high = np.array(low) * size, np.array(high) * size
    affine = np.diag([0.0, 0.0, 0.0, 1.0])
    shape = []
    start = low.copy()
    for column, (axis, step) in enumerate(zip(axes, spacing, strict=True)):
        down = (axis == 2 and plane != "axial") or (column == 0 and reverse)
        shape.append(int((high[axis] - low[axis]) / step))
        affine[axis, column] = -step if down else step
        start[axis] = high[axis] - step if down else low[axis]
    affine[:3, 3] = start
    affine[:3] = turned @ affine[:3]
    index = np.indices(shape).reshape(3, -1)
    points = affine[:3, :3] @ index + affine[:3, 3:]
    points = rotation(*turn).T @ points / size
    places = (points - LOW[:, None]) / STEP
    labels = ndimage.map_coordinates(anatomy(), places, order=0, mode="nearest")
    labels = labels.reshape(shape)
    gain = 1 - shade * np.exp(-((np.hypot(*(points[1:] + SHADED)) / 45) ** 2))
    return Scan(_seen(labels, contrast, seed, gain.reshape(shape)), labels, affine)


def slices(head: Scan, contrast: str, **elements: Any) -> Iterator[Dataset]:
    """Yield the DICOM slices of a scan."""
    steps = np.linalg.norm(head.affine[:3, :3], axis=0)
    across, down = head.affine[:3, 2] / steps[2], head.affine[:3, 1] / steps[1]
    scale = {"RescaleSlope": None, "RescaleIntercept": None, "Modality": "MR"}
    known = {
        "PixelSpacing": [float(steps[1]), float(steps[2])],
        "ImageOrientationPatient": [float(one) for one in (*across, *down)],
        "SliceThickness": float(steps[0]),
        **({} if contrast == "CT" else scale),
    }
    for z, plane in enumerate(head.values):
        place = head.affine[:3, 3] + z * head.affine[:3, 0]
        values = plane + 1024 if contrast == "CT" else plane
        yield make_instance(
            instance=z + 1,
            pixels=np.ascontiguousarray(values),
            **{
                **known,
                "ImagePositionPatient": [round(float(one), 6) for one in place],
                **elements,
            },
        )


def _seen(labels: np.ndarray, contrast: str, seed: int, gain: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = np.array(CONTRASTS[contrast], float)[labels]
    noise = rng.standard_normal((2, *labels.shape))
    if contrast == "CT":
        return np.rint(values + 12 * noise[0]).astype(np.int16)
    folds = ndimage.gaussian_filter(rng.standard_normal(labels.shape), 1.5)
    values += 15 * np.sign(folds) * (labels == BRAIN)
    ends = [np.linspace(0.85, 1.15, n) for n in labels.shape]
    values *= ends[0][:, None, None] * ends[1][None, :, None] * ends[2] * gain
    return np.rint(np.hypot(values + 4 * noise[0], 4 * noise[1])).astype(np.uint16)


def main(folder: str) -> None:
    """Write the slices of a head in CT into a folder."""
    write_series(Path(folder), slices(scan("CT", spacing=(6.0, 3.0, 3.0)), "CT"))


if __name__ == "__main__":
    main(sys.argv[1])
