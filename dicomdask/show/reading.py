"""What people read of the read side: splits, and how fast a dataset is read. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import isnan
from typing import Any, Final

import pandas as pd

from dicomdask.bench import Bench, Pace
from dicomdask.show import columns, size
from dicomdask.splits import Split

SPLIT_COLUMNS: Final = ("split", "patients", "studies", "volumes")
BENCH_COLUMNS: Final = (
    *("what", "a second", "stored/s", "decoded/s", "requests", "bytes"),
    *("CPU", "decode", "of the limit"),
)


def split_document(split: Split, output: str) -> dict[str, Any]:
    """Return what `split --json` prints."""
    return {
        "output": output,
        "splits": split.counts,
        "classes": split.classes,
        "warnings": split.warnings,
    }


def split_text(split: Split, output: str) -> str:
    """Return what `split` prints: how much is in each part, by class too."""
    total = sum(counts["patients"] for counts in split.counts.values())
    sizes = [
        (name, *(str(counts[what]) for what in SPLIT_COLUMNS[1:]), f"{share:.1%}")
        for name, counts in split.counts.items()
        for share in [counts["patients"] / total]
    ]
    lines = columns([(*SPLIT_COLUMNS, "share"), *sizes])
    for column, classes in split.classes.items():
        rows = [
            (value, *(str(found[name]) for name in split.names))
            for value, found in classes.items()
        ]
        lines += ["", *columns([(f"patients by {column}", *split.names), *rows])]
    notes = [f"note: {sentence}" for sentence in split.warnings]
    return "\n".join([*lines, "", *notes, f"written: {output}"])


def bench_document(found: Bench) -> dict[str, Any]:
    """Return what `bench --json` prints."""
    return {
        "store": found.store,
        "is_distant": found.is_distant,
        "stored_bytes": found.stored_bytes,
        "paces": [
            asdict(pace)
            | {
                "rate": pace.rate,
                "byte_rate": pace.byte_rate,
                "share_of_limit": found.share_of_limit(pace),
            }
            for pace in found.paces
        ],
        "remarks": found.remarks,
    }


def bench_text(found: Bench) -> str:
    """Return what `bench` prints: one line a way of reading, the bare ones first."""
    ordered = sorted(found.paces, key=lambda pace: pace.limit is not None)
    rows = [_pace_cells(found, pace) for pace in ordered]
    notes = [f"note: {remark}" for remark in found.remarks]
    legend = (
        "sequential and random are bare ranges of the same shards, without decoding: "
        "the limit;\nrequests and bytes are those of one unit"
    )
    return "\n".join([*columns([BENCH_COLUMNS, *rows]), "", legend, *notes])


def _pace_cells(found: Bench, pace: Pace) -> tuple[str, ...]:
    share, n = found.share_of_limit(pace), max(pace.n, 1)
    is_bare = share is None
    return (
        pace.name,
        f"{pace.rate:.4g} {pace.unit}",
        size(pace.byte_rate),
        "" if is_bare else size(pace.value_bytes / pace.seconds),
        f"{pace.requests / n:.2f}",
        size(pace.read_bytes / n),
        f"{pace.cpu_seconds / pace.seconds:.0%}",
        "" if is_bare else f"{pace.decode_share:.0%}",
        "" if share is None else f"{share:.0%}",
    )


FINGERPRINT_COLUMNS: Final = (
    *("modality", "units", "volumes", "spacing", "shape", "mean", "std"),
    *("0.5 %", "50 %", "99.5 %"),
)
_INTENSITIES: Final = (
    *("mean", "std", "percentile_0.5", "percentile_50", "percentile_99.5"),
)


def fingerprint_document(found: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the fingerprint as `info --fingerprint --json` prints it."""
    return [
        {
            str(name): None if isinstance(value, float) and isnan(value) else value
            for name, value in row.items()
        }
        for row in found.to_dict("records")
    ]


def fingerprint_text(told: Sequence[Mapping[str, Any]]) -> str:
    """Return one line a modality: median spacing and shape, intensities."""
    rows = []
    for one in told:
        spacing = " x ".join(f"{step:g}" for step in one["spacing_mm"] or ())
        numbers = [one[name] for name in _INTENSITIES]
        rows.append(
            (
                str(one["Modality"] or "unknown"),
                str(one["units"]),
                str(one["n_volumes"]),
                f"{spacing} mm" if spacing else "unknown",
                " x ".join(f"{extent:g}" for extent in one["shape"]),
                *("" if number is None else f"{number:.4g}" for number in numbers),
            )
        )
    return "\n".join(columns([FINGERPRINT_COLUMNS, *rows]))
