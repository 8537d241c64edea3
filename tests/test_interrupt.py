"""A person at a terminal: Ctrl-C, and what workers print there."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import dicomdask
from dicomdask.verify import verify
from tests.builders import make_series, write_series

CONVERT = "from dicomdask.cli import main; main(prog_name='dicomdask')"
FAIL = """
from dicomdask.pipeline.clusters import local_cluster
with local_cluster("1GiB") as client:
    for divide in client.submit(divmod, 1, 0), client.submit(divmod, 2, 0):
        print(type(divide.exception()).__name__, flush=True)
"""


def take_ctrl_c() -> None:
    """Let the command that starts handle Ctrl-C as one that a terminal starts does."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def wait_for_workers(pid: int) -> None:
    """Wait until a worker of a command begins, and is not there yet."""
    while not psutil.Process(pid).children():
        time.sleep(0.02)
    time.sleep(0.3)


@pytest.mark.parametrize("moment", ["list", "workers begin", "index"])
def test_ctrl_c_is_one_sentence_and_the_command_goes_on(
    moment: str, tmp_path: Path
) -> None:
    source, store = tmp_path / "source", tmp_path / "study.zarr"
    write_series(source, make_series(4))
    words = [sys.executable, "-c", CONVERT, "convert", str(source), str(store)]
    with subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a terminal interrupts all processes of a group
        preexec_fn=take_ctrl_c,
    ) as process:
        assert process.stderr is not None
        stage = "index" if moment == "index" else "list"
        for line in process.stderr:
            if line.startswith(f"{stage}:"):
                break
        if moment == "workers begin":
            wait_for_workers(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        _, told = process.communicate(timeout=120)
    assert process.returncode == 130
    sentence = "dicomdask: stopped; what is done is kept: run the same command again"
    lines = told.splitlines()
    assert lines[-1] == sentence
    assert all(line.split(":")[0] in {"index", "plan", "memory"} for line in lines[:-1])
    dicomdask.convert(str(source), str(store), scheduler="synchronous")
    assert not verify(str(store)).problems


def test_an_error_of_a_task_is_printed_by_nobody_but_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FAIL],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.split() == ["ZeroDivisionError"] * 2
    assert done.stderr == ""
