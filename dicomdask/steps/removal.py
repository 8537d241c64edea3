"""What a dataset loses in years of use: old states, and patients who are to go."""

import datetime
import os
import re
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Final

from dicomdask import commits, storage
from dicomdask.commits import Commit
from dicomdask.errors import OptionError, PolicyError
from dicomdask.pseudonym import (
    ENVIRONMENT_VARIABLE,
    Key,
    KeyReference,
    resolve_key,
)
from dicomdask.steps.session import locked
from dicomdask.tasks.cleaning import clean_work
from dicomdask.tasks.forgotten_files import (
    bring_back_files,
    clean_files_work,
    remove_files,
    search_files,
)
from dicomdask.tasks.patient import Patient, search_index, search_tasks
from dicomdask.tasks.record import FORGOTTEN, read_record
from dicomdask.tasks.removal import (
    Forgot,
    Found,
    Removal,
    bring_back,
    found_of,
    require_commit,
)
from dicomdask.tasks.vacuum import Vacuumed
from dicomdask.tasks.vacuum import vacuum as run_vacuum
from dicomdask.work import Job, Work

AGE: Final = re.compile(r"([0-9]{1,6})([smhdw])")
SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def vacuum(store: str, *, older_than: str = "7d", dry_run: bool = False) -> Vacuumed:
    """Delete what no recent commit of a dataset names.

    Recent are the newest commit and those younger than an age. What no commit names is
    deleted only if it is older itself: a run that is under way has written it.

    Parameters
    ----------
    store
        Where the dataset is.
    older_than
        An age: `30m`, `12h`, `7d`; with `0s` only the newest commit stays, so no other
        run may be under way.
    dry_run
        Whether to say what would go, and delete nothing.

    Raises
    ------
    OptionError
        If the age is none.
    StoreError, ReadError
        If the store is no dataset, or a recent commit cannot be read.
    """
    before = time.time() - parse_age(older_than)
    target = storage.resolve(store)
    commits.require_dataset(target)
    return run_vacuum(target, before=before, dry_run=dry_run)


def parse_age(text: str) -> float:
    """Return the seconds of an age such as `7d`; raise OptionError if it is none."""
    match = AGE.fullmatch(text)
    if match is None:
        raise OptionError("--older-than is an age; write it like 30m, 12h or 7d")
    return float(match[1]) * SECONDS[match[2]]


def forget(
    store: str,
    patients: str | Sequence[str],
    *,
    issuer: str | None = None,
    work: str | None = None,
    key_file: str | None = None,
    undo: bool = False,
    dry_run: bool = False,
) -> Forgot:
    """Remove patients from a dataset and its work directory, and keep them out.

    A new commit lacks them; older commits that hold them are deleted with their tables
    and arrays at once. Whoever reads one of those gets a ReadError. Cut off, it is run
    again.

    Parameters
    ----------
    store
        Where the dataset is, or what `deidentify` wrote.
    patients
        Each a PatientID, or the pseudonym that stands for it in the tables.
    issuer
        Who issued these PatientIDs; None: whoever.
    work
        The private directory of identified intermediates; by default `<store>.work`
        if there is one. Without it only files that are stored are found.
    key_file
        The key of the pseudonyms; else `DICOMDASK_KEY`, else the work directory's.
    undo
        Whether to let the patients come back with the next run instead.
    dry_run
        Whether to say what would go, and delete nothing.

    Raises
    ------
    StoreError, ReadError
        If the store is no dataset, or its newest commit cannot be read; or another run
        works in the work directory.
    PolicyError
        If the key is missing, or another than the dataset's.
    """
    target = storage.resolve(store)
    record = read_record(target)
    newest = None if record else _newest(target)
    directory, key = _open_work(target, work, key_file)
    made_with = newest.key_fingerprint if newest else (record or {})["key"]
    if key.fingerprint() != made_with:
        raise PolicyError(
            f"{target} was made with another key; pass the key it was made with"
        )
    people = _people(patients, issuer, key)
    with locked(directory.url) if directory else nullcontext():
        if newest is None:
            return _forget_files(target, directory, people, undo=undo, dry_run=dry_run)
        if undo:
            return _bring_back(target, directory, people)
        return _forget(target, directory, people, newest, dry_run=dry_run)


def _newest(store: str) -> Commit:
    commits.require_dataset(store)
    return require_commit(store, commits.read_commit(store))


def _forget_files(
    dest: str,
    work: Work | None,
    people: list[Patient],
    *,
    undo: bool,
    dry_run: bool,
) -> Forgot:
    """Forget patients of a destination of `deidentify`."""
    before = set((read_record(dest) or {}).get(FORGOTTEN, ()))
    if undo:
        bring_back_files(dest, people)
        found = tuple(
            Found((), bool(one.all_digests & before), 0, 0, 0) for one in people
        )
        return Forgot(dest, work.url if work else None, None, found)
    n_unknown = search_files(dest, work, people)
    done = Forgot(
        store=dest,
        work=work.url if work else None,
        commit=None,
        patients=tuple(found_of(one, before) for one in people),
        n_unknown=n_unknown,
    )
    if dry_run:
        return done
    n_objects = remove_files(dest, people)
    n_records = clean_files_work(dest, work, people) if work else 0
    return replace(done, n_objects=n_objects, n_records=n_records)


def _bring_back(store: str, work: Work | None, people: list[Patient]) -> Forgot:
    out = bring_back(store, people, now=_now())
    found = tuple(Found((), n in out, 0, 0, 0) for n in range(len(people)))
    last = require_commit(store, commits.read_commit(store))
    return Forgot(store, work.url if work else None, last.n, found)


def _forget(
    store: str,
    work: Work | None,
    people: list[Patient],
    newest: Commit,
    *,
    dry_run: bool,
) -> Forgot:
    removal = Removal(store, people, _now())
    n_unknown = search_index(work, people) if work else 0
    removal.search(newest)
    if work:
        search_tasks(work, people)
    done = Forgot(
        store=store,
        work=work.url if work else None,
        commit=newest.n,
        patients=tuple(found_of(one, set(newest.forgotten)) for one in people),
        n_unknown=n_unknown,
        in_filter=_names_any(work, people),
    )
    return done if dry_run else _remove(removal, work, done)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _remove(removal: Removal, work: Work | None, done: Forgot) -> Forgot:
    made = removal.publish()
    n_objects = removal.erase(clock=time.time())
    n_records = 0
    if work:
        both = (made, removal.parents[-1]) if made else None
        n_records = clean_work(work, removal.patients, both)
    n = made.n if made else done.commit
    return replace(done, commit=n, n_objects=n_objects, n_records=n_records)


def _people(
    patients: str | Sequence[str], issuer: str | None, key: Key
) -> list[Patient]:
    names = [patients] if isinstance(patients, str) else list(patients)
    people = [Patient(name, issuer, key) for name in names]
    if not people or not all(one.value for one in people):
        raise OptionError("no patient is named, or one is empty; give a PatientID each")
    return people


def _open_work(
    store: str, work: str | None, key_file: str | None
) -> tuple[Work | None, Key]:
    """Return the work directory, if there is one, and the key."""
    directory = None if work is None else Work(storage.resolve(work))
    job: Job | None = None
    if directory is not None:
        job = directory.require_job()
    elif storage.is_local(store):
        directory = Work(storage.resolve(f"{store}.work"))
        job = directory.read_job()
    return directory if job else None, resolve_key(_key_reference(key_file, job))


def _key_reference(key_file: str | None, job: Job | None) -> KeyReference:
    if key_file is not None:
        return KeyReference(str(Path(key_file).absolute()))
    if os.environ.get(ENVIRONMENT_VARIABLE) or job is None:
        return KeyReference()
    return job.key


def _names_any(work: Work | None, people: Sequence[Patient]) -> bool:
    where = work.require_job().settings.where if work else None
    return any(one.value in (where or "") for one in people)
