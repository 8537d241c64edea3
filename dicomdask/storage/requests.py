"""Requests to a store: sent until they are answered, refused in one sentence.

The libraries below try again by themselves; here each request is tried again from its
start, so that an answer that breaks off in its middle is asked for anew. A request that
ends well answers the same however often it is sent, so that does no harm.
"""

import errno
import json
import os
import random
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, TypeVar

import fsspec

from dicomdask.errors import DicomDaskError, StorageError
from dicomdask.storage.options import options_of

Result = TypeVar("Result")

WAITS: Final = (0.2, 1.0, 4.0)
"""Seconds between tries, give or take a half; the libraries below have their own."""

DEFAULTS: Final[dict[str, dict[str, Any]]] = {
    scheme: {"max_concurrency": 1}  # else a read asks for the size first
    for scheme in ("s3", "s3a")
}
RANGE_NOT_SATISFIABLE: Final = 416
"""What Azure's library says in a class of its own; s3fs says EINVAL."""

ANSWERS: Final = (
    FileNotFoundError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
)
"""What a store says about an object; no request is tried again for it."""
_FINAL: Final = {errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.ENAMETOOLONG}
_NO_ACCESS: Final = {
    "ClientAuthenticationError",
    "NoCredentialsError",
    "PartialCredentialsError",
    "ProfileNotFound",
}


def open_store(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of a URL, and the path on it."""
    scheme, rest = url.split("://", 1)
    root = f"{scheme}://{rest.split('/', 1)[0]}"
    options = json.dumps(options_of(url), sort_keys=True)
    filesystem = filesystem_of(os.getpid(), root, options)
    return filesystem, filesystem._strip_protocol(url)


@lru_cache(maxsize=64)
def filesystem_of(pid: int, root: str, options: str) -> fsspec.AbstractFileSystem:
    """Return one file system for all threads of a process; a fork gets its own."""
    del pid
    scheme = root.split("://", 1)[0]
    own = {"use_listings_cache": False, "skip_instance_cache": True}
    given = {**own, **DEFAULTS.get(scheme, {}), **json.loads(options)}
    try:
        found, _ = fsspec.core.url_to_fs(root, **given)
    except Exception as error:  # noqa: BLE001 - each library has its own
        raise _failure(root, error) from None
    return found


def ask(url: str, function: Callable[..., Result], *args: Any, **options: Any) -> Any:
    """Send a request, again where it may pass the next time.

    Raises
    ------
    StorageError
        If it does not pass: access is denied, or nothing answers.
    """
    for wait in (*WAITS, None):
        try:
            return function(*args, **options)
        except ANSWERS:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _FINAL:
                raise
            if getattr(error, "status_code", None) == RANGE_NOT_SATISFIABLE:
                raise OSError(errno.EINVAL, "the range is behind the end") from None
            is_final = isinstance(error, DicomDaskError) or _is_refusal(error)
            if wait is None or is_final:
                raise _failure(url, error) from None
            time.sleep(wait * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
    return None


def _is_refusal(error: Exception) -> bool:
    names = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, PermissionError) or bool(names & _NO_ACCESS)


def _failure(url: str, error: Exception) -> DicomDaskError:
    """Say what failed. A message of a library may hold anything: only its class."""
    scheme, rest = url.split("://", 1)
    place = f"{scheme}://{rest.split('/', 1)[0]}"
    if isinstance(error, DicomDaskError):
        return error
    if _is_refusal(error):
        return StorageError(
            f"{place} denies access ({type(error).__name__}); check the credentials in "
            "the environment or in --storage-options",
        )
    return StorageError(
        f"{place} does not answer as it should ({type(error).__name__}); check its "
        "address and the network, then run again",
    )
