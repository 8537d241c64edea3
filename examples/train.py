"""Convert real series, train on them with a stop in the middle, and time the reading.

    python examples/train.py [FOLDER] [--source DICOM] [--size 128] [--rounds 3]

The model learns to tell CT from MR by single slices. The source is the folder that
DICOMDASK_TEST_DATA names, or the files that ship inside pydicom. All is written below
FOLDER, a temporary one by default.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import torch
from pydicom.pixels import apply_rescale
from torch import nn
from torch.utils.data import DataLoader, Dataset

import dicomdask
from dicomdask.loaders.torch import BatchOrder, Loader, SliceDataset

BATCH, WORKERS, EPOCHS = 16, 2, 3
SINGLE_FRAME = ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4")  # CT and MR
SHIPPED = Path(pydicom.__file__).parent / "data" / "test_files" / "dicomdirtests"


# --- the dataset ----------------------------------------------------------------


def convert(source: str, folder: Path) -> dicomdask.dataset.Dataset:
    store, work = folder / "train.zarr", folder / "train.zarr.work"
    summary = dicomdask.convert(source, str(store), work=str(work))
    print(f"commit {summary.commit.n}: {summary.commit.codes['stored']} files stored")
    return dicomdask.open_dataset(str(store))


def choose(ds: dicomdask.dataset.Dataset, size: int) -> SliceDataset:
    volumes = ds.volumes[ds.volumes["SOPClassUID"].isin(SINGLE_FRAME)]
    volumes = volumes[volumes["kind"] == "volume"]
    volumes = volumes.assign(is_ct=(volumes["Modality"] == "CT").astype(float))
    return SliceDataset(ds, (size, size), volumes=volumes, labels=["is_ct"], fill=0)


# --- training, with a stop ------------------------------------------------------


class Run:
    """A model, its optimizer, and the loader that feeds it."""

    def __init__(self, slices: SliceDataset, workers: int = WORKERS) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(
            *(nn.Conv2d(1, 8, 5, stride=4), nn.ReLU()),
            *(nn.Conv2d(8, 16, 3, stride=2), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 1)),
        )
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01)
        self.loader = Loader(slices, BATCH, num_workers=workers)
        self.parts = (self.model, self.optimizer, self.loader)

    def step(self, batch: dict) -> float:
        logits = self.model(batch["image"] / 1000)[:, 0]
        wanted = batch["labels"]["is_ct"].float()
        loss = nn.functional.binary_cross_entropy_with_logits(logits, wanted)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def train(self, epochs: int, stop_after: int | None = None) -> None:
        """Train up to some epoch, or stop after so many batches."""
        done = 0
        while self.loader.epoch < epochs:
            epoch, losses = self.loader.epoch, []
            for batch in self.loader:
                losses.append(self.step(batch))
                done += 1
                if done == stop_after:
                    print(f"epoch {epoch}: stopped after {len(losses)} batches")
                    return
            print(f"epoch {epoch}: loss {np.mean(losses):.3f}")

    def save(self, path: Path) -> None:
        torch.save([part.state_dict() for part in self.parts], path)

    def load(self, path: Path) -> None:
        for part, state in zip(self.parts, torch.load(path), strict=True):
            part.load_state_dict(state)


def train_with_a_stop(slices: SliceDataset, folder: Path) -> Run:
    first = Run(slices)
    first.train(EPOCHS, stop_after=len(first.loader) + len(first.loader) // 2)
    first.save(folder / "checkpoint.pt")
    second = Run(slices)  # as another process would, tomorrow
    second.load(folder / "checkpoint.pt")
    print(f"resumed: {len(second.loader)} batches of epoch {second.loader.epoch} left")
    second.train(EPOCHS)
    return second


# --- the same samples from elsewhere --------------------------------------------


class Files(Dataset):
    """The samples of a SliceDataset, each out of a file of its own."""

    def __init__(self, slices: SliceDataset, paths: dict, size: int) -> None:
        self.samples, self.paths, self.size = slices.samples, paths, size
        ct = slices.samples.volumes.set_index("volume_id")["Modality"] == "CT"
        self.is_ct = ct.astype(float).to_dict()

    def __getitem__(self, index: tuple[int, int]) -> dict:
        trace = self.samples.trace(*index)
        [volume_id], places = trace.volume_ids, trace.start[:-2]
        plane = self.read(*self.paths[volume_id, places[-1] if places else 0])
        image = torch.as_tensor(crop_or_pad(plane, self.size), dtype=torch.float32)
        return {"image": image[None], "labels": {"is_ct": self.is_ct[volume_id]}}


class DicomFiles(Files):
    def read(self, path: str, frame: int) -> np.ndarray:
        file = pydicom.dcmread(path)
        pixels = file.pixel_array
        return apply_rescale(pixels[frame - 1] if pixels.ndim == 3 else pixels, file)


class TensorFiles(Files):
    def read(self, path: str, frame: int) -> np.ndarray:
        return torch.load(path).numpy()


def crop_or_pad(plane: np.ndarray, size: int) -> np.ndarray:
    for axis in (0, 1):
        start = (plane.shape[axis] - size) // 2
        before, after = max(0, -start), max(0, start + size - plane.shape[axis])
        plane = np.pad(
            plane, [(before, after) if a == axis else (0, 0) for a in (0, 1)]
        )
        start = max(0, start)
        plane = plane.take(range(start, start + size), axis)
    return plane


def originals(slices: SliceDataset, folder: Path) -> dict:
    """Return the DICOM file of each slice: who holds work and key may find it."""
    work, table = str(folder / "train.zarr.work"), str(folder / "originals.csv")
    index = dicomdask.index_dataframe(work)[["SOPInstanceUID", "url"]].compute()
    index.to_csv(folder / "index.csv", index=False)
    dicomdask.pseudonymize(
        str(folder / "index.csv"),
        table,
        columns=["SOPInstanceUID"],
        keep=["url"],
        work=work,
        overwrite=True,
    )
    urls = pd.read_csv(table, dtype=str).drop_duplicates("SOPInstanceUID")
    found = slices.samples.dataset.frames.merge(urls, on="SOPInstanceUID")
    found = found.fillna({"z": 0})
    columns = (found[name] for name in ("volume_id", "z", "url", "frame_number"))
    return {
        (name, int(z)): (url, int(n)) for name, z, url, n in zip(*columns, strict=True)
    }


def save_tensors(slices: SliceDataset, folder: Path) -> dict:
    """Write each slice as a file of torch, in its full size."""
    (folder / "tensors").mkdir(exist_ok=True)
    found = {}
    for name in slices.samples.volumes["volume_id"]:
        volume = slices.samples.dataset.read(name, values="modality")
        for z, plane in enumerate(volume.reshape(-1, *volume.shape[-2:])):
            path = folder / "tensors" / f"{name}-{z}.pt"
            torch.save(torch.from_numpy(plane.astype(np.float32)), path)
            found[name, z] = str(path), 1
    return found


# --- the table ------------------------------------------------------------------


def plain_loader(files: Files, slices: SliceDataset) -> DataLoader:
    order = BatchOrder(slices, BATCH, workers=WORKERS)
    options = {"num_workers": WORKERS, "persistent_workers": True}
    return DataLoader(files, batch_sampler=order, **options)


def seconds(batches: object, run: Run | None = None) -> float:
    start = time.perf_counter()
    for batch in batches:
        if run is not None:
            run.step(batch)
    return time.perf_counter() - start


def compare(slices: SliceDataset, folder: Path, size: int, rounds: int) -> dict:
    """Time epochs of the same samples, the sources taking turns."""
    options = {"num_workers": WORKERS, "persistent_workers": True}
    dicom = DicomFiles(slices, originals(slices, folder), size)
    tensors = TensorFiles(slices, save_tensors(slices, folder), size)
    loaders = {
        "dicomdask": Loader(slices, BATCH, **options),
        "torch .pt files": plain_loader(tensors, slices),
        "DICOM with pydicom": plain_loader(dicom, slices),
    }
    first = [next(iter(loader))["image"] for loader in loaders.values()]
    if not all(torch.allclose(first[0], image) for image in first):
        raise AssertionError("the sources hold different samples")
    run, times = Run(slices), {name: ([], []) for name in loaders}
    for _ in range(rounds):
        for name, loader in loaders.items():
            times[name][0].append(seconds(loader))
            times[name][1].append(seconds(loader, run))
    return {name: [statistics.median(t) for t in both] for name, both in times.items()}


def show(table: dict) -> None:
    print(f"\n{'seconds an epoch':20}{'data alone':>12}{'with a model':>14}")
    for name, (alone, trained) in table.items():
        print(f"{name:20}{alone:12.2f}{trained:14.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--source", default=os.environ.get("DICOMDASK_TEST_DATA"))
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)  # the other cores read
    folder = options.folder or Path(tempfile.mkdtemp(prefix="dicomdask-"))
    slices = choose(convert(options.source or str(SHIPPED), folder), options.size)
    print(f"{len(slices)} slices of {len(slices.samples.volumes)} volumes")
    train_with_a_stop(slices, folder)
    table = compare(slices, folder, options.size, options.rounds)
    show(table)
    (folder / "train.json").write_text(json.dumps(table))


if __name__ == "__main__":
    main()
