"""What an optional package that is missing is answered with."""

import sys

import pytest


def test_without_xarray_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    monkeypatch.delitem(sys.modules, "dicomdask.loaders.xarray", raising=False)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'dicomdask\[xarray\]'"):
        __import__("dicomdask.loaders.xarray")


def test_without_torch_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in [
        name for name in sys.modules if name.startswith("dicomdask.loaders.t")
    ]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'dicomdask\[torch\]'"):
        __import__("dicomdask.loaders.torch")
