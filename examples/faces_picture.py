"""Draw the picture of the page on faces: a head before and after, and its skin.

pip install matplotlib "dicomdask[faces]"
python -m tests.heads HEAD
python examples/faces_picture.py HEAD FOLDER examples/faces.png

HEAD holds one series of a head in CT, here of one that is made: nobody's face belongs
here. FOLDER is a new one.
"""

import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from scipy import ndimage

import dicomdask
from dicomdask.dataset import Dataset

Array = np.ndarray[Any, np.dtype[Any]]

SKIN_HU = -300
FINER = 3
WINDOW = {"vmin": -200, "vmax": 300, "cmap": "gray"}


def main(head: str, folder: str, target: str) -> None:
    figure = plt.figure(figsize=(11, 6), dpi=110, layout="constrained")
    axes = figure.subplots(2, 4)
    for row, options in zip(axes, ([], ["clean-faces"]), strict=True):
        store = str(Path(folder) / ("-".join(options) or "as-it-is"))
        dicomdask.convert(head, store, options=options, scheduler="synchronous")
        draw(row, dicomdask.open_dataset(store))
    for row, text in zip(axes, ("as it is", "what is stored"), strict=True):
        row[0].set_title(text, fontsize=10, loc="left")
    figure.savefig(target)


def draw(row: Any, ds: Dataset) -> None:
    """Draw three planes through the middle of a head, and its skin from the front."""
    [volume] = ds.volumes.to_dict("records")
    values = ds.read(volume["volume_id"], values="modality")
    matrix = np.reshape(volume["affine"], (4, 4))
    if matrix[2, 0] < 0:  # slices from below to above
        values = values[::-1]
    high, deep, wide = np.linalg.norm(matrix[:3, :3], axis=0)
    z, y, x = (n // 2 for n in values.shape)
    planes = (values[::-1, :, x], values[z // 2], values[::-1, y])
    aspects = (high / deep, deep / wide, high / wide)
    for axis, plane, aspect in zip(row, planes, aspects, strict=False):
        axis.imshow(plane, aspect=aspect, **WINDOW)
    shown = surface(values, (deep, wide, high))
    row[3].imshow(shown[::-1], aspect=high / wide, cmap="gray")
    for axis in row:
        axis.axis("off")


def surface(values: Array, steps: tuple[float, float, float]) -> Array:
    """Return the skin as light from above in front falls on it."""
    deep, wide, high = steps
    tissue = ndimage.zoom(ndimage.gaussian_filter(values, 0.8), FINER, order=1)
    tissue = tissue > SKIN_HU
    seen = tissue.any(axis=1)
    depth = np.where(seen, tissue.argmax(axis=1), tissue.shape[1]) * deep
    depth = ndimage.gaussian_filter(depth, 1.5) / FINER
    down, across = np.gradient(depth * FINER, high, wide)
    light = (1 + down / 2) / np.sqrt(1 + down**2 + across**2) / 1.2
    return np.where(seen, np.clip(light, 0.15, 1), 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
