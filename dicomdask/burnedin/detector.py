"""Find text in a frame by its looks, with the model of an extra.

The extra `text` brings the model inside a wheel: nothing is fetched when it runs. What
a text says is never read, only where it is. Whatever keeps the model from giving an
answer in time is an `InputError`: a frame that was not looked at does not pass.
"""

import sys
from contextlib import suppress
from functools import cache
from hashlib import sha256
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np

from dicomdask.errors import InputError, OptionError
from dicomdask.model import Box

Image = np.ndarray[Any, np.dtype[np.uint8]]

PROCEDURE: Final = 4
"""Counts up when the same model would give other boxes."""

DEADLINE_S: Final = 120.0
"""How long a look at one frame may take; a usual one takes less than a second."""

_PACKAGE: Final = "rapidocr"
_MODEL: Final = "models/PP-OCRv6_det_small.onnx"
_REPORTS: Final = "openvino.tools.ovc"
"""A part of the runtime that is not needed and may tell its maker of its use."""
_MODULES: Final = ("openvino", "cv2", _PACKAGE)


def require() -> None:
    """Check that text can be looked for.

    Raises
    ------
    OptionError
        If the extra is not installed; the message holds the command.
    """
    if any(find_spec(name) is None for name in _MODULES) or not _is_there():
        raise OptionError(
            "looking for text in pixels needs an extra that is not installed, or not "
            'whole: pip install "dicomdask[text]"'
        )


@cache
def identity() -> str:
    """Return what finds the text: package, version, digest of the model, procedure."""
    digest = sha256(_model_file().read_bytes()).hexdigest()[:16]
    return f"{_PACKAGE} {version(_PACKAGE)}, {_MODEL} {digest}, procedure {PROCEDURE}"


def load() -> None:
    """Load the model, so that forks of this process need not."""
    with suppress(Exception):  # whoever looks tells what is wrong
        _network().load(_model_file())


def find_text(image: Image, deadline_s: float = DEADLINE_S) -> list[tuple[Box, float]]:
    """Return where text is in a frame, and how sure that is.

    Parameters
    ----------
    image : ndarray of uint8, shape (rows, columns) or (rows, columns, 3)
        A frame as displayed: bright is bright; colour is RGB.
    deadline_s
        How many seconds the look may take.

    Returns
    -------
    boxes
        In the order of rows, then columns; they may overlap. The score is from 0 to 1.

    Raises
    ------
    InputError
        With code unclean-pixels, if the look failed or was not done in time.
    """
    try:
        network = _network()
        found = network.find(image, model=_model_file(), deadline_s=deadline_s)
    except Exception as error:  # noqa: BLE001 - the runtime's have no base of their own
        fault = type(error).__name__
    else:
        return sorted(found, key=lambda one: (one[0].top, one[0].left, one[0].bottom))
    reason = f"The pixels could not be looked at for text ({fault}); none was kept."
    raise InputError("unclean-pixels", reason)


def _network() -> Any:
    """Return what runs the model, loaded without the part that reports its use."""
    name = "dicomdask.burnedin.network"
    if name in sys.modules:
        return import_module(name)
    before = sys.modules.get(_REPORTS)
    sys.modules[_REPORTS] = before  # type: ignore[assignment]  # None: not to be found
    try:
        return import_module(name)
    finally:
        if before is None:
            sys.modules.pop(_REPORTS, None)


def _is_there() -> bool:
    try:
        return _model_file().is_file() and bool(version(_PACKAGE))
    except PackageNotFoundError:
        return False


def _model_file() -> Path:
    """Return where the model is; its package is not imported, which would log."""
    spec = find_spec(_PACKAGE)
    folders = (spec.submodule_search_locations if spec else None) or ["."]
    return Path(folders[0]) / _MODEL
