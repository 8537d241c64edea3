"""All that a run tells and writes, and the search for what must not be in it."""

import base64
import json
import logging
import os
import warnings
from contextlib import contextmanager

import pyarrow.parquet as pq
import pytest
import zarr
from distributed.protocol import pickle

from dicomdask import pipeline
from tests.conftest import SECRET

CREDENTIALS = ("planted-wJalrXUtnFEMI-K7MDENG", "planted-token-of-the-store-8c1f")
"""What the environment of a cluster holds besides the key."""


class Told:
    """All that a run told: logs, warnings, errors and what went to Dask."""

    def __init__(self):
        self.text, self.graphs, self.keys = [], [], []

    def note(self, *texts):
        self.text.extend(map(str, texts))


@contextmanager
def listening(told):
    """Hear every log, every warning and every bag."""

    class Handler(logging.Handler):
        def emit(self, record):
            formatter = logging.Formatter("%(name)s %(message)s")
            told.note(formatter.format(record), record.__dict__)

    handler, root = Handler(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    patch = pytest.MonkeyPatch()
    for name in ("index_bag", "resolve_bag", "plan_bag", "encode_bag"):
        patch.setattr(pipeline, name, telling(getattr(pipeline, name), told))
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        told.note(*caught)
    finally:
        patch.undo()
        root.removeHandler(handler)
        root.setLevel(level)


def telling(build, told):
    def call(elements, **options):
        bag = build(elements, **options)
        graph = dict(bag.dask)
        told.keys += [str(key) for key in graph]
        told.graphs.append(pickle.dumps(graph))
        told.note(graph, bag)
        return bag

    return call


def all_bytes(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
    }


def decoded(folder):
    """Yield all that is in a store or in parts once it is decoded."""
    for path in folder.rglob("*.parquet"):
        table = pq.read_table(path)
        rows = table.to_pylist()
        text = json.dumps(rows, ensure_ascii=False, default=repr)
        yield path.name, text.encode()
        for row in rows:
            for value in row.values():
                yield path.name, value.encode() if isinstance(value, str) else b""
        yield path.name, repr(table.schema.metadata).encode()
    for path in folder.rglob("*.json"):
        text = json.dumps(json.loads(path.read_bytes()), ensure_ascii=False)
        yield path.name, text.encode()


def arrays_of(store):
    group = zarr.open_group(store / "volumes", mode="r", use_consolidated=False)
    members = dict(group.members(max_depth=None))
    return {
        name: member[...]
        for name, member in members.items()
        if isinstance(member, zarr.Array)
    }


def assert_clean(markers, named):
    """Search all contents at once, and only if something is there one by one."""
    named = [(os.fsencode(name), content) for name, content in named]
    everything = b"\n".join(part for pair in named for part in pair)
    if markers.find(everything):
        leaks = [(name, markers.find(name + b"\n" + data)) for name, data in named]
        assert [(name, found) for name, found in leaks if found] == []
        pytest.fail("a marker is spread over two objects")


def assert_keyless(*contents):
    """Search for the key, however written, and for the credentials."""
    raw = bytes.fromhex(SECRET)
    for content in contents:
        assert not [one for one in CREDENTIALS if one.encode() in content]
        assert SECRET.encode() not in content
        assert raw not in content
        assert base64.b64encode(SECRET.encode())[:-4] not in content
