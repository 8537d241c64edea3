"""What people read of what was removed: by `vacuum` and by `forget`. Pure."""

from dicomdask.show import size
from dicomdask.tasks.removal import Forgot, Found
from dicomdask.tasks.vacuum import Vacuumed


def vacuum_text(done: Vacuumed) -> str:
    """Return what `vacuum` prints."""
    verb = "would be deleted" if done.is_dry else "deleted"
    kinds = ", ".join(f"{count} of {kind}" for kind, count in done.kinds.items())
    return "\n".join(
        [
            *done.names,
            f"{done.n_deleted} objects, {size(done.bytes_deleted)} {verb}"
            + (f": {kinds}" if kinds else ""),
            f"{done.n_kept} objects, {size(done.bytes_kept)} kept",
        ]
    )


def forget_text(done: Forgot, *, undo: bool, dry_run: bool) -> str:
    """Return what `forget` prints: which of the patients were found, never who."""
    lines = [
        f"patient {number}: {_undone(one) if undo else _found(one)}"
        for number, one in enumerate(done.patients, 1)
    ]
    if undo:
        again = f"commit {done.commit} stands; convert"
        again = "deidentify" if done.commit is None else again
        lines.append(f"{again} again to store them")
        return "\n".join(lines)
    if done.work is None:
        lines.append(
            "no work directory was found, so only files that are stored are known; "
            "name it with --work"
        )
    if done.n_unknown:
        lines.append(
            f"{done.n_unknown} files without an image cannot be read any more, so "
            "nobody can tell whose they are; their paths stay in the work directory"
        )
    if done.in_filter:
        lines.append("the --where filter in the work's job.json names a patient")
    if dry_run:
        return "\n".join([*lines, "nothing was removed: --dry-run"])
    stands = "" if done.commit is None else f"; commit {done.commit} stands"
    lines.append(
        f"{done.n_objects} objects of the store and {done.n_records} records of the "
        f"work directory removed{stands}"
    )
    return "\n".join(lines)


def _found(one: Found) -> str:
    before = "; was forgotten before" if one.was_forgotten else ""
    if not one.matched:
        return f"not in the dataset; kept out of later runs{before}"
    counts = f"{one.n_series} series, {one.n_volumes} volumes, {one.n_inputs} inputs"
    return f"found by {' and '.join(one.matched)}: {counts}{before}"


def _undone(one: Found) -> str:
    return "may come back" if one.was_forgotten else "was not forgotten"
