"""Fixtures, grouped.

Length: `full` (the option --full).
Keys: `no_key` (always: the environment names no key), `key_file`, `key` (its content).
Sources: `data` (real files, the folder DICOMDASK_TEST_DATA), `series` (5 made slices).
Datasets: `convert` (in this process, with the fixed key), `store` (of `series`),
`real_store` (of `data`, made once, read only).
Faults: `nothing_apart` (what is called apart is called here, where it is patched).
Servers (tests/servers/fixtures.py): `ceph`, `swift`, `azurite`, `slurm`, `s3`.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest

import dicomdask
from dicomdask.pseudonym import ENVIRONMENT_VARIABLE, Key
from dicomdask.steps import Summary
from dicomdask.tasks.barrier import guard
from dicomdask.tasks.isolate import Cell
from tests.builders import make_series, write_series

SECRET = "6b65792d666f722d74657374732d6f6e"
DATA_VARIABLE = "DICOMDASK_TEST_DATA"

pytest_plugins = ["tests.servers.fixtures"]

hypothesis.settings.register_profile(  # others may use the same cores
    "shared",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("shared")

Convert = Callable[..., Summary]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--full`: the long form of tests that have one."""
    parser.addoption("--full", action="store_true", help="run tests in their long form")


@pytest.fixture(scope="session")
def full(pytestconfig: pytest.Config) -> bool:
    """Return whether tests run in their long form."""
    return bool(pytestconfig.getoption("--full"))


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the key out of the environment."""
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)


@pytest.fixture
def nothing_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Call here what would be called in a process apart, which no patch reaches."""

    def call(_: Cell, function: Any, *args: Any, nbytes: int = 0) -> Any:
        return guard(function, *args)

    monkeypatch.setattr(Cell, "call", call)


@pytest.fixture(scope="session")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file that holds the fixed key."""
    path = tmp_path_factory.mktemp("key") / "key"
    path.write_text(SECRET + "\n")
    return path


@pytest.fixture(scope="session")
def key() -> Key:
    """Return the fixed key."""
    return Key(SECRET.encode())


@pytest.fixture(scope="session")
def data() -> Path:
    """Return the folder of real DICOM files, or skip."""
    folder = os.environ.get(DATA_VARIABLE)
    if not folder:
        pytest.skip(f"{DATA_VARIABLE} is not set: it names a folder of DICOM files")
    return Path(folder)


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """Return a folder with a CT series of 5 slices."""
    folder = tmp_path / "series"
    write_series(folder, make_series(5))
    return folder


@pytest.fixture(scope="session")
def convert(key_file: Path) -> Convert:
    """Return `dicomdask.convert` in this process, with the fixed key."""

    def run(sources: Path, store: Path, **options: Any) -> Summary:
        found = {"scheduler": "synchronous", "key_file": str(key_file), **options}
        return dicomdask.convert(str(sources), str(store), **found)

    return run


@pytest.fixture
def store(series: Path, tmp_path: Path, convert: Convert) -> Path:
    """Return the dataset of `series`; its work directory is `<store>.work`."""
    path = tmp_path / "store.zarr"
    convert(series, path)
    return path


@pytest.fixture(scope="session")
def real_store(
    data: Path, tmp_path_factory: pytest.TempPathFactory, convert: Convert
) -> Path:
    """Return the dataset of `data`; read only."""
    path = tmp_path_factory.mktemp("real") / "store.zarr"
    convert(data, path)
    return path
