"""The one barrier against hostile bytes.

Whatever pydicom or a decoder raises becomes an outcome that names the exception's class
and nothing else; their warnings and logs, which hold values, are dropped.
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from dicomdask.errors import InputError

Result = TypeVar("Result")

NOISY_LOGGERS: Final = ("pydicom", "pylibjpeg", "libjpeg", "openjpeg", "rle", "jpeg_ls")


@contextmanager
def quiet() -> Iterator[None]:
    """Drop the warnings and logs of DICOM libraries: their messages hold values."""
    noisy = [logging.getLogger(name) for name in NOISY_LOGGERS]
    before = [logger.disabled for logger in noisy]
    for logger in noisy:
        logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, state in zip(noisy, before, strict=True):
            logger.disabled = state


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
        raise InputError("unexpected", f"An unforeseen {name}.") from None
