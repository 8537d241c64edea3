"""The pages on deploying: their commands exist, their options too, their links lead."""

import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType
from typing import Final

import click
import pytest
from distributed.cli import dask_scheduler, dask_worker

import dicomdask
from dicomdask.cli import main

ROOT: Final = Path(__file__).parent.parent
DEPLOY: Final = ROOT / "deploy"
PAGES: Final = sorted(DEPLOY.rglob("*.md"))
PROGRAMS: Final = {
    *("cat", "dask", "dicomdask", "docker", "helm", "kubectl", "openssl", "python"),
    *("python3", "sbatch", "source", "squeue", "ssh", "tail"),
    "deploy/slurm/submit_array.sh",
}


def commands(page: Path) -> list[list[str]]:
    """Return the words of each command of a page, without assignments."""
    lines = re.findall(r"^ {4,}(\S.*)$", page.read_text(), re.MULTILINE)
    found = [shlex.split(line.strip("()")) for line in lines]
    return [words for words in found if "=" not in words[0] and words[0] != "export"]


def all_commands(program: str) -> list[list[str]]:
    found = [words for page in PAGES for words in commands(page)]
    return [words[1:] for words in found if words[0] == program]


def parsed(command: click.Command, words: list[str]) -> dict[str, object]:
    return dict(command.make_context(str(command.name), list(words)).params)


def test_there_is_a_page_for_each_place() -> None:
    names = {str(page.relative_to(DEPLOY)) for page in PAGES}
    assert names == {"README.md", "slurm/README.md", "kubernetes/README.md"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_every_indented_line_is_a_command_that_is_known(page: Path) -> None:
    unknown = {words[0] for words in commands(page)} - PROGRAMS - {"umask"}
    assert not unknown


@pytest.mark.parametrize("words", all_commands("dicomdask"), ids=" ".join)
def test_commands_and_options_of_dicomdask_exist(words: list[str]) -> None:
    if "--help" not in words:
        parsed(main.commands[words[0]], words[1:])


@pytest.mark.parametrize("words", all_commands("dask"), ids=" ".join)
def test_commands_and_options_of_dask_exist(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    known = {"scheduler": dask_scheduler.main, "worker": dask_worker.main}
    parsed(known[words[0]], words[1:])


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "slurm_convert_page", DEPLOY / "slurm" / "convert.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_options_of_the_slurm_script_exist() -> None:
    module = script()
    found = [w for w in all_commands("python") if w[0] == "deploy/slurm/convert.py"]
    assert found
    for words in found:
        if "--help" not in words:
            rest = parsed(module.run, words[1:])["words"]
            module.check_words(rest)


def test_array_jobs_of_the_page_are_those_of_the_scripts() -> None:
    for words in all_commands("deploy/slurm/submit_array.sh"):
        jobs, _, store, *rest = words
        assert jobs.isdecimal()
        if "--" in rest:
            parsed(main.commands["plan"], [store, "--work", "w", *rest[2:]])
    [(array, name, *rest)] = all_commands("sbatch")
    assert array == "--array=0-9"
    assert (ROOT / name).is_file()
    assert len(rest) == 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_files_links_and_variables_of_a_page_are_there(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / target).is_file(), target
    for name in re.findall(r"deploy/[\w./]+\w", text):
        assert (ROOT / name).is_file(), name
    for version in re.findall(r"dicomdask:(\d[\w.]*)", text):
        assert version == dicomdask.__version__
    code = "".join(path.read_text() for path in (ROOT / "dicomdask").rglob("*.py"))
    for name in re.findall(r"DICOMDASK_\w+", text):
        assert f'"{name}"' in code


SENTENCES: Final = {
    "slurm/README.md": [
        "no key",
        "cannot be read",
        "Slurm refuses such a job",
        "frames turned out unfit",
        "nothing new",
    ],
    "kubernetes/README.md": ["no key", "no scheduler answers"],
}


@pytest.mark.parametrize("name", SENTENCES)
def test_failures_are_quoted_as_they_are_said(name: str) -> None:
    paths = [*(ROOT / "dicomdask").rglob("*.py"), DEPLOY / "slurm" / "convert.py"]
    code = "".join(path.read_text() for path in paths)
    for sentence in SENTENCES[name]:
        assert sentence in (DEPLOY / name).read_text()
        assert sentence in code
