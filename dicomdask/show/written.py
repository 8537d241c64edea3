"""What people read of the files that `deidentify` wrote. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from dicomdask.show import deidentified_text, looks_line
from dicomdask.tasks.record import FORGOTTEN, FileLook


def written_document(
    dest: str, record: Mapping[str, Any], looks: Iterable[FileLook]
) -> dict[str, Any]:
    """Return what `info --json` prints of a destination."""
    regions = [one.n_redactions for one in looks]
    outcomes = record.get("outcomes", {})
    counts = {"inputs": sum(outcomes.values()), "looked": len(regions)}
    return {
        "store": dest,
        "counts": {**outcomes, **counts, "redactions": sum(regions)},
        "codes": record.get("codes_found", {}),
        "record": record,
    }


def written_text(told: Mapping[str, Any], *, width: int | None = None) -> str:
    """Return what `info` prints of what `written_document` returned."""
    record, counts = told["record"], told["counts"]
    outcomes = record.get("outcomes", {})
    lines = [
        f"{told['store']}: files that deidentify wrote",
        f"policy {record['policy']}, key {record['key']}",
        *(f"  {code}  {meaning}" for code, meaning in record["codes"]),
        "",
        deidentified_text(told["store"], outcomes, told["codes"], width=width),
    ]
    if counts["looked"]:
        lines += ["", looks_line(counts, "files")]
    if record.get(FORGOTTEN):
        lines += ["", f"patients kept out by forget: {len(record[FORGOTTEN])}"]
    return "\n".join(lines)
