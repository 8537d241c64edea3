"""The real servers of the tests: each starts, answers, refuses and ends."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
import s3fs
from botocore.exceptions import ClientError

from tests.servers import proxy
from tests.servers import slurm as slurm_server
from tests.servers.fixtures import use
from tests.servers.host import HostError, descendants, hosted

RACERS = 20
ROOT = Path(__file__).parent.parent


def put_new(client, bucket, body):
    """Make an object unless it is there; return the status."""
    try:
        client.put_object(Bucket=bucket, Key="one", Body=body, IfNoneMatch="*")
    except ClientError as error:
        return error.response["ResponseMetadata"]["HTTPStatusCode"]
    return 200


def round_trip(base):
    """Write and read below a URL, as fsspec finds it by the environment."""
    filesystem, path = fsspec.core.url_to_fs(base, skip_instance_cache=True)
    filesystem.pipe_file(f"{path}/a b/ü+%20~(1)", b"content")
    assert filesystem.cat_file(f"{path}/a b/ü+%20~(1)", start=1, end=3) == b"on"
    assert filesystem.find(path) == [f"{path}/a b/ü+%20~(1)"]
    filesystem.rm_file(f"{path}/a b/ü+%20~(1)")
    assert filesystem.find(path, refresh=True) == []


class TestCeph:
    def test_what_is_written_is_read(self, s3):
        round_trip(s3)

    def test_another_process_finds_it_by_the_environment(self, s3):
        script = "import fsspec, sys; fsspec.open(sys.argv[1], 'wb').open().close()"
        command = [sys.executable, "-c", script, f"{s3}/by-a-child"]
        subprocess.run(command, check=True, timeout=60)
        assert s3fs.S3FileSystem(skip_instance_cache=True).exists(f"{s3}/by-a-child")

    def test_a_wrong_secret_is_refused(self, ceph):
        client = replace(ceph, secret="wrong").client()
        with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
            client.list_buckets()
        client.close()

    def test_signatures_hold_through_the_proxy(self, ceph, s3, monkeypatch):
        with proxy.start(ceph.endpoint) as between:
            use(ceph.at(between.url), monkeypatch)
            round_trip(s3)
            assert between.count("PUT", "a b/ü+%20~(1)") == 1

    def test_of_many_who_create_one_wins(self, ceph):
        bucket, client = ceph.make_bucket(), ceph.client()
        with ThreadPoolExecutor(RACERS) as pool:
            bodies = [b"%d" % number for number in range(RACERS)]
            found = list(pool.map(lambda body: put_new(client, bucket, body), bodies))
        assert sorted(found) == [200] + [412] * (RACERS - 1)
        kept = client.get_object(Bucket=bucket, Key="one")["Body"].read()
        assert kept == bodies[found.index(200)]
        client.close()


class TestSwift:
    def test_what_is_written_is_read(self, swift, monkeypatch):
        use(swift, monkeypatch)
        round_trip(f"s3://{swift.make_bucket()}")

    def test_conditions_are_not_implemented(self, swift):
        bucket, client = swift.make_bucket(), swift.client()
        assert put_new(client, bucket, b"x") == 501
        client.close()

    def test_a_wrong_secret_is_refused(self, swift):
        client = replace(swift, secret="wrong").client()
        with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
            client.list_buckets()
        client.close()


class TestAzurite:
    @pytest.fixture
    def container(self, azurite, monkeypatch):
        adlfs = pytest.importorskip("adlfs")
        use(azurite, monkeypatch)
        name = azurite.new_name()
        adlfs.AzureBlobFileSystem(skip_instance_cache=True).mkdir(name)
        return f"az://{name}"

    def test_what_is_written_is_read(self, container):
        round_trip(container)


class TestSlurm:
    def test_a_job_runs_on_both_nodes(self, slurm, tmp_path):
        slurm.run(
            *("sbatch", "--wait", "--quiet", "-N2", "-o", str(tmp_path / "out")),
            *("--wrap", "srun -N2 -n2 printenv SLURMD_NODENAME"),
        )
        names = (tmp_path / "out").read_text().split()
        assert sorted(names) == sorted(slurm.pids)

    def test_a_job_ends_with_the_tests_however_they_end(self, tmp_path):
        if not slurm_server.installed():
            pytest.skip(f"slurm is not installed: {slurm_server.INSTALL}")
        process, facts = run_killed_tests(tmp_path)
        assert len(facts["pids"]) > 4
        assert facts["job"] in facts["pids"]
        process.kill()
        process.wait()
        wait_until(lambda: not [pid for pid in facts["pids"] if is_alive(pid)])
        wait_until(lambda: not Path(facts["configuration"]).exists())


TESTS_TO_KILL = """
import json, os, sys, time
from pathlib import Path
from tests.servers import slurm
from tests.servers.host import descendants

note = Path(sys.argv[1])
with slurm.start() as found:
    found.run("sbatch", "--quiet", "-o", "/dev/null",
              "--wrap", f"echo $$ > {note}; sleep 1000")
    while not (note.exists() and note.read_text().endswith("\\n")):
        time.sleep(0.05)
    facts = {"configuration": found.configuration, "job": int(note.read_text()),
             "pids": descendants(os.getpid())}
    print(json.dumps(facts), flush=True)
    time.sleep(1000)
"""


def run_killed_tests(tmp_path):
    """Start a process that stands for the tests; return it and what it has started."""
    process = subprocess.Popen(
        [sys.executable, "-c", TESTS_TO_KILL, str(tmp_path / "note")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process.stdout as lines:
        return process, json.loads(lines.readline())


def is_alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until(true, seconds=20):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


class TestHost:
    def test_a_server_that_does_not_start_says_why(self):
        with pytest.raises(HostError, match="No module named"), hosted("no_such"):
            pass

    def test_nothing_is_left_after_the_block(self, tmp_path, monkeypatch):
        (tmp_path / "sleeper.py").write_text(SLEEPER)
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
        before = set(descendants(os.getpid()))
        with hosted("sleeper") as facts:
            started = set(descendants(os.getpid())) - before
            assert len(started) == 3
            assert is_alive(facts["pid"])
            os.kill(facts["pid"], signal.SIGTERM)  # its child becomes an orphan
            wait_until(lambda: not is_alive(facts["pid"]))
        assert not [pid for pid in started if is_alive(pid)]
        assert not Path(facts["folder"]).exists()


SLEEPER = """
from tests.servers.host import serve

def run(host):
    command = "sleep 1000 & echo $! > child; wait"
    process = host.spawn("sleeper", ["sh", "-c", command])
    host.wait("sleeper", lambda: (host.folder / "child").exists())
    return {"pid": process.pid, "folder": str(host.folder)}

serve(run)
"""
