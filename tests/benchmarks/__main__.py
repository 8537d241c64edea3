"""Run them: `python -m tests.benchmarks [--scale tiny|full] [--only NAME]`.

Without `--only`, all run but `layout`, which compares what the others take as given.
"""

import argparse
from collections.abc import Callable

from tests.benchmarks import (
    bench_convert,
    bench_decode,
    bench_deid,
    bench_index,
    bench_layout,
    bench_loader,
    bench_open,
    bench_patches,
    bench_slices,
    bench_store,
    bench_text,
)
from tests.benchmarks.contest import Report
from tests.benchmarks.goals import goal_table
from tests.benchmarks.inputs import SCALES

BENCHMARKS: dict[str, Callable[[str], Report]] = {
    "index": bench_index.run,
    "decode": bench_decode.run,
    "convert": bench_convert.run,
    "deidentify": bench_deid.run,
    "slices": bench_slices.run,
    "patches": bench_patches.run,
    "loader": bench_loader.run,
    "store": bench_store.run,
    "open": bench_open.run,
    "text": bench_text.run,
    "layout": bench_layout.run,
}


def main(arguments: list[str] | None = None) -> None:
    """Run what is asked for; print each contest, then the goals."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("--scale", choices=SCALES, default="full")
    parser.add_argument("--only", choices=BENCHMARKS, action="append")
    options = parser.parse_args(arguments)
    measures: dict[str, float] = {}
    for name in options.only or [name for name in BENCHMARKS if name != "layout"]:
        report = BENCHMARKS[name](options.scale)
        print(report.text(), end="\n\n", flush=True)
        measures |= report.measures
        for contest in report.contests:
            for differing in contest.differing():
                print(f"WRONG: {differing} of {contest.title} returned something else")
    print(goal_table(measures))


if __name__ == "__main__":
    main()
