"""README and pages against the code: commands run, tables equal."""

import re
import sys
from pathlib import Path

import pydicom

import dicomdask
from dicomdask.errors import CODES
from tests.pages import (
    ROOT,
    blocks,
    commands,
    page_text,
    run_blocks,
    run_commands,
    run_program,
)

README = (ROOT / "README.md").read_text()


def test_the_table_of_codes_equals_the_code():
    table = README.split("<!-- codes", 1)[1].split("<!-- /codes", 1)[0]
    rows = re.findall(r"^\| `([^`]+)` \| (.*) \|$", table, re.MULTILINE)
    assert dict(rows) == CODES


def test_ci_runs_the_first_two_commands_of_the_readme():
    found = re.findall(r"^ {4}\$ (.*)$", README, re.MULTILINE)
    assert len(found) == 2
    assert found[0].endswith("dicomdask demo")
    assert found[1].endswith("pytest -q")
    assert 'run "$(command_in_readme 1)"' in (ROOT / ".ci/run").read_text()
    assert 'run "$(command_in_readme 2)"' in (ROOT / ".ci/run").read_text()


def test_links_and_pictures_are_there():
    for target in re.findall(r"\]\((examples/[^)]+)\)", README):
        assert (ROOT / target).is_file(), target


def test_the_page_on_kinds_of_objects_names_codes_that_there_are():
    text = page_text("volumes.md")
    rows = re.findall(r"^\|.*\|([^|]*)\|$", text.split("## Three")[0], re.MULTILINE)
    codes = {code for row in rows for code in re.findall(r"`([^`]+)`", row)}
    assert len(codes) > 8
    assert codes <= set(CODES)


def test_the_commands_of_the_page_on_kinds_of_objects_run(tmp_path):
    done = run_commands(commands("volumes.md"), tmp_path)
    assert "all is as it should be" in done.stdout


def test_the_commands_of_the_page_on_converting_run(tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    done = run_commands(commands("convert.md"), folder)
    assert "all is as it should be" in done.stdout
    assert "nothing new: commit 0 stands" in done.stdout


def test_the_python_of_the_page_on_reading_runs(tmp_path, monkeypatch):
    source = Path(pydicom.__file__).parent / "data/test_files/dicomdirtests/98892001"
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DICOMDASK_KEY", raising=False)
    dicomdask.convert(str(source), "study.zarr", scheduler="synchronous")
    assert len(blocks("read.md")) == 4
    names = run_blocks("read.md")
    assert names["array"].shape == tuple(names["volumes"]["shape"].iloc[0])


def test_the_example_runs(tmp_path):
    done = run_program(
        [sys.executable, ROOT / "examples/first_dataset.py", tmp_path], tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "patch at" in done.stdout


def test_an_array_job_encodes_all_pieces(tmp_path):
    source = Path(pydicom.__file__).parent / "data/test_files/dicomdirtests/98892001"
    work = tmp_path / "work"
    script = f"""
        set -e
        dicomdask index {source} --work {work}
        dicomdask plan {tmp_path}/o.zarr --work {work}
        for number in 0 1 2; do
            SLURM_ARRAY_TASK_ID=$number bash {ROOT}/deploy/slurm/array_job.sh {work} 1
        done
        dicomdask commit --work {work}
    """
    done = run_program(["bash", "-c", script], tmp_path)
    assert done.returncode == 0, done.stderr
    assert dicomdask.open_dataset(str(tmp_path / "o.zarr")).commit.codes["stored"] == 7


def test_a_plain_script_needs_no_guard(tmp_path):
    source = Path(pydicom.__file__).parent / "data/test_files/dicomdirtests/98892001"
    script = tmp_path / "script.py"
    script.write_text(
        "import dicomdask\n"
        f"summary = dicomdask.convert({str(source)!r}, {str(tmp_path / 'o.zarr')!r})\n"
        "print(summary.commit.codes)\n"
    )
    done = run_program([sys.executable, script], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "'stored': 7" in done.stdout
