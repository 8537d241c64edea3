"""A decoder or encoder that crashes in `deidentify` costs its file and nothing else."""

import os

import pydicom
import pytest

from dicomdask.tasks import isolate
from dicomdask.tasks.isolate import lent_cell
from tests import heads
from tests.builders import make_instance, write_series
from tests.faults import hooks
from tests.faults.run import Command, Server
from tests.test_looks import drawn, ultrasound

REJECTED = 8
pytestmark = pytest.mark.timeout(240)
CODES = {"hang": "decoder-crash", "segfault": "decoder-crash", "memory": "too-large"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Return what runs commands in forks."""
    found = Server(tmp_path_factory.mktemp("server"))
    yield found
    found.close()


@pytest.fixture
def words(tmp_path, key_file):
    def of(option, scheduler="synchronous"):
        words = ["deidentify", tmp_path / "in", tmp_path / "out", "--option", option]
        words += ["--key-file", key_file]
        return words + (["--scheduler", scheduler] if scheduler else [])

    return of


@pytest.fixture
def faults(tmp_path):
    def of(crash, place):
        patience = 20 if crash == "memory" else 6
        found = {"crash": crash, "place": place, "patience": patience}
        return hooks.Faults(str(tmp_path / "log"), **found)

    return of


def write_texts(folder):
    """Write three images with text, of which one is marked, and one not at risk."""
    made = [ultrasound(drawn("DOE JANE"), patient=n, instance=n) for n in (1, 2, 3)]
    made[1].PatientComments = hooks.MARK
    write_series(folder, [*made, make_instance(4, instance=4)])


def write_head(folder):
    """Write a head of which one slice is marked; return how many slices."""
    scan = heads.scan("CT", spacing=(8.0, 4.0, 4.0))
    slices = list(heads.slices(scan, "CT"))
    slices[15].PatientComments = hooks.MARK
    write_series(folder, slices)
    return len(slices)


def written(tmp_path):
    return sorted((tmp_path / "out").glob("*/*/*/*.dcm"))


@pytest.mark.parametrize("crash", CODES)
@pytest.mark.parametrize("place", ["decode", "blank"])
def test_what_crashes_while_text_is_cleaned(
    tmp_path, server, words, faults, crash, place
):
    write_texts(tmp_path / "in")
    ended = server.run(words("clean-pixels"), faults(crash, place))
    assert ended.status == REJECTED, ended.output
    assert "Traceback" not in ended.output
    assert f"3 stored, 1 {CODES[crash]}" in ended.output
    found = [pydicom.dcmread(path) for path in written(tmp_path)]
    assert [one.get("PatientComments") for one in found] == [None] * 3
    assert sorted(one.Modality for one in found) == ["CT", "US", "US"]


@pytest.mark.parametrize("crash", CODES)
def test_what_crashes_while_a_face_is_found(tmp_path, server, words, faults, crash):
    """The slice is not looked at; its neighbours tell where the face in it is."""
    n = write_head(tmp_path / "in")
    ended = server.run(words("clean-faces"), faults(crash, "decode"))
    assert ended.status == 0, ended.output
    assert f"{n} stored" in ended.output
    found = [pydicom.dcmread(path) for path in written(tmp_path)]
    assert {one.RecognizableVisualFeatures for one in found} == {"NO"}


@pytest.mark.parametrize("crash", CODES)
def test_what_crashes_while_a_face_is_removed(tmp_path, server, words, faults, crash):
    n = write_head(tmp_path / "in")
    ended = server.run(words("clean-faces"), faults(crash, "blank"))
    assert ended.status == REJECTED, ended.output
    assert f"{n - 1} stored, 1 {CODES[crash]}" in ended.output
    assert len(written(tmp_path)) == n - 1


def test_no_worker_goes_with_it(tmp_path, words, faults):
    write_texts(tmp_path / "in")
    told = faults("segfault", "decode")
    ended = Command(words("clean-pixels", "processes"), told).run()
    assert ended.status == REJECTED, ended.output
    assert "3 stored, 1 decoder-crash" in ended.output


def test_nothing_is_started_for_headers(tmp_path, server, words):
    """What has no pixels at risk is cleaned here: no call, no process."""
    write_series(tmp_path / "in", [make_instance(1)])
    told = hooks.Faults(str(tmp_path / "log"), crash="abort")
    made = pydicom.dcmread(tmp_path / "in" / "0001.dcm")
    made.PatientComments = hooks.MARK
    made.save_as(tmp_path / "in" / "0001.dcm")
    ended = server.run(words("clean-pixels"), told)
    assert ended.status == 0, ended.output
    log = tmp_path / "log"
    assert not [one for one in log.read_text().splitlines() if one.startswith("decode")]


# --- cells that are kept ------------------------------------------------------


def test_a_cell_is_lent_again():
    with lent_cell(len, "a") as one:
        pid = one.call(os.getppid)
        with lent_cell(len, "a") as other:
            assert other is not one
            assert other.call(os.getppid) != pid
    with lent_cell(len, "a") as again:
        assert again in (one, other)
    isolate.stop_idle_cells()


def test_cells_of_another_kind_are_not_kept():
    with lent_cell(len, "a") as one:
        one.call(len, "a")
        process = one._process
    with lent_cell(len, "b"):
        assert process.poll() is not None
    isolate.stop_idle_cells()


def test_a_cell_that_was_idle_for_too_long_is_started_anew(tmp_path):
    with lent_cell(len, "a") as cell:
        before = cell.call(os.getppid)
        cell._process.kill()
        cell._process.wait()
        assert cell.call(os.getppid) != before
    isolate.stop_idle_cells()
