"""Which files had an outcome: the names that only the work directory knows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dicomdask import commits, plan, storage, tables
from dicomdask.errors import CODES, OptionError, StoreError
from dicomdask.model import Outcome
from dicomdask.pseudonym import resolve_key
from dicomdask.tasks.record import INPUTS, RECORD, read_record
from dicomdask.work import Work

OUTCOMES = ("stored", "duplicate", "skipped", "rejected")


@dataclass(frozen=True, slots=True)
class InputFile:
    """A listed file and what became of it (identified: the name of the file)."""

    url: str
    outcome: str
    stage: str
    code: str
    reason: str


def find_files(store: str, work: Work, wanted: str) -> Iterator[InputFile]:
    """Return the files of one code or outcome, in the order they were listed.

    Parameters
    ----------
    store
        A dataset, or a destination of `deidentify`.
    work
        Its work directory, which alone knows the names; files that were listed into
        another one are left out.
    wanted
        `rejected` or another outcome, or a code such as `not-dicom`.

    Raises
    ------
    OptionError
        If there is no such code.
    StoreError
        If there is nothing at `store`, or the work directory is none.
    """
    if wanted not in {*OUTCOMES, *CODES}:
        raise OptionError(
            f"there is no code or outcome {wanted}; `dicomdask info` counts those of a "
            f"dataset, and its outcomes are {', '.join(OUTCOMES)}"
        )
    key = resolve_key(work.require_job().key)
    found = {
        row.source_key: row
        for row in _read_inputs(store)
        if wanted in {row.outcome, row.code}
    }
    return (
        InputFile(file.url, row.outcome, row.stage, row.code, row.reason)
        for part in work.manifest_parts()
        for file in work.read_manifest(part)
        if (row := found.get(plan.source_key(file.url, key)))
    )


def _read_inputs(store: str) -> Sequence[Outcome]:
    """Return what became of every input of a dataset or of de-identified files."""
    if read_record(store) is None:
        commits.require_dataset(store)
        commit = commits.read_commit(store)
        if commit is None:
            raise StoreError(f"{store} has no commit; run `dicomdask convert` again")
        rows = commits.read_rows(store, commit, "inputs")
        return [Outcome(**row) for row in rows]
    folder = storage.join(store, RECORD, INPUTS)
    return [
        row
        for name in storage.list_names(folder)
        for row in tables.records_from_parquet(
            Outcome, storage.read(storage.join(folder, name))
        )
    ]
