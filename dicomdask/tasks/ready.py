"""Ready: what each worker must be able to do by itself before it is given work.

Keys, credentials and mounts do not travel through the graph, so a worker that somebody
else started may lack them. It is asked once; the answers are names of abilities.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from dicomdask import __version__, storage
from dicomdask.errors import InputError, PolicyError
from dicomdask.model import FORMAT
from dicomdask.pseudonym import Key, resolve_key
from dicomdask.tasks.barrier import guard, quiet
from dicomdask.work import Work

MARKS: Final = (("zarr.json",), ("_dicomdask", "record.json"))
"""What a store, or a destination of files, has before a worker writes to it."""
ABILITIES: Final[dict[str, str]] = {
    "version": f"take part: install dicomdask {__version__} for them, as it is here; "
    "if they have it, their logs say more",
    "work": "read the work directory: put it where all reach it under one path or URL, "
    "and give them its storage options",
    "other-work": "see this work directory, only another one under the same path: put "
    "it where all reach it",
    "write": "write to the work directory: let them, or give another --work",
    "key": "resolve the key: give them DICOMDASK_KEY, or a key file that they can read",
    "other-key": "use their key, as it is another one: give them the key that the work "
    "directory was made with",
    "sources": "read the sources: let them reach these under the same path or URL, and "
    "give them their storage options",
    "store": "write to the store: put it where all reach it under one path or URL, and "
    "give them its storage options",
}
"""What a worker cannot do, and what helps: the end of a sentence."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of a worker: names, numbers and keyed digests only.

    `seal` is a keyed digest of the job as this process reads it; `sources` are places
    in the manifest whose files this process can open; `store` is set once it exists.
    """

    version: str
    format: int
    work_url: str
    fingerprint: str
    seal: str
    sources: tuple[tuple[str, int], ...]
    store: str | None


def describe_run(work: Work, key: Key, *, store: str | None) -> Wanted:
    """Return what this process can do, to be asked of each worker."""
    with quiet():
        return Wanted(
            version=__version__,
            format=FORMAT,
            work_url=work.url,
            fingerprint=key.fingerprint(),
            seal=_seal(work, key),
            sources=_sample(work),
            store=store,
        )


def _seal(work: Work, key: Key) -> str:
    return key.digest("job", storage.read(work.path("job.json")).decode())


def _sample(work: Work) -> tuple[tuple[str, int], ...]:
    """Return where up to three files stand in the manifest that can be opened here."""
    parts = work.manifest_parts()
    chosen = sorted({0, len(parts) // 2, len(parts) - 1}) if parts else []
    places = [
        (parts[at], number)
        for at in chosen
        for number, file in enumerate(work.read_manifest(parts[at]))
        if file.size > 0
    ]
    first = {part: (part, number) for part, number in reversed(places)}
    return tuple(place for place in first.values() if _can(_open_source, work, *place))


def _open_source(work: Work, part: str, number: int) -> None:
    storage.open_blocks(work.read_manifest(part)[number].url).close()


def _use_store(store: str) -> None:
    marks = (storage.join(store, *names) for names in MARKS)
    if not any(map(storage.exists, marks)):
        raise FileNotFoundError  # another place of the same name
    storage.require_writable(store)


def _can(function: Callable[..., object], *args: object) -> bool:
    try:
        guard(function, *args)
    except InputError:
        return False
    return True


def lacking(wanted: Wanted) -> list[str]:
    """Return the abilities that this process lacks; none where it is ready."""
    if (wanted.version, wanted.format) != (__version__, FORMAT):
        return ["version"]
    with quiet():
        return _lacking_job(wanted) or _lacking_places(wanted)


def _lacking_job(wanted: Wanted) -> list[str]:
    work = Work(wanted.work_url)
    try:
        job = guard(work.require_job)
    except InputError:
        return ["work"]
    if job.key_fingerprint != wanted.fingerprint:
        return ["other-work"]
    try:
        key = resolve_key(job.key)
    except PolicyError:
        return ["key"]
    if key.fingerprint() != wanted.fingerprint:
        return ["other-key"]
    return [] if _seal(work, key) == wanted.seal else ["other-work"]


def _lacking_places(wanted: Wanted) -> list[str]:
    work = Work(wanted.work_url)
    found = []
    if not _can(storage.require_writable, work.url):
        found.append("write")
    if not all(_can(_open_source, work, *place) for place in wanted.sources):
        found.append("sources")
    if wanted.store is not None and not _can(_use_store, wanted.store):
        found.append("store")
    return found
