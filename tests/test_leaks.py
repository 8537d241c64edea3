"""Markers drawn at test time, planted wherever DICOM has room: none may come out.

One pile of files holds them in stored, rejected, skipped and broken inputs. It is
converted in this process and through a cluster; then every byte of the store, all that
was logged or warned, and all that Dask was told is searched.
"""

import base64
import json
import logging
import os
import re
import subprocess
import sys
import traceback
import warnings
from pathlib import Path

import distributed
import numpy as np
import pytest

import dicomdask
from dicomdask import header, pipeline, pixels, plan, storage
from dicomdask.errors import DicomDaskError, StoreError
from dicomdask.tasks import encode
from dicomdask.work import Work
from tests.marked import write_pile
from tests.markers import LETTERS, MARKER, Markers
from tests.told import (
    CREDENTIALS,
    Told,
    all_bytes,
    arrays_of,
    assert_clean,
    assert_keyless,
    decoded,
    listening,
)


def test_the_search_finds_what_it_looks_for():
    markers = Markers()
    word, name = markers.word(), markers.letters("ISO_IR 192")
    for code in ("utf-8", "utf-16-le", "utf-16-be", "latin-1"):
        assert markers.find(b"ab" + word.encode(code) + b"yz") == {word.encode()}
    assert markers.find(word.lower().encode())
    for lead in (b"", b"a", b"ab"):
        coded = base64.b64encode(lead + word.encode() + b"zz")
        assert markers.find(b'{"InlineBinary":"' + coded + b'"}')
    assert markers.find(b"00" + word.encode().hex().encode())
    for code in ("utf-8", "utf-16-le", "utf-16-be"):
        assert markers.find(name.encode(code)) == {name}
    assert markers.find_in_text(json.dumps({"name": name})) == {name}
    for charset, (code, _) in LETTERS.items():
        text = markers.letters(charset)
        assert text in markers.find(b"x" + text.encode(code)), charset
    date, uid = markers.date(), markers.uid()
    assert markers.find(date.encode()) == {date}
    assert markers.find(uid.encode()) == {uid.rsplit(".", 1)[1]}
    assert markers.find(b"nothing, QA00000G, Q0000000") == set()


# --- the pile -----------------------------------------------------------------


@pytest.fixture(scope="module")
def pile(tmp_path_factory):
    return write_pile(tmp_path_factory.mktemp("pile"))


def test_many_markers_are_planted(pile):
    raw = b"".join(path.read_bytes() for path in pile.root.rglob("*") if path.is_file())
    assert len(pile.markers.words & set(MARKER.findall(raw))) >= 4000
    digits = {text.encode() for text in pile.markers.texts if text.isdecimal()}
    assert len(digits & set(re.findall(rb"\d+", raw))) >= 120


# --- converting ---------------------------------------------------------------


@pytest.fixture(scope="module")
def run(pile, tmp_path_factory, key_file):
    """Convert the pile in this process."""
    store, told = tmp_path_factory.mktemp("out") / "a.zarr", Told()
    with listening(told):
        told.summary = dicomdask.convert(
            str(pile.root),
            str(store),
            key_file=str(key_file),
            scheduler="synchronous",
            progress=told.note,
        )
    told.note(told.summary, dicomdask.open_dataset(str(store)))
    told.store, told.work = store, Path(f"{store}.work")
    return told


# --- the searches -------------------------------------------------------------


def test_the_pile_is_stored_rejected_and_skipped(run, pile):
    counts = run.summary.commit.counts
    assert counts["inputs"] == sum(pile.count.values()) + 1  # the strange name
    assert counts["stored"] >= pile.count["stored"]
    assert counts["rejected"] >= pile.count["rejected"] + pile.count["broken"]
    assert counts["skipped"] >= pile.count["skipped"]
    assert counts["duplicate"] == 1


def test_what_is_meant_to_be_stored_is(run, pile, key):
    inputs = dicomdask.open_dataset(str(run.store)).inputs
    found = dict(zip(inputs["source_key"], inputs["code"], strict=True))
    wrong = {
        path.parent.name: found[key_of(path, key)]
        for path in pile.root.rglob("stored *")
        if found[key_of(path, key)] not in {"stored", "duplicate"}
    }
    assert not wrong


def key_of(path, key):
    return plan.source_key(str(path), key)


def test_no_byte_of_the_store(run, pile):
    assert_clean(pile.markers, all_bytes(run.store).items())


def test_no_decoded_byte_of_the_store(run, pile):
    assert_clean(pile.markers, decoded(run.store))
    for name, values in arrays_of(run.store).items():
        assert not pile.markers.find(values.tobytes()), name


def test_no_text_in_unused_bits(run, pile):
    instances = dicomdask.open_dataset(str(run.store)).volumes
    [row] = [row for _, row in instances.iterrows() if row["Modality"] == "MR"]
    values = dicomdask.open_dataset(str(run.store)).read(row["volume_id"])
    expected = np.arange(192, dtype=np.uint16).reshape(16, 12) * 21
    assert np.array_equal(values.reshape(16, 12), expected)
    for name, array in arrays_of(run.store).items():
        bits = np.abs(array.astype(np.int64)).reshape(-1)
        halves = [bits >> shift & 15 for shift in (0, 4, 8, 12)]
        for half in halves:
            paired = half[: len(half) // 2 * 2].reshape(-1, 2)
            text = (paired[:, 0] << 4 | paired[:, 1]).astype(np.uint8).tobytes()
            assert not pile.markers.find(text), name


def test_no_receipt_and_no_part(run, pile):
    for name in ("receipts", "parts", "log"):
        folder = run.work / name
        assert all_bytes(folder)
        assert_clean(pile.markers, all_bytes(folder).items())
        assert_clean(pile.markers, decoded(folder))


def test_no_log_no_warning_no_graph(run, pile):
    names = {key.split("-")[0] for key in run.keys}
    assert names == {"('index", "('resolve", "('plan", "('encode"}
    assert not pile.markers.find_in_text("\n".join((*run.text, *run.keys)))
    for graph in run.graphs:
        assert not pile.markers.find(graph)


def test_task_keys_name_functions_and_numbers_only(run):
    names = re.compile(r"\('[a-z]+-[0-9a-f]{32}', \d+\)")
    assert run.keys
    assert [key for key in run.keys if not names.fullmatch(key)] == []


def test_the_key_is_nowhere(run):
    assert_keyless(*all_bytes(run.store).values(), *all_bytes(run.work).values())
    assert_keyless(*(content for _, content in decoded(run.store)))
    assert_keyless(*(content for _, content in decoded(run.work)))
    assert_keyless(*run.graphs, *(text.encode() for text in (*run.text, *run.keys)))


# --- faults -------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError, OSError, KeyError, RuntimeError])
@pytest.mark.parametrize(
    "place", ["header.read_instance", "pixels.decode", "deid.clean_header"]
)
def test_an_error_that_holds_a_value(
    error, place, series, tmp_path, convert, monkeypatch
):
    markers, told = Markers(), Told()
    word = markers.word()
    room, name = place.split(".")

    def fail(*_):
        logging.getLogger("pydicom").error(word)
        warnings.warn(word, stacklevel=1)
        raise error(f"{word} is no good")

    home = {
        "header": header,
        "pixels": pixels.FrameDecoder,
        "deid": encode.deid,
    }[room]
    monkeypatch.setattr(home, name, fail)
    store = tmp_path / "store.zarr"
    with listening(told):
        try:
            told.note(convert(series, store).commit)
        except DicomDaskError:
            told.note(traceback.format_exc())
    assert told.text
    assert not markers.find_in_text("\n".join(told.text))
    assert_clean(markers, all_bytes(store).items() if store.exists() else ())
    work = Work(f"{store}.work")
    parts = work.manifest_parts()
    outcomes = [one for part in parts for one in work.read_outcomes(part)]
    assert not markers.find_in_text(repr(outcomes))


def test_an_error_of_storage_while_writing(series, tmp_path, convert, monkeypatch):
    markers, original = Markers(), storage.write
    folder = tmp_path / markers.word()
    series.rename(folder)

    def fail(url, data):
        if "/c/" in url:
            raise OSError(28, "No space left on device")
        original(url, data)

    monkeypatch.setattr(storage, "write", fail)
    told = Told()
    with listening(told), pytest.raises(StoreError, match="no space") as raised:
        convert(folder, tmp_path / "store.zarr")
    told.note(raised.value)
    assert not markers.find_in_text("\n".join(told.text))


# --- a cluster ----------------------------------------------------------------


@pytest.fixture(scope="module")
def clustered(pile, tmp_path_factory, key_file):
    """Convert the pile with the command, through two workers; keep all they say."""
    out = tmp_path_factory.mktemp("cluster")
    store, told = out / "a.zarr", Told()
    options = {"file": {"token": CREDENTIALS[1]}}
    environment = {
        **os.environ,
        "AWS_SECRET_ACCESS_KEY": CREDENTIALS[0],
        "DICOMDASK_STORAGE_OPTIONS": json.dumps(options),
        "PYTHONWARNINGS": "always",
        "DASK_LOGGING__DISTRIBUTED": "debug",
        "DASK_DISTRIBUTED__ADMIN__LOG_LENGTH": "100000",
    }
    log = out / "scheduler.log"
    with log.open("wb") as file:
        scheduler = subprocess.Popen(
            [sys.executable, "-c", CLUSTER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            env=environment,
        )
        try:
            address = scheduler.stdout.readline().decode().strip()
            code = "from dicomdask.cli import main; main()"
            command = [sys.executable, "-c", code, "convert"]
            options = ["--key-file", str(key_file), "--scheduler", address, "-v"]
            options.append("--insecure-scheduler")
            told.done = subprocess.run(
                [*command, str(pile.root), str(store), *options],
                capture_output=True,
                env=environment,
                check=False,
            )
            told.story, _ = scheduler.communicate(b"\n", timeout=60)
        finally:
            scheduler.kill()
            scheduler.wait()
    told.log = log.read_bytes()
    told.store, told.work = store, Path(f"{store}.work")
    return told


CLUSTER = """
import sys, distributed
if __name__ == "__main__":
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None
    ) as cluster, distributed.Client(cluster) as client:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.readline()
        scheduler = cluster.scheduler
        print("TRANSITIONS", list(scheduler.transition_log))
        print("EVENTS", {key: list(value) for key, value in
            scheduler._broker._topics.items()} if hasattr(scheduler, "_broker")
            else dict(scheduler.events))
        print("LOGS", client.get_worker_logs(), client.get_scheduler_logs())
        print("STREAM", client.get_task_stream())
"""


def test_a_cluster_is_told_nothing(clustered, pile):
    assert clustered.done.returncode == 8, clustered.done.stderr.decode()
    assert b"encode-" in clustered.story
    for text in (
        clustered.done.stdout,
        clustered.done.stderr,
        clustered.story,
        clustered.log,
    ):
        assert not pile.markers.find(text)
        assert_keyless(text)


def test_a_cluster_writes_the_same_bytes(clustered, run):
    def content(store):
        found = all_bytes(store)
        return {name: found[name] for name in found if "commits" not in name}

    assert content(clustered.store) == content(run.store)


def test_no_byte_of_what_a_cluster_wrote(clustered, pile):
    assert_clean(pile.markers, all_bytes(clustered.store).items())
    for name in ("receipts", "parts"):
        assert_clean(pile.markers, all_bytes(clustered.work / name).items())
        assert_clean(pile.markers, decoded(clustered.work / name))
    assert_keyless(*all_bytes(clustered.store).values())
    assert_keyless(*all_bytes(clustered.work).values())


def test_a_task_that_fails_on_a_worker_names_no_value(pile, tmp_path):
    """What Dask logs of a failing task are its key and its arguments."""
    bag = pipeline.encode_bag([[("00000", 0, 1)]], work_url=str(tmp_path / "none"))
    with (
        distributed.Client(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
        ) as client,
        pytest.raises(StoreError, match="not a work directory"),
    ):
        client.compute(bag.to_delayed()[0]).result()
