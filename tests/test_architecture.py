"""The floors and walls of the house: a room imports only from lower floors."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "dicomdask"

FLOORS = {
    1: {"values", "errors", "frames", "limits", "model", "pseudonym", "standard"},
    2: {
        "address",
        "batch",
        "burnedin",
        "faces",
        "geometry",
        "header",
        "layout",
        "pixels",
        "policy",
        "sheets",
        "shards",
        "storage",
        "tables",
    },
    3: {"arrays", "commits", "deid", "plan", "rows", "splits"},
    4: {"work", "dataset"},
    5: {"bench", "runlog", "tasks", "verify"},
    6: {"pipeline", "loaders"},
    7: {"steps", "show", "report"},
    8: {"cli"},
    9: {"__main__"},
}
WITHIN_A_FLOOR = {
    ("frames", "model"),
    ("pseudonym", "errors"),
    ("burnedin", "policy"),  # who is looked at is data of the policy
    ("verify", "tasks"),  # the barrier guards verify too
}

PIPELINE = {"pipeline/bags", "pipeline/clusters", "pipeline/run"}
TORCH = ("/batches", "/datasets", "/loader")
HOMES = {
    "dask": {*PIPELINE, "loaders/xarray"},
    "distributed": PIPELINE,
    "fsspec": {
        f"storage/{name}"
        for name in ("flight", "options", "remote", "requests", "urls")
    },
    "s3fs": set(),
    "zarr": {"arrays"},
    "pyarrow": {"tables"},
    "click": {"cli"},
    "numcodecs": {"shards"},
    "xarray": {"loaders/xarray"},
    "torch": {f"loaders/torch{file}" for file in ("", *TORCH)},
    "imagecodecs": {"pixels/codecs", "pixels/blanks/recode", "pixels/thumbnail"},
    "jpeg_ls": {"pixels/codecs", "pixels/blanks/recode"},
    "openvino": {"burnedin/network"},
    "scipy": {"faces/needed"},
    "cv2": {"burnedin/letters", "burnedin/network"},
}
HOLD_IDENTIFIED = {"header", "deid", "pixels", "burnedin", "labels", "tasks", "cli"}
USE_DICTIONARIES = {"policy", "rows", "standard"}
"""Rooms that look up tags in pydicom's dictionary and see no dataset."""

READ_SIDE = {
    *("arrays", "batch", "commits", "dataset", "sheets", "shards", "splits", "storage"),
}


@cache
def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).with_suffix("").as_posix()
        if name != "__init__":
            found[name.removesuffix("/__init__")] = path
    return found


@cache
def imports(path: Path) -> set[str]:
    """Return the dotted names a file imports, at any depth of the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def rooms_of(path: Path) -> set[str]:
    """Return the rooms of this project that a file imports from."""
    parts = [name.split(".") for name in imports(path)]
    return {part[1] for part in parts if part[0] == "dicomdask" and len(part) > 1}


def floor_of(room: str) -> int:
    return next(floor for floor, rooms in FLOORS.items() if room in rooms)


def room_of(module: str) -> str:
    return module.split("/")[0]


def test_each_room_has_a_floor():
    known = set().union(*FLOORS.values())
    assert {room_of(module) for module in modules()} == known


def test_the_readme_shows_the_house():
    text = (PACKAGE.parent / "README.md").read_text()
    table = text.split("<!-- rooms", 1)[1].split("<!-- /rooms", 1)[0]
    rows = re.findall(r"^\| (\d) \| (.*) \|$", table, re.MULTILINE)
    shown = {
        int(floor): {room.split("`")[1] for room in cell.split(" · ")}
        for floor, cell in rows
    }
    assert shown | {9: {"__main__"}} == FLOORS


def test_files_that_the_readme_names_are_there():
    text = (PACKAGE.parent / "README.md").read_text().split("## How it is built")[1]
    named = set(re.findall(r"`([\w/]+\.py)`", text))
    assert len(named) > 5
    assert not {name for name in named if not (PACKAGE / name).is_file()}


def test_the_docstring_of_a_large_room_names_its_files():
    for room in ("deid", "storage", "tasks"):
        docstring = ast.get_docstring(ast.parse(modules()[room].read_text())) or ""
        named = set(re.findall(r"`(\w+)`", docstring))
        files = {
            name.split("/")[1] for name in modules() if name.startswith(room + "/")
        }
        assert not files - named, f"{room}/__init__.py does not say what these are for"


def test_the_docstring_of_the_tests_names_what_they_are_made_of():
    tests = PACKAGE.parent / "tests"
    found = ast.parse((tests / "__init__.py").read_text())
    named = set(re.findall(r"`(\w+)`", ast.get_docstring(found) or ""))
    made_of = {
        path.stem
        for path in tests.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").is_file()
        if not path.stem.startswith(("test_", "__"))
    }
    assert len(made_of) > 10
    assert not made_of - named, "tests/__init__.py does not say what these are for"
    known = made_of | {path.stem for path in tests.glob("test_*.py")} | {"examples"}
    assert named <= known


@pytest.mark.parametrize("module", modules())
def test_a_room_imports_only_from_lower_floors(module):
    room = room_of(module)
    for other in rooms_of(modules()[module]) - {room}:
        if other == "__version__":
            continue
        allowed = (room, other) in WITHIN_A_FLOOR
        assert allowed or floor_of(other) < floor_of(room), f"{module} -> {other}"


def module_of(used: str) -> str | None:
    """Return the module that an imported name lies in, not a package around it."""
    dotted = {name: f"dicomdask.{name.replace('/', '.')}." for name in modules()}
    found = [name for name, path in dotted.items() if used.startswith(path)]
    return max(found, key=len, default=None)


def test_no_import_circle_within_a_room():
    graph = {
        name: {
            other
            for other in map(module_of, imports(path))
            if other and other != name and "/" in other
            if room_of(other) == room_of(name)
        }
        for name, path in modules().items()
        if "/" in name
    }
    while leaves := {name for name, used in graph.items() if not used & set(graph)}:
        graph = {name: used for name, used in graph.items() if name not in leaves}
    assert not graph


@pytest.mark.parametrize("library", HOMES)
def test_one_home_for_each_library(library):
    users = {
        name
        for name, path in modules().items()
        if any(used.split(".")[0] == library for used in imports(path))
    }
    homes = HOMES[library]
    assert not {name for name in users if not {name, room_of(name)} & homes}


def test_who_may_hold_identified_datasets():
    users = {
        room_of(name)
        for name, path in modules().items()
        if any(used.split(".")[0] == "pydicom" for used in imports(path))
    }
    assert users <= HOLD_IDENTIFIED | USE_DICTIONARIES


def reachable(start: str) -> set[str]:
    """Return the rooms that a room reaches, whatever it goes through."""
    seen, left = set(), {start}
    while left:
        room = left.pop()
        seen.add(room)
        for name, path in modules().items():
            if room_of(name) == room:
                left |= rooms_of(path) - seen - {"__version__"}
    return seen


def test_the_read_side_reaches_neither_dask_nor_pydicom():
    rooms = reachable("dataset")
    assert rooms <= READ_SIDE | {"errors", "limits", "model", "tables", "values"}
    for name, path in modules().items():
        if room_of(name) in rooms:
            roots = {used.split(".")[0] for used in imports(path)}
            assert not roots & {"dask", "distributed", "pydicom"}, name
    assert rooms_of_loaders() <= rooms | {"dataset", "loaders"}


def rooms_of_loaders() -> set[str]:
    """Return what the loaders reach, but that of lazy arrays, which is Dask's."""
    used: set[str] = set()
    for name, path in modules().items():
        if room_of(name) == "loaders" and name != "loaders/xarray":
            assert "dicomdask.loaders.xarray" not in imports(path)
            roots = {root.split(".")[0] for root in imports(path)}
            assert not roots & {"dask", "distributed", "pydicom"}, name
            used |= rooms_of(path) - {"__version__"}
    return used


def test_the_plan_reaches_no_storage_no_clock_no_environment():
    assert not reachable("plan") & {"storage", "pipeline", "tasks", "work"}
    for name, path in modules().items():
        if room_of(name) == "plan":
            roots = {used.split(".")[0] for used in imports(path)}
            assert not roots & {"os", "time", "datetime", "dask", "random"}, name


def test_only_few_places_catch_everything():
    allowed = {
        *("tasks/barrier", "deid/clean", "deid/file", "verify", "plan/build"),
        *("cli/output", "storage/requests", "burnedin/detector"),
        "pixels/blanks/files",
    }
    users = {
        name
        for name, path in modules().items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler)
        and isinstance(node.type, ast.Name)
        and node.type.id in ("Exception", "BaseException")
        and ast.unparse(node.body[-1]) != "raise"  # cleans up and lets it pass
    }
    assert users <= allowed


def test_files_and_functions_stay_small():
    for name, path in modules().items():
        text = path.read_text()
        assert text.count("\n") <= 470, f"{name} is long: make it a folder"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
                assert lines <= 60, f"{name}.{node.name} has {lines} lines"
