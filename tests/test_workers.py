"""Clusters that somebody else started: TLS, and workers that lack what they need.

All of it is real: one scheduler that speaks TLS, one worker that has all it needs, and
later six of which each lacks something. Each is a process of its own.
"""

import gc
import json
import os
import subprocess
import sys
import time
import warnings
from contextlib import ExitStack, contextmanager

import dask
import distributed
import pytest

import dicomdask
from dicomdask import pipeline
from dicomdask.errors import OptionError, PlanError
from dicomdask.pseudonym import ENVIRONMENT_VARIABLE, Key, KeyReference
from dicomdask.steps.workers import describe_problems
from dicomdask.work import Job, Work
from tests.builders import make_series, write_series
from tests.conftest import SECRET

pytest.importorskip("cryptography", reason="makes the certificates")

TLS = "distributed.comm.tls"
OTHER_SECRET = "f" * 32
HERE = "/proc/self/cwd"
"""A path that is another place in each process."""


# --- processes ----------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Return a file that is key, certificate and authority of one cluster."""
    return write_certificate(tmp_path_factory.mktemp("tls"))


def write_certificate(folder):
    made = distributed.Security.temporary()
    path = folder / "all.pem"
    path.write_text(made.tls_ca_file + made.tls_client_key)
    path.chmod(0o600)
    return path


def tls_config(path):
    names = ("ca-file", "client.cert", "scheduler.cert", "worker.cert")
    return {f"{TLS}.{name}": str(path) for name in names}


@contextmanager
def started(kind, *words, folder, name, environment=()):
    """Run a scheduler or a worker; end it, and nothing else."""
    inherited = {
        key: value for key, value in os.environ.items() if key != ENVIRONMENT_VARIABLE
    }
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.dask_{kind}", *map(str, words)],
            cwd=folder / name if (folder / name).is_dir() else folder,
            env={**inherited, **dict(environment)},
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def tls_words(path):
    return ["--tls-ca-file", path, "--tls-cert", path, "--tls-key", path]


class Cluster:
    """A scheduler that speaks TLS, and its workers."""

    def __init__(self, folder, certificate):
        self.folder, self.certificate = folder, certificate
        self.file = folder / "scheduler.json"
        self.stack = ExitStack()

    def start(self, kind, *words, name, **environment):
        self.stack.enter_context(
            started(
                kind,
                *["--scheduler-file", self.file, *tls_words(self.certificate), *words],
                folder=self.folder,
                name=name,
                environment=environment,
            )
        )

    def start_scheduler(self):
        words = ["--protocol", "tls", "--host", "127.0.0.1", "--port", "0"]
        self.start("scheduler", *words, "--no-dashboard", name="scheduler")
        wait_until(lambda: self.file.exists() and self.address)

    def start_worker(self, name, **environment):
        (self.folder / name).mkdir()
        words = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--name", name]
        self.start("worker", *words, name=name, **environment)

    @property
    def address(self):
        return json.loads(self.file.read_text())["address"]

    def wait_for(self, n):
        with (
            dask.config.set(tls_config(self.certificate)),
            distributed.Client(self.address, set_as_default=False) as client,
        ):
            client.wait_for_workers(n, timeout=60)


def wait_until(holds):
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, certificate):
    made = Cluster(tmp_path_factory.mktemp("cluster"), certificate)
    with made.stack:
        made.start_scheduler()
        made.start_worker("good", **{ENVIRONMENT_VARIABLE: SECRET})
        made.wait_for(1)
        yield made


@pytest.fixture
def with_tls(certificate):
    with dask.config.set(tls_config(certificate)):
        yield


@pytest.fixture
def refused_clients():
    """Let go of clients that were refused, whose sockets nobody closes."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


# --- TLS ----------------------------------------------------------------------


def test_a_command_over_tls(cluster, series, tmp_path, convert):
    """Certificates come from Dask's configuration, here from the environment."""
    variables = {
        f"DASK_DISTRIBUTED__COMM__TLS__{name}": str(cluster.certificate)
        for name in ("CA_FILE", "CLIENT__CERT", "CLIENT__KEY")
    }
    store = tmp_path / "store.zarr"
    words = [sys.executable, "-m", "dicomdask", "convert", series, store]
    done = subprocess.run(
        [*words, "--scheduler", cluster.address],
        env={**os.environ, **variables, ENVIRONMENT_VARIABLE: SECRET},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert cluster.address.startswith("tls://127.0.0.1:")
    convert(series, tmp_path / "here.zarr")
    ours, theirs = (
        dicomdask.open_dataset(str(one)) for one in (store, tmp_path / "here.zarr")
    )
    assert ours.volumes.map(repr).equals(theirs.volumes.map(repr))


def test_a_scheduler_file_over_tls(cluster, series, tmp_path, convert, with_tls):
    store = tmp_path / "store.zarr"
    assert convert(series, store, scheduler=str(cluster.file)).n_encoded == 1


def test_tls_without_certificates(cluster, series, tmp_path, convert):
    with pytest.raises(OptionError, match="DASK_DISTRIBUTED__COMM__TLS__CA_FILE"):
        convert(series, tmp_path / "store.zarr", scheduler=cluster.address)


@pytest.mark.usefixtures("refused_clients")
def test_tls_with_the_certificates_of_others(cluster, series, tmp_path, convert):
    path = write_certificate(tmp_path)
    with (
        dask.config.set(
            {**tls_config(path), "distributed.comm.timeouts.connect": "1s"}
        ),
        pytest.raises(PlanError, match="no scheduler answers at tls://"),
    ):
        convert(series, tmp_path / "store.zarr", scheduler=cluster.address)


def test_a_file_that_names_a_plain_address_follows_the_same_rule(
    series, tmp_path, convert
):
    path = tmp_path / "scheduler.json"
    for address, sentence in [
        ("tcp://127.0.0.1:1", "--insecure-scheduler"),
        ("tcp://10.0.0.1:1", "neither encrypted nor authenticated"),
    ]:
        path.write_text(json.dumps({"address": address}))
        with pytest.raises(OptionError, match=sentence):
            convert(series, tmp_path / "store.zarr", scheduler=str(path))
    assert not (tmp_path / "store.zarr.work").exists()


@pytest.mark.usefixtures("refused_clients")
def test_a_cluster_of_our_own_speaks_tls_too():
    """On a machine that is shared, plain TCP would let others run code as us."""
    before = dict(os.environ)
    with pipeline.open_runner() as runner:
        info = runner._scheduler.scheduler_info(n_workers=-1)
        addresses = [info["address"], *info["workers"]]
        assert {one.split("://")[0] for one in addresses} == {"tls"}
        with pytest.raises((OSError, TypeError)):
            distributed.Client(info["address"], set_as_default=False, timeout=2)
    assert dict(os.environ) == before


# --- workers ------------------------------------------------------------------


def test_workers_that_lack_something_are_told_apart(
    cluster, tmp_path, with_tls, monkeypatch
):
    """The key comes from the environment, the work directory from where one stands."""
    good = cluster.folder / "good"
    write_series(good / "in", make_series(3))
    for name in ("no sources", "no key", "other key"):
        (cluster.folder / name).mkdir()
        (cluster.folder / name / "work").symlink_to(good / "work")
    stub = cluster.folder / "stub" / "dicomdask"
    stub.mkdir(parents=True)
    (stub / "__init__.py").write_text("__version__ = '0.0.1'\n")

    job = Job(KeyReference(), Key(SECRET.encode()).fingerprint(), store="elsewhere")
    Work(str(cluster.folder / "other work" / "work")).write_job(job)

    monkeypatch.chdir(good)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, SECRET)

    def run():
        return dicomdask.convert(
            f"{HERE}/in",
            str(tmp_path / "store.zarr"),
            work=f"{HERE}/work",
            scheduler=cluster.address,
        )

    with ExitStack() as others:
        cluster.stack, kept = others, cluster.stack
        key = {ENVIRONMENT_VARIABLE: SECRET}
        for name, environment in [
            ("no sources", key),
            ("no key", {}),
            ("other key", {ENVIRONMENT_VARIABLE: OTHER_SECRET}),
            ("no work", key),
            ("other work", key),
            ("no dicomdask", {**key, "PYTHONPATH": str(stub.parent)}),
        ]:
            (cluster.folder / name).mkdir(exist_ok=True)
            start_in(cluster, name, environment)
        cluster.wait_for(7)
        cluster.stack = kept
        with pytest.raises(PlanError) as raised:
            run()
    for clause in [
        "1 of 7 workers cannot take part: install dicomdask",
        "1 of 7 workers cannot read the work directory: ",
        "1 of 7 workers cannot see this work directory, only another one",
        "1 of 7 workers cannot resolve the key: give them DICOMDASK_KEY, or a key file",
        "1 of 7 workers cannot use their key",
        "1 of 7 workers cannot read the sources: ",
    ]:
        assert clause in str(raised.value)
    assert str(raised.value).count("workers cannot") == 6
    assert SECRET not in str(raised.value)
    assert str(good) not in str(raised.value)
    assert not (tmp_path / "store.zarr").exists()
    wait_until(lambda: n_workers(cluster) == 1)
    assert run().n_encoded == 1


def start_in(cluster, name, environment):
    words = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--name", name]
    cluster.start("worker", *words, name=name, **environment)


def n_workers(cluster):
    with distributed.Client(cluster.address, set_as_default=False) as client:
        return len(client.nthreads())


def test_a_store_that_is_another_place_for_the_worker(
    cluster, series, tmp_path, with_tls, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, SECRET)
    with pytest.raises(PlanError, match="1 of 1 workers cannot write to the store"):
        dicomdask.convert(
            str(series),
            f"{HERE}/store.zarr",
            work=str(tmp_path / "work"),
            scheduler=cluster.address,
        )


def test_a_client_of_the_caller_is_asked_too(series, tmp_path, key_file, monkeypatch):
    """Nobody but the caller says how a client speaks; what it can do is still asked."""
    asked = []
    monkeypatch.setattr(
        pipeline.Runner, "ask_workers", lambda self, *_: asked.append(self) or [["key"]]
    )
    with (
        distributed.Client(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0"
        ),
        pytest.raises(PlanError, match="1 of 1 workers cannot resolve the key"),
    ):
        dicomdask.convert(
            str(series), str(tmp_path / "store.zarr"), key_file=str(key_file)
        )
    assert asked


def test_what_workers_lack_is_one_clause_each():
    errors = [ModuleNotFoundError("a value"), OSError("a value")]
    answers = [[], ["key"], ["key", "store"], *errors, ["key"]]
    clauses = describe_problems(answers)
    assert [clause.split(":")[0] for clause in clauses] == [
        "2 of 6 workers cannot take part",
        "3 of 6 workers cannot resolve the key",
        "1 of 6 workers cannot write to the store",
    ]
    assert "a value" not in str(clauses)
    assert describe_problems([[], []]) == []
