"""The public names: complete, loaded when used, each parameter documented."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import dicomdask
from dicomdask.dataset import Dataset
from dicomdask.loaders import torch as loaders
from dicomdask.loaders.options import Options

FUNCTIONS = sorted(set(dicomdask.__all__) - {"__version__"})
METHODS = [
    value
    for name, value in inspect.getmembers(Dataset, inspect.isfunction)
    if not name.startswith("_")
]


def documented(docstring: str, section: str = "Parameters") -> set[str]:
    """Return the names that a section of a numpy docstring describes."""
    parts = re.split(r"^(\w+)\n-{3,}\n", docstring, flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    heads = re.findall(r"^(\S.*)$", sections.get(section, ""), re.MULTILINE)
    return {name.lstrip("*") for head in heads for name in head.split(", ")}


def test_dir_tells_the_public_names_and_no_others() -> None:
    assert dir(dicomdask) == sorted(dicomdask.__all__)
    assert len(FUNCTIONS) > 5


def test_what_type_checkers_see_is_what_is_loaded() -> None:
    tree = ast.parse(Path(str(dicomdask.__file__)).read_text())
    seen = {
        alias.asname or alias.name: (str(node.module), alias.name)
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == dicomdask._HOMES
    assert set(seen) == set(FUNCTIONS)


def test_an_import_loads_no_room() -> None:
    code = "import sys, dicomdask; print([n for n in sys.modules if 'dicomdask.' in n])"
    words = [sys.executable, "-c", code]
    assert subprocess.run(words, capture_output=True, check=True).stdout == b"[]\n"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_parameter_of_a_function_is_documented(name: str) -> None:
    function = getattr(dicomdask, name)
    parameters = set(inspect.signature(function).parameters)
    assert documented(inspect.getdoc(function) or "") == parameters


@pytest.mark.parametrize("method", METHODS, ids=lambda one: one.__name__)
def test_each_method_of_a_dataset_is_typed_and_documented(method: object) -> None:
    signature = inspect.signature(method)  # type: ignore[arg-type]
    assert signature.return_annotation is not inspect.Signature.empty
    docstring = inspect.getdoc(method) or ""
    assert documented(docstring) <= set(signature.parameters)
    assert docstring


def test_the_options_of_loaders_are_documented() -> None:
    assert documented(inspect.getdoc(Options) or "", "Attributes") == set(
        Options.__annotations__
    )
    for name in loaders.__all__:
        assert inspect.getdoc(getattr(loaders, name)), name
