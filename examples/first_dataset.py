"""Convert a folder, look at the tables, read patches: the whole way in one script.

    python examples/first_dataset.py [FOLDER]

Writes the dataset below FOLDER (a temporary one by default) from the CT slices that
ship inside pydicom.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import pydicom

import dicomdask


def main(folder: Path) -> None:
    source = Path(pydicom.__file__).parent / "data" / "test_files" / "dicomdirtests"
    store = folder / "first.zarr"

    # One call does it all; run it again and it does nothing.
    summary = dicomdask.convert(str(source), str(store), where="Modality == 'CT'")
    print(f"commit {summary.commit.n}: {dict(summary.commit.codes)}")

    # One row a volume: pick what to train on with pandas.
    ds = dicomdask.open_dataset(str(store))
    stacks = ds.volumes[ds.volumes["n_frames"] > 1]
    print(stacks[["volume_id", "shape", "spacing_mm", "units", "StudyDate"]])

    # Random patches: only the chunks they touch are read.
    rng = np.random.default_rng(0)
    row = stacks.iloc[0]
    depth, height, width = row["shape"]
    for _ in range(3):
        z = int(rng.integers(0, depth - 1))
        y, x = (int(rng.integers(0, extent - 8)) for extent in (height, width))
        patch = ds.read(
            row["volume_id"],
            z=slice(z, z + 2),
            y=slice(y, y + 8),
            x=slice(x, x + 8),
            values="modality",
        )
        print(f"patch at {(z, y, x)}: mean {patch.mean():.1f} {row['units']}")

    # Each voxel leads back to its SOP instance.
    lineage = ds.frames[ds.frames["volume_id"] == row["volume_id"]]
    print(lineage[["z", "SOPInstanceUID", "ImagePositionPatient"]])


if __name__ == "__main__":
    target = sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="dicomdask-")
    main(Path(target))
