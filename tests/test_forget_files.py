"""Forget in what `deidentify` wrote: no byte of a patient, and others as before."""

import csv
import hashlib
import json
from contextlib import suppress

import pytest
from click.testing import CliRunner

import dicomdask
from dicomdask import storage, tables
from dicomdask.cli import main
from dicomdask.errors import PolicyError, StoreError
from dicomdask.tasks import files, record
from tests.builders import make_instance
from tests.test_forget import SECRET, Person


class Files:
    """A pile with two patients, and its de-identified files."""

    def __init__(self, folder):
        self.pile, self.dest = folder / "pile", folder / "out"
        self.key = folder / "key"
        self.key.write_text(SECRET)
        self.gone, self.other = Person(issuer="A"), Person(issuer="B")
        for who in (self.gone, self.other):
            for number, ds in enumerate(who.make(4)):
                # whose it is does not stand in the path of each file
                who.write(self.pile / f"{who.names[number % 2]}-{number}.dcm", ds)
        report = make_instance(SOPClassUID="1.2.840.10008.5.1.4.1.1.104.1")
        report.PatientID, report.PatientName = self.gone.number, self.gone.names[1]
        report.IssuerOfPatientID = "A"
        report.StudyInstanceUID = f"{self.gone.root}.1"
        report.SOPInstanceUID = f"{self.gone.root}.9"
        for keyword in ("PixelData", "Rows", "Columns"):
            delattr(report, keyword)
        self.gone.write(self.pile / f"{self.gone.number}.dcm", report)

    def run(self, **options):
        given = {"key_file": str(self.key), "scheduler": "synchronous", **options}
        return dicomdask.deidentify(str(self.pile), str(self.dest), **given)

    def forget(self, *names, **options):
        given = {"key_file": str(self.key), **options}
        return dicomdask.forget(str(self.dest), names or [self.gone.number], **given)

    def digests(self):
        return {
            str(path.relative_to(self.dest)): hashlib.sha256(
                path.read_bytes()
            ).hexdigest()
            for path in self.dest.rglob("*.dcm")
        }

    def traces(self, who):
        """Return where anything of a patient is left."""
        below = [*self.dest.rglob("*"), *self.dest.with_name("out.work").rglob("*")]
        found = who.secrets()
        return [
            path
            for path in below
            if any(
                word in str(path).encode()
                or (path.is_file() and word in path.read_bytes())
                for word in found
            )
        ]


@pytest.fixture
def lab(tmp_path):
    return Files(tmp_path)


def test_no_byte_of_a_patient_is_left_and_others_stay_as_they_were(lab):
    before = lab.run(crosswalk=True)
    assert before.outcomes == {"rejected": 1, "stored": 8}
    kept = {k: v for k, v in lab.digests().items() if lab.other.pseudonym in k}
    assert lab.traces(lab.gone)
    done = lab.forget()
    [found] = done.patients
    assert (found.matched, found.n_series, found.n_inputs) == (("PatientID",), 1, 5)
    assert done.commit is None
    assert done.n_objects == 4
    assert lab.traces(lab.gone) == []
    assert lab.digests() == kept
    told = json.loads((lab.dest / "_dicomdask/record.json").read_text())
    assert told["outcomes"] == {"stored": 4}
    after = lab.run(crosswalk=True)
    assert (after.n_done, after.outcomes) == (0, {"stored": 4})
    assert lab.traces(lab.gone) == []
    assert lab.digests() == kept
    rows = [
        row
        for url in after.mappings
        for row in csv.DictReader(storage.read(url).decode().splitlines())
    ]
    assert lab.other.number in {row["id_old"] for row in rows}
    assert len(rows) > 6


def test_later_runs_keep_the_patient_out_and_undo_lets_them_back(lab):
    lab.run()
    whole = lab.digests()
    lab.forget()
    [ds] = lab.gone.make(1, study=2)
    lab.gone.write(lab.pile / "more.dcm", ds)
    [ds] = lab.other.make(1, study=2)
    lab.other.write(lab.pile / "new.dcm", ds)
    done = lab.run()
    assert done.outcomes == {"stored": 5}
    assert lab.traces(lab.gone) == []
    assert lab.run().n_done == 0
    assert lab.forget(undo=True).patients[0].was_forgotten
    assert lab.run().outcomes == {"rejected": 1, "stored": 10}
    assert whole.items() <= lab.digests().items()


def test_undo_without_a_run_between(lab):
    lab.run()
    whole = lab.digests()
    lab.forget()
    lab.forget(undo=True)
    assert lab.run().outcomes == {"rejected": 1, "stored": 8}
    assert lab.digests() == whole


def test_what_was_done_of_others_stays_where_their_sources_are_gone(lab, monkeypatch):
    [ds] = lab.gone.make(1, study=3)
    ds.ImageComments = "x" * 9000
    lab.gone.write(lab.pile / "0.dcm", ds)  # a batch of its own, in front of all
    sizes = [path.stat().st_size for path in lab.other.files]
    monkeypatch.setattr(files, "BATCH_BYTES", 2 * max(sizes))
    lab.run()
    kept = {k: v for k, v in lab.digests().items() if lab.other.pseudonym in k}
    for path in lab.other.files:
        path.unlink()
    lab.forget()
    assert lab.run().outcomes == {"stored": 4}
    assert lab.digests() == kept


@pytest.mark.parametrize("names", ["number", "pseudonym"])
def test_without_a_work_directory_the_files_go(lab, names, tmp_path):
    lab.run()
    (tmp_path / "out.work").rename(tmp_path / "elsewhere")
    name = getattr(lab.gone, names)
    issuer = "A" if names == "number" else None
    done = lab.forget(name, issuer=issuer)
    assert done.work is None
    assert done.n_objects == 4
    assert not (lab.dest / lab.gone.pseudonym).exists()
    assert len(lab.digests()) == 4


@pytest.mark.parametrize("has_work", [True, False])
def test_what_was_looked_at_goes_as_well(lab, tmp_path, has_work):
    lab.run()
    uids = [path.stem for path in lab.dest.rglob("*.dcm")]
    looks = [record.FileLook("k", uid, "looked", 1) for uid in uids]
    regions = [
        record.FileRedaction("k", uid, (0,), 1, 2, 3, 4, "text", 0.5) for uid in uids
    ]
    record.write_rows(str(lab.dest), record.LOOKS, "0", record.FileLook, looks)
    record.write_rows(
        str(lab.dest), record.REDACTIONS, "0", record.FileRedaction, regions
    )
    if not has_work:
        (tmp_path / "out.work").rename(tmp_path / "elsewhere")
    lab.forget(lab.gone.pseudonym)
    for name, kind in (
        (record.LOOKS, record.FileLook),
        (record.REDACTIONS, record.FileRedaction),
    ):
        data = (lab.dest / f"_dicomdask/{name}/0.parquet").read_bytes()
        rows = tables.records_from_parquet(kind, data)
        left = {path.stem for path in lab.dest.rglob("*.dcm")}
        assert {row.SOPInstanceUID for row in rows} == left
        assert len(left) == 4


def test_a_dry_run_removes_nothing(lab):
    lab.run()
    before = lab.digests()
    done = lab.forget(dry_run=True)
    assert done.patients[0].n_inputs == 5
    assert lab.digests() == before
    assert lab.run().outcomes == {"rejected": 1, "stored": 8}


@pytest.mark.parametrize("n_calls", [1, 2, 4, 7, 11, 14])
def test_what_is_cut_off_is_finished_by_the_next_try(lab, monkeypatch, n_calls):
    lab.run(crosswalk=True)
    calls = []
    with monkeypatch.context() as patched, suppress(KeyboardInterrupt):
        for name in ("write", "remove", "remove_tree"):
            original = getattr(storage, name)

            def fail(*args, original=original):
                calls.append(1)
                if len(calls) == n_calls:
                    raise KeyboardInterrupt
                return original(*args)

            patched.setattr(storage, name, fail)
        lab.forget()
    assert len(calls) == n_calls
    lab.forget()
    lab.run()
    assert lab.traces(lab.gone) == []
    assert len(lab.digests()) == 4


def test_others_are_refused(lab, tmp_path):
    lab.run()
    (tmp_path / "wrong").write_text("f" * 40)
    with pytest.raises(PolicyError, match="another key"):
        lab.forget(key_file=str(tmp_path / "wrong"))
    with pytest.raises(StoreError):
        dicomdask.forget(str(lab.pile), ["a"], key_file=str(lab.key))


def test_the_command_tells_counts_and_nobody(lab):
    lab.run()
    words = ["forget", str(lab.dest), "--patient", lab.gone.number]
    done = CliRunner().invoke(main, [*words, "--key-file", str(lab.key)])
    assert done.exit_code == 0, done.stderr
    assert "found by PatientID: 1 series" in done.stdout
    assert "4 objects" in done.stdout
    assert lab.gone.number not in done.stdout
    assert "commit" not in done.stdout


def test_object_stores_forget_as_well(s3, lab, tmp_path):
    options = {"key_file": str(lab.key), "scheduler": "synchronous"}
    work = str(tmp_path / "w")
    dicomdask.deidentify(str(lab.pile), f"{s3}/out", work=work, **options)
    done = dicomdask.forget(
        f"{s3}/out", [lab.gone.number], work=work, key_file=str(lab.key)
    )
    assert done.n_objects == 4
    left = [one.name for one in storage.list_below(f"{s3}/out")]
    assert sum(name.endswith(".dcm") for name in left) == 4
