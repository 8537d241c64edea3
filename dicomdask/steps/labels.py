"""Labels of a dataset's own: a table of originals becomes one of pseudonyms."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dicomdask import commits, sheets, storage
from dicomdask.commits import Commit
from dicomdask.errors import OptionError, PolicyError, SourceError
from dicomdask.pseudonym import Key, KeyReference, resolve_key
from dicomdask.sheets import Join, Sheet
from dicomdask.steps.target import check_store
from dicomdask.tasks.barrier import quiet
from dicomdask.tasks.labels import (
    ISSUER,
    PATIENT,
    Cleaner,
    check_keywords,
    read_issuers,
)
from dicomdask.tasks.policies import named_policy
from dicomdask.work import Job, Work

OF_INSTANCES: Final = "SOPInstanceUID"
"""The only keyword for which instances are looked at, and not volumes alone."""

Columns = Mapping[str, str] | Sequence[str]
Values = tuple[str, ...]


def pseudonymize(
    table: str,
    output: str,
    *,
    columns: Columns,
    work: str,
    key_file: str | None = None,
    keep: Sequence[str] = (),
    keep_all: bool = False,
    overwrite: bool = False,
) -> Join:
    """Write a table in which originals are what stands in the dataset's tables.

    Its rows join exactly to `volumes` and `instances` of the dataset: each value goes
    the way that the same value in a header goes. The columns of the new table are named
    by DICOM keyword; others are left out unless they are to be kept.

    Parameters
    ----------
    table
        A CSV file with a header; UTF-8; comma, semicolon or tab.
    output
        Where the new table goes.
    columns
        DICOM keywords that are columns of the table, or the column of each keyword:
        `{"PatientID": "mrn"}`. `IssuerOfPatientID` says which issuer's patient a row
        means; without it, the index of the work directory is asked.
    work
        The work directory of the dataset.
    key_file
        The key, if it is no longer where the dataset was made with it.
    keep
        Names of other columns to copy as they are.
    keep_all
        Copy all other columns as they are.
    overwrite
        Whether to replace `output`.

    Returns
    -------
    Join
        Which rows stand in the dataset, by number.

    Raises
    ------
    OptionError
        If a keyword or column cannot be used, or the output is there already.
    TableError
        If the table is damaged.
    DicomDaskError
        If the work directory, the key or the dataset is not what it should be.
    """
    directory = Work(storage.resolve(work))
    job = directory.require_job()
    key = _job_key(directory, job, key_file)
    commit = _newest_commit(job, key)
    policy = named_policy(job)
    names = _by_keyword(columns)
    check_keywords(names, policy)
    source, target = (storage.resolve(url) for url in (table, output))
    _check_output(source, target, job.store, overwrite=overwrite)
    asks = PATIENT in names and ISSUER not in names and policy.name != "none"
    issuers = read_issuers(directory) if asks else None
    kept = None if keep_all else _check_keep(keep, names)
    with quiet():
        rows = _rewrite(source, names, kept, Cleaner(policy, key, issuers))
    found = _match(job, commit, rows)
    _write(target, rows.data, overwrite=overwrite)
    unmatched = rows.numbers - found
    return Join(
        table=source,
        output=target,
        store=job.store,
        commit=None if commit is None else commit.n,
        policy=policy.name,
        columns=names,
        kept=rows.layout.kept,
        dropped=rows.layout.dropped,
        n_rows=len(rows.numbers),
        n_matched=len(rows.numbers) - len(unmatched),
        unmatched=sheets.to_ranges(unmatched),
        emptied=sheets.to_ranges(rows.emptied),
    )


# --- before anything is written -----------------------------------------------


def _job_key(work: Work, job: Job, key_file: str | None) -> Key:
    """Return the key that the work directory was made with."""
    given = key_file and KeyReference(str(Path(key_file).absolute()))
    key = resolve_key(given or job.key)
    if key.fingerprint() != job.key_fingerprint:
        raise PolicyError(
            f"{work.url} was made with another key, so nothing would join; pass the "
            "key it was made with"
        )
    return key


def _newest_commit(job: Job, key: Key) -> Commit | None:
    if job.store is None:
        return None
    check_store(job, key)
    return commits.read_commit(job.store)


def _by_keyword(columns: Columns) -> dict[str, str]:
    """Return the column of each keyword."""
    if not columns:
        raise OptionError("no columns; name what to join on: --columns PatientID")
    if not isinstance(columns, Mapping):
        names = {name: name for name in columns}
        if len(names) < len(columns):
            raise OptionError("--columns names a keyword twice; name each once")
        return names
    if len(set(columns.values())) < len(columns):
        raise OptionError("--columns gives one column to two keywords; name each once")
    return dict(columns)


def _check_keep(keep: Sequence[str], names: Mapping[str, str]) -> frozenset[str]:
    if set(keep) & set(names.values()):
        raise OptionError("--keep names a column that is in --columns too; choose one")
    return frozenset(keep)


def _check_output(
    source: str, target: str, store: str | None, *, overwrite: bool
) -> None:
    if storage.is_same(source, target):
        raise OptionError("the output is the table itself; give another --output")
    if store is not None and target.startswith(storage.join(store, "")):
        raise OptionError(
            "the output lies inside the dataset, which holds nothing that identifies; "
            "give another --output"
        )
    if not overwrite and storage.exists(target):
        raise OptionError(f"{target} exists; give another --output, or --overwrite")


def _write(target: str, data: bytes, *, overwrite: bool) -> None:
    if overwrite:
        storage.write(target, data)
        return
    try:
        storage.create(target, data)
    except FileExistsError:
        raise OptionError(
            f"{target} exists; give another --output, or --overwrite"
        ) from None


# --- from originals to pseudonyms ---------------------------------------------


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where things stand in the rows of a table, and what the new table takes."""

    place_of: Mapping[str, int]
    places: tuple[int, ...]
    titles: tuple[str, ...]
    kept: tuple[str, ...]
    dropped: tuple[str, ...]


@dataclass(slots=True)
class _Rows:
    """What the rows of a table came to; de-identified but for what is kept."""

    layout: _Layout
    data: bytes = b""
    numbers: set[int] = field(default_factory=set)
    emptied: set[int] = field(default_factory=set)
    by_values: dict[Values, set[int]] = field(default_factory=lambda: defaultdict(set))


def _rewrite(
    source: str, names: Mapping[str, str], keep: frozenset[str] | None, cleaner: Cleaner
) -> _Rows:
    """Return the new table; `keep` is None to keep all other columns."""
    try:
        with storage.open_blocks(source) as file:
            wanted = sorted({*names.values(), *(keep or ())})
            lines = sheets.split_lines(file)
            sheet = sheets.read_sheet(lines, table=source, wanted=wanted)
            return _rewrite_rows(sheet, _layout(sheet.names, names, keep), cleaner)
    except (FileNotFoundError, IsADirectoryError):
        raise SourceError(f"there is no table at {source}; check the path") from None


def _layout(
    found: Sequence[str], names: Mapping[str, str], keep: frozenset[str] | None
) -> _Layout:
    keyword_of = {name: keyword for keyword, name in names.items()}
    titles = [keyword_of.get(name, name) for name in found]
    others = [name for name in found if name not in keyword_of]
    kept = tuple(name for name in others if keep is None or name in keep)
    places = tuple(
        place
        for place, name in enumerate(found)
        if name in kept or keyword_of.get(name, ISSUER) != ISSUER
    )
    taken = tuple(titles[place] for place in places)
    if len(set(taken)) < len(taken):
        raise OptionError(
            "a column that is kept has the name of another one, or of a keyword of "
            "--columns; rename it, or do not keep it"
        )
    return _Layout(
        place_of={keyword: found.index(name) for keyword, name in names.items()},
        places=places,
        titles=taken,
        kept=kept,
        dropped=tuple(name for name in others if name not in kept),
    )


def _rewrite_rows(sheet: Sheet, layout: _Layout, cleaner: Cleaner) -> _Rows:
    rows = _Rows(layout)
    writer = sheets.SheetWriter(sheet.delimiter)
    writer.add(layout.titles)
    for number, cells in sheet.rows:
        if not cells:
            writer.add(())
            continue
        cleaned = cleaner.clean(
            {keyword: cells[place] for keyword, place in layout.place_of.items()}
        )
        for keyword, text in cleaned.items():
            cells[layout.place_of[keyword]] = text or ""
        writer.add([cells[place] for place in layout.places])
        _note(rows, number, tuple(cleaned.values()))
    rows.data = writer.getvalue()
    return rows


def _note(rows: _Rows, number: int, cleaned: tuple[str | None, ...]) -> None:
    """Note what a row asks of the dataset; nothing, where it is empty or cut."""
    rows.numbers.add(number)
    values = tuple(text or "" for text in cleaned)
    if None in cleaned:
        rows.emptied.add(number)
    elif any(values):
        rows.by_values[values].add(number)


# --- which rows stand in the dataset ------------------------------------------


def _match(job: Job, commit: Commit | None, rows: _Rows) -> set[int]:
    """Return the rows whose values stand together in a row of the dataset."""
    if job.store is None or commit is None:
        return set()
    matched: set[int] = set()
    wanted = dict(rows.by_values)
    patterns = {tuple(map(bool, values)) for values in wanted}
    keywords = tuple(name for name in rows.layout.place_of if name != ISSUER)
    for row in _dataset_rows(job.store, commit, keywords):
        for pattern in patterns:
            pairs = zip(row, pattern, strict=True)
            probe = tuple(str(text or "") if used else "" for text, used in pairs)
            matched |= wanted.pop(probe, set())
    return matched


def _dataset_rows(
    store: str, commit: Commit, keywords: Values
) -> Iterator[tuple[str | None, ...]]:
    """Yield the values of these keywords, one row a volume or an instance."""
    if OF_INSTANCES not in keywords:
        yield from commits.read_columns(store, commit, "volumes", keywords)
        return
    others = [keyword for keyword in keywords if keyword != OF_INSTANCES]
    volumes = {
        volume_id: dict(zip(others, values, strict=True))
        for volume_id, *values in commits.read_columns(
            store, commit, "volumes", ("volume_id", *others)
        )
    }
    names = ("volume_id", OF_INSTANCES)
    for volume_id, uid in commits.read_columns(store, commit, "instances", names):
        found = volumes.get(volume_id, {}) | {OF_INSTANCES: uid}
        yield tuple(found.get(keyword) for keyword in keywords)
