"""The one barrier against hostile bytes.

Whatever pydicom or a decoder raises becomes an outcome that names the exception's class
and nothing else; their warnings and logs, which hold values, are dropped.
"""

import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from dicomdask.errors import InputError

Result = TypeVar("Result")

UNFORESEEN: Final = "An unforeseen {}."
NOISY_LOGGERS: Final = ("pydicom", "pylibjpeg", "libjpeg", "openjpeg", "rle", "jpeg_ls")


class _Silence:
    """Keeps warnings and logs away while anyone is in it, in whatever thread.

    Both are states of the whole process, so the first who comes in sets them and the
    last who leaves restores them. A level holds for the loggers below as well, also for
    those that are made later; switching a logger off holds for itself only.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_inside = 0
        self._levels: list[int] = []
        self._warnings = warnings.catch_warnings()

    def enter(self) -> None:
        with self._lock:
            self._n_inside += 1
            if self._n_inside > 1:
                return
            self._levels = [logger.level for logger in _noisy()]
            for logger in _noisy():
                logger.setLevel(logging.CRITICAL + 1)
            self._warnings = warnings.catch_warnings()
            self._warnings.__enter__()
            warnings.simplefilter("ignore")

    def leave(self) -> None:
        with self._lock:
            self._n_inside -= 1
            if self._n_inside:
                return
            self._warnings.__exit__(None, None, None)
            for logger, level in zip(_noisy(), self._levels, strict=True):
                logger.setLevel(level)


def _noisy() -> list[logging.Logger]:
    return [logging.getLogger(name) for name in NOISY_LOGGERS]


_SILENCE: Final = _Silence()


@contextmanager
def quiet() -> Iterator[None]:
    """Drop the warnings and logs of DICOM libraries: their messages hold values."""
    _SILENCE.enter()
    try:
        yield
    finally:
        _SILENCE.leave()


def guard(function: Callable[..., Result], *args: Any) -> Result:
    """Call a function on one input; every error comes out as an InputError.

    Raises
    ------
    InputError
        With the function's own code, or `unexpected` and the class of the exception.
    """
    try:
        return function(*args)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError("source-changed") from None
    except OSError:
        raise InputError("unreadable") from None
    except MemoryError:
        raise InputError("too-large") from None
    except Exception as error:  # noqa: BLE001 - hostile bytes raise anything
        name = type(error).__name__
        raise InputError("unexpected", UNFORESEEN.format(name)) from None


def guard_as(
    code: str, told: str, function: Callable[..., Result], *args: Any
) -> Result:
    """Call a function as `guard`; what is unforeseen comes out with a code of its own.

    `told` is how its reason begins.
    """
    try:
        return guard(function, *args)
    except InputError as error:
        if error.code != "unexpected":
            raise
        reason = error.reason
    raise InputError(code, f"{told}: {reason}")


def kind_of(code: str, reason: str) -> str:
    """Return a code, and with `unexpected` the class that the reason names."""
    if code != "unexpected":
        return code
    before, after = UNFORESEEN.split("{}")
    return f"{code} {reason.removeprefix(before).removesuffix(after)}"
