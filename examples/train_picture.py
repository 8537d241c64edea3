"""Draw the table of train.py: seconds an epoch, from each source.

pip install matplotlib
python examples/train.py FOLDER
python examples/train_picture.py FOLDER/train.json examples/train.png
"""

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt

COLOURS = {"dicomdask": "#2a7f62"}
TITLES = ("an epoch of data alone", "and with a small model")


def main(table: str, target: str) -> None:
    found = json.loads(Path(table).read_text())
    names = list(found)[::-1]
    colours = [COLOURS.get(name, "#8d99ae") for name in names]
    figure, axes = plt.subplots(
        1, 2, figsize=(9, 2.2), dpi=110, layout="constrained", sharey=True
    )
    columns = zip(*found.values(), strict=True)
    for axis, title, column in zip(axes, TITLES, columns, strict=True):
        drawn = axis.barh(names, column[::-1], color=colours)
        axis.bar_label(drawn, fmt="%.2f s", fontsize=8, padding=3)
        axis.set_title(title, fontsize=10)
        axis.tick_params(labelsize=9)
        axis.spines[["top", "right", "bottom"]].set_visible(False)
        axis.set_xticks([])
        axis.margins(x=0.15)
    figure.savefig(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
