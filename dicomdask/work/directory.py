"""The work directory: where each identified intermediate lies, and how it is read.

- `job.json`: what is converted, into what, with which settings
- `key`: the key, unless it comes from elsewhere
- `manifest/<part>.parquet`: listed files
- `changed.parquet`: listed files that changed after they were first listed
- `index/<bucket>/<part>.parquet`: instances, by keyed hash of their series
- `places/<part>-<n>.bin`: keyed digests of files and instances, each with its bucket
- `outcomes/<part>.parquet`: what became of listed files that are no instances
- `locked/<part>.parquet`: listed files that could not be opened
- `repeats/<name>.parquet`: instances that share their SOP Instance UID
- `verdicts/<name>.parquet`, `found/<bucket>/…`: what was found out about instances
- `plan/<bucket>.json`: volumes and outcomes
- `committed/<bucket>.json`: volumes and outcomes as they were last committed
- `parts/<hh>/<task>.parquet`: de-identified rows, one file a task
- `receipts/…`: what is done
- `files/<target>/…`: what became of each file of a `deidentify`
- `faces/…`: the plan of a `deidentify` that removes faces, and where these are
- `attempts/<name>-<mark>`: what is being decoded, or was when its process died
- `review/redactions.html`: what `report` shows of the sources
- `log/<started>-<id>.jsonl`: what each run did, without any identified value
"""

import hashlib
import json
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from dicomdask import plan, storage, tables
from dicomdask.errors import ReadError, StoreError
from dicomdask.model import (
    Committed,
    Instance,
    Outcome,
    PatientStudy,
    Receipt,
    SourceFile,
    Verdict,
)
from dicomdask.work.job import Job, job_from_json, job_to_json

Record = TypeVar("Record")


class Work:
    """A work directory.

    Parameters
    ----------
    url
        Where it lies. It holds identified data: keep it private.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def path(self, *names: str) -> str:
        """Return the URL of what lies under these names."""
        return storage.join(self.url, *names)

    def _put(self, data: bytes, *names: str) -> None:
        with storage.room_at(self.url):
            storage.write(self.path(*names), data)

    # --- the job ---

    def read_job(self) -> Job | None:
        """Return the job, or None in a new directory.

        Raises
        ------
        StoreError
            If it is damaged or of another format.
        """
        url = self.path("job.json")
        try:
            return job_from_json(storage.read(url))
        except FileNotFoundError:
            return None
        except ValueError:
            raise StoreError(
                f"{url} is damaged or of another format; remove the work directory but "
                "keep its key, then run again"
            ) from None

    def require_job(self) -> Job:
        """Return the job, or raise StoreError where there is none."""
        job = self.read_job()
        if job is None:
            raise StoreError(
                f"{self.url} is not a work directory; run `dicomdask index` first"
            )
        return job

    def write_job(self, job: Job) -> None:
        """Write the job."""
        self._put(job_to_json(job), "job.json")

    # --- tables of records ---

    def _read(self, record: type[Record], *names: str) -> list[Record]:
        url = self.path(*names)
        try:
            return tables.records_from_parquet(record, storage.read(url))
        except FileNotFoundError:
            return []
        except (ReadError, KeyError, TypeError):
            raise _damaged(url) from None

    def _write(self, record: type[Record], rows: Sequence[Record], *names: str) -> None:
        self._put(tables.records_to_parquet(record, rows), *names)

    def manifest_parts(self) -> list[str]:
        """Return the names of the manifest's parts in the order they were listed."""
        return self._stems("manifest")

    def read_manifest(self, part: str) -> list[SourceFile]:
        """Return the files of one part of the manifest."""
        return self._read(SourceFile, "manifest", f"{part}.parquet")

    def create_manifest(self, part: str, files: Sequence[SourceFile]) -> None:
        """Write one part of the manifest; StoreError if another run wrote it first."""
        data = tables.records_to_parquet(SourceFile, files)
        try:
            with storage.room_at(self.url):
                storage.create(self.path("manifest", f"{part}.parquet"), data)
        except FileExistsError:
            raise StoreError(
                f"another run lists sources into {self.url}; wait for its end, then "
                "run again"
            ) from None

    def n_listed(self, part: str) -> int:
        """Return how many files one part of the manifest lists."""
        url = self.path("manifest", f"{part}.parquet")
        try:
            return tables.n_rows(storage.read(url))
        except FileNotFoundError:
            return 0
        except ReadError:
            raise _damaged(url) from None

    def read_changed(self) -> dict[str, SourceFile]:
        """Return the newest state of each file that changed since its first listing."""
        return {file.url: file for file in self._read(SourceFile, "changed.parquet")}

    def write_changed(self, files: Sequence[SourceFile]) -> None:
        """Write the newest states of changed files."""
        self._write(SourceFile, files, "changed.parquet")

    def read_bucket(self, bucket: str) -> list[Instance]:
        """Return all instances of one bucket, superseded states included."""
        return self._read_bucket(Instance, bucket)

    def read_bucket_files(self, bucket: str) -> list[SourceFile]:
        """Return which files the instances of one bucket are; see `read_bucket`."""
        return self._read_bucket(SourceFile, bucket)

    def _read_bucket(self, record: type[Record], bucket: str) -> list[Record]:
        return [
            one
            for part in self._stems("index", bucket)
            for one in self._read(record, "index", bucket, f"{part}.parquet")
        ]

    def write_bucket(self, bucket: str, part: str, rows: Sequence[Instance]) -> None:
        """Write the instances that one manifest part adds to one bucket."""
        self._write(Instance, rows, "index", bucket, f"{part}.parquet")

    def read_patients(self) -> Iterator[PatientStudy]:
        """Yield whose studies are in the index, one bucket's part at a time."""
        for bucket in self.bucket_names():
            for part in self._stems("index", bucket):
                names = ("index", bucket, f"{part}.parquet")
                yield from set(self._read(PatientStudy, *names))

    def write_places(self, name: str, data: bytes) -> None:
        """Write one run of places."""
        self._put(data, "places", name)

    def bucket_names(self) -> list[str]:
        """Return the names of the buckets that hold instances."""
        return storage.list_names(self.path("index"))

    def read_outcomes(self, part: str) -> list[Outcome]:
        """Return the outcomes that the index stage decided on one manifest part."""
        return self._read(Outcome, "outcomes", f"{part}.parquet")

    def write_outcomes(self, part: str, rows: Sequence[Outcome]) -> None:
        """Write the outcomes of one manifest part, if there are any."""
        if rows:
            self._write(Outcome, rows, "outcomes", f"{part}.parquet")

    def read_locked(self) -> list[SourceFile]:
        """Return the listed files that could not be opened."""
        return [
            file
            for part in self._stems("locked")
            for file in self._read(SourceFile, "locked", f"{part}.parquet")
        ]

    def write_locked(self, part: str, files: Sequence[SourceFile]) -> None:
        """Write the files of one manifest part that could not be opened, if any."""
        if files:
            self._write(SourceFile, files, "locked", f"{part}.parquet")

    def verdict_names(self) -> list[str]:
        """Return the names of what tasks found out, oldest first."""
        return self._stems("verdicts")

    def n_verdicts(self) -> int:
        """Return how many tasks wrote verdicts."""
        return len(self.verdict_names())

    def read_found(self, bucket: str) -> dict[tuple[str, str], Verdict]:
        """Return what was found out last about each state of one bucket's files."""
        found = [
            verdict
            for name in self._stems("found", bucket)
            for verdict in self._read(Verdict, "found", bucket, f"{name}.parquet")
        ]
        return {(verdict.url, verdict.token): verdict for verdict in found}

    def write_found(self, bucket: str, name: str, rows: Sequence[Verdict]) -> None:
        """Write what one task found out about one bucket's files."""
        self._write(Verdict, rows, "found", bucket, f"{name}.parquet")

    def next_verdict(self) -> int:
        """Return the number that names the next verdicts: they sort behind all others.

        It is not their count: of the batches of a run that was cut off, a later one may
        have been written and an earlier one not.
        """
        numbers = (stem.split("-")[0] for stem in self._stems("verdicts"))
        return max((int(number) for number in numbers), default=-1) + 1

    def read_repeats(self, name: str) -> list[Instance]:
        """Return one batch of instances that share their SOP Instance UIDs."""
        return self._read(Instance, "repeats", f"{name}.parquet")

    def write_repeats(self, name: str, rows: Sequence[Instance]) -> None:
        """Write one batch of instances that share their SOP Instance UIDs."""
        self._write(Instance, rows, "repeats", f"{name}.parquet")

    def read_verdicts(self, name: str) -> list[Verdict]:
        """Return what one task found out."""
        return self._read(Verdict, "verdicts", f"{name}.parquet")

    def write_verdicts(self, name: str, rows: Sequence[Verdict]) -> None:
        """Write what one task found out."""
        self._write(Verdict, rows, "verdicts", f"{name}.parquet")

    # --- plan ---

    def plan_names(self) -> list[str]:
        """Return the names of the plan's parts."""
        return self._stems("plan", suffix=".json")

    def plan_states(self) -> dict[str, str]:
        """Return a token of each part of the plan: it changes when the part does."""
        listed = storage.list_below(self.path("plan"))
        return {
            one.name.removesuffix(".json"): _token(one)
            for one in listed
            if one.name.endswith(".json") and one.name[0] != "."
        }

    def read_plan(self, name: str) -> plan.Plan:
        """Return one part of the plan; raise PlanError if it is damaged."""
        url = self.path("plan", f"{name}.json")
        return plan.plan_from_json(storage.read(url), name=url)

    def read_plans(
        self, names: Iterable[str] | None = None
    ) -> Iterator[tuple[str, plan.Plan]]:
        """Yield names and parts of the plan, all by default, and hold none of them."""
        chosen = self.plan_names() if names is None else names
        return ((name, self.read_plan(name)) for name in sorted(chosen))

    def write_plan(self, name: str, part: plan.Plan) -> None:
        """Write one part of the plan."""
        text = plan.plan_to_json(part)
        self._put(text.encode(), "plan", f"{name}.json")

    # --- attempts ---

    def read_attempts(self) -> dict[str, list[str]]:
        """Return the marks of what is being decoded, or was by a process that died.

        The keys are the names that `mark_attempt` was given.
        """
        found: dict[str, list[str]] = {}
        for mark in storage.list_names(self.path("attempts")):
            found.setdefault(mark.split("-")[0], []).append(mark)
        return found

    def mark_attempt(self, name: str) -> str:
        """Leave a mark that something is being decoded; return the mark."""
        mark = f"{name}-{secrets.token_hex(4)}"
        with storage.room_at(self.url):
            storage.write_passing(self.path("attempts", mark), b"")
        return mark

    def remove_attempt(self, mark: str) -> None:
        """Remove a mark."""
        storage.remove(self.path("attempts", mark))

    def read_committed(self, bucket: str) -> Committed:
        """Return what was last committed of one bucket; nothing where nothing was."""
        try:
            text = storage.read(self.path("committed", f"{bucket}.json"))
            found: Committed = plan.from_plain(Committed, json.loads(text))
        except FileNotFoundError:
            return Committed()
        except (ValueError, TypeError, AttributeError):
            raise StoreError(
                f"{self.path('committed', bucket)}.json is damaged; remove "
                f"{self.path('receipts', 'committed.json')}, then run again"
            ) from None
        return found

    def write_committed(self, bucket: str, found: Committed) -> None:
        """Write what is committed of one bucket."""
        text = json.dumps(asdict(found)) + "\n"
        self._put(text.encode(), "committed", f"{bucket}.json")

    # --- receipts ---

    def read_note(self, *names: str) -> Any:
        """Return a small JSON record, or None where there is none."""
        try:
            return json.loads(storage.read(self.path("receipts", *names)))
        except FileNotFoundError:
            return None
        except ValueError:
            raise StoreError(
                f"{self.path('receipts', *names)} is damaged; remove it, then run again"
            ) from None

    def write_note(self, record: Any, *names: str) -> None:
        """Write a small JSON record."""
        text = json.dumps(record, sort_keys=True) + "\n"
        self._put(text.encode(), "receipts", *names)

    def read_counts(self, part: str) -> dict[str, int]:
        """Return the counts of an indexed manifest part; StoreError if damaged."""
        note = self.read_note("index", f"{part}.json")
        wanted = {"instances", "outcomes", "not_dicom"}
        if not isinstance(note, dict) or not wanted <= set(note):
            raise StoreError(
                f"{self.path('receipts', 'index', part)}.json is damaged; remove it, "
                "then run again"
            )
        return note

    def indexed_parts(self) -> set[str]:
        """Return the manifest parts whose index is done."""
        return set(self._stems("receipts", "index", suffix=".json"))

    def done_tasks(self) -> set[str]:
        """Return the digests of the tasks that have a receipt."""
        listed = storage.list_below(self.path("receipts", "tasks"))
        names = (one.name.rsplit("/", 1)[-1] for one in listed)
        return {
            name.removesuffix(".json")
            for name in names
            if name.endswith(".json") and name[0] != "."
        }

    def has_receipt(self, task: str) -> bool:
        """Return whether a task is done."""
        return self.read_note("tasks", task[:2], f"{task}.json") is not None

    def read_receipt(self, task: str) -> Receipt:
        """Return the receipt of a task.

        Raises
        ------
        StoreError
            If it is missing or damaged.
        """
        names = ("tasks", task[:2], f"{task}.json")
        try:
            receipt: Receipt = plan.from_plain(Receipt, self.read_note(*names))
        except TypeError:
            raise StoreError(
                f"{self.path('receipts', *names)} is missing or damaged; remove it, "
                "then run `dicomdask encode` again"
            ) from None
        return receipt

    def write_receipt(self, receipt: Receipt) -> None:
        """Write a receipt; it must be the last thing that a task writes."""
        task = receipt.task
        self.write_note(asdict(receipt), "tasks", task[:2], f"{task}.json")

    def remove_receipt(self, task: str) -> None:
        """Remove the receipt of a task, so that it is done again."""
        storage.remove(self.path("receipts", "tasks", task[:2], f"{task}.json"))

    def read_part(self, task: str) -> dict[str, Any]:
        """Return the rows of a task; raise StoreError if they are gone or damaged."""
        url = self.part_url(task)
        try:
            row = tables.from_parquet(storage.read(url)).to_pylist()[0]
        except (FileNotFoundError, ReadError, IndexError):
            raise StoreError(
                f"{url} is missing or damaged; remove "
                f"{self.path('receipts', 'tasks', task[:2], task)}.json, then run "
                "`dicomdask encode` again"
            ) from None
        return dict(row)

    def write_part(self, task: str, data: bytes) -> None:
        """Write the rows of a task, as Parquet."""
        self._put(data, "parts", task[:2], f"{task}.parquet")

    def part_url(self, task: str) -> str:
        """Return where a task's rows lie."""
        return self.path("parts", task[:2], f"{task}.parquet")

    def _stems(self, *names: str, suffix: str = ".parquet") -> list[str]:
        found = storage.list_names(self.path(*names))
        return [name.removesuffix(suffix) for name in found if name.endswith(suffix)]


def _token(one: storage.Listed) -> str:
    state = f"{one.etag} {one.modified} {one.bytes}"
    return hashlib.blake2b(state.encode(), digest_size=6).hexdigest()


def _damaged(url: str) -> StoreError:
    advice = "remove the work directory but keep its key, then run again"
    return StoreError(f"{url} is damaged; {advice}")
