"""Pages of the project: the commands that stand in them, run as a reader runs them."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def page_text(page: str) -> str:
    """Return a page of `examples`."""
    return (ROOT / "examples" / page).read_text()


def commands(page: str) -> list[str]:
    """Return the commands of a page of `examples`; lines with > go on."""
    found = re.findall(r"^ {4}\$ (.*(?:\n {4}> ?.*)*)$", page_text(page), re.MULTILINE)
    return [re.sub(r"\n {4}> ?", "\n", one) for one in found]


def blocks(page: str) -> list[str]:
    """Return the blocks of Python of a page of `examples`."""
    return re.findall(r"```python\n(.*?)```", page_text(page), re.DOTALL)


def run_blocks(page: str) -> dict[str, Any]:
    """Run the Python of a page in this folder, top to bottom; return its names."""
    names: dict[str, Any] = {}
    for block in blocks(page):
        exec(block, names)
    return names


def without_cluster(found: Sequence[str]) -> list[str]:
    """Return commands whose long work is done in one process: it starts sooner."""
    long = re.compile(r"\bdicomdask (convert|deidentify)\b")
    return [long.sub(r"\g<0> --scheduler synchronous", one) for one in found]


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
    """Run commands in a folder, one after the other; none of them may fail."""
    done = run_program(["bash", "-c", "\n".join(["set -e", *found])], folder)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    return done
