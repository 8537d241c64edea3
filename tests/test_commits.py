"""Generations of a dataset: one exclusive creation each, and nothing ever changes."""

import json
import math
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from dicomdask import commits, storage, tables
from dicomdask.commits import Change, Commit, generations, runs
from dicomdask.errors import CommitConflictError, ReadError, StoreError
from dicomdask.model import FORMAT


@pytest.fixture
def store(tmp_path: Path) -> str:
    """Return a place for a store; nothing is there yet."""
    return str(tmp_path / "store.zarr")


def rows_of(series: str, n: int) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of `n` slices of one series."""
    key = {"series_key": series, "volume_id": f"volume of {series}", "revision": "r"}
    sources = [f"{series}-{k:02d}" for k in range(n)]
    return {
        "volumes": [dict(key, n_frames=n)],
        "fingerprints": [dict(key, shape=[n, 4, 4])],
        "frames": [dict(key, z=z, source_key=s) for z, s in enumerate(sources)],
        "instances": [dict(key, SOPInstanceUID=s, source_key=s) for s in sources],
        "inputs": [{"source_key": s, "outcome": "stored"} for s in sources],
        "redactions": [dict(key, source_key=s, top=1, left=2) for s in sources],
    }


def publish_rows(series, n):
    """Return the rows of one series as tables."""
    rows = rows_of(series, n)
    return {name: tables.to_table(name, found) for name, found in rows.items()}


@pytest.fixture
def small_parts(monkeypatch):
    """Let parts be full with 10 rows."""
    monkeypatch.setattr(runs, "PART_ROWS", dict.fromkeys(tables.SCHEMAS, 10))


def change(series=None, n=3, *, drop=(), drop_sources=()):
    """Return a change that adds one series and drops others."""
    return Change(
        rows=[publish_rows(series, n)] if series else [],
        dropped_series=frozenset(drop),
        dropped_sources=frozenset(drop_sources),
    )


def describe(n, parts):
    """Return a commit of some parts."""
    return Commit(
        n=n,
        created="2020-02-29T00:00:00Z",
        tables=parts,
        counts={name: sum(p.rows for p in parts[name]) for name in parts},
        codes={},
        settings={"policy": "research"},
        policy={"digest": "ab"},
        key_fingerprint="cd",
        versions={"dicomdask": "0"},
        statistics={},
    )


def publish(store, *args, **options):
    """Publish one change, whatever the parent."""
    return commits.publish(store, lambda _: change(*args, **options), describe)


def paths(commit, name="frames"):
    return {part.path for part in commit.tables[name]}


def series_in(store, commit, name="frames"):
    return {row["series_key"] for row in commits.read_rows(store, commit, name)}


def bytes_below(store):
    """Return the content of every object."""
    return {
        str(path): path.read_bytes()
        for path in Path(store).rglob("*")
        if path.is_file()
    }


class TestPublish:
    def test_there_is_none_at_first(self, store):
        assert commits.read_commit(store) is None
        assert commits.list_commits(store) == []

    def test_round_trip(self, store):
        made = publish(store, "a")
        assert made.n == 0
        assert commits.read_commit(store) == made
        assert commits.read_commit(store, 0) == made
        plain = json.loads(storage.read(commits.commit_url(store, 0)))
        assert plain["format"] == FORMAT
        assert commits.read_rows(store, made, "volumes")[0]["n_frames"] == 3
        assert len(commits.read_rows(store, made, "frames")) == 3

    def test_the_highest_number_is_the_newest(self, store):
        for k in range(12):
            publish(store, f"{k:02d}")
        assert commits.list_commits(store) == list(range(12))
        assert commits.read_commit(store).n == 11
        assert commits.read_commit(store, 3).n == 3

    def test_other_names_are_no_commits(self, store):
        publish(store, "a")
        for name in ("x.json", "1.json.bak", "-1.json", "2"):
            storage.write(storage.join(store, "commits", name), b"{}")
        assert commits.list_commits(store) == [0]

    def test_no_change_makes_no_commit(self, store):
        publish(store, "a")
        assert publish(store) is None
        assert commits.list_commits(store) == [0]

    def test_the_first_commit_may_be_empty(self, store):
        made = publish(store)
        assert made.n == 0
        assert all(parts == () for parts in made.tables.values())
        assert commits.read_rows(store, made, "volumes") == []

    def test_the_same_change_gives_the_same_bytes(self, tmp_path):
        texts = []
        for name in ("one", "two"):
            store = str(tmp_path / name)
            publish(store, "b")
            publish(store, "a")
            texts.append(
                {
                    path.removeprefix(store): data
                    for path, data in bytes_below(store).items()
                }
            )
        assert texts[0] == texts[1]

    def test_rows_are_in_the_order_of_the_table(self, store):
        for series in ("c", "a", "b"):
            made = publish(store, series)
        for name, keys in tables.SORT_KEYS.items():
            found = commits.read_rows(store, made, name)
            order = [tuple(str(row[key]) for key in keys) for row in found]
            assert order == sorted(order)


class TestRace:
    def test_the_loser_reads_again_and_keeps_both(self, store):
        publish(store, "first")
        seen = []

        def change_of(parent):
            seen.append(parent.n)
            if len(seen) == 1:
                publish(store, "rival")
            return change("mine")

        made = commits.publish(store, change_of, describe)
        assert seen == [0, 1]
        assert made.n == 2
        assert series_in(store, made) == {"first", "rival", "mine"}
        assert series_in(store, commits.read_commit(store, 1)) == {"first", "rival"}

    def test_also_for_the_first_commit(self, store):
        seen = []

        def change_of(parent):
            seen.append(parent)
            if len(seen) == 1:
                publish(store, "rival")
            return change("mine")

        made = commits.publish(store, change_of, describe)
        assert seen[0] is None
        assert made.n == 1
        assert series_in(store, made) == {"rival", "mine"}

    def test_a_rival_that_left_nothing_to_do(self, store):
        publish(store, "first")
        seen = []

        def change_of(parent):
            seen.append(parent.n)
            if len(seen) == 1:
                publish(store, "mine")
                return change("mine")
            return change()

        assert commits.publish(store, change_of, describe) is None
        assert commits.read_commit(store).n == 1

    def test_it_gives_up_in_the_end(self, store, monkeypatch):
        monkeypatch.setattr(generations, "RETRIES", 4)
        publish(store, "first")
        seen = []

        def change_of(_):
            seen.append(1)
            publish(store, f"rival {len(seen)}")
            return change("mine")

        with pytest.raises(CommitConflictError, match="run again"):
            commits.publish(store, change_of, describe)
        assert len(seen) == generations.RETRIES
        newest = commits.read_commit(store)
        assert "mine" not in series_in(store, newest)
        assert newest.n == generations.RETRIES

    def test_many_at_once_all_get_in(self, store):
        publish(store, "first")
        with ThreadPoolExecutor(6) as pool:
            made = list(pool.map(lambda k: publish(store, f"s{k}"), range(6)))
        assert sorted(commit.n for commit in made) == [1, 2, 3, 4, 5, 6]
        newest = commits.read_commit(store)
        assert series_in(store, newest) == {"first", *(f"s{k}" for k in range(6))}


class TestParts:
    def test_nothing_that_was_written_changes(self, store):
        written: dict[str, bytes] = {}
        for k in range(6):
            publish(store, f"{k}", drop=(f"{k - 3}",))
            now = bytes_below(store)
            assert {path: now[path] for path in written} == written
            written = now

    def test_a_reader_of_an_old_commit_reads_old_rows(self, store):
        old = publish(store, "a")
        before = {name: commits.read_rows(store, old, name) for name in tables.SCHEMAS}
        publish(store, "b")
        publish(store, drop=("a",))
        after = {name: commits.read_rows(store, old, name) for name in tables.SCHEMAS}
        assert after == before
        assert series_in(store, old) == {"a"}
        assert series_in(store, commits.read_commit(store)) == {"b"}

    def test_parts_are_named_by_what_is_in_them(self, store):
        made = publish(store, "a")
        for name, parts in made.tables.items():
            for part in parts:
                data = storage.read(storage.join(store, part.path))
                assert part.path.startswith(f"tables/{name}/")
                assert len(data) == part.bytes
                assert tables.from_parquet(data).num_rows == part.rows

    def test_small_ones_merge_over_many_commits(self, store):
        sizes = math.log(90, runs.FACTOR) + 1
        for k in range(30):
            made = publish(store, f"{k:02d}")
            for parts in made.tables.values():
                assert len(parts) <= (runs.FACTOR - 1) * sizes
        assert len(series_in(store, made)) == 30
        assert made.counts["frames"] == 90

    def test_a_row_is_written_few_times(self, store):
        for k in range(64):
            publish(store, f"{k:02d}", 1)
        written = [
            tables.from_parquet(path.read_bytes()).num_rows
            for path in (Path(store) / "tables" / "frames").iterdir()
        ]
        assert sum(written) <= 64 * (math.log(64, runs.FACTOR) + 1)

    def test_runs_of_several_parts_merge_in_the_order_of_their_keys(
        self, store, small_parts
    ):
        for k in range(runs.FACTOR):
            made = publish(store, f"{k}", 13)
        parts = made.tables["frames"]
        assert len({part.run for part in parts}) == 1
        assert [part.rows for part in parts] == [10] * 5 + [2]
        assert all(a.high <= b.low for a, b in pairwise(parts))
        found = commits.read_rows(store, made, "frames")
        assert len(found) == 13 * runs.FACTOR
        assert len({row["source_key"] for row in found}) == len(found)

    def test_parts_without_a_range_are_read_and_merged(self, store):
        """Commits of earlier versions have such."""
        publish(store, "a")
        url = commits.commit_url(store, 0)
        document = json.loads(storage.read(url))
        for parts in document["tables"].values():
            for part in parts:
                for name in ("run", "low", "high", "summary"):
                    del part[name]
        storage.write(url, json.dumps(document).encode())
        assert series_in(store, commits.read_commit(store)) == {"a"}
        made = publish(store, "b")
        assert series_in(store, made) == {"a", "b"}
        made = publish(store, "c", drop=("a",))
        assert series_in(store, made) == {"b", "c"}
        assert commits.total(store, "inputs", made.tables["inputs"])
        for k in range(runs.FACTOR):
            made = publish(store, f"more {k}")
        assert len(series_in(store, made)) == 2 + runs.FACTOR

    def test_large_ones_are_left_alone(self, store, small_parts):
        large = publish(store, "large", 100)
        made = large
        for k in range(12):
            made = publish(store, f"{k:02d}", 3)
        parts = made.tables["frames"]
        assert paths(large) <= paths(made)
        assert sum(part.rows for part in parts) == 100 + 36
        assert len(commits.read_rows(store, made, "frames")) == 136

    def test_no_part_is_larger_than_the_cap(self, store, small_parts):
        made = publish(store, "a", 25)
        assert [part.rows for part in made.tables["frames"]] == [10, 10, 5]
        assert len(commits.read_rows(store, made, "frames")) == 25

    def test_a_table_that_nothing_touches_is_not_rewritten(self, store):
        first = publish(store, "a")
        only_input = Change(
            rows=[{"inputs": tables.to_table("inputs", [{"source_key": "x"}])}]
        )
        second = commits.publish(store, lambda _: only_input, describe)
        for name in ("volumes", "frames", "instances"):
            assert second.tables[name] == first.tables[name]
        assert second.tables["inputs"] != first.tables["inputs"]


class TestDrop:
    def test_a_series_loses_its_rows_and_no_other(self, store):
        for series in ("a", "b", "c"):
            publish(store, series)
        made = publish(store, drop=("b",))
        for name in ("volumes", "frames", "instances"):
            assert series_in(store, made, name) == {"a", "c"}
        assert len(commits.read_rows(store, made, "inputs")) == 9

    def test_only_parts_that_may_hold_it_are_read(
        self, store, small_parts, monkeypatch
    ):
        batches = [publish_rows(f"{k:02d}", 10) for k in range(8)]
        made = commits.publish(store, lambda _: Change(batches), describe)
        assert len(made.tables["frames"]) == 8
        opened = []
        read = storage.read
        monkeypatch.setattr(
            storage, "read", lambda url: (opened.append(url), read(url))[1]
        )
        after = publish(store, drop=("05",))
        assert len([url for url in opened if "/frames/" in url]) == 1
        assert len(paths(made) & paths(after)) == 7
        assert series_in(store, after) == {f"{k:02d}" for k in range(8)} - {"05"}

    def test_also_from_a_large_part(self, store, small_parts):
        publish(store, "a", 20)
        publish(store, "b", 20)
        made = publish(store, drop=("a",))
        assert series_in(store, made) == {"b"}
        assert len(commits.read_rows(store, made, "frames")) == 20

    def test_a_series_is_replaced_in_one_commit(self, store):
        publish(store, "a", 3)
        publish(store, "b", 3)
        made = publish(store, "a", 5, drop=("a",))
        found = commits.read_rows(store, made, "frames")
        assert sum(row["series_key"] == "a" for row in found) == 5
        assert sum(row["series_key"] == "b" for row in found) == 3

    def test_sources_leave_the_inputs_only(self, store):
        publish(store, "a")
        made = publish(store, drop_sources=("a-01",))
        left = [row["source_key"] for row in commits.read_rows(store, made, "inputs")]
        assert left == ["a-00", "a-02"]
        assert len(commits.read_rows(store, made, "frames")) == 3

    def test_the_last_series_may_go(self, store):
        publish(store, "a")
        made = publish(store, drop=("a",))
        assert made.tables["frames"] == ()
        assert commits.read_rows(store, made, "frames") == []

    def test_dropping_what_is_not_there_changes_no_table(self, store):
        first = publish(store, "a")
        made = publish(store, drop=("z",))
        assert made.tables == first.tables


DAMAGE = {
    "cut": lambda text: text[:-20],
    "empty": lambda _: b"",
    "no text": lambda _: b"\xff\xfe\x00",
    "a list": lambda _: b"[]",
    "a number": lambda _: b"1",
    "no tables": lambda text: text.replace(b'"tables"', b'"chairs"'),
    "unknown field": lambda text: text.replace(b'"codes"', b'"modes"'),
    "no format": lambda text: text.replace(b'"format": 1', b'"format": null'),
    "parts of another kind": lambda text: text.replace(b'"sha256"', b'"md5"'),
}


class TestDamage:
    @pytest.mark.parametrize("name", DAMAGE)
    def test_a_damaged_commit_is_named(self, store, name):
        publish(store, "a")
        publish(store, "b")
        url = commits.commit_url(store, 1)
        text = storage.read(url)
        assert DAMAGE[name](text) != text
        storage.write(url, DAMAGE[name](text))
        with pytest.raises(StoreError, match=r"commit 1 of .* is damaged"):
            commits.read_commit(store)
        with pytest.raises(StoreError):
            publish(store, "c")
        assert commits.list_commits(store) == [0, 1]
        assert series_in(store, commits.read_commit(store, 0)) == {"a"}

    def test_a_commit_of_another_format_is_named(self, store):
        publish(store, "a")
        url = commits.commit_url(store, 0)
        newer = storage.read(url).replace(b'"format": 1', b'"format": 2')
        storage.write(url, newer)
        with pytest.raises(StoreError, match=r"commit 0 of .* is of format 2, and"):
            commits.read_commit(store)

    def test_a_commit_that_is_not_there_is_named(self, store):
        publish(store, "a")
        with pytest.raises(StoreError, match="no commit 7; the last that it has: 0"):
            commits.read_commit(store, 7)

    @pytest.mark.parametrize("table", tables.SCHEMAS)
    def test_a_missing_part_is_named(self, store, table):
        made = publish(store, "a")
        (part,) = made.tables[table]
        storage.remove(storage.join(store, part.path))
        with pytest.raises(ReadError, match=f"{part.path} .* missing"):
            commits.read_table(store, made, table)

    @pytest.mark.parametrize(
        "damage",
        [
            lambda data: data[:-1],
            lambda data: b"",
            lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:],
            lambda data: data + b"\0",
        ],
    )
    def test_a_damaged_part_is_named(self, store, damage):
        made = publish(store, "a")
        (part,) = made.tables["frames"]
        url = storage.join(store, part.path)
        storage.write(url, damage(storage.read(url)))
        with pytest.raises(ReadError, match=f"{part.path} .* damaged"):
            commits.read_table(store, made, "frames")

    def test_a_commit_upon_a_damaged_part_is_refused(self, store):
        made = publish(store, "a")
        storage.remove(storage.join(store, made.tables["frames"][0].path))
        with pytest.raises(ReadError):
            publish(store, "b", drop=("a",))
        assert commits.list_commits(store) == [0]
