"""The job: what a work directory is for, as JSON."""

import json
from dataclasses import asdict, dataclass, field
from typing import Final

from dicomdask import plan
from dicomdask.model import FORMAT, Settings
from dicomdask.pseudonym import KeyReference

CONTENTS: Final = frozenset(
    {
        "job.json",
        "manifest",
        "changed.parquet",
        "index",
        "places",
        "outcomes",
        "locked",
        "repeats",
        "verdicts",
        "found",
        "plan",
        "committed",
        "parts",
        "receipts",
        "attempts",
        "files",
        "faces",
        "log",
    }
)
"""What --overwrite removes from a work directory: all but the key."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a work directory is for. The key is named, never held."""

    key: KeyReference
    key_fingerprint: str
    sources: tuple[str, ...] = ()
    store: str | None = None
    settings: Settings = field(default_factory=Settings)
    limit: int | None = None


def job_from_json(text: bytes) -> Job:
    """Return the job that `job_to_json` wrote; ValueError if it is damaged or newer."""
    try:
        document = json.loads(text)
        if document.pop("format") != FORMAT:
            raise ValueError("format")
        job: Job = plan.from_plain(Job, document)
    except (KeyError, TypeError, AttributeError):
        raise ValueError("not a job") from None
    return job


def job_to_json(job: Job) -> bytes:
    """Return a job as JSON, with the format's number."""
    document = {"format": FORMAT, **asdict(job)}
    return (json.dumps(document, indent=1) + "\n").encode()
