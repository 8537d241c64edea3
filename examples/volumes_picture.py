"""Draw three volumes of a dataset, cut along each axis, at their true proportions.

pip install matplotlib
dicomdask convert FOLDER volumes.zarr --on-irregular pad
python examples/volumes_picture.py volumes.zarr examples/volumes.png
"""

import sys

import matplotlib.pyplot as plt
import numpy as np

import dicomdask


def main(store: str, target: str) -> None:
    ds = dicomdask.open_dataset(store)
    order = ds.volumes["n_frames"].to_numpy(int).argsort(kind="stable")[::-1]
    rows = [ds.volumes.iloc[number] for number in order]
    chosen = [row for row in rows if list(row["dimensions"]) == ["z", "y", "x"]][:3]
    figure, axes = plt.subplots(3, 3, figsize=(8, 8.4), dpi=80, layout="constrained")
    for row, volume in zip(axes, chosen, strict=True):
        image = ds.read(volume["volume_id"], values="modality")
        spacing = volume["spacing_mm"]
        low, high = np.percentile(image, (2, 99.5))
        for cut, axis in enumerate(row):
            plane = np.take(image, image.shape[cut] // 2, axis=cut)
            down, right = (step for k, step in enumerate(spacing) if k != cut)
            upside = "lower" if cut else "upper"
            shown = {"cmap": "gray", "vmin": low, "vmax": high, "origin": upside}
            axis.imshow(plane, aspect=down / right, interpolation="nearest", **shown)
            axis.axis("off")
        size = "x".join(map(str, volume["shape"]))
        missing = f", {volume['n_missing']} missing" if volume["n_missing"] else ""
        steps = " x ".join(f"{step:.3g}" for step in spacing)
        row[0].set_title(
            f"{volume['Modality']} {size}{missing}\n{steps} mm", fontsize=9, loc="left"
        )
    figure.savefig(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
