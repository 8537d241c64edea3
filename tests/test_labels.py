"""Labels joined to a dataset: by the values of its tables, exactly, or by no value."""

import csv
import io
import json
import os
import re
import sys
from pathlib import Path

import pandas as pd
import pydicom
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import dicomdask
from dicomdask import cli, deid, header, rows, storage
from dicomdask.errors import (
    OptionError,
    PlanError,
    PolicyError,
    SourceError,
    StoreError,
    TableError,
)
from dicomdask.policy import FULL_DATES, load_policy
from dicomdask.tasks.barrier import quiet
from dicomdask.tasks.labels import JOINABLE, Cleaner, Issuers
from tests.builders import make_instance, make_series, to_bytes, write_series
from tests.pages import blocks, commands, page_text, run_commands, run_program

UID_ROOT = "1.2.826.0.1.3680043.8.498.9"
IDENTIFIERS = ("PatientID", "AccessionNumber", "StudyInstanceUID", "SeriesInstanceUID")
ODD = [
    ("0007", "007", {}),
    ("7", "7", {}),
    ("  lead trail  ", " A 1 ", {}),
    ('quo"te, comma; semicolon', "it's", {}),
    ("Müller-Ñandú", "Ü1", {"SpecificCharacterSet": "ISO_IR 100"}),
    ("山田^1", "Яков", {"SpecificCharacterSet": "ISO_IR 192"}),
    ("x" * 300, "y" * 80, {}),
    ("=1+1", "", {}),
    ("NULL", "None", {}),
    ("", "A-no-patient", {}),
    ("a\\b", "c\\d", {}),
    ("with issuer", "9", {"IssuerOfPatientID": "Høspital ", "StudyDate": "20010203"}),
]
"""PatientID, AccessionNumber, and what else stands in the header."""


def odd_pile(folder, odd=ODD):
    """Write one series of two slices for each odd patient; return its headers."""
    headers = []
    for number, (patient, accession, elements) in enumerate(odd, 1):
        study = f"{UID_ROOT}.{number}"
        made = list(
            make_series(2, StudyInstanceUID=study, SeriesInstanceUID=f"{study}.1")
        )
        for ds in made:
            ds.SOPInstanceUID = f"{study}.1.{ds.InstanceNumber}"
            ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
            for keyword, value in elements.items():
                setattr(ds, keyword, value)
            with quiet():  # pydicom warns of long values
                ds.PatientID, ds.AccessionNumber = patient, accession
        with quiet():
            write_series(folder / f"{number:02d}", iter(made))
        headers.append({"PatientID": patient, "AccessionNumber": accession, "ds": made})
    return headers


def write_csv(path, records, delimiter=","):
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(records[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(records)
    path.write_bytes(stream.getvalue().encode())
    return path


def read_csv(path):
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def run(*arguments):
    return CliRunner().invoke(cli.main, ["pseudonymize", *map(str, arguments)])


# --- a value goes the way of a header's element -------------------------------

NAUGHTY = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x1b"), max_size=12
)
PADDED = st.tuples(st.sampled_from(["", " ", "\0", "  "]), NAUGHTY).map("".join)
DATES = st.sampled_from(["20200229", "2020.02.29", "19000101", "20200230", "x", ""])
POLICIES = [
    load_policy("research"),
    load_policy("basic"),
    load_policy("none"),
    load_policy("basic", options=[FULL_DATES]),
]


def header_values(cells, policy, key):
    """Return what the encode step puts into the tables for a header from a file."""
    ds = make_instance(PatientID=None, StudyInstanceUID=None, StudyDate=None)
    for keyword, text in cells.items():
        setattr(ds, keyword, text)
    read = header.read_dataset(to_bytes(ds))
    found = deid.header_json(deid.clean_header(read, policy, key))
    return {
        keyword: rows.attribute(found, keyword) if cell.strip("\0 \t\r\n") else None
        for keyword, cell in cells.items()
        if keyword != "IssuerOfPatientID"
    }


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(POLICIES),
    st.fixed_dictionaries(
        {
            "PatientID": PADDED.filter(lambda text: text.strip("\0 \t\r\n")),
            "AccessionNumber": PADDED,
            "StudyInstanceUID": st.sampled_from(["1.2.840.1", "1.2.3.04 ", "nonsense"]),
            "StudyDate": DATES,
            "Modality": st.sampled_from(["CT", "ct ", "SMITH"]),
        },
        optional={"IssuerOfPatientID": PADDED},
    ),
)
def test_a_cell_becomes_what_the_element_of_a_file_becomes(key, policy, cells):
    with quiet():
        wanted = header_values(cells, policy, key)
        found = Cleaner(policy, key).clean(cells)
    assert {keyword: text or None for keyword, text in found.items()} == wanted


def test_all_columns_of_text_can_be_joined():
    assert {*IDENTIFIERS, "SOPInstanceUID", "StudyDate"} <= set(JOINABLE)
    assert not {"KVP", "ImageType", "TransferSyntaxUID", "volume_id"} & set(JOINABLE)


@pytest.mark.parametrize("policy", ["research", "basic", "none"])
def test_a_table_of_the_headers_joins_to_every_volume(tmp_path, convert, policy):
    headers = odd_pile(tmp_path / "in")
    store = tmp_path / "s.zarr"
    convert(tmp_path / "in", store, policy=policy)
    records = [
        {
            "mrn": one["PatientID"],
            "AccessionNumber": one["AccessionNumber"],
            "StudyInstanceUID": one["ds"][0].StudyInstanceUID,
            "SeriesInstanceUID": one["ds"][0].SeriesInstanceUID,
            "label": number,
        }
        for number, one in enumerate(headers)
    ]
    table = write_csv(tmp_path / "labels.csv", records)
    output = tmp_path / "out.csv"
    columns = dict(zip(IDENTIFIERS, ["mrn", *IDENTIFIERS[1:]], strict=True))
    join = dicomdask.pseudonymize(
        str(table),
        str(output),
        columns=columns,
        work=f"{store}.work",
        keep=["label"],
    )
    assert (join.n_rows, join.n_matched, join.unmatched) == (len(ODD), len(ODD), ())
    labels = read_csv(output)
    assert list(labels["label"]) == [str(number) for number in range(len(ODD))]
    volumes = dicomdask.open_dataset(str(store)).volumes
    # Where the header has no PatientID the study stands for the patient in the tables;
    # an empty cell stays empty, and such a row joins by its other columns.
    known = labels[labels["PatientID"] != ""]
    volumes["AccessionNumber"] = volumes["AccessionNumber"].fillna("")
    merged = known.merge(volumes, on=list(IDENTIFIERS))
    assert len(known) == len(ODD) - 1 == len(merged)
    assert len(labels.merge(volumes, on=list(IDENTIFIERS[1:]))) == len(volumes)
    written = set(labels[list(IDENTIFIERS)].to_numpy().ravel()) - {""}
    originals = {record[name] for record in records for name in columns.values()}
    assert bool(written & originals) == (policy == "none")


def test_real_files_join(real_store, data, tmp_path):
    wanted = (*IDENTIFIERS, "SOPInstanceUID", "StudyDate")
    records = []
    with quiet():
        for path in sorted(data.rglob("*")):
            if not path.is_file():
                continue
            try:
                ds = pydicom.dcmread(path, specific_tags=list(wanted))
                text = {name: str(ds.get(name) or "") for name in wanted}
            except Exception:  # noqa: BLE001 - some files are broken on purpose
                continue
            records.append(text)
    table = write_csv(tmp_path / "labels.csv", records)
    output = tmp_path / "out.csv"
    join = dicomdask.pseudonymize(
        str(table), str(output), columns=wanted, work=f"{real_store}.work"
    )
    found = read_csv(output)
    dataset = dicomdask.open_dataset(str(real_store))
    stored = set(dataset.instances["SOPInstanceUID"])
    assert stored
    assert stored <= set(found["SOPInstanceUID"])
    rows_of_stored = found.index[found["SOPInstanceUID"].isin(stored)] + 2
    unmatched = {n for a, b in join.unmatched for n in range(a, b + 1)}
    assert not unmatched & set(rows_of_stored)
    others = ~found["SOPInstanceUID"].isin({*stored, ""})
    assert set(found.index[others] + 2) <= unmatched
    # Without a PatientID in the header, the study stands for the patient in the tables.
    names = ["PatientID", "StudyInstanceUID", "SeriesInstanceUID"]
    nameless = set(found.loc[found["PatientID"] == "", "SeriesInstanceUID"])
    volumes = dataset.volumes[["volume_id", *names]]
    merged = set(volumes.merge(found, on=names)["volume_id"])
    left = volumes[~volumes["volume_id"].isin(merged)]
    assert set(left["SeriesInstanceUID"]) <= nameless
    assert len(left) < len(volumes) / 2
    assert set(left["volume_id"]) <= set(left.merge(found, on=names[1:])["volume_id"])


# --- whose patient it is ------------------------------------------------------


def issuer_pile(folder, convert, issuers):
    odd = [("P1", str(n), {"IssuerOfPatientID": i}) for n, i in enumerate(issuers)]
    odd_pile(folder / "in", odd)
    convert(folder / "in", folder / "s.zarr")
    return folder / "s.zarr"


def join_of(store, tmp_path, records, **options):
    table = write_csv(tmp_path / "labels.csv", records)
    options = {"columns": [k for k in records[0] if k != "label"], **options}
    output = str(tmp_path / "out.csv")
    join = dicomdask.pseudonymize(
        str(table), output, work=f"{store}.work", overwrite=True, **options
    )
    return join, read_csv(tmp_path / "out.csv")


def test_the_issuer_of_a_patient_is_looked_up(tmp_path, convert):
    store = issuer_pile(tmp_path, convert, ["Høspital"])
    join, found = join_of(store, tmp_path, [{"PatientID": " P1"}, {"PatientID": "P2"}])
    volumes = dicomdask.open_dataset(str(store)).volumes
    assert found["PatientID"][0] == volumes["PatientID"][0]
    assert (join.unmatched, join.emptied) == (((3, 3),), ())


def test_a_patient_of_two_issuers_needs_the_study_or_the_issuer(tmp_path, convert):
    store = issuer_pile(tmp_path, convert, ["A", "B"])
    study = f"{UID_ROOT}.1"
    join, found = join_of(store, tmp_path, [{"PatientID": "P1"}])
    assert (join.unmatched, join.emptied, found["PatientID"][0]) == (
        ((2, 2),),
        ((2, 2),),
        "",
    )
    join, by_study = join_of(
        store,
        tmp_path,
        [
            {"PatientID": "P1", "StudyInstanceUID": study},
            {"PatientID": "P1", "StudyInstanceUID": f"{UID_ROOT}.2"},
        ],
    )
    assert (join.n_matched, join.emptied) == (2, ())
    join, by_issuer = join_of(
        store,
        tmp_path,
        [
            {"PatientID": "P1", "IssuerOfPatientID": "A "},
            {"PatientID": "P1", "IssuerOfPatientID": "B"},
            {"PatientID": "P1", "IssuerOfPatientID": "C"},
        ],
    )
    assert (list(by_issuer), join.unmatched) == (["PatientID"], ((4, 4),))
    assert list(by_study["PatientID"]) == list(by_issuer["PatientID"][:2])


def test_issuers_are_found_by_plain_text():
    issuers = Issuers({"P": frozenset({"A"})}, {})
    assert issuers.find(" P\0", "") == "A"
    assert issuers.find("Q", "") == ""


# --- dates --------------------------------------------------------------------


def test_dates_move_with_their_patient(tmp_path, convert):
    odd = [
        ("P1", "1", {"StudyDate": "20200229"}),
        ("P2", "2", {"StudyDate": "20200229", "IssuerOfPatientID": "A"}),
    ]
    odd_pile(tmp_path / "in", odd)
    store = tmp_path / "s.zarr"
    convert(tmp_path / "in", store)
    records = [
        {"PatientID": "P1", "StudyDate": "2020-02-29"},
        {"PatientID": "P2", "StudyDate": "20200229"},
        {"PatientID": "", "StudyDate": "20200229"},
        {"PatientID": "P1", "StudyDate": "29/02/2020"},
        {"PatientID": "P1", "StudyDate": ""},
        {"PatientID": "", "StudyDate": " "},
    ]
    join, found = join_of(store, tmp_path, records)
    volumes = dicomdask.open_dataset(str(store)).volumes
    pairs = set(zip(volumes["PatientID"], volumes["StudyDate"], strict=True))
    assert set(zip(found["PatientID"][:2], found["StudyDate"][:2], strict=True)) == (
        pairs
    )
    assert list(found["StudyDate"][2:]) == ["", "", "", ""]
    assert join.unmatched == ((4, 5), (7, 7))
    assert join.emptied == ((4, 5),)


def test_full_dates_need_no_patient(tmp_path, convert, series):
    store = tmp_path / "s.zarr"
    convert(series, store, policy="basic", options=[FULL_DATES])
    join, found = join_of(store, tmp_path, [{"StudyDate": "2020-02-29"}])
    assert (join.n_matched, found["StudyDate"][0]) == (1, "20200229")


# --- which rows stand in the dataset ------------------------------------------


def test_values_must_stand_together(tmp_path, convert):
    odd_pile(tmp_path / "in", [("P1", "1", {}), ("P2", "2", {})])
    convert(tmp_path / "in", tmp_path / "s.zarr")
    names = ("PatientID", "AccessionNumber", "SOPInstanceUID")
    made = [
        ("P1", "1", f"{UID_ROOT}.1.1.2"),
        ("P1", "2", ""),
        ("", "2", f"{UID_ROOT}.2.1.1"),
        ("P1", "1", f"{UID_ROOT}.2.1.1"),
        ("", "", ""),
        ("P2", "", ""),
        ("P3", "", ""),
    ]
    records = [dict(zip(names, one, strict=True)) for one in made]
    join, _ = join_of(tmp_path / "s.zarr", tmp_path, records)
    assert (join.n_rows, join.n_matched) == (7, 3)
    assert join.unmatched == ((3, 3), (5, 6), (8, 8))


def test_without_a_dataset_nothing_is_matched(tmp_path, series, key_file):
    work = tmp_path / "work"
    words = ["index", series, "--work", work, "--key-file", key_file]
    CliRunner().invoke(cli.main, [*map(str, words), "--scheduler", "synchronous"])
    table = write_csv(tmp_path / "t.csv", [{"PatientID": "PAT0001"}])
    options = ["--columns", "PatientID", "--work", work, "--overwrite", "-o"]
    result = run(table, *options, tmp_path / "o.csv")
    assert result.exit_code == 8
    assert "nothing can be matched: no store yet" in result.stdout
    words = ["plan", tmp_path / "s.zarr", "--work", work, "--key-file", key_file]
    CliRunner().invoke(cli.main, [*map(str, words), "--scheduler", "synchronous"])
    result = run(table, *options, tmp_path / "o.csv")
    assert result.exit_code == 8
    assert "nothing can be matched: no commit in" in result.stdout
    words = ["encode", "--work", str(work), "--scheduler", "synchronous"]
    CliRunner().invoke(cli.main, words)
    CliRunner().invoke(cli.main, ["commit", "--work", str(work)])
    assert run(table, *options, tmp_path / "p.csv").exit_code == 0
    assert (tmp_path / "o.csv").read_bytes() == (tmp_path / "p.csv").read_bytes()


# --- columns ------------------------------------------------------------------


def test_columns_that_are_not_named_are_left_out(store, tmp_path):
    records = [{"a": "Smith", "PatientID": "PAT0001", "b": "007", "c": "QMARK"}]
    join, found = join_of(store, tmp_path, records, columns=["PatientID"], keep=["b"])
    assert (list(found), list(found["b"])) == (["PatientID", "b"], ["007"])
    assert (join.kept, join.dropped) == (("b",), ("a", "c"))
    join, found = join_of(
        store, tmp_path, records, columns=["PatientID"], keep_all=True
    )
    assert (list(found), list(found["a"])) == (
        ["a", "PatientID", "b", "c"],
        ["Smith"],
    )
    assert (join.kept, join.dropped) == (("a", "b", "c"), ())


def test_blank_lines_delimiters_and_marks_pass_through(store, tmp_path):
    table = tmp_path / "t.csv"
    table.write_bytes(b"\xef\xbb\xbfx;PatientID\r\n1,5;PAT0001\r\n\r\n2;nobody\r\n")
    join = dicomdask.pseudonymize(
        str(table),
        str(tmp_path / "o.csv"),
        columns=["PatientID"],
        work=f"{store}.work",
        keep=["x"],
    )
    lines = (tmp_path / "o.csv").read_bytes().decode().split("\r\n")
    assert (lines[0], lines[1][:4], lines[2]) == ("x;PatientID", "1,5;", "")
    assert (join.n_rows, join.unmatched) == (2, ((4, 4),))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"columns": []}, "no columns"),
        ({"columns": ["PatientId"]}, "PatientId is no keyword of DICOM"),
        ({"columns": ["PatientBirthDate"]}, "research removes PatientBirthDate"),
        ({"columns": ["StudyDescription"]}, "research removes StudyDescription"),
        ({"columns": ["PatientName"]}, "PatientName is no column of text"),
        ({"columns": ["KVP"]}, "KVP is no column of text"),
        ({"columns": ["StudyDate"]}, "StudyDate: dates are shifted per patient"),
        ({"columns": ["IssuerOfPatientID"]}, "name that column too"),
        ({"columns": ["AccessionNumber"]}, "names no column 'AccessionNumber'"),
        ({"columns": {"PatientID": "mrn"}}, "names no column 'mrn'"),
        ({"keep": ["mrn"]}, "names no column 'mrn'"),
        ({"columns": ["PatientID", "PatientID"]}, "twice"),
        ({"columns": dict.fromkeys(["PatientID", "AccessionNumber"], "a")}, "two keyw"),
        ({"keep": ["PatientID"]}, "in --columns too"),
        ({"columns": {"PatientID": "a"}, "keep": ["PatientID"]}, "rename it"),
    ],
    ids=str,
)
def test_what_cannot_be_joined_is_said(store, tmp_path, options, says):
    records = [{"PatientID": "QMARK", "a": "QMARK", "StudyDate": "QMARK"}]
    with pytest.raises(OptionError) as caught:
        join_of(store, tmp_path, records, **{"columns": ["PatientID"], **options})
    assert says in str(caught.value)
    assert "QMARK" not in str(caught.value)
    assert not (tmp_path / "out.csv").exists()


def test_a_policy_without_dates_says_so(tmp_path, convert, series):
    convert(series, tmp_path / "s.zarr", policy="basic")
    with pytest.raises(OptionError, match="policy basic removes StudyDate"):
        join_of(tmp_path / "s.zarr", tmp_path, [{"PatientID": "1", "StudyDate": ""}])


# --- places and keys ----------------------------------------------------------


def test_nothing_is_overwritten_in_silence(store, tmp_path):
    table = write_csv(tmp_path / "t.csv", [{"PatientID": "PAT0001"}])
    before = table.read_bytes()
    (tmp_path / "link").symlink_to(tmp_path)
    options = {"columns": ["PatientID"], "work": f"{store}.work"}
    for same in (table, tmp_path / "link" / "t.csv"):
        for overwrite in (False, True):
            with pytest.raises(OptionError, match="is the table itself"):
                dicomdask.pseudonymize(
                    str(table), str(same), overwrite=overwrite, **options
                )
    assert table.read_bytes() == before
    other = tmp_path / "o.csv"
    other.write_text("mine")
    with pytest.raises(OptionError, match="exists; give another"):
        dicomdask.pseudonymize(str(table), str(other), **options)
    assert other.read_text() == "mine"
    dicomdask.pseudonymize(str(table), str(other), overwrite=True, **options)
    assert other.read_text().startswith("PatientID\n")
    with pytest.raises(OptionError, match="inside the dataset"):
        dicomdask.pseudonymize(str(table), str(store / "labels.csv"), **options)


def test_an_output_that_appears_meanwhile_stays(store, tmp_path, monkeypatch):
    table = write_csv(tmp_path / "t.csv", [{"PatientID": "PAT0001"}])
    other = tmp_path / "o.csv"
    other.write_text("mine")
    monkeypatch.setattr(storage, "exists", lambda url: url != str(other))
    with pytest.raises(OptionError, match="exists; give another"):
        dicomdask.pseudonymize(
            str(table), str(other), columns=["PatientID"], work=f"{store}.work"
        )
    assert other.read_text() == "mine"


def test_a_damaged_table_leaves_no_output(store, tmp_path):
    table = tmp_path / "t.csv"
    table.write_bytes(b"PatientID\nPAT0001\nQMARK\xff\n")
    with pytest.raises(TableError, match="row 3 of"):
        dicomdask.pseudonymize(
            str(table),
            str(tmp_path / "o.csv"),
            columns=["PatientID"],
            work=f"{store}.work",
        )
    assert not [name for name in os.listdir(tmp_path) if "o.csv" in name]


def test_tables_lie_anywhere(store, tmp_path):
    data = write_csv(tmp_path / "t.csv", [{"PatientID": "PAT0001"}]).read_bytes()
    storage.write("memory://labels/t.csv", data)
    join = dicomdask.pseudonymize(
        "memory://labels/t.csv",
        "memory://labels/o.csv",
        columns=["PatientID"],
        work=f"{store}.work",
        overwrite=True,
    )
    assert join.n_matched == 1
    assert storage.read("memory://labels/o.csv").startswith(b"PatientID\r\n")


def test_places_that_are_not_there(store, tmp_path):
    options = {"columns": ["PatientID"], "work": f"{store}.work"}
    for place in ("nothing.csv", "."):
        with pytest.raises(SourceError, match="there is no table at"):
            dicomdask.pseudonymize(
                str(tmp_path / place), str(tmp_path / "o.csv"), **options
            )
    options["work"] = str(tmp_path / "nowhere")
    with pytest.raises(StoreError, match="is not a work directory"):
        dicomdask.pseudonymize("t.csv", str(tmp_path / "o.csv"), **options)


def test_the_key_is_that_of_the_work_directory(tmp_path, series, monkeypatch):
    store = tmp_path / "s.zarr"
    dicomdask.convert(str(series), str(store), scheduler="synchronous")
    records = [{"PatientID": "PAT0001"}]
    assert join_of(store, tmp_path, records)[0].n_matched == 1
    key = Path(f"{store}.work/key")
    other = tmp_path / "other"
    other.write_text("another key, long enough\n")
    with pytest.raises(PolicyError, match="was made with another key"):
        join_of(store, tmp_path, records, key_file=str(other))
    moved = key.rename(tmp_path / "moved")
    with pytest.raises(PolicyError, match="key file"):
        join_of(store, tmp_path, records)
    assert not key.exists()
    assert join_of(store, tmp_path, records, key_file=str(moved))[0].n_matched == 1


def test_a_key_in_the_environment_is_found(tmp_path, series, monkeypatch):
    monkeypatch.setenv("DICOMDASK_KEY", "a key of the environment")
    store = tmp_path / "s.zarr"
    dicomdask.convert(str(series), str(store), scheduler="synchronous")
    assert join_of(store, tmp_path, [{"PatientID": "PAT0001"}])[0].n_matched == 1
    monkeypatch.delenv("DICOMDASK_KEY")
    with pytest.raises(PolicyError, match="no key"):
        join_of(store, tmp_path, [{"PatientID": "PAT0001"}])


def test_a_dataset_of_another_policy_is_refused(store, tmp_path):
    path = store / "commits/0.json"
    commit = json.loads(path.read_text())
    commit["policy"]["digest"] = "other"
    path.write_text(json.dumps(commit))
    with pytest.raises(PlanError, match="another policy digest"):
        join_of(store, tmp_path, [{"PatientID": "PAT0001"}])


# --- the command --------------------------------------------------------------


def test_the_command_counts_and_lists_rows(store, tmp_path):
    patients = ["PAT0001", "QMARK1", "PAT0001", "QMARK2", "QMARK3", "PAT0001"]
    records = [{"mrn": p, "Modality": "CT", "x": "QMARK9"} for p in patients]
    records[5]["Modality"] = "QMARK4"
    table = write_csv(tmp_path / "t.csv", records)
    words = [table, "--columns", "PatientID=mrn", "--columns", "Modality"]
    words += ["--work", f"{store}.work", "--overwrite", "-o", tmp_path / "o.csv"]
    result = run(*words)
    assert result.exit_code == 8
    assert "6 rows: 2 match, 4 do not: rows 3, 5-7" in result.stdout
    assert "1 rows with a value that was left out" in result.stdout
    assert "1 column left out; --keep NAME copies one as it is: x" in result.stderr
    document = json.loads(run(*words, "--json").stdout)
    assert document["unmatched"] == [[3, 3], [5, 7]]
    assert document["emptied"] == [[7, 7]]
    assert (document["n_rows"], document["n_matched"]) == (6, 2)
    kept = run(*words, "--keep-all")
    assert "1 column kept as they are; make sure" in kept.stderr
    for one in (result, kept, run(*words, "--json")):
        assert "QMARK" not in one.output
    assert run(*words, "--columns", "PatientID").exit_code == 2


def test_all_rows_match_is_exit_code_0(store, tmp_path):
    table = write_csv(tmp_path / "t.csv", [{"PatientID": "PAT0001"}] * 1203)
    result = run(
        *(table, "--columns", "PatientID", "--work", f"{store}.work"),
        *("-o", tmp_path / "o.csv"),
    )
    assert result.exit_code == 0
    assert "1,203 rows: all match commit 0" in result.stdout


def test_long_lists_of_rows_are_cut(store, tmp_path):
    patients = ["PAT0001", "nobody"] * 30
    table = write_csv(tmp_path / "t.csv", [{"PatientID": p} for p in patients])
    words = [table, "--columns", "PatientID", "--work", f"{store}.work", "--overwrite"]
    result = run(*words, "-o", tmp_path / "o.csv")
    assert "30 do not: rows 3, 5, 7," in result.stdout
    assert "41, and 10 more rows (--json lists them all)" in result.stdout
    document = json.loads(run(*words, "-o", tmp_path / "o.csv", "--json").stdout)
    assert len(document["unmatched"]) == 30


@pytest.mark.parametrize("verbose", [[], ["-v"]])
@pytest.mark.parametrize(
    "data",
    [
        b"QMARK1\nQMARK2\n",
        b"PatientID\nQMARK\xff\n",
        b"PatientID\nQMARK,QMARK\n",
        b'PatientID\n"QMARK\n',
        b"PatientID,QMARK\nQMARK,QMARK,QMARK\n",
        "PatientID\nQMARK\n".encode("utf-16"),
    ],
)
def test_no_error_holds_a_value(store, tmp_path, data, verbose):
    table = tmp_path / "t.csv"
    table.write_bytes(data)
    result = run(
        *(table, "--columns", "PatientID", "--work", f"{store}.work", *verbose),
        *("-o", tmp_path / "o.csv"),
    )
    assert result.exit_code in (1, 2)
    assert "dicomdask: " in result.stderr
    assert "QMARK" not in result.output
    assert "unforeseen" not in result.output


# --- the page -----------------------------------------------------------------


def test_the_commands_of_the_page_run(tmp_path):
    text = page_text("labels.md")
    done = run_commands(commands("labels.md"), tmp_path)
    for line in re.findall(r"^ {4}(?!\$ )(\d[\d,]* rows: .*)$", text, re.MULTILINE):
        assert line in done.stdout
    [python] = blocks("labels.md")
    done = run_program([sys.executable, "-c", python], tmp_path)
    assert done.returncode == 0, done.stderr
