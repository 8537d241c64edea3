"""The page on keeping a dataset for years: its commands run, and do what it says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import dicomdask

PAGE = Path(__file__).parent.parent / "examples/keep.md"


def test_the_commands_of_the_page_run(tmp_path: Path) -> None:
    commands = re.findall(r"^ {4}\$ (.*)$", PAGE.read_text(), re.MULTILINE)
    script = "\n".join(["set -e", *commands])
    script = script.replace("convert pile", "convert --scheduler synchronous pile")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    kept = {key: value for key, value in os.environ.items() if key[:9] != "DICOMDASK"}
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=kept | {"PATH": path, "PYTHONPATH": str(PAGE.parent.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
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
