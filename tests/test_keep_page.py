"""The page on keeping a dataset for years: its commands run, and do what it says."""

import re
from pathlib import Path

import dicomdask
from tests.pages import commands, run_commands, without_cluster


def test_the_commands_of_the_page_run(tmp_path: Path) -> None:
    done = run_commands(without_cluster(commands("keep.md")), tmp_path)
    told = done.stdout
    assert "0 objects, 0 B deleted" in told, "nothing is 30 days old"
    assert told.count("patient 1: found by PatientID") == 2
    assert "nothing was removed: --dry-run" in told
    assert re.search(r" 24  forgotten +The patient was removed", told)
    assert "kept out by forget: 1" in told
    assert "all is as it should be" in told
    assert "patient 1: may come back" in told
    assert "98890234" not in told + done.stderr
    codes = dicomdask.open_dataset(str(tmp_path / "study.zarr")).commit.codes
    assert codes["stored"] == 21
    assert "forgotten" not in codes
