"""Splits: disjoint, whole, stable, near their shares; files, labels, faults."""

import json
import re
from collections import Counter
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import dicomdask
from dicomdask import cli, splits
from dicomdask.errors import OptionError, SplitError, TableError
from dicomdask.splits import assign
from tests.pages import commands, page_text, run_blocks, run_commands

NAMES = ("train", "val", "test")
UIDS = ("StudyInstanceUID", "FrameOfReferenceUID")
few = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


def make_volumes(n_patients, *, seed=0, classes=("CT", "MR"), prefix="p"):
    """Return volumes of patients, of whom each has studies, sites and classes."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(n_patients):
        patient = f"{prefix}{number:05d}"
        for volume in range(int(rng.integers(1, 4))):
            study = f"1.2.{number}.{volume // 2}.{prefix}"
            rows.append(
                {
                    "volume_id": f"{patient}-{volume}",
                    "PatientID": patient,
                    "StudyInstanceUID": study,
                    "FrameOfReferenceUID": f"{study}.9",
                    "Modality": str(rng.choice(classes)),
                    "site_key": f"site{number % 5}",
                }
            )
    return pd.DataFrame(rows)


def places(split):
    return dict(zip(split.table["PatientID"], split.table["split"], strict=True))


def shares(split):
    found = Counter(places(split).values())
    return {name: found[name] / len(split.table) for name in split.names}


@st.composite
def tangled(draw):
    """Return volumes whose patients share studies and frames of reference at random."""
    n = draw(st.integers(1, 40))
    number = st.integers(0, 12)
    rows = draw(
        st.lists(
            st.tuples(number, st.integers(0, 30), st.integers(0, 30), number),
            min_size=n,
            max_size=n,
        )
    )
    return pd.DataFrame(
        [
            {
                "volume_id": f"v{row}",
                "PatientID": None if patient == 12 else f"p{patient}",
                "StudyInstanceUID": f"1.{study}",
                "FrameOfReferenceUID": None if frame > 20 else f"2.{frame}",
                "Modality": ("CT", "MR", "PT", None)[kind % 4],
                "site_key": f"s{kind % 3}",
            }
            for row, (patient, study, frame, kind) in enumerate(rows)
        ]
    )


# --- no patient on two sides ----------------------------------------------------


@few
@given(tangled(), st.sampled_from([(), ("Modality",), ("Modality", "site_key")]))
def test_parts_are_disjoint_and_cover_the_dataset(volumes, stratify):
    split = splits.make_split(volumes, stratify=stratify)
    parts = {name: split[name] for name in split.names}
    ids = [set(part["volume_id"]) for part in parts.values()]
    assert sum(map(len, ids)) == len(volumes)
    assert set.union(*ids) == set(volumes["volume_id"])
    for column in ("PatientID", *UIDS):
        values = [set(part[column].dropna()) for part in parts.values()]
        assert not any(one & other for one, other in combinations(values, 2))
    splits.check_disjoint(parts)


@few
@given(tangled(), st.randoms(), st.sampled_from([(), ("Modality",)]))
def test_the_order_of_rows_does_not_matter(volumes, random, stratify):
    order = list(range(len(volumes)))
    random.shuffle(order)
    one = splits.make_split(volumes, stratify=stratify)
    other = splits.make_split(volumes.iloc[order], stratify=stratify)
    assert one.table.equals(other.table)
    assert one.counts == other.counts
    assert one.classes == other.classes


@few
@given(st.integers(1, 60), st.integers(0, 60), st.integers(0, 99))
def test_patients_that_come_later_move_nobody(n, more, seed):
    old, new = make_volumes(n), make_volumes(more, prefix="q")
    before = places(splits.make_split(old, seed=seed))
    after = places(splits.make_split(pd.concat([new, old]), seed=seed))
    assert {patient: after[patient] for patient in before} == before


@few
@given(st.integers(1, 60), st.integers(0, 60), st.integers(0, 99))
def test_a_stratified_split_that_is_extended_moves_nobody(n, more, seed):
    old, new = make_volumes(n), make_volumes(more, seed=1, prefix="q")
    first = splits.make_split(old, seed=seed, stratify=["Modality"])
    both = pd.concat([new, old])
    second = splits.make_split(
        both, seed=seed, stratify=["Modality"], previous=first.table
    )
    after = places(second)
    assert {patient: after[patient] for patient in places(first)} == places(first)
    assert len(after) == n + more
    if new.empty:
        assert second.table.equals(first.table)


def test_new_patients_fill_what_the_earlier_ones_lack():
    old, new = make_volumes(40), make_volumes(400, seed=1, prefix="q")
    lopsided = pd.DataFrame({"PatientID": old["PatientID"].unique(), "split": "test"})
    split = splits.make_split(
        pd.concat([old, new]), stratify=["Modality"], previous=lopsided
    )
    assert {places(split)[patient] for patient in lopsided["PatientID"]} == {"test"}
    assert shares(split)["test"] == pytest.approx(0.1, abs=0.02)
    assert shares(split)["train"] == pytest.approx(0.8, abs=0.02)


def test_seeds_differ_and_agree_with_themselves():
    volumes = make_volumes(200)
    one, same, other = (splits.make_split(volumes, seed=seed) for seed in (1, 1, 2))
    assert one.table.equals(same.table)
    assert not one.table.equals(other.table)


def test_the_hash_is_for_ever():
    # Another result here would move every patient of every split that was ever made.
    assert assign.unit_hash("0123456789abcdef", 0) == 0.05547059338902838
    assert assign.unit_hash("0123456789abcdef", 1) == 0.1888559345355285


# --- shares ---------------------------------------------------------------------


@few
@given(st.integers(1, 10**6))
def test_shares_are_near_the_fractions(seed):
    groups = [f"p{number}" for number in range(2000)]
    found = assign.by_hash(groups, splits.DEFAULT_FRACTIONS, seed)
    counts = Counter(found.values())
    for name, fraction in splits.DEFAULT_FRACTIONS.items():
        deviation = (fraction * (1 - fraction) * 2000) ** 0.5
        assert abs(counts[name] - fraction * 2000) < 6 * deviation


fractions_strategy = st.lists(st.integers(1, 9), min_size=1, max_size=5).map(
    lambda parts: {f"part{n}": part / sum(parts) for n, part in enumerate(parts)}
)


@few
@given(
    st.lists(st.sampled_from("aabbbcdefgh"), min_size=1, max_size=120),
    fractions_strategy,
    st.integers(0, 99),
)
def test_each_profile_is_shared_out_within_one_patient(kinds, fractions, seed):
    groups = {f"p{number}": kind for number, kind in enumerate(kinds)}
    found = assign.by_profile(groups, fractions, seed, {})
    sizes = Counter(kinds)
    got = Counter((groups[group], name) for group, name in found.items())
    for kind, size in sizes.items():
        for name, fraction in fractions.items():
            assert abs(got[kind, name] - fraction * size) < 1 + 1e-6


@few
@given(st.integers(0, 999))
def test_patients_of_whom_no_two_are_alike_are_shared_out_too(seed):
    groups = {f"p{number}": number for number in range(50)}
    found = assign.by_profile(groups, splits.DEFAULT_FRACTIONS, seed, {})
    assert Counter(found.values()) == {"train": 40, "val": 5, "test": 5}


def unevenness(split, volumes):
    """Return how far the classes of all parts are from their shares, in all."""
    patients = volumes.groupby("PatientID")["Modality"].agg(
        lambda one: "+".join(sorted(set(one)))
    )
    table = pd.crosstab(patients, split.table.set_index("PatientID")["split"])
    fractions = pd.Series(splits.DEFAULT_FRACTIONS)
    wanted = np.outer(table.sum(axis=1), fractions)
    found = table.reindex(columns=list(fractions.index), fill_value=0)
    return float(np.abs(found.to_numpy() - wanted).sum())


def test_stratified_is_more_even_than_the_hash_alone():
    volumes = make_volumes(300, classes=("CT", "MR", "PT"))
    for seed in range(10):
        hashed = splits.make_split(volumes, seed=seed)
        even = splits.make_split(volumes, seed=seed, stratify=["Modality"])
        assert unevenness(even, volumes) < unevenness(hashed, volumes) / 2


def test_an_empty_part_is_told():
    split = splits.make_split(make_volumes(2), {"train": 0.99, "val": 0.01})
    assert split["val"].empty
    assert any(note.startswith("val is empty") for note in split.warnings)
    assert split.counts["val"] == {"patients": 0, "studies": 0, "volumes": 0}


def test_counts_are_those_of_the_parts():
    volumes = make_volumes(100)
    split = splits.make_split(volumes, stratify=["Modality"])
    for name in NAMES:
        part = split[name]
        assert split.counts[name] == {
            "patients": part["PatientID"].nunique(),
            "studies": part["StudyInstanceUID"].nunique(),
            "volumes": len(part),
        }
        for kind, found in split.classes["Modality"].items():
            mine = part[part["Modality"] == kind]
            assert found[name] == mine["PatientID"].nunique()
        assert split.ids(name) == tuple(part["volume_id"])


# --- who belongs together -------------------------------------------------------


def test_chains_of_shared_studies_and_frames_stay_together():
    volumes = make_volumes(60)
    ids = volumes["PatientID"].unique()
    for one, other in pairwise(ids[:11]):
        uid = UIDS[int(one[1:]) % 2]
        mine = volumes["PatientID"] == other
        theirs = volumes.loc[volumes["PatientID"] == one, uid].iloc[-1]
        volumes.loc[volumes.index[mine][0], uid] = theirs
    split = splits.make_split(volumes)
    assert len({places(split)[patient] for patient in ids[:11]}) == 1
    assert "10 patients are kept together" in split.warnings[0]


def test_the_frame_of_an_atlas_joins_nobody():
    volumes = make_volumes(60).assign(FrameOfReferenceUID="1.2.840.10008.1.4.1.1")
    split = splits.make_split(volumes)
    assert len(set(places(split).values())) == 3
    splits.check_disjoint({name: split[name] for name in NAMES})


def test_a_volume_without_a_patient_counts_by_its_study():
    volumes = make_volumes(30)
    volumes.loc[:4, "PatientID"] = None
    split = splits.make_split(volumes)
    assert sum(one["volumes"] for one in split.counts.values()) == len(volumes)
    assert set(volumes["StudyInstanceUID"][:5]) <= set(split.table["PatientID"])


def test_joined_later_is_refused_where_they_lie_apart():
    volumes = make_volumes(60)
    split = splits.make_split(volumes)
    one, other = split["train"].iloc[0], split["test"].iloc[0]
    volumes.loc[volumes["volume_id"] == one["volume_id"], UIDS[0]] = other[UIDS[0]]
    with pytest.raises(SplitError, match="now share a study"):
        splits.make_split(volumes, previous=split.table)


# --- held out -------------------------------------------------------------------


@few
@given(tangled(), st.sampled_from([(), ("Modality",)]))
def test_a_site_that_is_held_out_is_nowhere_else(volumes, stratify):
    assume("s1" in set(volumes["site_key"]))
    split = splits.make_split(volumes, stratify=stratify, hold_out={"site_key": ["s1"]})
    assert split.names == (*NAMES, "held-out")
    for name in NAMES:
        assert "s1" not in set(split[name]["site_key"])
    splits.check_disjoint({name: split[name] for name in split.names})


def test_a_patient_at_two_sites_goes_wholly_to_the_one_held_out():
    volumes = make_volumes(50)
    volumes.loc[0, "site_key"] = "elsewhere"
    volumes.loc[1, "PatientID"] = volumes.loc[0, "PatientID"]
    split = splits.make_split(
        volumes,
        {"train": 0.9, "val": 0.1},
        hold_out={"site_key": ["elsewhere"]},
        hold_out_into="test",
    )
    assert set(split["test"]["PatientID"]) == {volumes.loc[0, "PatientID"]}
    assert (split["test"]["site_key"] != "elsewhere").any()


def test_holding_out_what_is_not_there_is_refused():
    with pytest.raises(OptionError, match="no volume has this site_key"):
        splits.make_split(make_volumes(3), hold_out={"site_key": ["nowhere"]})
    with pytest.raises(OptionError, match="no column 'colour'"):
        splits.make_split(make_volumes(3), hold_out={"colour": ["red"]})


def test_who_was_in_another_part_before_stays_there_and_is_told():
    volumes = make_volumes(50)
    before = splits.make_split(volumes)
    held = {"site_key": ["site1"]}
    split = splits.make_split(volumes, hold_out=held, previous=before.table)
    assert places(split) == places(before)
    assert "10 patients of what is held out keep" in split.warnings[0]


# --- labels ---------------------------------------------------------------------


def test_labels_of_ones_own_are_shared_out():
    volumes = make_volumes(100)
    ids = volumes["PatientID"].unique()
    rare = pd.DataFrame({"PatientID": ids, "outcome": ["bad"] * 20 + ["good"] * 80})
    split = splits.make_split(volumes, stratify=["outcome"], labels=rare)
    assert split.classes["outcome"]["bad"] == {"train": 16, "val": 2, "test": 2}
    assert split.classes["outcome"]["good"] == {"train": 64, "val": 8, "test": 8}


def test_labels_that_do_not_fit_are_refused():
    volumes = make_volumes(5)
    theirs = pd.DataFrame({"PatientID": ["x"], "outcome": ["bad"]})
    with pytest.raises(OptionError, match="pseudonymize"):
        splits.make_split(volumes, stratify=["outcome"], labels=theirs)
    with pytest.raises(OptionError, match="nothing is stratified"):
        splits.make_split(
            volumes, stratify=["Modality"], labels=theirs.replace("x", "p00000")
        )
    with pytest.raises(OptionError, match="no column 'outcome'"):
        splits.make_split(volumes, stratify=["outcome"])


# --- refusals -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ({"a": 0.5, "b": 0.4}, "sum to 0.9"),
        ({"a": 1.5, "b": -0.5}, "above 0"),
        ({}, "above 0"),
        ({"a": float("nan")}, "above 0"),
    ],
)
def test_fractions_that_are_refused(fractions, message):
    with pytest.raises(OptionError, match=message):
        splits.make_split(make_volumes(3), fractions)


def test_nothing_to_split():
    with pytest.raises(SplitError, match="no volumes"):
        splits.make_split(make_volumes(3).iloc[:0])


def test_parts_that_share_somebody_are_refused():
    volumes = make_volumes(60)
    one, other = splits.make_split(volumes, seed=1), splits.make_split(volumes, seed=2)
    with pytest.raises(SplitError, match=r"train and val share \d+ patients"):
        splits.check_disjoint({"train": one["train"], "val": other["val"]})
    apart = one["val"].assign(PatientID="other")
    with pytest.raises(SplitError, match=r"share \d+ studies"):
        splits.check_disjoint({"train": one["val"], "val": apart})
    with pytest.raises(KeyError, match="no split 'dev'"):
        one["dev"]


# --- files and the command ------------------------------------------------------


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_split_is_read_as_it_was_saved(ending, store, tmp_path):
    ds = dicomdask.open_dataset(str(store))
    split = ds.split()
    path = str(tmp_path / f"split.{ending}")
    split.save(path)
    found = ds.read_split(path)
    assert found.table.equals(split.table)
    for name in found.names:
        assert found.ids(name) == split.ids(name)
    extended = ds.split(extends=path)
    assert extended.table.equals(split.table)


def test_files_that_are_refused(store, tmp_path):
    ds = dicomdask.open_dataset(str(store))
    with pytest.raises(SplitError, match="there is no split"):
        ds.read_split(str(tmp_path / "none.csv"))
    with pytest.raises(OptionError, match=r"\.csv or \.parquet"):
        ds.split().save(str(tmp_path / "split.txt"))
    path = tmp_path / "split.csv"
    for text, error, message in (
        ("PatientID,split\na,train\na,val\n", SplitError, "two splits"),
        ("PatientID,split\na,\n", SplitError, "without PatientID or split"),
        ("PatientID,part\na,train\n", OptionError, "no column 'split'"),
        ("PatientID,split\na,train,x\n", TableError, "row 2"),
    ):
        path.write_text(text)
        with pytest.raises(error, match=message):
            ds.read_split(str(path))
    path.write_text("PatientID,split\na,dev\n")
    with pytest.raises(SplitError, match="has dev, which is not among"):
        ds.split(extends=str(path))


def test_patients_of_a_split_that_are_not_there_are_told(store, tmp_path):
    ds = dicomdask.open_dataset(str(store))
    path = tmp_path / "split.csv"
    path.write_text("PatientID,split\nsomebody,train\n")
    found = ds.read_split(str(path))
    assert "1 patients of the dataset are in no split" in found.warnings[0]
    assert "1 patients of the split are not in this commit" in found.warnings[1]
    extended = ds.split(extends=str(path))
    assert len(extended.table) == 2
    assert places(extended)["somebody"] == "train"


def run(*arguments):
    return CliRunner().invoke(cli.main, ["split", *map(str, arguments)])


def test_the_command_on_real_data(real_store, tmp_path):
    output = tmp_path / "split.csv"
    result = run(real_store, "-o", output, "--stratify", "Modality", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    ds = dicomdask.open_dataset(str(real_store))
    assert set(document["splits"]) == set(NAMES)
    assert sum(one["volumes"] for one in document["splits"].values()) == len(ds.volumes)
    assert set(document["classes"]["Modality"]) == set(ds.volumes["Modality"])
    before = output.read_bytes()
    again = run(real_store, "-o", output, "--stratify", "Modality", "--seed", 5)
    assert again.exit_code == 0
    assert output.read_bytes() == before  # who has a place keeps it
    anew = run(real_store, "-o", output, "--seed", 5, "--overwrite")
    assert anew.exit_code == 0
    assert output.read_bytes() != before
    assert "written: " in anew.stdout


def test_the_command_holds_out_and_takes_labels(real_store, tmp_path):
    ds = dicomdask.open_dataset(str(real_store))
    site = ds.volumes["site_key"].dropna().iloc[0]
    ids = sorted(set(ds.volumes["PatientID"]))
    labels = tmp_path / "labels.csv"
    rows = [f"{patient},{'yes' if n % 2 else 'no'}" for n, patient in enumerate(ids)]
    labels.write_text("\n".join(["PatientID;finding".replace(";", ","), *rows]) + "\n")
    output = tmp_path / "split.parquet"
    result = run(
        *(real_store, "-o", output, "--hold-out-site", site),
        *("--hold-out", "Modality=PT", "--stratify", "finding", "--labels", labels),
    )
    assert result.exit_code == 0, result.output
    assert "patients by finding" in result.stdout
    found = ds.read_split(str(output))
    held = found["held-out"]
    assert site in set(held["site_key"])
    assert "PT" in set(held["Modality"])
    for name in NAMES:
        assert site not in set(found[name]["site_key"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fractions", "train"], "--fractions are written"),
        (["--fractions", "a=0.5,a=0.5"], "names a split twice"),
        (["--hold-out", "Modality"], "COLUMN=VALUE"),
        (["--stratify", "Colour"], "no column 'Colour'"),
        (["--stratify", "x", "--labels", "none.csv"], "no table of labels"),
    ],
)
def test_wrong_usage_of_the_command(options, message, store, tmp_path):
    result = run(store, "-o", tmp_path / "split.csv", *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "split.csv").exists()


def test_the_file_holds_pseudonyms_only(store, tmp_path):
    path = tmp_path / "split.csv"
    assert run(store, "-o", path).exit_code == 0
    [volume] = dicomdask.open_dataset(str(store)).volumes["PatientID"].unique()
    head, row = path.read_text().splitlines()
    assert head == "PatientID,split"
    assert row.split(",")[0] == volume
    assert row.split(",")[1] in NAMES


# --- the page -------------------------------------------------------------------


def test_the_commands_of_the_page_run(tmp_path, monkeypatch):
    found = commands("split.md")
    assert len(found) == 7
    done = run_commands(found, tmp_path)
    assert sorted(Path(tmp_path).glob("*.csv"))
    for line in re.findall(
        r"^ {4}((?:split|patients by|CT) .*)$", page_text("split.md"), re.M
    ):
        assert line in done.stdout
    monkeypatch.chdir(tmp_path)
    names = run_blocks("split.md")
    held = names["ds"].read_split("mr.parquet")
    assert set(held["test"]["Modality"]) >= {"MR"}
    assert "MR" not in set(held["train"]["Modality"])
