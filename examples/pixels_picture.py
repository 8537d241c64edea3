"""Draw the picture of the page on text in pixels: one image before and after.

pip install matplotlib "dicomdask[text]"
python examples/pixels_picture.py FOLDER examples/pixels.png

FOLDER is a new one. The image is an ultrasound that ships inside pydicom.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pydicom
from matplotlib.patches import Rectangle
from pydicom.data import get_testdata_file

import dicomdask

COLOURS = {"detector": "#f4a300", "region": "#35b8e0", "rule": "#b57edc"}


def main(folder: str, target: str) -> None:
    source = str(get_testdata_file("examples_rgb_color.dcm"))
    store = str(Path(folder) / "scans.zarr")
    options = ["clean-pixels"]
    dicomdask.convert(source, store, options=options, scheduler="synchronous")
    ds = dicomdask.open_dataset(store)
    stored = ds.read(ds.volumes["volume_id"][0])
    figure = plt.figure(figsize=(11, 4.5), dpi=110, layout="constrained")
    before, after = figure.subplots(1, 2)
    before.imshow(pydicom.dcmread(source).pixel_array)
    for one in ds.redactions.itertuples():
        corner = (one.left, one.top)
        size = (one.right - one.left, one.bottom - one.top)
        colour = COLOURS[one.way]
        before.add_patch(Rectangle(corner, *size, fill=False, color=colour, lw=1.2))
    after.imshow(stored.transpose(1, 2, 0))
    before.set_title("the source, and what was found in it", fontsize=10)
    after.set_title("what is stored", fontsize=10)
    for axis in (before, after):
        axis.axis("off")
    figure.savefig(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
