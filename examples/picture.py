"""Draw the picture of the README: what the demo stores, and each input's outcome.

pip install matplotlib
dicomdask demo demo.zarr
python examples/picture.py demo.zarr examples/demo.png
"""

import sys

import matplotlib.pyplot as plt

import dicomdask

COLOURS = {"stored": "#2a7f62", "duplicate": "#8d99ae", "skipped": "#c9cdd6"}


def main(store: str, target: str) -> None:
    ds = dicomdask.open_dataset(store)
    largest = ds.volumes.assign(pixels=ds.volumes["shape"].map(lambda s: s[-1] * s[-2]))
    chosen = largest.sort_values("pixels", ascending=False).head(6)
    figure = plt.figure(figsize=(11, 4.4), dpi=110, layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.15, 1))
    for axis, (_, row) in zip(left.subplots(2, 3).flat, chosen.iterrows(), strict=True):
        image = ds.read(row["volume_id"], values="modality")
        axis.imshow(image.reshape(-1, *image.shape[-2:])[0], cmap="gray")
        spacing = "" if row["spacing_mm"] is None else f"{row['spacing_mm'][-1]:.2g} mm"
        size = "x".join(map(str, row["shape"]))
        axis.set_title(f"{row['Modality']} {size} {spacing}", fontsize=8)
        axis.axis("off")
    left.suptitle("volumes", fontsize=10)
    counts = ds.inputs.groupby(["outcome", "code"]).size().sort_values()
    bars = right.subplots()
    names = [code for _, code in counts.index]
    colours = [COLOURS.get(outcome, "#c1554d") for outcome, _ in counts.index]
    drawn = bars.barh(names, counts.to_numpy(), color=colours)
    bars.bar_label(drawn, fontsize=8, padding=3)
    bars.tick_params(labelsize=8)
    bars.spines[["top", "right", "bottom"]].set_visible(False)
    bars.set_xticks([])
    right.suptitle(f"every one of {len(ds.inputs)} inputs, by code", fontsize=10)
    figure.savefig(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
