"""The page on faces: its commands run, and what it says is so."""

import re
from pathlib import Path
from typing import get_args

from dicomdask.faces import face, flag, head
from dicomdask.model import Faces
from tests.pages import commands, page_text, run_commands, without_cluster

PAGE = "faces.md"
TEXT = page_text(PAGE)


def test_the_commands_of_the_page_run(tmp_path: Path) -> None:
    done = run_commands(without_cluster(commands(PAGE)), tmp_path)
    assert "faces: 1 volumes may show one, 0 had theirs removed" in done.stdout
    assert "faces: 0 volumes may show one, 1 had theirs removed" in done.stdout
    assert "cleaned" in done.stdout
    assert "all is as it should be" in done.stdout


def test_the_page_tells_the_numbers_of_the_code() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE)[1:]) <= {
        *get_args(Faces)
    }
    assert f"less than {flag.LEAST_MM:.0f} mm high" in TEXT
    assert f"{face.DEPTH_MM:.0f} mm behind the skin" in TEXT
    assert f"forehead {face.FOREHEAD_MM:.0f} mm" in TEXT
    assert f"within {head.MARGIN_MM:.0f} mm of the brain" in TEXT
