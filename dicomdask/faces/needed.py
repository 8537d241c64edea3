"""What the extra `faces` brings, loaded where it is used."""

import importlib
from typing import Any

from dicomdask.errors import OptionError


def ndimage() -> Any:
    """Return `scipy.ndimage`."""
    return _load("scipy.ndimage")


def spatial() -> Any:
    """Return `scipy.spatial`."""
    return _load("scipy.spatial")


def require() -> None:
    """Raise OptionError where scipy is not installed."""
    ndimage()


def _load(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise OptionError(
            'clean-faces needs scipy: pip install "dicomdask[faces]"'
        ) from None
