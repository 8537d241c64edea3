"""The plug pulled: at each write, at random times, and by a decoder that crashes.

Processes really die. By default each kind of write is cut off once before, in the midst
of and after it; with `--full` every single write, and 200 times at random.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from functools import cache

import numpy as np
import psutil
import pydicom
import pytest

import dicomdask
from dicomdask import pipeline, plan, storage
from dicomdask.errors import InputError, StoreError
from dicomdask.model import PlannedFrame
from dicomdask.pseudonym import Key
from dicomdask.tasks import encode, resolve
from dicomdask.tasks.attempts import Attempts
from dicomdask.tasks.isolate import Cell
from dicomdask.verify import verify
from dicomdask.work import Work
from tests.builders import make_instance, make_series, to_bytes, write_series
from tests.conftest import SECRET
from tests.faults import hooks
from tests.faults.run import Command, Server, environment, finished

KEY = Key(SECRET.encode())
KILLED = -signal.SIGKILL
STORED, FAILED, REJECTED = 0, 1, 8
UNIFIED = "1.2.826.0.1.3680043.8.498.7.{0}.1.1"


def numbered(number, n):
    """Yield a series of its own patient."""
    uid = UNIFIED.format(number)
    for ds in make_series(n):
        ds.PatientID, ds.SeriesInstanceUID = f"PAT{number:04d}", uid
        ds.StudyInstanceUID = uid.rsplit(".", 1)[0]
        ds.SOPInstanceUID = f"{uid}.{ds.InstanceNumber}"
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        yield ds


def write_pile(folder):
    """Write three series, a slice that turns out unfit, a copy and a text."""
    write_series(folder / "1", numbered(1, 3))
    write_series(folder / "2", numbered(2, 2))
    paths = write_series(folder / "3", numbered(3, 4))
    paths[-1].write_bytes(paths[-1].read_bytes()[:-200])
    shutil.copy2(folder / "1" / "0002.dcm", folder / "copy.dcm")
    (folder / "notes.txt").write_text("not DICOM")


def edit(path, **elements):
    """Change elements of a file."""
    ds = pydicom.dcmread(path)
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    path.write_bytes(to_bytes(ds))


def change_pixel(path):
    """Change the last pixel of a file; its size stays."""
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)


@cache
def uid_of(url):
    return str(pydicom.dcmread(url, stop_before_pixels=True).SOPInstanceUID)


class Place:
    """Sources, store and work directory; always at the same paths."""

    def __init__(self, folder, key_file, server):
        self.folder, self.server = folder, server
        self.root = folder / "run"
        self.pile = self.root / "in"
        self.store = self.root / "store"
        self.work = self.root / "work"
        self.log = folder / "log"
        self.options = ["--work", self.work, "--key-file", key_file]

    def words(self, scheduler="synchronous"):
        chosen = ["--scheduler", scheduler] if scheduler else []
        return ["convert", self.pile, self.store, *self.options, *chosen]

    def run(self, words=None, *, seconds=None, **faults):
        """Run a command in a fork that logs; the log is of this run only."""
        self.log.unlink(missing_ok=True)
        told = hooks.Faults(str(self.log), **faults)
        return self.server.run(words or self.words(), told, seconds)

    def command(self, scheduler=None, **faults):
        """Return the command as processes of their own, with a fresh log."""
        self.log.unlink(missing_ok=True)
        told = hooks.Faults(str(self.log), **faults)
        return Command(self.words(scheduler), told)

    def lines(self, moment=""):
        """Return what was noted: before, within, after a write, or decode."""
        every = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in every if line.startswith(moment)]

    def decoded(self):
        return [line.split(" ")[1] for line in self.lines("decode")]

    def keep(self, name):
        shutil.copytree(self.root, self.folder / name)

    def restore(self, name):
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(self.folder / name, self.root)

    def content(self):
        """Return the bytes of all objects; of commits all but their time."""
        found = {}
        for path in sorted(self.store.rglob("*")):
            name = path.relative_to(self.store).as_posix()
            if path.is_file() and not path.name.startswith("."):
                found[name] = path.read_bytes()
                if name.startswith("commits/"):
                    found[name] = {**json.loads(found[name]), "created": None}
        return found

    def receipts(self):
        """Return the digests of the tasks that have a receipt."""
        return Work(str(self.work)).done_tasks()

    def slices(self, receipts):
        """Return the SOP Instance UIDs of the planned slices that some tasks hold."""
        work = Work(str(self.work))
        return {
            uid_of(volume.frames[number].url)
            for _, part in work.read_plans()
            for volume, task in encode.plan_tasks(part)
            if plan.task_digest(volume, task, KEY) in receipts
            for number in task.frames
        }

    def outcomes(self):
        """Return the code of each input by its name; each is there exactly once."""
        inputs = dicomdask.open_dataset(str(self.store)).inputs
        names = {
            plan.source_key(str(path), KEY): path.relative_to(self.pile).as_posix()
            for path in self.pile.rglob("*")
            if path.is_file()
        }
        assert sorted(inputs["source_key"]) == sorted(names)
        rows = zip(inputs["source_key"], inputs["code"], strict=True)
        return {names[key]: code for key, code in rows}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Return what runs commands in forks."""
    found = Server(tmp_path_factory.mktemp("server"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def kept(tmp_path_factory, key_file, server):
    """Return a place at which the states `first` and `update` are kept."""
    place = Place(tmp_path_factory.mktemp("crashes"), key_file, server)
    write_pile(place.pile)
    place.keep("first")
    assert place.run().status == REJECTED
    change_pixel(place.pile / "1" / "0003.dcm")
    late = [*numbered(2, 3)][-1]
    (place.pile / "2" / "0003.dcm").write_bytes(to_bytes(late))
    place.keep("update")
    return place


@pytest.fixture(scope="module")
def clean(kept):
    """Return a function to what an uninterrupted run makes of a state."""

    @cache
    def of(state):
        kept.restore(state)
        ended = kept.run()
        assert ended.status == REJECTED, ended.output
        return ended, kept.content(), kept.outcomes(), kept.lines()

    return of


def check_again(place, wanted, *, scheduler="synchronous"):
    """Run again after a kill: it ends as if nothing had been, and repeats nothing."""
    told, content, outcomes, _ = wanted
    receipts = place.receipts()
    ended = place.run(place.words(scheduler))
    assert ended.status == told.status, ended.output
    assert ended.last_line == told.last_line
    assert f"{len(outcomes)} inputs:" in ended.output
    assert not place.slices(receipts) & set(place.decoded())
    assert place.outcomes() == outcomes
    assert place.content() == content


# --- at each write ------------------------------------------------------------


def points(lines, moment, *, full):
    """Return each kind of one moment with the numbers of its times at which to kill.

    Without `full` only the first of its times; and none where the next thing that
    happens is noted as `before` another write, at which is killed as well.
    """
    chosen = [line for line in lines if line.split(" ")[0] == moment]
    if full:
        return [
            (line, nth)
            for line in dict.fromkeys(chosen)
            for nth in range(1, chosen.count(line) + 1)
        ]
    following = zip(lines, [*lines[1:], ""], strict=True)
    same = {one for one, after in following if after.startswith(("before", "within"))}
    return [(line, 1) for line in dict.fromkeys(chosen) if line not in same]


@pytest.mark.parametrize("moment", ["before", "within", "after"])
@pytest.mark.parametrize("state", ["first", "update"])
def test_line_36_killed_at_each_write(state, moment, kept, clean, full):
    wanted = clean(state)
    chosen = points(wanted[3], moment, full=full)
    if state == "update" and not full:
        known = points(clean("first")[3], moment, full=False)
        chosen = [point for point in chosen if point not in known]
    for kind, nth in chosen:
        kept.restore(state)
        assert kept.run(at=kind, nth=nth).status == KILLED, kind
        if moment == "within":  # else what is written at the same time may be halfway
            assert [*kept.root.rglob("*.tmp")], kind
        try:
            check_again(kept, wanted)
        except AssertionError as error:
            raise AssertionError(f"killed {kind}, time {nth}: {error}") from error


def test_what_a_kill_leaves_beside_an_object_is_seen_by_nobody(kept, clean):
    """The half-written `.name.….tmp` of a killed run."""
    wanted = clean("first")
    kept.restore("first")
    kinds = [one for one in dict.fromkeys(wanted[3]) if one.startswith("within")]
    for kind in kinds[::4]:
        kept.run(at=kind)
    left = [path.name for path in kept.root.rglob("*.tmp")]
    assert len(left) >= len(kinds[::4])  # of those written at the same time, of each
    check_again(kept, wanted)
    report = verify(str(kept.store), work=Work(str(kept.work)), key=KEY)
    assert report.problems == ()
    for folder in (path for path in kept.root.rglob("*") if path.is_dir()):
        assert not [n for n in storage.list_names(str(folder)) if n.endswith(".tmp")]


RECORDED = {
    "store/zarr.json",
    "store/commits/*.json",
    "store/tables/inputs/*.parquet",
    "store/volumes/*/*/*/*/c/*/*/*",
    "store/volumes/*/*/*/zarr.json",
    "work/attempts/*-*",
    "work/changed.parquet",
    "work/index/*/*.parquet",
    "work/job.json",
    "work/manifest/*.parquet",
    "work/outcomes/*.parquet",
    "work/parts/*/*.parquet",
    "work/plan/*.json",
    "work/receipts/index/*.json",
    "work/receipts/planned.json",
    "work/receipts/tasks/*/*.json",
    "work/repeats/*-resolve.parquet",
    "work/verdicts/*-encode-*.parquet",
    "work/verdicts/*-resolve.parquet",
}


def test_the_writes_at_which_is_killed_are_of_all_stages(clean):
    lines = {line for one in ("first", "update") for line in clean(one)[3]}
    assert {f"before {kind}" for kind in RECORDED} <= lines


def test_line_36_killed_at_random_times(kept, clean, full):
    wanted = clean("first")
    kept.restore("first")
    started = time.monotonic()
    kept.run()
    longest = time.monotonic() - started
    for seed in range(200 if full else 5):
        kept.restore("first")
        rng = random.Random(seed)
        for _ in range(rng.randint(1, 3)):
            kept.run(seconds=rng.uniform(0, longest))
        check_again(kept, wanted)


@pytest.mark.parametrize(
    "at", ["after work/receipts/tasks/*/*.json", "before store/commits/*.json"]
)
def test_a_local_cluster_killed_with_its_workers(at, kept, clean):
    kept.restore("first")
    assert kept.command(at=at).run().status == KILLED
    check_again(kept, clean("first"), scheduler="threads")


def test_a_batch_behind_one_that_was_cut_off(tmp_path, convert, monkeypatch):
    """Verdicts are named anew: a name by their number would replace some."""
    pile, store = tmp_path / "in", tmp_path / "store"
    for number in (1, 2):
        write_series(pile / f"{number}", numbered(number, 2))
        write_series(pile / f"again {number}", numbered(number, 2))
    monkeypatch.setattr(resolve, "BATCH_INSTANCES", 2)
    make_bag = pipeline.resolve_bag

    def cut_off(batches, **options):
        list(pipeline.Runner("synchronous").run(make_bag(batches[1:], **options)))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "resolve_bag", cut_off)
        with pytest.raises(KeyboardInterrupt):
            convert(pile, store)
    counts = convert(pile, store).commit.counts
    assert (counts["stored"], counts["duplicate"], counts["volumes"]) == (4, 4, 2)


# --- a decoder that crashes ---------------------------------------------------


@pytest.fixture
def marked(kept, clean):
    """Return a place with one file that crashes the decoder's process."""
    clean("first")  # takes the place for itself when it is asked the first time
    kept.restore("first")
    edit(kept.pile / "2" / "0002.dcm", PatientComments=hooks.MARK)
    return kept


def check_isolated(place, clean, code="decoder-crash"):
    """Check that the marked file is rejected, and the others as they always were."""
    _, content, outcomes, _ = clean("first")
    assert place.outcomes() == outcomes | {"2/0002.dcm": code}
    shards = {name: data for name, data in place.content().items() if "/c/" in name}
    same = [name for name, data in shards.items() if content.get(name) == data]
    assert (len(shards), len(same)) == (3, 2)
    assert storage.list_names(str(place.work / "attempts")) == []
    ended = place.run(place.words(), crash="abort")
    assert (ended.status, place.decoded()) == (REJECTED, [])
    assert "nothing new" in ended.output


@pytest.mark.parametrize(
    ("scheduler", "crash", "status"),
    [
        ("synchronous", "segfault", -signal.SIGSEGV),
        ("threads", "abort", -signal.SIGABRT),
        ("synchronous", "exit", 3),
    ],
)
def test_a_crash_that_ends_the_run_is_isolated(scheduler, crash, status, marked, clean):
    words = marked.words(scheduler)
    assert [marked.run(words, crash=crash).status for _ in range(2)] == [status] * 2
    ended = marked.run(words, crash=crash)
    assert ended.status == REJECTED, ended.output
    assert "decoder-crash  The decoder crashed or hung, twice" in ended.output
    check_isolated(marked, clean)


@pytest.mark.parametrize(
    ("scheduler", "crash"), [("processes", "abort"), (None, "segfault"), (None, "exit")]
)
def test_a_crash_in_a_worker_is_isolated_in_one_run(scheduler, crash, marked, clean):
    ended = marked.command(scheduler, crash=crash).run()
    assert ended.status == REJECTED, ended.output
    assert "Traceback" not in ended.output
    check_isolated(marked, clean)


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("crash", "status"), [("hang", 75), ("hold", 1)])
def test_a_decoder_that_hangs_is_isolated(crash, status, marked, clean):
    """Nothing but the end of the process stops it, twice; then it is decoded apart."""
    faults = {"crash": crash, "patience": 4}
    ends = [marked.run(**faults) for _ in range(2)]
    assert [one.status for one in ends] == [status] * 2
    assert ("a decoder hangs" in ends[0].output) == (crash == "hang")
    ended = marked.run(**faults)
    assert ended.status == REJECTED, ended.output
    check_isolated(marked, clean)


@pytest.mark.timeout(240)
def test_a_decoder_that_hangs_in_a_worker_is_isolated_in_one_run(marked, clean):
    ended = marked.command(None, crash="hang", patience=4).run()
    assert ended.status == REJECTED, ended.output
    assert "Traceback" not in ended.output
    check_isolated(marked, clean)


def test_a_crash_in_an_array_job_is_isolated(marked, clean):
    options = [*marked.options, "--scheduler", "synchronous"]
    marked.run(["index", marked.pile, *options])
    marked.run(["plan", marked.store, *options])
    piece = ["encode", *options, "--task-range", "0:9"]
    ends = [marked.run(piece, crash="segfault") for _ in range(3)]
    assert [one.status for one in ends] == [-signal.SIGSEGV] * 2 + [FAILED]
    assert "frames turned out unfit; run `dicomdask plan`" in ends[-1].last_line
    marked.run(["plan", marked.store, *options])
    marked.run(["encode", *options, "--task-range", "0:9"], crash="segfault")
    assert marked.run(["commit", *marked.options]).status == STORED
    check_isolated(marked, clean)


def test_a_crash_in_resolve_is_isolated(kept, clean):
    kept.restore("first")
    edit(kept.pile / "1" / "0002.dcm", PatientComments=hooks.MARK)
    shutil.copy2(kept.pile / "1" / "0002.dcm", kept.pile / "copy.dcm")
    ends = [kept.run(crash="abort").status for _ in range(3)]
    assert ends == [-signal.SIGABRT] * 2 + [REJECTED]
    crashed = dict.fromkeys(["1/0002.dcm", "copy.dcm"], "decoder-crash")
    assert kept.outcomes() == clean("first")[2] | crashed
    assert storage.list_names(str(kept.work / "attempts")) == []


def test_what_is_decoded_apart_is_the_same(kept, clean):
    kept.restore("first")
    kept.run([*kept.words(), "--dry-run"])
    work = Work(str(kept.work))
    for _, part in work.read_plans():
        for volume, task in encode.plan_tasks(part):
            for _ in range(2):
                work.mark_attempt(plan.task_digest(volume, task, KEY))
    assert Attempts(work).is_careful is False
    assert kept.run().status == REJECTED
    assert kept.content() == clean("first")[1]
    pids = {line.split(" ")[2] for line in kept.lines("decode")}
    assert len(pids) >= len(kept.slices(kept.receipts())), (
        "each frame in a fork of its own"
    )


@pytest.mark.parametrize("crash", ["abort", "segfault", "exit", "hang"])
@pytest.mark.timeout(60)
def test_a_cell_outlives_a_crash(crash):
    with Cell(len, "", seconds=1) as cell:
        with pytest.raises(InputError) as caught:
            cell.call(hooks.crash, crash)
        assert caught.value.code == "decoder-crash"
        assert cell.call(len, "abc") == 3
        with pytest.raises(InputError) as caught:
            cell.call(int, "no number")
        assert caught.value.code == "unexpected"
        assert cell.call(np.add, 1, 2) == 3


def test_a_cell_bounds_memory():
    with Cell(len, "") as cell:
        with pytest.raises(InputError) as caught:
            cell.call(hooks.crash, "memory")
        assert caught.value.code == "too-large"


def test_a_cell_that_cannot_start_rejects_nothing(monkeypatch):
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with Cell(len, "") as cell, pytest.raises(StoreError, match="no process can be"):
        cell.call(len, "abc")


def test_nothing_identified_is_told_of_a_cell():
    name, others = "IDENTIFIED^NAME", set(psutil.Process().children())
    with Cell(len, name) as cell:
        assert cell.call(len, name) == len(name)
        [child] = set(psutil.Process().children()) - others
        told = [*child.cmdline(), *child.environ().values()]
        assert not [text for text in told if name in text]
        assert child.environ().keys() - os.environ.keys() <= {"PYTHONPATH"}
    assert set(psutil.Process().children()) <= others


# --- workers and schedulers that go -------------------------------------------


def nannies_below(process):
    """Return the nannies of a command: they are started by a specification."""
    children = psutil.Process(process.pid).children()
    return [child for child in children if "spec" in child.cmdline()]


def workers_below(process):
    """Return the worker processes of a command: those that its nannies started."""
    nannies = nannies_below(process)
    return {child.pid for nanny in nannies for child in nanny.children()}


def worker_of(pid, workers):
    """Return the worker that a process is, or works for."""
    family = [pid, *(parent.pid for parent in psutil.Process(pid).parents())]
    return next((one for one in family if one in workers), None)


def test_a_worker_killed_again_and_again_in_one_run(kept, clean, full):
    times = 10 if full else 4
    kept.restore("first")
    killed, seen = 0, 0
    with kept.command(seconds=0.4).running() as process:
        while killed < times and process.poll() is None:
            lines = kept.lines("decode")
            for line in lines[seen:]:
                pid = int(line.split(" ")[2])
                with suppress(psutil.NoSuchProcess):
                    worker = worker_of(pid, workers_below(process))
                    if worker is not None and killed < times:
                        os.kill(worker, signal.SIGKILL)
                        killed += 1
            seen = len(lines)
            time.sleep(0.05)
        ended = finished(process)
    assert (killed, ended.status) == (times, REJECTED), ended.output
    assert kept.outcomes() == clean("first")[2]
    assert kept.content() == clean("first")[1]


def test_a_worker_that_its_nanny_restarts_for_memory(marked, clean):
    command = marked.command(crash="memory")
    command.words += ["--memory", "700MiB"]
    ended = command.run()
    assert ended.status == REJECTED, ended.output
    assert marked.outcomes()["2/0002.dcm"] == "too-large"
    check_isolated(marked, clean, "too-large")


def test_nannies_killed_are_replaced(kept, clean):
    kept.restore("first")
    with kept.command(seconds=0.4).running() as process:
        wait_for(lambda: kept.lines("decode"))
        for nanny in nannies_below(process):
            nanny.kill()
        ended = finished(process)
    assert ended.status == REJECTED, ended.output
    assert kept.content() == clean("first")[1]


def wait_for(condition, seconds=200):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.05)


def is_received(place):
    return any("/receipts/tasks/" in line for line in place.lines("after"))


@contextmanager
def dask_process(*words, faults=None):
    process = subprocess.Popen(
        [sys.executable, "-m", "distributed.cli." + words[0], *map(str, words[1:])],
        env=environment(faults),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_scheduler_that_is_lost(kept, clean, tmp_path):
    kept.restore("first")
    file = tmp_path / "scheduler.json"
    common = ("--scheduler-file", file, "--no-dashboard")
    faults = hooks.Faults(str(kept.log), seconds=0.3)
    kept.log.unlink(missing_ok=True)
    with (
        dask_process(
            "dask_scheduler", "--port", "0", "--host", "127.0.0.1", *common
        ) as scheduler,
        dask_process("dask_worker", *common, "--nthreads", "1", faults=faults),
    ):
        wait_for(file.exists)
        words = [*kept.words(str(file)), "--insecure-scheduler"]
        with Command(words).running() as process:
            wait_for(lambda: process.poll() or is_received(kept))
            scheduler.kill()
            ended = finished(process)
    assert ended.status == FAILED, ended.output
    assert "Traceback" not in ended.output
    last = ended.last_line
    assert last.startswith("dicomdask: the scheduler at tcp://127.0.0.1:")
    assert last.endswith("is gone; what is done is kept, run the same command again")
    assert kept.receipts()
    check_again(kept, clean("first"))


# --- a full disk --------------------------------------------------------------


@contextmanager
def small_disk(path, size):
    """Mount a small disk; skip where that is not allowed."""
    path.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path]
    if os.geteuid() != 0 or subprocess.run(words, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        yield lambda size: subprocess.run(
            ["mount", "-o", f"remount,size={size}", path], check=True
        )
    finally:
        subprocess.run(["umount", path], check=True)


@pytest.mark.parametrize("full_place", ["store", "work"])
def test_a_full_disk_in_encode(full_place, tmp_path, server, key_file):
    place = Place(tmp_path, key_file, server)
    rng = np.random.default_rng(0)
    for number in range(1, 4):
        pixels = rng.integers(0, 4000, (100, 100)).astype(np.int16)
        ds = make_instance(number, pixels=pixels)
        write_series(place.pile / f"{number}", iter([ds]))
    at = place.root / full_place
    with small_disk(at, "1m") as resize:
        options = [*place.options, "--scheduler", "synchronous"]
        assert place.run(["index", place.pile, *options]).status == STORED
        assert place.run(["plan", place.store, *options]).status == STORED
        used = psutil.disk_usage(str(at)).used
        ballast = at / ".ballast"
        room = 40_000 if full_place == "store" else 12_288
        ballast.write_bytes(b"\1" * ((1 << 20) - used - room))
        ended = place.run()
        assert ended.status == FAILED
        assert ended.last_line == (
            f"dicomdask: no space is left at {at}; what is done is kept: free some "
            "there, then run the same command again"
        )
        receipts = place.receipts()
        assert len(receipts) < 3
        ballast.unlink()
        resize("8m")
        assert place.run().status == STORED
        assert not place.slices(receipts) & set(place.decoded())
        assert set(place.outcomes().values()) == {"stored"}
        assert len(place.outcomes()) == 3


# --- sources that change meanwhile --------------------------------------------


@pytest.fixture
def planned(kept):
    """Return a place that is indexed and planned, and not encoded."""
    kept.restore("first")
    options = [*kept.options, "--scheduler", "synchronous"]
    assert kept.run(["index", kept.pile, *options]).status == STORED
    assert kept.run(["plan", kept.store, *options]).status == STORED
    return kept


def finish(place):
    options = [*place.options, "--scheduler", "synchronous"]
    ended = place.run(["encode", *options])
    assert ended.status == STORED, ended.output
    assert place.run(["commit", *place.options]).status == STORED


def test_a_source_changes_between_index_and_encode(planned, clean):
    """Its size does not, and it is the first run: only the listed etag tells."""
    path = planned.pile / "2" / "0002.dcm"
    change_pixel(path)
    finish(planned)
    wanted = clean("first")[2]
    assert planned.outcomes() == wanted | {"2/0002.dcm": "source-changed"}
    assert planned.run().status == REJECTED
    assert planned.outcomes() == wanted
    ds = dicomdask.open_dataset(str(planned.store))
    [row] = [row for row in ds.volumes.itertuples() if row.n_frames == 2]
    assert np.array_equal(ds.read(row.volume_id)[1], pydicom.dcmread(path).pixel_array)


@pytest.mark.parametrize("code", ["source-changed", "unreadable"])
def test_a_source_vanishes_and_comes_back(code, planned, clean):
    path, away = planned.pile / "2" / "0002.dcm", planned.folder / "away"
    path.rename(away)
    if code == "unreadable":
        path.mkdir()
    finish(planned)
    codes = dicomdask.open_dataset(str(planned.store)).inputs["code"].tolist()
    wanted = clean("first")[2]
    assert sorted(codes) == sorted((wanted | {"2/0002.dcm": code}).values())
    if code == "unreadable":
        path.rmdir()
    away.rename(path)
    receipts = planned.receipts()
    assert planned.run().status == REJECTED
    assert planned.outcomes() == wanted
    assert not planned.slices(receipts) & set(planned.decoded())
    assert "nothing new" in planned.run().output
    assert planned.decoded() == []


def test_the_digest_of_an_object_proves_it_without_a_request(tmp_path):
    path = tmp_path / "a.dcm"
    path.write_bytes(to_bytes(make_instance()))
    data = path.read_bytes()

    def frame(etag):
        return PlannedFrame(str(path), len(data), "", 0, (), (), "", etag)

    digest = hashlib.md5(data).hexdigest()
    for etag in (digest, f'"{digest}"', "", storage.describe(str(path)).etag):
        assert resolve.read_source(frame(etag), path.read_bytes) == data
    for etag in (hashlib.md5(b"").hexdigest(), f"{digest}-2"):
        with pytest.raises(InputError, match="changed"):
            resolve.read_source(frame(etag), path.read_bytes)
