"""Whatever is wrong: one sentence, the right exit code, and a rerun that completes."""

import io
import os
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from pydicom.uid import DeflatedExplicitVRLittleEndian

import dicomdask
from dicomdask import cli
from dicomdask.errors import CODES
from tests.builders import (
    make_instance,
    make_series,
    other_series,
    to_bytes,
    write_series,
)

MARKER = "ZQXCANARY"
STAGES = {"list", "index", "resolve", "plan", "encode"}


@pytest.fixture(autouse=True)
def _no_key_in_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[None]:
    monkeypatch.delenv("DICOMDASK_KEY", raising=False)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    yield
    assert os.listdir(here) == [], "something was written where the user stands"


@pytest.fixture
def pile(tmp_path: Path) -> Path:
    folder = tmp_path / "pile"
    write_series(folder / "one", make_series(4))
    write_series(folder / "two", other_series(3, 2))
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "o.zarr"


def run(*words: object) -> Result:
    plain = {"commit", "info", "verify"}
    scheduler = () if words[0] in plain else ("--scheduler", "synchronous")
    return CliRunner().invoke(
        cli.main, [*map(str, words[:1]), *scheduler, *words_of(words)]
    )


def words_of(words: tuple[object, ...]) -> list[str]:
    return [str(word) for word in words[1:]]


def refused(*words: object, code: int = 1, names: object = "") -> str:
    """Run what must be refused; return its one sentence."""
    result = run(*words)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    sentences = [
        line for line in result.stderr.splitlines() if line.startswith("dicomdask: ")
    ]
    assert len(sentences) == 1, result.stderr
    (sentence,) = sentences
    assert sentence == result.stderr.splitlines()[-1]
    assert "Traceback" not in result.output
    assert "unforeseen" not in sentence
    assert str(names) in sentence, sentence
    assert any(mark in sentence for mark in (";", ":")), "it says what to do"
    assert sentence.rstrip() == sentence
    return sentence


def done(*words: object, code: int = 0) -> Result:
    result = run(*words)
    assert result.exit_code == code, result.output
    return result


def is_whole(store: Path, stored: int = 7) -> None:
    """Check that a store holds the good pile and verifies."""
    assert dicomdask.open_dataset(str(store)).commit.codes["stored"] == stored
    assert run("verify", store, "--all").exit_code == 0


def work_of(store: Path) -> Path:
    return store.with_name(f"{store.name}.work")


# --- sources ------------------------------------------------------------------


def test_no_such_source(pile: Path, store: Path) -> None:
    missing = pile / "nowhere"
    sentence = refused("convert", missing, store, names=missing)
    assert "give a file, a folder or a glob" in sentence
    assert not store.exists()
    assert not work_of(store).exists()
    done("convert", pile, store)
    is_whole(store)


def test_a_glob_without_a_match(pile: Path, store: Path) -> None:
    refused("convert", pile / "*.ima", store, names="*.ima")
    assert not work_of(store).exists()


def test_empty_folder(tmp_path: Path, pile: Path, store: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused("convert", tmp_path / "empty", store, code=2, names=tmp_path / "empty")
    assert not store.exists()
    shutil.copytree(pile, tmp_path / "empty", dirs_exist_ok=True)
    done("convert", tmp_path / "empty", store)
    is_whole(store)


def test_folder_without_dicom(tmp_path: Path, pile: Path, store: Path) -> None:
    source = tmp_path / "photos"
    source.mkdir()
    (source / "a.txt").write_text(MARKER)
    (source / "b.dcm").write_text(f"<html>{MARKER}</html>")
    sentence = refused("convert", source, store, code=2, names="no DICOM among the 2")
    assert str(source) in sentence
    assert not store.exists()
    shutil.copytree(pile, source, dirs_exist_ok=True)
    done("convert", source, store, code=8)
    is_whole(store)


@pytest.mark.parametrize(
    "words",
    [
        ["info", "no://b/o.zarr"],
        ["verify", "no://b/o.zarr"],
        ["index", "no://b/in", "--work", "w"],
        ["index", "in", "--work", "no://b/w"],
        ["encode", "--work", "no://b/w"],
        ["commit", "--work", "no://b/w"],
    ],
    ids=" ".join,
)
def test_every_command_refuses_an_unknown_scheme(words: list[str]) -> None:
    refused(*words, names="no:// is unknown")


# --- targets ------------------------------------------------------------------


def test_target_below_a_file(tmp_path: Path, pile: Path, store: Path) -> None:
    (tmp_path / "file").write_text("I am no folder")
    target = tmp_path / "file" / "o.zarr"
    refused("convert", pile, target, names=tmp_path / "file")
    work = tmp_path / "w"
    refused("convert", pile, target, "--work", work, names=target)
    done("convert", pile, store, "--work", work)
    assert run("verify", store, "--work", work).exit_code == 0


def test_target_is_a_file(tmp_path: Path, pile: Path) -> None:
    target = tmp_path / "o.zarr"
    target.write_text("a file of mine")
    refused("convert", pile, target, names=target)
    assert target.read_text() == "a file of mine"
    target.unlink()
    done("convert", pile, target)
    is_whole(target)


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]], ids=["plain", "overwrite"])
def test_target_is_a_folder_of_something_else(
    overwrite: list[str], tmp_path: Path, pile: Path, store: Path
) -> None:
    store.mkdir()
    (store / "thesis.tex").write_text("years of work")
    sentence = refused("convert", pile, store, *overwrite, names=store)
    assert "is no dicomdask dataset" in sentence
    assert (store / "thesis.tex").read_text() == "years of work"
    (store / "thesis.tex").unlink()
    done("convert", pile, store)
    is_whole(store)


def test_target_is_another_zarr(pile: Path, store: Path) -> None:
    store.mkdir()
    (store / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    refused("convert", pile, store, names=store)
    refused("info", store)


@pytest.mark.parametrize("place", ["inside", "inside deep", "same"])
def test_work_inside_the_store_is_refused(place: str, pile: Path, store: Path) -> None:
    work = {"inside": store / "w", "inside deep": store / "a" / "w", "same": store}
    sentence = refused("convert", pile, store, "--work", work[place])
    assert "may not lie inside the store" in sentence
    done("convert", pile, store)
    is_whole(store)


def test_no_dataset_to_show_or_verify(tmp_path: Path) -> None:
    for command in ("info", "verify"):
        refused(command, tmp_path / "none.zarr", names=tmp_path / "none.zarr")
        refused(command, tmp_path)


# --- settings -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["--policy", "basic"], "policy"),
        (["--profile", "patch"], "profile"),
        (["--patch-size", "64"], "patch_size"),
        (["--codec", "zstd"], "codec"),
        (["--where", "Rows == 16"], "where"),
        (["--limit", "5"], "limit"),
        (["--on-irregular", "reject"], "on_irregular"),
        (["--trust-pixels", "DX"], "trusted_pixels"),
    ],
)
def test_a_store_made_with_other_settings(
    words: list[str], name: str, pile: Path, store: Path
) -> None:
    done("convert", pile, store)
    sentence = refused("convert", pile, store, *words, names=store)
    assert "made with another " in sentence
    assert name in sentence.split("made with another ")[1]
    assert "--overwrite" in sentence
    assert "nothing new" in done("convert", pile, store).stdout
    done("convert", pile, store, *words, "--overwrite")
    is_whole(store)


def test_a_store_made_with_another_key(
    pile: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done("convert", pile, store)
    shutil.move(work_of(store) / "key", tmp_path / "first")
    shutil.rmtree(work_of(store))
    sentence = refused("convert", pile, store, names=store)
    assert "made with another key;" in sentence
    shutil.rmtree(work_of(store))
    done("convert", pile, store, "--key-file", tmp_path / "first")
    is_whole(store)


def test_a_work_directory_made_with_another_key(
    pile: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done("convert", pile, store)
    (tmp_path / "second").write_text(MARKER * 4)
    sentence = refused(
        "convert", pile, store, "--key-file", tmp_path / "second", names=work_of(store)
    )
    assert "another key" in sentence
    assert MARKER not in sentence
    monkeypatch.setenv("DICOMDASK_KEY", MARKER * 4)
    assert MARKER not in refused("convert", pile, store, names="another key")
    monkeypatch.delenv("DICOMDASK_KEY")
    assert "nothing new" in done("convert", pile, store).stdout


@pytest.mark.parametrize("text", ["", "\n", "short", "k" * 15])
def test_too_short_a_key(text: str, pile: Path, store: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(text)
    words = ("convert", pile, store, "--key-file", tmp_path / "key")
    sentence = refused(*words, names="at least 16")
    assert "openssl rand -hex 32" in sentence
    (tmp_path / "key").write_text("k" * 16)
    done(*words)
    is_whole(store)


def test_missing_key_file(pile: Path, store: Path, tmp_path: Path) -> None:
    words = ("convert", pile, store, "--key-file", tmp_path / "key")
    refused(*words, names=tmp_path / "key")
    (tmp_path / "key").write_text("k" * 16)
    done(*words)
    is_whole(store)


USAGE: list[tuple[list[str], str]] = [
    (["--policy", "reserch"], "reserch"),
    (["--option", "retain-everything"], "retain-everything"),
    (["--memory", "much"], "--memory"),
    (["--scheduler", "no-such-file.json"], "no-such-file.json"),
    (["--limit", "0"], "--limit"),
    (["--limit", "-1"], "--limit"),
    (["--where", "Modality = 'CT'"], "--where"),
    (["--where", "NoSuchKeyword == 1"], "--where"),
    (["--where", "Modality =="], "--where"),
    (["--where", "Modality"], "--where"),
    (["--where", "1"], "--where"),
]


@pytest.mark.parametrize(("words", "name"), USAGE, ids=[" ".join(w) for w, _ in USAGE])
def test_an_option_that_cannot_be_used(
    words: list[str], name: str, pile: Path, store: Path
) -> None:
    """It is named, and nothing is stored; its exit code is tested below."""
    result = run("convert", pile, store, *words)
    assert result.exit_code in {1, 2}, result.output
    assert name in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.output
    assert "unforeseen" not in result.stderr
    assert not (store / "commits").exists()
    done("convert", pile, store)
    is_whole(store)


@pytest.mark.parametrize("words", [words for words, _ in USAGE], ids=" ".join)
def test_an_option_that_cannot_be_used_is_exit_code_2(
    words: list[str], pile: Path, store: Path
) -> None:
    assert run("convert", pile, store, *words).exit_code == 2


def test_a_scheduler_that_does_not_answer(
    pile: Path, store: Path, tmp_path: Path
) -> None:
    (tmp_path / "scheduler.json").write_text("{")
    result = run("convert", pile, store, "--scheduler", "nonsense://x")
    assert result.exit_code == 2
    assert "nonsense://" in result.stderr.splitlines()[-1]
    words = ("convert", pile, store, "--scheduler", tmp_path / "scheduler.json")
    refused(*words, names=tmp_path / "scheduler.json")
    done("convert", pile, store)
    is_whole(store)


# --- the order of steps -------------------------------------------------------


def test_steps_out_of_order(pile: Path, store: Path, tmp_path: Path) -> None:
    work = tmp_path / "w"
    for words in (["plan", store], ["encode"], ["commit"]):
        sentence = refused(*words, "--work", work, names=work)
        assert "run `dicomdask index` first" in sentence
    done("index", pile, "--work", work)
    assert "run `dicomdask plan`" in refused("encode", "--work", work, names=work)
    assert "run `dicomdask plan`" in refused("commit", "--work", work, names=work)
    done("plan", store, "--work", work)
    assert "run `dicomdask encode`" in refused("commit", "--work", work)
    assert not (store / "commits").exists()
    done("encode", "--work", work)
    done("commit", "--work", work)
    assert run("verify", store, "--work", work, "--all").exit_code == 0


def test_a_work_directory_without_an_index(pile: Path, store: Path) -> None:
    done("convert", pile, store, "--dry-run")
    for name in ("index", "receipts", "manifest", "plan"):
        shutil.rmtree(work_of(store) / name)
    refused("plan", store, "--work", work_of(store), names="dicomdask index")
    done("convert", pile, store)
    is_whole(store)


# --- damage -------------------------------------------------------------------

DAMAGES = [b"", b"[]", b'{"format": 99}', b"\xff\xfe\x00"]


def keep_only_the_key(work: Path) -> None:
    for path in work.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "key":
            path.unlink()


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_job(damage: bytes, pile: Path, store: Path) -> None:
    done("convert", pile, store)
    (work_of(store) / "job.json").write_bytes(damage)
    sentence = refused("convert", pile, store, names=work_of(store) / "job.json")
    assert "remove the work directory but keep its key" in sentence
    keep_only_the_key(work_of(store))
    assert "nothing new" in done("convert", pile, store).stdout
    is_whole(store)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_plan(damage: bytes, pile: Path, store: Path) -> None:
    done("convert", pile, store, "--dry-run")
    part = min((work_of(store) / "plan").glob("*.json"))
    part.write_bytes(damage)
    sentence = refused("encode", "--work", work_of(store), names=part)
    assert "run `dicomdask plan` again" in sentence
    done("plan", store, "--work", work_of(store))
    done("encode", "--work", work_of(store))
    done("commit", "--work", work_of(store))
    is_whole(store)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("folder", ["index", "tasks"])
def test_damaged_receipt(folder: str, damage: bytes, pile: Path, store: Path) -> None:
    """It is named, or it is not needed; the dataset is right in the end."""
    done("convert", pile, store, "--dry-run")
    done("encode", "--work", work_of(store))
    path = min((work_of(store) / "receipts" / folder).rglob("*.json"))
    path.write_bytes(damage)
    result = run("convert", pile, store)
    if result.exit_code:
        assert result.exit_code == 1
        assert str(path) in result.stderr
        assert "unforeseen" not in result.stderr
        path.unlink()
        done("convert", pile, store)
    is_whole(store)


@pytest.mark.parametrize("damage", [None, b"", b"PAR1 nothing", b"\xff" * 64])
def test_missing_or_damaged_part(damage: bytes | None, pile: Path, store: Path) -> None:
    done("convert", pile, store, "--dry-run")
    done("encode", "--work", work_of(store))
    part = min((work_of(store) / "parts").rglob("*.parquet"))
    part.unlink() if damage is None else part.write_bytes(damage)
    sentence = refused("convert", pile, store, names=part)
    receipt = sentence.split("remove ")[1].split(", then")[0]
    assert Path(receipt).is_file(), "the sentence names the receipt to remove"
    Path(receipt).unlink()
    done("convert", pile, store)
    is_whole(store)


@pytest.mark.parametrize("folder", ["manifest", "index"])
def test_damaged_table_of_the_work_directory(
    folder: str, pile: Path, store: Path
) -> None:
    done("convert", pile, store, "--dry-run")
    part = min((work_of(store) / folder).rglob("*.parquet"))
    part.write_bytes(b"PAR1 nothing")
    (work_of(store) / "receipts" / "planned.json").unlink()
    sentence = refused("convert", pile, store, names=part)
    assert "remove the work directory but keep its key" in sentence
    keep_only_the_key(work_of(store))
    done("convert", pile, store)
    is_whole(store)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_commit(damage: bytes, pile: Path, store: Path) -> None:
    done("convert", pile, store)
    write_series(pile / "three", other_series(2, 3))
    done("convert", pile, store)
    newest = store / "commits" / "1.json"
    newest.write_bytes(damage)
    for words in (["info", store], ["verify", store], ["convert", pile, store]):
        is_newer = b"99" in damage
        names = "use the version" if is_newer else "restore commits/1.json"
        sentence = refused(*words, names=names)
        assert str(store) in sentence
    newest.unlink()
    is_whole(store)
    done("convert", pile, store)
    is_whole(store, stored=9)


def test_damaged_table_of_the_dataset(pile: Path, store: Path) -> None:
    done("convert", pile, store)
    (part,) = (store / "tables" / "volumes").iterdir()
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    write_series(pile / "two", other_series(4, 2))
    refused("convert", pile, store, names=part.name)


# --- bad files among good ones ------------------------------------------------


def png() -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0) + MARKER.encode()
    crc = struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(body) - 4) + body + crc


def zipped(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(f"{MARKER}.dcm", data)
    return buffer.getvalue()


def tarred(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        info = tarfile.TarInfo(f"{MARKER}.dcm")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def bad(number: int, **elements: Any) -> bytes:
    """Return an image of a series of its own, the marker all over it."""
    root = f"1.2.826.0.1.3680043.8.498.6.{number}"
    names = ("PatientID", "PatientName", "StudyDescription", "InstitutionName")
    uids = {
        "StudyInstanceUID": root,
        "SeriesInstanceUID": f"{root}.1",
        "SOPInstanceUID": f"{root}.1.1",
    }
    marked = dict.fromkeys(names, MARKER)
    return to_bytes(make_instance(**{**uids, **marked, **elements}))


def deflate_bomb() -> bytes:
    """Return a deflated data set whose private element inflates to 280 MB."""
    head = bad(90, transfer_syntax=DeflatedExplicitVRLittleEndian)
    start = 132 + 12 + int.from_bytes(head[140:144], "little")
    squeeze = zlib.compressobj(wbits=-15)
    out = [squeeze.compress(b"\x09\x00\x10\x00LO\x04\x00TEST")]
    size = 280 << 20
    out.append(
        squeeze.compress(b"\x09\x00\x01\x10OB\x00\x00" + size.to_bytes(4, "little"))
    )
    block = bytes(1 << 20)
    out += [squeeze.compress(block) for _ in range(size >> 20)]
    out.append(squeeze.flush())
    return head[:start] + b"".join(out)


BAD: dict[str, tuple[Any, set[str]]] = {
    "zero.dcm": (lambda: b"", {"empty-file"}),
    "page.dcm": (lambda: f"<html>{MARKER}</html>".encode(), {"not-dicom"}),
    "image.png": (png, {"not-dicom"}),
    "study.zip": (lambda: zipped(bad(1)), {"archive"}),
    "study.tar.gz": (lambda: tarred(bad(2)), {"archive"}),
    "random.dcm": (lambda: bytes(range(7, 250)) * 40, {"not-dicom"}),
    "random-after-magic.dcm": (
        lambda: bytes(128) + b"DICM" + bytes(range(7, 250)) * 40,
        {"bad-header", "missing-uid", "too-large", "unexpected"},
    ),
    "magic-only.dcm": (lambda: bytes(128) + b"DICM", {"bad-header", "missing-uid"}),
    "cut-in-header.dcm": (lambda: bad(3)[:500], {"bad-header"}),
    "cut-in-pixels.dcm": (lambda: bad(4)[:-100], {"truncated"}),
    "no-pixels.dcm": (
        lambda: bad(5, PixelData=None),
        {"bad-header", "no-pixels", "truncated"},
    ),
    "no-series.dcm": (lambda: bad(6, SeriesInstanceUID=None), {"missing-uid"}),
    "no-study.dcm": (lambda: bad(7, StudyInstanceUID=None), {"missing-uid"}),
    "frames.dcm": (
        lambda: bad(8, NumberOfFrames=10**9),
        {"multiframe", "bad-image", "truncated", "too-large"},
    ),
    "huge.dcm": (
        lambda: bad(9, Rows=65535, Columns=65535),
        {"truncated", "bad-image", "too-large", "bad-pixels"},
    ),
    "bomb.dcm": (deflate_bomb, {"too-large", "bad-header", "truncated"}),
    "bad-place.dcm": (
        lambda: bad(10, ImageOrientationPatient=[0, 0, 0, 0, 0, 0]),
        {"bad-geometry", "stored"},
    ),
}


def outcomes(store: Path) -> list[dict[str, Any]]:
    """Return the inputs that are not stored; every row is checked."""
    inputs = dicomdask.open_dataset(str(store)).inputs
    rows: list[dict[str, Any]] = inputs.to_dict("records")
    for row in rows:
        assert row["stage"] in STAGES
        assert row["code"] in CODES
        assert row["reason"].endswith((".", "--memory.")), row["reason"]
        assert row["source_bytes"] >= 0
    return [row for row in rows if row["outcome"] != "stored"]


def no_marker(store: Path, *results: Result) -> None:
    for result in results:
        assert MARKER not in result.output
        assert "Traceback" not in result.output
    for path in store.rglob("*"):
        assert MARKER not in str(path)
        assert path.is_dir() or MARKER.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("name", BAD)
def test_one_bad_file_among_good_ones(name: str, pile: Path, store: Path) -> None:
    make, codes = BAD[name]
    (pile / name).write_bytes(make())
    result = run("convert", pile, store)
    assert result.exit_code in {0, 8}, result.output
    found = outcomes(store)
    if "stored" not in codes or found:
        (row,) = found
        assert row["code"] in codes, row
        assert row["source_bytes"] == (pile / name).stat().st_size
        assert result.exit_code == (0 if row["outcome"] == "skipped" else 8)
        is_whole(store)
    no_marker(store, result, run("info", store), run("verify", store, "--all"))


def test_links_and_pipes_among_good_files(pile: Path, store: Path) -> None:
    (pile / "loop").symlink_to(pile)
    (pile / "self").symlink_to(pile / "self")
    (pile / f"{MARKER}-broken.dcm").symlink_to(pile / "nowhere")
    os.mkfifo(pile / "pipe.dcm")
    result = done("convert", pile, store, code=8)
    assert [row["code"] for row in outcomes(store)] == ["unreadable"] * 3
    is_whole(store)
    no_marker(store, result)
    (pile / f"{MARKER}-broken.dcm").unlink()
    shutil.copy(next(other_file(pile)), pile / f"{MARKER}-broken.dcm")
    done("convert", pile, store, code=8)
    is_whole(store, stored=8)


def other_file(pile: Path) -> Iterator[Path]:
    """Yield files of one more series, written beside the pile."""
    yield from write_series(pile.with_name("more"), other_series(1, 5))


def test_a_name_that_is_not_utf8(pile: Path, store: Path) -> None:
    folder = os.fsencode(pile) + b"/\xff\xfe" + MARKER.encode()
    os.mkdir(folder)
    for path in (pile / "two").iterdir():
        shutil.move(path, folder + b"/" + os.fsencode(path.name))
    with open(folder + b"/\xe9.dcm", "wb") as file:
        file.write(b"<html>")
    result = done("convert", pile, store, code=8)
    assert [row["code"] for row in outcomes(store)] == ["not-dicom"]
    is_whole(store)
    no_marker(store, result)
    assert "nothing new" in done("convert", pile, store, code=8).stdout


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads files without permission")
def test_a_file_without_permission(pile: Path, store: Path) -> None:
    (pile / "secret.dcm").write_bytes(bad(20))
    (pile / "secret.dcm").chmod(0)
    done("convert", pile, store, code=8)
    assert [row["code"] for row in outcomes(store)] == ["unreadable"]
    is_whole(store)
    (pile / "secret.dcm").chmod(0o600)
    done("convert", pile, store)
    is_whole(store, stored=8)


def test_all_bad_files_together(pile: Path, store: Path) -> None:
    for name, (make, _) in BAD.items():
        if name != "bomb.dcm":
            (pile / name).write_bytes(make())
    result = done("convert", pile, store, code=8)
    inputs = dicomdask.open_dataset(str(store)).inputs
    assert len(inputs) == 7 + len(BAD) - 1
    assert len(outcomes(store)) >= len(BAD) - 2
    no_marker(store, result)
    assert run("verify", store, "--all").exit_code == 0


def test_a_folder_with_other_things_is_no_work_directory(
    pile: Path, store: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("mine")
    mode = home.stat().st_mode
    assert "another --work" in refused(
        "convert", pile, store, "--work", home, names=home
    )
    assert [path.name for path in home.iterdir()] == ["thesis.tex"]
    assert home.stat().st_mode == mode
