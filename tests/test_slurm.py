"""Real Slurm of two nodes: workers as jobs, array jobs, a job cancelled in mid-run."""

import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

import dicomdask
from tests.builders import make_series, write_series
from tests.conftest import SECRET, Convert
from tests.faults import run as faults
from tests.faults.hooks import Faults
from tests.servers.slurm import Slurm

DEPLOY = Path(__file__).parent.parent / "deploy"
SUBMIT = DEPLOY / "slurm" / "submit_array.sh"
CONVERT = DEPLOY / "slurm" / "convert.py"
CREDENTIAL = "planted-credential-of-an-object-store"
HOOKED = f"{DEPLOY.parent}:{faults.SITE}"
N_SERIES, N_SLICES = 12, 30


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of several series, one patient each."""
    folder = tmp_path_factory.mktemp("sources")
    for number in range(N_SERIES):
        root = f"1.2.826.0.1.3680043.8.498.9.{number}"
        datasets = list(make_series(N_SLICES, PatientID=f"P{number}"))
        for ds in datasets:
            ds.StudyInstanceUID = root
            ds.SeriesInstanceUID = f"{root}.1"
            ds.SOPInstanceUID = f"{root}.1.{ds.InstanceNumber}"
            ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        write_series(folder / str(number), iter(datasets))
    return folder


@pytest.fixture(scope="module")
def expected(
    sources: Path, tmp_path_factory: pytest.TempPathFactory, convert: Convert
) -> dict[str, Any]:
    """Return the content of the dataset that one process makes of `sources`."""
    store = tmp_path_factory.mktemp("expected") / "store.zarr"
    convert(sources, store)
    return content(store)


def content(store: Path) -> dict[str, Any]:
    """Return all bytes of the arrays, and the rows of the tables in a fixed order."""
    arrays = {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in store.glob("volumes/**/*")
        if path.is_file()
    }
    dataset = dicomdask.open_dataset(str(store))
    volumes = dataset.volumes.sort_values("volume_id").drop(columns=["header"])
    return {
        "arrays": arrays,
        "codes": dict(dataset.commit.codes),
        "volumes": volumes.to_json(orient="records"),
    }


@pytest.fixture
def environment(slurm: Slurm, tmp_path: Path) -> dict[str, str]:
    """Return an environment that leads to Slurm, this interpreter and the key."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SLURM_", "SBATCH_", "DASK_", "DICOMDASK"))
    }
    return {
        **kept,
        **slurm.environment(),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(DEPLOY.parent),
        "AWS_SECRET_ACCESS_KEY": CREDENTIAL,
        "DICOMDASK_KEY": SECRET,
    }


@pytest.fixture(autouse=True)
def ended(request: pytest.FixtureRequest) -> Iterator[None]:
    """Cancel what a failed test left in the queue."""
    yield
    if "slurm" in request.fixturenames:
        request.getfixturevalue("slurm").run("scancel", "--quiet", "--user=root")


def wait_until(condition: Callable[[], Any], seconds: float = 90) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)
    return found


def queue(slurm: Slurm, layout: str) -> list[str]:
    return slurm.run("squeue", "--noheader", f"--format={layout}").splitlines()


def running(slurm: Slurm, n: int) -> list[str]:
    """Return number and node of the running jobs, once there are so many."""
    jobs = [job for job in queue(slurm, "%i %N %T") if job.endswith("RUNNING")]
    return jobs if len(jobs) == n else []


def receipts(work: Path) -> list[Path]:
    return list(work.glob("receipts/tasks/*/*.json"))


# --- workers as jobs ----------------------------------------------------------


def test_a_cancelled_worker_changes_nothing(
    slurm: Slurm,
    environment: dict[str, str],
    sources: Path,
    expected: dict[str, Any],
    tmp_path: Path,
) -> None:
    store, work = tmp_path / "o.zarr", tmp_path / "work"
    slow = Faults(str(tmp_path / "decoded"), seconds=0.02)
    words = ["--jobs", "2", "--cores", "1", "--memory", "2500MiB", "--interface", "lo"]
    command = [sys.executable, CONVERT, *words, sources, store, "--work", work]
    with subprocess.Popen(
        list(map(str, command)),
        env=environment | {"PYTHONPATH": HOOKED} | slow.environment(),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        jobs = wait_until(lambda: running(slurm, 2))
        ids = [job.split()[0] for job in jobs]
        scripts = [slurm.run("scontrol", "write", "batch_script", i, "-") for i in ids]
        wait_until(lambda: receipts(work))
        time.sleep(0.2)  # into the next task
        slurm.run("scancel", ids[0])
        output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    assert {job.split()[1] for job in jobs} == {"n1", "n2"}
    assert "tls://" in scripts[0]
    assert_no_secret(tmp_path, *scripts, output)
    assert content(store) == expected
    decoded = re.findall(r"^decode (\S+)", Path(slow.log).read_text(), re.MULTILINE)
    assert len(set(decoded)) == N_SERIES * N_SLICES < len(decoded)
    wait_until(lambda: not queue(slurm, "%i"))
    assert not list((tmp_path / "dicomdask-slurm").glob("tls-*"))


def assert_no_secret(folder: Path, *texts: str) -> None:
    logs = [path.read_text() for path in folder.glob("dicomdask-slurm/**/*.*")]
    assert logs
    for text in (*texts, *logs):
        assert SECRET not in text
        assert CREDENTIAL not in text
        assert "PRIVATE KEY" not in text
        assert "^Given" not in text


@pytest.fixture
def script() -> ModuleType:
    """Return `deploy/slurm/convert.py` as a module."""
    spec = importlib.util.spec_from_file_location("slurm_convert", CONVERT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def use(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def test_a_lost_job_is_submitted_anew(
    slurm: Slurm,
    environment: dict[str, str],
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use(environment, monkeypatch)
    monkeypatch.setattr(script, "CHECK_SECONDS", 0.5)
    options = {"cores": 2, "memory": "400MiB", "walltime": "00:10:00"}
    with (
        script.open_cluster(
            tmp_path / "shared", **options, queue="test", account=None, interface="lo"
        ) as cluster,
        script.kept_at(cluster, 1),
    ):
        wait_until(lambda: script.running_jobs(cluster))
        ids = queue(slurm, "%i")
        assert len(ids) == 1
        time.sleep(2)  # several rounds, in which nothing is lost
        assert queue(slurm, "%i") == ids
        slurm.run("scancel", *ids)
        wait_until(lambda: not script.running_jobs(cluster))
        wait_until(lambda: script.running_jobs(cluster))
        assert len(queue(slurm, "%i")) == 1
        assert queue(slurm, "%i") != ids
    wait_until(lambda: not queue(slurm, "%i"))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--queue", "nowhere", "src", "o.zarr"], "Slurm refuses such a job"),
        (["--scheduler", "threads", "src", "o.zarr"], "leave --scheduler out"),
        (["--polcy", "basic", "src", "o.zarr"], "No such option"),
        (["o.zarr"], "name all of these: SRC... STORE"),
    ],
)
def test_what_cannot_work_is_refused_before_a_job_is_submitted(
    slurm: Slurm,
    environment: dict[str, str],
    script: ModuleType,
    words: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use(environment, monkeypatch)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(script.run, ["--interface", "lo", *words])
    assert result.exit_code in (1, 2)
    assert sentence in result.output
    assert not queue(slurm, "%i")


def test_without_slurm_it_says_where_to_go(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    result = CliRunner().invoke(script.run, ["--interface", "lo", "src", "o.zarr"])
    assert result.exit_code == 2
    assert "run this on a login node" in result.output


@pytest.mark.parametrize(
    ("walltime", "lifetime"),
    [("04:00:00", 14100), ("1-00:00:00", 86100), ("00:10:00", 480), ("30:00", 1500)],
)
def test_workers_retire_before_their_time_is_up(
    script: ModuleType, walltime: str, lifetime: int
) -> None:
    seconds, stagger = script.lifetimes(walltime)
    assert seconds == lifetime
    assert seconds + stagger < lifetime + 300


# --- array jobs ---------------------------------------------------------------


def submit(environment: dict[str, str], folder: Path, *words: object) -> list[str]:
    """Submit the chain; return the numbers of index, plan, encode and commit."""
    done = subprocess.run(
        ["bash", SUBMIT, *map(str, words)],
        env={**environment, "SBATCH_MEM_PER_NODE": "1000", "CPUS": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    words = done.stdout.split("\n")[0].replace(",", "").split()
    return [words[1], words[3], words[5], words[9]]


def test_array_jobs_give_the_same_dataset_and_resume(
    slurm: Slurm,
    environment: dict[str, str],
    sources: Path,
    expected: dict[str, Any],
    tmp_path: Path,
) -> None:
    store, work = tmp_path / "it's.zarr", tmp_path / "the work"
    words = (3, work, store, sources)
    index, plan, encode, commit = submit(environment, tmp_path, *words)
    chain = wait_until(lambda: queue(slurm, "%i %E"))
    assert any(plan in job and f"afterok:{index}" in job for job in chain)
    scripts = [
        slurm.run("scontrol", "write", "batch_script", number, "-")
        for number in (index, plan, commit)
    ]
    wait_until(lambda: any(f"{encode}_0" in j for j in queue(slurm, "%i")))
    slurm.run("scancel", f"{encode}_0")
    wait_until(lambda: not queue(slurm, "%i"))
    assert not list(store.glob("commits/*"))
    logs = tmp_path / "dicomdask-slurm"
    said = (logs / f"dicomdask-commit-{commit}.log").read_text()
    assert "tasks of the plan have no receipt" in said

    before = {path: path.stat().st_mtime_ns for path in receipts(work)}
    assert 0 < len(before) < N_SERIES
    *_, commit = submit(environment, tmp_path, *words)
    wait_until(lambda: not queue(slurm, "%i"))
    assert f"{store}: commit 0" in (logs / f"dicomdask-commit-{commit}.log").read_text()
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert content(store) == expected
    assert_no_secret(tmp_path, *scripts)


def test_a_failed_step_cancels_what_waits_for_it(
    slurm: Slurm, environment: dict[str, str], sources: Path, tmp_path: Path
) -> None:
    store, work = tmp_path / "o.zarr", tmp_path / "work"
    *_, commit = submit(
        environment, tmp_path, 2, work, store, sources, "--", "--policy", "nonsense"
    )
    wait_until(lambda: not queue(slurm, "%i"))
    assert not store.exists()
    assert "CANCELLED" in slurm.run("scontrol", "show", "job", commit)
    [log] = (tmp_path / "dicomdask-slurm").glob("dicomdask-plan-*.log")
    assert "nonsense" in log.read_text()


@pytest.mark.parametrize("words", [[], ["3"], ["3", "work", "store"]])
def test_the_chain_says_how_it_is_used(words: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", SUBMIT, *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "usage: submit_array.sh JOBS WORK STORE SRC..." in done.stderr
