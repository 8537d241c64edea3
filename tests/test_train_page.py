"""The page on training and its script: they run, and a stop changes nothing."""

import importlib.util
import json
import sys
from pathlib import Path

import pydicom
import pytest
import torch
from torch import distributed

import dicomdask
from dicomdask.loaders.torch import Loader, SliceDataset
from tests.pages import ROOT, commands, run_blocks, run_program

SHIPPED = Path(pydicom.__file__).parent / "data/test_files/dicomdirtests"


@pytest.fixture(scope="module")
def example():
    """Return the script as a module."""
    spec = importlib.util.spec_from_file_location("train", ROOT / "examples/train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def shipped(tmp_path_factory, convert):
    """Return the dataset of files that ship inside pydicom."""
    store = tmp_path_factory.mktemp("train") / "study.zarr"
    convert(SHIPPED, store)
    return store


def test_a_stop_and_a_resume_change_no_weight(example, shipped, tmp_path):
    slices = example.choose(dicomdask.open_dataset(str(shipped)), 64)
    whole = example.Run(slices)
    whole.train(example.EPOCHS)
    resumed = example.train_with_a_stop(slices, tmp_path)
    for one, other in zip(
        whole.model.parameters(), resumed.model.parameters(), strict=True
    ):
        assert torch.equal(one, other)


def test_the_script_prints_one_table(tmp_path):
    script = ROOT / "examples/train.py"
    done = run_program([sys.executable, script, tmp_path, "--rounds", "1"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "stopped after" in done.stdout
    table = json.loads((tmp_path / "train.json").read_text())
    assert list(table) == ["dicomdask", "torch .pt files", "DICOM with pydicom"]
    for name, (alone, _) in table.items():
        assert f"{name:20}{alone:12.2f}" in done.stdout


def test_the_page_runs(shipped, monkeypatch):
    first, second = commands("train.md")
    assert "dicomdirtests" in first  # what `shipped` converts
    assert second == 'dicomdask convert "$SRC" study.zarr || test $? -eq 8'
    monkeypatch.chdir(shipped.parent)
    names = run_blocks("train.md")
    assert len(names["slices"]) == 21
    assert len(set(names["rest"])) == 8  # of batches of 8, 5 and 8
    assert set(names["batch"]) == {"image", "labels", "trace", "left_out"}
    assert names["frames"]["SOPInstanceUID"].notna().all()
    loaded = sum(len(batch["image"]) for batch in names["plain"])
    assert loaded == len(names["slices"])


def test_torch_distributed_says_who_reads_what(shipped, tmp_path):
    dataset = SliceDataset(dicomdask.open_dataset(str(shipped)), (8, 8), fill=0)
    distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/ranks", rank=0, world_size=1
    )
    try:
        loader = Loader(dataset, 4)
        assert loader.state_dict()["legs"][0]["world"] == 1
    finally:
        distributed.destroy_process_group()
