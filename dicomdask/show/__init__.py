"""What people read: tables of outcomes, sizes and plans as plain text or JSON. Pure."""

import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from dicomdask import plan
from dicomdask.commits import Commit
from dicomdask.errors import CODES
from dicomdask.runlog import Progress, StageUse
from dicomdask.sheets import Join, Ranges, n_rows
from dicomdask.show.faces import faces_lines
from dicomdask.verify import Report

NARROWEST = 30
"""How many characters of a sentence stand side by side at least."""
UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def size(nbytes: float) -> str:
    """Return a number of bytes as people write it: `1.5 MB`."""
    unit = 0
    while nbytes >= 1000 and unit < len(UNITS) - 1:
        nbytes /= 1000
        unit += 1
    return f"{nbytes:.0f} {UNITS[0]}" if unit == 0 else f"{nbytes:.1f} {UNITS[unit]}"


def duration(seconds: float) -> str:
    """Return a time as people say it: `16 s`, `12 min`, `3 h 20 min`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def progress_text(progress: Progress) -> str:
    """Return one line: done, bytes, rate, time taken or left; outcomes so far."""
    if progress.stage == "memory":
        return memory_text(progress.done_bytes, progress.total_bytes)
    seconds = progress.seconds
    unit = progress.unit.removesuffix("s") if progress.total == 1 else progress.unit
    parts = [
        f"{progress.done} {unit}"
        if progress.is_over
        else f"{progress.done} of {progress.total} {unit}"
    ]
    if progress.total_bytes:
        done, total = size(progress.done_bytes), size(progress.total_bytes)
        parts.append(total if progress.is_over else f"{done} of {total}")
    if progress.done and seconds > 0:
        parts.append(
            f"{size(progress.done_bytes / seconds)}/s"
            if progress.total_bytes
            else f"{_rate(progress.done / seconds)} {progress.unit}/s"
        )
    left = progress.seconds_left
    if progress.is_over:
        parts.append(f"{seconds:.1f} s" if seconds < 100 else duration(seconds))
    elif left is not None:
        parts.append(f"{duration(left)} left")
    found = [f"{count} {name}" for name, count in progress.outcomes.items() if count]
    text = f"{progress.stage}: {', '.join(parts)}"
    return f"{text}; {', '.join(found)}" if found else text


def _rate(number: float) -> str:
    return f"{number:.0f}" if number >= 10 else f"{number:.2g}"


def stages_document(stages: Sequence[StageUse]) -> list[dict[str, Any]]:
    """Return where time and bytes went, as `convert --json` prints it."""
    total = sum(use.seconds for use in stages)
    return [
        {
            "stage": use.stage,
            "seconds": round(use.seconds, 3),
            "share": round(use.seconds / total, 4) if total else 0.0,
            "read_bytes": use.read_bytes,
            "written_bytes": use.written_bytes,
            "tasks": use.tasks,
            "task_seconds": round(use.task_seconds, 3),
        }
        for use in stages
    ]


def stages_lines(stages: Sequence[StageUse]) -> list[str]:
    """Return where time and bytes went, as `convert` prints it."""
    rows = [
        (
            one["stage"],
            f"{one['seconds']:.1f}",
            f"{one['share']:.0%}",
            size(one["read_bytes"]),
            size(one["written_bytes"]),
            str(one["tasks"] or ""),
        )
        for one in stages_document(stages)
    ]
    return columns([("stage", "seconds", "share", "read", "written", "tasks"), *rows])


def info_document(commit: Commit, store: str) -> dict[str, Any]:
    """Return what `info --json` prints; fingerprints stand apart."""
    statistics = {
        modality: {n: sums for n, sums in found.items() if n != "fingerprints"}
        for modality, found in commit.statistics.items()
    }
    return {"store": store, **asdict(commit), "statistics": statistics}


def info_text(commit: Commit, store: str, *, width: int | None = None) -> str:
    """Return what `info` prints; lines are broken at a width where one is given."""
    policy = commit.policy["name"]
    lines = [
        f"{store}: commit {commit.n} of {commit.created}",
        f"policy {policy}, key {commit.key_fingerprint}",
        "",
        *modality_lines(commit.statistics),
        *faces_lines(commit.statistics),
        "",
        *code_lines(commit, width=width),
    ]
    if commit.counts.get("looked"):
        lines += ["", looks_line(commit.counts)]
    if commit.forgotten:
        lines += ["", f"patients kept out by forget: {len(commit.forgotten)}"]
    return "\n".join(lines)


def looks_line(counts: Mapping[str, Any], noun: str = "instances") -> str:
    """Return what was looked at for text in pixels, and how much of it was blanked."""
    return (
        f"text in pixels: {counts['looked']} {noun} looked at, "
        f"{counts['redactions']} regions blanked; report --redactions shows them"
    )


def modality_lines(statistics: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return one line a modality: volumes, frames, bytes."""
    head = ("modality", "volumes", "frames", "decoded", "stored")
    body = [
        (
            name,
            str(found["volumes"]),
            str(found["n_frames"]),
            size(found["raw_bytes"]),
            size(found["stored_bytes"]),
        )
        for name, found in statistics.items()
    ]
    return columns([head, *body])


def code_lines(commit: Commit, *, width: int | None = None) -> list[str]:
    """Return one line a code with its count and meaning; the counts add up."""
    outcomes = ("stored", "duplicate", "skipped", "rejected")
    counts = ", ".join(
        f"{commit.counts[name]} {name}" for name in outcomes if name in commit.counts
    )
    total = commit.counts["inputs"]
    ordered = sorted(commit.codes.items(), key=lambda item: (-item[1], item[0]))
    return [f"{total} inputs: {counts}", *_meanings(ordered, width)]


def _meanings(codes: Iterable[tuple[str, int]], width: int | None) -> list[str]:
    """Return counts, codes and sentences; what is too wide goes on below itself."""
    found = list(codes)
    longest = max((len(code) for code, _ in found), default=0)
    lines: list[str] = []
    for code, count in found:
        head = f"  {count:>8}  {code:<{longest}}  "
        room = max(width - len(head), NARROWEST) if width else sys.maxsize
        told = textwrap.wrap(CODES.get(code, ""), room) or [""]
        lines += [head + told[0], *(" " * len(head) + more for more in told[1:])]
    return lines


def file_line(code: str, url: str) -> str:
    r"""Return one line a file: its code, a tab, its name.

    What would break the line, or cannot be printed, stands as in Python's strings.

    >>> file_line("not-dicom", "/pile/two\nlines")
    'not-dicom\t/pile/two\\nlines'
    """
    safe = "".join(one if one.isprintable() else repr(one)[1:-1] for one in url)
    return f"{code}\t{safe}"


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as aligned columns: the first to the left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if number == 0 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def plan_document(
    parts: Iterable[plan.Plan], *, memory: int | None = None
) -> dict[str, Any]:
    """Return what a plan comes to, without any identified value.

    Parameters
    ----------
    parts
        Those of the plan; one is held at a time.
    memory
        What one task may take; None where nothing limits it.
    """
    sums: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    codes: Counter[str] = Counter()
    need = 0
    for part in parts:
        need = max(need, plan.largest_task_bytes(part))
        kinds.update(volume.kind for volume in part.volumes)
        codes.update(one.code for one in part.outcomes if one.outcome != "stored")
        for volume in part.volumes:
            sums["frames"] += len(volume.frames)
            sums["tasks"] += len(list(plan.volume_tasks(volume)))
            sums["source_bytes"] += volume.source_bytes
            sums["raw_bytes"] += volume.raw_bytes
    return {
        "volumes": kinds.total(),
        "frames": sums["frames"],
        "tasks": sums["tasks"],
        "kinds": dict(sorted(kinds.items())),
        "source_bytes": sums["source_bytes"],
        "raw_bytes": sums["raw_bytes"],
        "task_memory_bytes": need,
        "worker_memory_bytes": memory,
        "codes": dict(sorted(codes.items())),
    }


def memory_text(need: int, has: int | None) -> str:
    """Return how a task's need compares with what it may take."""
    text = f"memory: a task takes at most {size(need)}"
    if not has:
        return f"{text}; nothing limits it"
    small = "; what needs more is rejected as too-large" if need > has else ""
    return f"{text}; a worker has {size(has)}{small}"


def plan_text(document: Mapping[str, Any]) -> str:
    """Return what `plan` and `--dry-run` print."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in document["kinds"].items())
    read, held = size(document["source_bytes"]), size(document["raw_bytes"])
    lines = [
        f"plan: {document['volumes']} volumes of {document['frames']} frames"
        + (f" ({kinds})" if kinds else ""),
        f"      {document['tasks']} tasks read {read} and store {held} decoded",
        memory_text(document["task_memory_bytes"], document["worker_memory_bytes"]),
    ]
    for code, count in document["codes"].items():
        noun = "input" if count == 1 else "inputs"
        lines.append(f"      {count} {noun} not stored: {code}")
    return "\n".join(lines)


def verify_text(report: Report) -> str:
    """Return what `verify` prints."""
    lines = [f"problem: {problem}" for problem in report.problems]
    lines.append(
        f"{report.n_parts} table parts and {report.n_volumes} volumes checked, "
        f"{report.n_frames} frames compared with their sources"
    )
    if report.n_unavailable:
        lines.append(f"{report.n_unavailable} frames read, their sources are not here")
    n_problems = len(report.problems)
    lines.append("all is as it should be" if not n_problems else f"{n_problems} wrong")
    return "\n".join(lines)


def ranges_text(ranges: Ranges, *, at_most: int = 20) -> str:
    """Return row numbers as people write them: `5, 17, 20-24`; many are cut."""
    shown = [str(a) if a == b else f"{a}-{b}" for a, b in ranges[:at_most]]
    left = n_rows(ranges[at_most:])
    more = [f"and {left:,} more rows (--json lists them all)"] if left else []
    return ", ".join([*shown, *more])


def join_document(join: Join) -> dict[str, Any]:
    """Return what `pseudonymize --json` prints."""
    return asdict(join)


def join_text(join: Join) -> str:
    """Return what `pseudonymize` prints: counts and row numbers, never a value."""
    lines = [f"{join.output}: {join.n_rows:,} rows, policy {join.policy}"]
    n_unmatched = join.n_rows - join.n_matched
    if join.commit is None:
        place = "no store yet" if join.store is None else f"no commit in {join.store}"
        lines.append(f"nothing can be matched: {place}")
    elif n_unmatched:
        lines.append(
            f"{join.n_rows:,} rows: {join.n_matched:,} match, {n_unmatched:,} do not: "
            f"rows {ranges_text(join.unmatched)}"
        )
    else:
        lines.append(f"{join.n_rows:,} rows: all match commit {join.commit}")
    if join.emptied:
        lines.append(
            f"{n_rows(join.emptied):,} rows with a value that was left out, since the "
            "policy does not let it pass or its patient is unclear: rows "
            f"{ranges_text(join.emptied)}"
        )
    return "\n".join(lines)


def deidentified_text(
    dest: str,
    outcomes: Mapping[str, int],
    codes: Mapping[str, int],
    mappings: Sequence[str] = (),
    *,
    width: int | None = None,
) -> str:
    """Return what a run of `deidentify` came to: inputs by outcome and by code."""
    counts = ", ".join(f"{n} {name}" for name, n in outcomes.items())
    lines = _meanings(codes.items(), width)
    private = [f"they identify everybody: {url}" for url in mappings]
    total = sum(outcomes.values())
    return "\n".join([f"{dest}: {total} inputs: {counts}", *lines, *private])
