"""Settle: of several copies of one instance one file stays; every input is told."""

import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial

from dicomdask import burnedin, header, storage, tables
from dicomdask.errors import CODES, InputError
from dicomdask.model import Instance, Outcome
from dicomdask.tasks.barrier import guard, kind_of, quiet
from dicomdask.tasks.files import (
    FileRow,
    Target,
    clean_one,
    lent,
    read_rows,
    source_of,
    target_of,
)
from dicomdask.tasks.isolate import Cell
from dicomdask.tasks.measure import Counts, measured
from dicomdask.tasks.record import (
    INPUTS,
    LOOKS,
    RECORD,
    REDACTIONS,
    FileLook,
    FileRedaction,
    uid_of,
    write_rows,
)
from dicomdask.tasks.references import Neighbours
from dicomdask.tasks.resolve import read_apart, resolve_group
from dicomdask.work import Work


@measured
def settle_bucket(bucket: str, *, work_url: str, crosswalk: bool = False) -> Counts:
    """Decide on the copies in one bucket; write its outcomes; return counts."""
    work = Work(work_url)
    target = target_of(work, work.require_job(), crosswalk=crosswalk)
    every = read_rows(target, bucket)
    rows = _newest(work, every)
    with quiet(), lent(target) as cell:
        settled = _settle(target, cell, rows)
    claimed = {row.path for row in settled if row.outcome == "stored"}
    for path in {row.path for row in every if row.path} - claimed:
        storage.remove(storage.join(target.url, *path.split("/")))
    outcomes = [_outcome(row) for row in sorted(settled, key=lambda r: r.source_key)]
    url = storage.join(target.url, RECORD, INPUTS, f"{bucket}.parquet")
    with storage.room_at(target.url):
        storage.write(url, tables.records_to_parquet(Outcome, outcomes))
        stored = [row for row in settled if row.outcome == "stored"]
        _write_looks(target.url, bucket, stored)
    return {
        "buckets": 1,
        "outcomes": dict(Counter(one.outcome for one in outcomes)),
        "codes": dict(Counter(one.code for one in outcomes)),
        "found": dict(Counter(kind_of(one.code, one.reason) for one in outcomes)),
    }


def _newest(work: Work, rows: Iterable[FileRow]) -> list[FileRow]:
    """Return one row a file: that of its newest state."""
    changed = work.read_changed()

    def is_newest(row: FileRow) -> bool:
        newest = changed.get(row.url)
        token = newest.token if newest else ""
        return row.token == token and not row.is_past

    return list({row.url: row for row in rows if is_newest(row)}.values())


def _settle(target: Target, cell: Cell, rows: Iterable[FileRow]) -> list[FileRow]:
    groups: Mapping[str, list[FileRow]] = defaultdict(list)
    settled: list[FileRow] = []
    for row in rows:
        if row.path:
            groups[row.path].append(row)
        else:
            settled.append(row)
    for group in groups.values():
        settled += group if len(group) == 1 else _decide(target, cell, group)
    return settled


def _decide(target: Target, cell: Cell, group: list[FileRow]) -> list[FileRow]:
    """Keep the first of several copies; of copies that differ keep none.

    Copies that are gone count no more: so a conflict ends.
    """
    there = [row for row in group if storage.exists(row.url)] or group[:1]
    gone = [row for row in group if row not in there]
    if len({row.pixel_digest for row in there}) > 1:
        codes = _compare(cell, there)
    else:
        codes = ["stored", *["duplicate"] * (len(there) - 1)]
    told = [_told(row, code) for row, code in zip(there, codes, strict=True)]
    settled = [
        _written_again(target, cell, row) if row.code == "stored" else row
        for row in told
    ]
    return settled + [_told(row, "source-changed") for row in gone]


def _compare(cell: Cell, rows: list[FileRow]) -> list[str]:
    """Return the codes of copies that are written differently, by what they decode to.

    As in `convert`: a copy that was compressed without loss is a duplicate.
    """
    try:
        instances = [guard(_instance, row) for row in rows]
    except InputError:
        return ["conflict"] * len(rows)
    verdicts = resolve_group(instances, partial(read_apart, cell))
    found = {verdict.url: verdict.code for verdict in verdicts}
    return [found[row.url] for row in rows]


def _instance(row: FileRow) -> Instance:
    return header.read_instance(io.BytesIO(storage.read(row.url)), source_of(row))


def _written_again(target: Target, cell: Cell, row: FileRow) -> FileRow:
    """Return a row whose file is the one that lies there: copies overwrite another."""
    fetched = partial(storage.read, row.url)
    found, _ = clean_one(source_of(row), fetched, target, cell, Neighbours())
    return found


def _told(row: FileRow, code: str) -> FileRow:
    outcome = code if code in {"stored", "duplicate"} else "rejected"
    return replace(row, code=code, reason=CODES[code], outcome=outcome)


def _outcome(row: FileRow) -> Outcome:
    return Outcome(
        source_key=row.source_key,
        outcome=row.outcome,  # type: ignore[arg-type]
        stage=row.stage,  # type: ignore[arg-type]
        code=row.code,
        reason=row.reason,
        source_bytes=max(0, row.size),
    )


# --- what was looked at ------------------------------------------------------


def _write_looks(dest: str, bucket: str, rows: Iterable[FileRow]) -> None:
    """Write what was looked at and blanked in the files of one bucket."""
    seen = [one for one in rows if one.text_look in burnedin.LOOKERS]
    write_rows(dest, LOOKS, bucket, FileLook, list(map(_look_of, seen)))
    write_rows(dest, REDACTIONS, bucket, FileRedaction, list(_redactions_of(seen)))


def _look_of(row: FileRow) -> FileLook:
    uid, n = uid_of(row.path), len(row.redactions)
    told = json.loads(row.device)
    return FileLook(row.source_key, uid, row.text_look, n, row.path, **told)


def _redactions_of(rows: Iterable[FileRow]) -> Iterator[FileRedaction]:
    for row in rows:
        for text in row.redactions:
            told = json.loads(text)
            frames = tuple(told.pop("frames"))
            yield FileRedaction(row.source_key, uid_of(row.path), frames, **told)
