"""Mutated headers and pixel streams: no crash, no hang, no wrong value, no leak."""

import json
import os
import random
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.conftest import DATA_VARIABLE
from tests.fuzz import mutate, seeds

SECONDS_A_CASE = 5.0
ENOUGH = {"equal", "truncated", "bad-header", "bad-pixels", "bad-image"}


def fuzz(seed: int, n: int) -> dict[str, Any]:
    folder = os.environ.get(DATA_VARIABLE)
    command = [sys.executable, "-m", "tests.fuzz", str(seed), str(n)]
    done = subprocess.run(
        [*command, *([folder] if folder else [])],
        capture_output=True,
        text=True,
        timeout=60 + n,
    )
    assert done.returncode == 0, f"seed {seed}: {done.stderr[-2000:]}"
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_line_20_mutations_give_what_pydicom_gives_or_a_code(full: bool) -> None:
    """Each is decoded as pydicom decodes it, or is rejected by a code of ours."""
    runs = [(seed, 20_000 if full else 1500) for seed in range(20 if full else 2)]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda run: fuzz(*run), runs))
    codes: Counter[str] = sum((Counter(one["codes"]) for one in results), Counter())
    assert [wrong for one in results for wrong in one["wrong"]] == []
    assert max(one["slowest"] for one in results) < SECONDS_A_CASE
    assert set(codes) >= ENOUGH
    assert codes["unexpected"] <= codes.total() / 1000
    assert codes["equal"] > codes.total() / 5


def test_the_fuzzer_repeats_itself_and_changes_each_file() -> None:
    files = seeds(None)
    once, again = (
        [mutate(files[0], random.Random(seed)) for seed in range(50)] for _ in range(2)
    )
    assert once == again
    assert sum(one != files[0] for one in once) > 45
    assert len(set(once)) > 40
