"""Pages of the project: the commands that stand in them, run as a reader runs them."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent


def commands(page: str) -> list[str]:
    """Return the commands of a page of `examples`; lines with > go on."""
    text = (ROOT / "examples" / page).read_text()
    found = re.findall(r"^ {4}\$ (.*(?:\n {4}> ?.*)*)$", text, re.MULTILINE)
    return [re.sub(r"\n {4}> ?", "\n", one) for one in found]


def environment() -> dict[str, str]:
    """Return an environment in which this interpreter and its commands are found."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    kept = {key: value for key, value in os.environ.items() if key[:9] != "DICOMDASK"}
    return kept | {"PATH": path, "PYTHONPATH": str(ROOT)}


def run_program(
    words: Sequence[str | Path], folder: Path
) -> subprocess.CompletedProcess[str]:
    """Run a program in a folder; return what it said."""
    return subprocess.run(
        words,
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def run_commands(
    found: Sequence[str], folder: Path
) -> subprocess.CompletedProcess[str]:
    """Run commands in a folder, one after the other until one fails."""
    return run_program(["bash", "-c", "\n".join(["set -e", *found])], folder)
