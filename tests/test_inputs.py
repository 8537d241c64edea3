"""`info --files`: which files had an outcome, by the names of the work directory."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import dicomdask
from dicomdask.cli import main
from dicomdask.policy import OPTION_CODES
from dicomdask.show import deidentified_text, file_line
from tests.builders import make_series, write_series

CODES = {"notes.txt": "not-dicom", "two\nlines\t.txt": "not-dicom", "nil": "empty-file"}


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture(scope="module")
def pile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three slices, a copy of one, and three files that are no DICOM."""
    folder = tmp_path_factory.mktemp("user") / "Müller, Hans"
    write_series(folder, make_series(3))
    shutil.copy(folder / "0001.dcm", folder / "copy.dcm")
    for name, code in CODES.items():
        (folder / name).write_text("" if code == "empty-file" else "buy milk")
    return folder


@pytest.fixture(scope="module")
def store(pile: Path) -> Path:
    store = pile.parent / "study.zarr"
    dicomdask.convert(str(pile), str(store), scheduler="synchronous")
    return store


@pytest.fixture(scope="module")
def dest(pile: Path) -> Path:
    dest = pile.parent / "files"
    dicomdask.deidentify(str(pile), str(dest), scheduler="synchronous")
    return dest


@pytest.fixture(params=["store", "dest"])
def made(request: pytest.FixtureRequest) -> Path:
    """A dataset, or de-identified files."""
    found: Path = request.getfixturevalue(request.param)
    return found


def listed(*words: object) -> list[dict[str, str]]:
    result = run("info", *words, "--json")
    assert result.exit_code == 0, result.output
    found: list[dict[str, str]] = json.loads(result.stdout)
    return found


def test_rejected_files_are_named_with_their_codes(made: Path, pile: Path) -> None:
    found = {one["url"]: one["code"] for one in listed(made, "--files", "rejected")}
    assert found == {str(pile / name): code for name, code in CODES.items()}


def test_the_outcomes_share_out_all_files_as_info_counts_them(
    made: Path, pile: Path
) -> None:
    lists = {
        name: listed(made, "--files", name)
        for name in ("stored", "duplicate", "skipped", "rejected")
    }
    urls = [one["url"] for found in lists.values() for one in found]
    assert sorted(urls) == sorted(str(path) for path in pile.iterdir())
    told = json.loads(run("info", made, "--json").stdout)
    counts = told["counts"]
    assert counts["inputs"] == len(urls)
    assert {n: len(found) for n, found in lists.items() if found} == {
        name: n for name, n in counts.items() if name in lists and n
    }
    codes = Counter(one["code"] for found in lists.values() for one in found)
    assert codes == told["codes"]


def test_a_code_picks_its_files_one_a_line_whatever_their_names(made: Path) -> None:
    result = run("info", made, "--files", "not-dicom")
    lines = result.stdout.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["not-dicom"] * 2
    assert {line.rpartition("/")[2] for line in lines} == {
        "notes.txt",
        r"two\nlines\t.txt",
    }


def test_without_the_option_no_name_is_told(made: Path) -> None:
    assert "Müller" not in run("info", made).stdout.replace(str(made.parent), "")
    assert "notes.txt" not in run("info", made, "--json").stdout


def test_what_it_does_not_know_is_refused(store: Path, tmp_path: Path) -> None:
    typo = run("info", store, "--files", "rejectd")
    assert typo.exit_code == 2
    assert "no code or outcome rejectd" in typo.stderr
    lost = run("info", store, "--files", "rejected", "--work", tmp_path / "none")
    assert lost.exit_code == 1
    assert "not a work directory" in lost.stderr
    idle = run("info", store, "--work", tmp_path / "none")
    assert idle.exit_code == 2
    assert "--files" in idle.stderr
    nothing = run("info", tmp_path / "none.zarr", "--files", "rejected")
    assert nothing.exit_code == 1


def test_another_work_directory_names_only_what_it_listed(
    store: Path, pile: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.zarr"
    key = store.with_name("study.zarr.work") / "key"
    dicomdask.convert(
        str(pile / "0002.dcm"), str(other), key_file=str(key), scheduler="synchronous"
    )
    work = other.with_name("other.zarr.work")
    found = listed(store, "--files", "stored", "--work", work)
    assert [one["url"] for one in found] == [str(pile / "0002.dcm")]


def test_a_line_holds_what_can_be_printed_only() -> None:
    line = file_line("stored", "/a b/ü\udcff\r\x1b[2J")
    assert line == r"stored" + "\t" + r"/a b/ü\udcff\r\x1b[2J"
    assert line.encode()


def test_convert_says_how_to_find_what_was_rejected(pile: Path, tmp_path: Path) -> None:
    words = ("convert", pile, tmp_path / "a b.zarr", "--scheduler", "synchronous")
    told = run(*words).stdout
    assert f"next: dicomdask info '{tmp_path}/a b.zarr' --files rejected\n" in told
    assert f"dicomdask verify '{tmp_path}/a b.zarr'\n" in told
    elsewhere = run(*words, "--work", tmp_path / "w", "--overwrite").stdout
    assert f"dicomdask verify '{tmp_path}/a b.zarr' --work {tmp_path}/w\n" in elsewhere


@pytest.mark.parametrize("width", [60, 80, 200])
def test_sentences_go_on_below_themselves_at_the_width_of_a_terminal(
    width: int,
) -> None:
    codes = {"burned-in-risk": 2, "not-dicom": 10}
    text = deidentified_text("d", {"rejected": 12}, codes, width=width)
    whole = deidentified_text("d", {"rejected": 12}, codes)
    assert max(map(len, text.splitlines())) <= width
    assert text.split() == whole.split()
    assert len(whole.splitlines()) == 3
    column = whole.splitlines()[1].index("May hold")
    below = [line for line in text.splitlines()[2:] if line[0:column].isspace()]
    assert len(below) == len(text.splitlines()) - 3 > 0


def test_usage_names_all_that_a_command_takes() -> None:
    assert "SRC... STORE" in run("convert", "only-one").stderr.splitlines()[-1]
    assert "SRC... DEST" in run("deidentify", "only-one").stderr.splitlines()[-1]


def test_help_breaks_no_name_of_an_option() -> None:
    for words in (["convert"], ["deidentify"], ["plan"], ["policy", "show"]):
        lines = run(*words, "--help").stdout.splitlines()
        assert {f"    {name}" for name in OPTION_CODES} <= set(lines)
