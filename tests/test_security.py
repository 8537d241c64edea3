"""What must hold whoever wrote the bytes, the names and the listings that are read."""

import ast
import json
import logging
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from distributed.protocol import pickle
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

import dicomdask
from dicomdask import pipeline, storage
from dicomdask.errors import CODES, InputError, OptionError
from dicomdask.plan import check_where
from dicomdask.storage import NOT_A_FILE, OUTSIDE
from dicomdask.tasks.index import read_instance
from tests.builders import make_instance, make_series, to_bytes, write_series
from tests.conftest import SECRET

PACKAGE = Path(dicomdask.__file__).parent

# --- modes --------------------------------------------------------------------


def mode_of(path):
    return stat.S_IMODE(Path(path).stat().st_mode)


@pytest.fixture
def permissive():
    """Let the process make whatever it makes open to all."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("permissive")
def test_work_and_key_are_private_whatever_the_umask(series, tmp_path, convert):
    convert(series, tmp_path / "store.zarr", key_file=None)
    assert mode_of(tmp_path / "store.zarr.work") == 0o700
    assert mode_of(tmp_path / "store.zarr.work" / "key") == 0o600
    assert mode_of(tmp_path / "store.zarr") == 0o777, "the dataset is as the umask says"


@pytest.mark.usefixtures("permissive")
def test_work_and_key_that_were_open_are_closed(series, tmp_path, convert):
    work = tmp_path / "work"
    work.mkdir(0o777)
    convert(series, tmp_path / "store.zarr", work=str(work), key_file=None)
    assert mode_of(work) == 0o700
    work.chmod(0o755)
    (work / "key").chmod(0o644)
    before = (work / "key").read_bytes()
    convert(series, tmp_path / "store.zarr", work=str(work), key_file=None)
    assert (mode_of(work), mode_of(work / "key")) == (0o700, 0o600)
    assert (work / "key").read_bytes() == before


def test_a_key_file_of_the_user_keeps_its_mode(series, tmp_path, convert):
    path = tmp_path / "key"
    path.write_text(SECRET)
    path.chmod(0o640)
    convert(series, tmp_path / "store.zarr", key_file=str(path))
    assert mode_of(path) == 0o640


# --- credentials --------------------------------------------------------------

AWS_SECRET = "wJalrXUtnFEMI-planted-K7MDENG"
STORE_SECRET = "planted-token-of-the-store-8c1f"


@pytest.mark.parametrize("place", ["local", "memory"])
def test_no_credential_and_no_key_is_written_logged_or_sent(
    place, series, tmp_path, monkeypatch, caplog
):
    """Plan, receipts, run log, tables, task keys, graphs, progress: all is searched."""
    store = str(tmp_path / "store") if place == "local" else "memory://credentials/out"
    work, sent = tmp_path / "work", []
    options = {"memory": {"token": STORE_SECRET}, "file": {"token": STORE_SECRET}}
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", AWS_SECRET)
    monkeypatch.setenv("DICOMDASK_STORAGE_OPTIONS", json.dumps(options))
    monkeypatch.setenv("DICOMDASK_KEY", SECRET)
    for name in ("index_bag", "resolve_bag", "plan_bag", "encode_bag"):
        monkeypatch.setattr(pipeline, name, telling(getattr(pipeline, name), sent))
    caplog.set_level(logging.DEBUG)
    summary = dicomdask.convert(
        str(series),
        store,
        work=str(work),
        scheduler="synchronous",
        progress=lambda progress: sent.append(repr(progress).encode()),
    )
    assert summary.commit.counts["stored"] == 5
    contents = {one.name: storage.read(f"{work}/{one.name}") for one in below(work)}
    contents |= {one.name: storage.read(f"{store}/{one.name}") for one in below(store)}
    parts = {name.split("/")[0] for name in contents}
    assert {"job.json", "plan", "receipts", "log", "commits", "tables"} <= parts
    contents |= {
        "sent": b"".join(sent),
        "logs": caplog.text.encode(),
        "names": "".join(contents).encode(),
        "summary": repr(summary).encode(),
    }
    for name, content in contents.items():
        for secret in (AWS_SECRET, STORE_SECRET, SECRET):
            assert secret.encode() not in content, name
        assert bytes.fromhex(SECRET) not in content, name


def below(url):
    return list(storage.list_below(str(url)))


def telling(build, sent):
    def call(elements, **options):
        bag = build(elements, **options)
        graph = dict(bag.dask)
        sent.append(pickle.dumps(graph) + repr(list(graph)).encode())
        return bag

    return call


# --- links --------------------------------------------------------------------


@pytest.fixture
def places(tmp_path):
    """Return a source and a place outside it, each with a series of its own."""
    inside, outside = tmp_path / "in", tmp_path / "out"
    write_series(inside / "deep", make_series(3))
    write_series(outside / "deep", make_series(2, SeriesInstanceUID="1.2.3"))
    (outside / "secret.dcm").write_bytes(to_bytes(make_instance(7)))
    return inside, outside


def listed(source, **options):
    found = storage.list_files(str(source), **options)
    return {os.path.relpath(file.url, source): file.size for file in found}


def test_links_that_lead_out_are_listed_and_not_followed(places):
    inside, outside = places
    (inside / "file").symlink_to(outside / "secret.dcm")
    (inside / "folder").symlink_to(outside)
    (inside / "chain").symlink_to(inside / "folder")
    (inside / "relative").symlink_to("../out/deep")
    (inside / "gone").symlink_to(outside / "nothing")
    (inside / "through").symlink_to(inside / "folder" / "deep" / "0001.dcm")
    (inside / "beside").symlink_to(f"{inside}-beside")
    found = listed(inside)
    names = ["file", "folder", "chain", "relative", "gone", "through", "beside"]
    assert {name for name, size in found.items() if size == OUTSIDE} == set(names)
    assert len(found) == len(names) + 3


def test_links_that_stay_within_one_of_the_sources_are_followed(places):
    inside, outside = places
    (inside / "file").symlink_to(outside / "secret.dcm")
    (inside / "folder").symlink_to(outside / "deep")
    (inside / "own").symlink_to(inside / "deep" / "0001.dcm")
    found = listed(inside, within=(str(inside), str(outside)))
    assert min(found.values()) > 0
    assert {"file", "own", "folder/0001.dcm"} <= set(found)
    only = listed(inside, within=(str(outside / "deep"),))
    assert [name for name, size in only.items() if size == OUTSIDE] == ["file"]
    pattern = listed(inside, within=(str(outside / "de*"),))
    assert min(pattern.values()) > 0


def test_a_source_that_is_a_link_is_where_it_leads(places, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(places[1])
    assert min(listed(link).values()) > 0
    (tmp_path / "file").symlink_to(places[1] / "secret.dcm")
    assert list(listed(tmp_path / "file").values()) == [listed(link)["secret.dcm"]]


def test_a_pattern_reaches_no_further_than_what_is_fixed_of_it(places):
    inside, outside = places
    (inside / "link.dcm").symlink_to(outside / "secret.dcm")
    (inside / "linked").symlink_to(outside / "deep")
    for pattern in ("*", "*/*.dcm", "**"):
        sizes = [file.size for file in storage.list_files(str(inside / pattern))]
        assert OUTSIDE in sizes, pattern
    urls = [file.url for file in storage.list_files(str(inside / "link*" / "*"))]
    assert len(urls) == 2


def test_loops_of_links_end_inside_and_outside(places):
    inside, outside = places
    (inside / "self").symlink_to("self")
    (inside / "up").symlink_to(inside)
    (outside / "back").symlink_to(inside)
    (inside / "out").symlink_to(outside)
    (inside / "deep" / "cycle").symlink_to(inside / "up" / "deep")
    found = listed(inside)
    assert found == listed(inside)
    assert (found["self"], found["out"]) == (NOT_A_FILE, OUTSIDE)
    assert len(listed(inside, within=(str(outside),))) < 12


def test_what_leads_out_has_an_outcome_and_comes_in_once_it_is_named(
    places, tmp_path, convert, key_file
):
    inside, outside = places
    (inside / "file").symlink_to(outside / "secret.dcm")
    store = tmp_path / "store.zarr"
    convert(inside, store)
    inputs = dicomdask.open_dataset(str(store)).inputs
    [row] = inputs[inputs["code"] == "outside-source"].to_dict("records")
    assert (row["outcome"], row["stage"]) == ("rejected", "index")
    assert row["reason"] == CODES["outside-source"]
    dicomdask.convert(
        [str(inside), str(outside)],
        str(store),
        key_file=str(key_file),
        scheduler="synchronous",
    )
    codes = set(dicomdask.open_dataset(str(store)).inputs["code"])
    assert codes <= {"stored", "duplicate"}


# --- names of objects ---------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "a/../../b",
        "../b",
        "..",
        "a/./b",
        "..%2fb",
        "a/%2e%2e/b",
        "%252e%252e/b",
        "a\\..\\b",
        "a\0b",
        "a%00b",
    ],
)
def test_names_that_may_lead_elsewhere_are_never_opened(name, monkeypatch):
    root = f"memory://names/{name.encode().hex()}"
    filesystem = storage.remote.open_store(root)[0]
    filesystem.store.clear()
    filesystem.pipe_file(f"/names/{name.encode().hex()}/{name}", b"bytes")
    filesystem.pipe_file(f"/names/{name.encode().hex()}/good", b"bytes")
    files = list(storage.list_files(root))
    assert [file.size for file in files if file.url.endswith("good")] == [5]
    [strange] = [file for file in files if not file.url.endswith("good")]
    assert strange.size == OUTSIDE

    def refuse(*_):
        raise AssertionError("it was opened")

    monkeypatch.setattr(storage.remote, "open_blocks", refuse)
    with pytest.raises(InputError) as raised:
        read_instance(strange)
    assert raised.value.code == "outside-source"
    assert "link" not in str(raised.value)


@pytest.mark.parametrize("name", ["a\nb", "a b", "ä", "a%20b", "a#b?c", "[a]*", "a..b"])
def test_other_names_are_names(name, tmp_path):
    for root in (f"memory://strange/{name.encode().hex()}", str(tmp_path)):
        storage.write(storage.join(root, name), b"bytes")
        [file] = storage.list_files(root)
        assert file.size == 5
        assert storage.read(file.url) == b"bytes"


@pytest.mark.parametrize(
    "name", ["..%2f..%2fsecret.dcm", "a\nb", "%2e%2e", "~", "$HOME"]
)
def test_strange_names_of_files_stay_where_they_are(name, tmp_path, convert):
    folder = tmp_path / "in"
    [path] = write_series(folder, make_series(1))
    path.rename(folder / name)
    store = tmp_path / "store.zarr"
    convert(folder, store)
    ds = dicomdask.open_dataset(str(store))
    assert ds.inputs["code"].tolist() == ["stored"]
    assert sorted(os.listdir(tmp_path)) == ["in", "store.zarr", "store.zarr.work"]
    assert not [one for one in Path(f"{store}.work").rglob("*") if name in one.name]


# --- what is opened -----------------------------------------------------------

WATCHED = """
import json, os, sys
opened = []
def watch(event, args):
    if event in ("open", "os.listdir", "os.scandir") and args and args[0] is not None:
        if not isinstance(args[0], int):
            opened.append(os.fsdecode(args[0]))
sys.addaudithook(watch)
import dicomdask
source, store, out = sys.argv[1:]
dicomdask.convert(source, store, scheduler="synchronous")
print(json.dumps(sorted(set(opened))))
"""


def opened_by_convert(source, store):
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, str(source), str(store), "-"],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def dicomdir(*references):
    """Return a DICOMDIR whose records refer to files by these components."""
    root = make_instance(SOPClassUID="1.2.840.10008.1.3.10")
    directory = Dataset()
    directory.FileSetID = "SET"
    directory.DirectoryRecordSequence = []
    for reference in references:
        record = Dataset()
        record.DirectoryRecordType = "IMAGE"
        record.ReferencedFileID = reference
        record.ReferencedSOPClassUIDInFile = root.SOPClassUID
        record.ReferencedSOPInstanceUIDInFile = root.SOPInstanceUID
        record.ReferencedTransferSyntaxUIDInFile = ExplicitVRLittleEndian
        directory.DirectoryRecordSequence.append(record)
    directory.file_meta = root.file_meta
    return to_bytes(directory)


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_nothing_that_a_dicomdir_refers_to_is_opened_for_it(places, tmp_path):
    inside, outside = places
    data = dicomdir(
        ["..", "..", "..", "..", "..", "..", "etc", "passwd"],
        ["..", "out", "secret.dcm"],
        "/etc/passwd",
        str(outside / "secret.dcm"),
        f"file://{outside}/secret.dcm",
        ["deep", "0001.dcm"],
    )
    (inside / "DICOMDIR").write_bytes(data)
    store = tmp_path / "store.zarr"
    opened = opened_by_convert(inside, store)
    assert str(inside / "DICOMDIR") in opened
    assert str(inside / "deep" / "0001.dcm") in opened
    assert not [path for path in opened if "passwd" in path or str(outside) in path]
    codes = dicomdask.open_dataset(str(store)).inputs["code"]
    assert sorted(codes) == ["dicomdir", "stored", "stored", "stored"]


def test_nothing_that_links_lead_out_to_is_opened_or_listed(places, tmp_path):
    inside, outside = places
    (inside / "file.dcm").symlink_to(outside / "secret.dcm")
    (inside / "folder").symlink_to(outside)
    opened = opened_by_convert(inside, tmp_path / "store.zarr")
    assert str(inside / "deep" / "0001.dcm") in opened
    for path in opened:
        assert not os.path.realpath(path).startswith(str(outside)), path


# --- code ---------------------------------------------------------------------

CODE_RUNNERS = {
    *("pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"),
    *("yaml", "code", "runpy", "jsonpickle", "torch"),
}
BUILT_IN = {"eval", "exec", "compile", "__import__", "execfile"}
METHODS = {"read_pickle", "to_pickle", "loads_pickle", "read_hdf", "unsafe_load"}
TORCH = ("__init__", "batches", "datasets", "loader")
MAY = {
    ("plan/build", "eval"),  # of what `check_where` lets pass
    ("__init__", "import_module"),  # of names that are in the code
    ("burnedin/detector", "import_module"),  # of our own module that needs an extra
    ("faces/needed", "import_module"),  # of two modules of scipy
    *((f"loaders/torch/{name}", "torch") for name in TORCH),  # and loads nothing
}


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).with_suffix("").as_posix(), path


@pytest.mark.parametrize(("name", "path"), list(modules()))
def test_no_foreign_bytes_become_code(name, path):
    """No pickle, no eval, no import by name: what is read is data."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {one.name.split(".")[0] for one in node.names} & CODE_RUNNERS
        elif isinstance(node, ast.ImportFrom):
            found |= {str(node.module).split(".")[0]} & CODE_RUNNERS
        elif isinstance(node, ast.Call):
            found |= {called(node)} & (BUILT_IN | METHODS | {"import_module"})
            found |= {ast.unparse(node.func)} & {"torch.load", "torch.jit.load"}
            found |= {one.arg for one in node.keywords} & {"allow_pickle", "shell"}
    assert {(name, one) for one in found} <= MAY


def called(node):
    if isinstance(node.func, ast.Name):
        return node.func.id
    if isinstance(node.func, ast.Attribute):
        is_regex = ast.unparse(node.func) == "re.compile"
        return "" if is_regex else node.func.attr
    return ""


ACTS = [
    "@__import__('os').system('touch hacked') == 0",
    "@pd.io.common.os.system('touch hacked') == 0",
    "__import__('os').system('touch hacked') == 0",
    "Modality.to_csv('hacked') == 1",
    "Modality.to_pickle('hacked') == 1",
    "Modality.map(print) == 1",
    "Modality.str.contains('C')",
    "Modality.__class__ == 1",
    "a.__class__",
    "@key",
    "@instances == 1",
    "__builtins__ == 1",
    "(lambda: Modality)() == 1",
    "[x for x in Modality]",
    "Modality[0] == 'CT'",
    "f'{Modality}' == 'CT'",
    "(x := Modality) == 'CT'",
    "Modality == 'CT' if Rows else Rows",
    "9 ** 9 ** 9 ** 9 == Rows",
    "1 << 999999999 == Rows",
    "x = 1",
    "import os",
    "Modalty == 'CT'",
    "PatientID == PAT0001",
    "Modality == 'CT'\nx = 1",
    "'a' == 'a'; import os",
    "print('x')",
    "Modality == " + "(" * 300 + "'CT'" + ")" * 300,
    "Modality == " + "'C'" * 5_000,
]


@pytest.mark.parametrize("where", ACTS, ids=range(len(ACTS)))
def test_a_filter_that_acts_or_reaches_further_is_refused(
    where, series, tmp_path, convert, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError, match="--where"):
        check_where(where)
    with pytest.raises(OptionError, match="--where"):
        convert(series, tmp_path / "store.zarr", where=where)
    assert sorted(os.listdir(tmp_path)) == ["series"], "refused before anything is made"


@pytest.mark.parametrize(
    "where",
    [
        "Modality == 'CT'",
        "Modality in ['CT', 'MR'] and SliceThickness < 3",
        "not (Rows < 16) & ~(Columns > 99) | Modality != 'PT'",
        "1 < SliceThickness <= 2.5 and Rows * Columns / 2 + 1 - 3 > -4",
        " PatientID not in ('X', 'Y') ",
    ],
)
def test_a_filter_that_compares_is_fine(where, series, tmp_path, convert):
    found = convert(series, tmp_path / "store.zarr", where=where)
    assert found.commit.counts["stored"] == 5
