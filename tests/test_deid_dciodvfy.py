"""dciodvfy finds no error in a de-identified file that its source had not."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from dicomdask import header
from dicomdask.deid import clean_file
from dicomdask.errors import InputError
from dicomdask.policy import load_policy
from dicomdask.pseudonym import Key
from dicomdask.tasks.clean_file import require_cleanable
from tests.builders import to_bytes
from tests.test_deid_graphics import presentation_state

KEY = Key(b"0123456789abcdef")
VALUES = re.compile(r"= *<[^>]*>|<[0-9.]+>|\[[^\]]*\]|\b[0-9][0-9.]*\b|- values are .*")
UNREADABLE = ("Tags out of order", "Information Object Not found")

pytestmark = pytest.mark.skipif(
    shutil.which("dciodvfy") is None, reason="dciodvfy is not installed (dicom3tools)"
)


def errors(path):
    done = subprocess.run(
        ["dciodvfy", path],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    lines = (done.stderr + done.stdout).splitlines()
    return {VALUES.sub("", line) for line in lines if line.startswith("Error")}


def new_errors(path, policy, folder):
    """Return the errors that a file got; None where it is not passed at all."""
    try:
        dataset = header.read_dataset(path.read_bytes())
        if "PixelData" not in dataset:
            require_cleanable(dataset, policy)
        made = clean_file(dataset, policy, KEY)
    except InputError:
        return None
    before = errors(path)
    if any(text in line for text in UNREADABLE for line in before):
        return None
    (folder / "out.dcm").write_bytes(made.data)
    return errors(folder / "out.dcm") - before


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["research", "basic"])
def test_no_file_gets_an_error(name, data, full, tmp_path):
    policy = load_policy(name)
    paths = sorted(
        Path(folder) / one for folder, _, names in os.walk(data) for one in names
    )
    step = 1 if full else 17 if name == "research" else 41
    found = {path: new_errors(path, policy, tmp_path) for path in paths[::step]}
    checked = [path for path, lines in found.items() if lines is not None]
    assert len(checked) > len(found) / 2
    assert {path.name: found[path] for path in checked if found[path]} == {}


@pytest.mark.parametrize("options", [[], ["clean-graphics"]])
def test_presentation_states_get_no_error(options, tmp_path):
    (tmp_path / "gsps.dcm").write_bytes(to_bytes(presentation_state()))
    policy = load_policy("research", options=options)
    found = new_errors(tmp_path / "gsps.dcm", policy, tmp_path)
    assert found == (set() if options else None)
