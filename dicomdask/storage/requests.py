"""Requests to a store: sent until they are answered, refused in one sentence.

The libraries below try again by themselves; here each request is tried again from its
start, so that an answer that breaks off in its middle is asked for anew. A request that
ends well answers the same however often it is sent, so that does no harm.
"""

import asyncio
import errno
import json
import os
import random
import time
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any, Final, TypeVar

import fsspec

from dicomdask.errors import DicomDaskError, StorageError
from dicomdask.limits import AHEAD_FILES
from dicomdask.storage.options import forget_options, options_of

Result = TypeVar("Result")

WAITS: Final = (0.2, 1.0, 4.0)
"""Seconds between tries, give or take a half; the libraries below have their own."""

DEFAULTS: Final[dict[str, dict[str, Any]]] = {
    scheme: {
        "max_concurrency": 1,  # else a read asks for the size first
        "config_kwargs": {"max_pool_connections": AHEAD_FILES},
    }
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


_renewals: dict[str, int] = {}  # by root: how often its credentials were read anew


def open_store(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of a URL, and the path on it."""
    root = _root(url)
    options = json.dumps(options_of(url), sort_keys=True)
    filesystem = filesystem_of(os.getpid(), root, options, _renewals.get(root, 0))
    return filesystem, filesystem._strip_protocol(url)


def _root(url: str) -> str:
    scheme, rest = url.split("://", 1)
    return f"{scheme}://{rest.split('/', 1)[0]}"


@lru_cache(maxsize=64)
def filesystem_of(
    pid: int, root: str, options: str, renewals: int
) -> fsspec.AbstractFileSystem:
    """Return one file system for all threads of a process; a fork gets its own."""
    del pid, renewals
    scheme = root.split("://", 1)[0]
    own = {"use_listings_cache": False, "skip_instance_cache": True}
    given = {**own, **_with_defaults(json.loads(options), DEFAULTS.get(scheme, {}))}
    try:
        found, _ = fsspec.core.url_to_fs(root, **given)
    except Exception as error:  # noqa: BLE001 - each library has its own
        raise _failure(root, error) from None
    return found


def _with_defaults(options: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Return options, and defaults for what they do not say, at any depth."""
    found = {**defaults, **options}
    for name in defaults.keys() & options.keys():
        if isinstance(defaults[name], dict) and isinstance(options[name], dict):
            found[name] = _with_defaults(options[name], defaults[name])
    return found


def renewed(
    url: str, old: fsspec.AbstractFileSystem
) -> tuple[fsspec.AbstractFileSystem, str]:
    """Open a store anew: its credentials may be others by now. Of many who ask, one."""
    if open_store(url)[0] is old:
        forget_options()
        _renewals[_root(url)] = _renewals.get(_root(url), 0) + 1
    return open_store(url)


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
        except Exception as error:  # noqa: BLE001 - each library has its own
            _check_hope(url, error, is_last=wait is None or _is_refusal(error))
            time.sleep(_about(wait))
    return None


async def ask_from_loop(
    url: str,
    function: Callable[[fsspec.AbstractFileSystem, str], Awaitable[Any]],
    *,
    is_patient: bool = True,
) -> Any:
    """Do what `ask` does in the event loop of a store.

    Who is patient and is refused asks again as well, with the credentials that are
    there by then: those of a store that was read before, which go in mid-epoch.
    """
    filesystem, path = open_store(url)
    for wait in (*WAITS, None):
        try:
            return await function(filesystem, path)
        except ANSWERS:
            raise
        except Exception as error:  # noqa: BLE001 - each library has its own
            is_last = wait is None or not (is_patient or not _is_refusal(error))
            _check_hope(url, error, is_last=is_last)
            await asyncio.sleep(_about(wait))
            if _is_refusal(error):
                filesystem, path = await asyncio.to_thread(renewed, url, filesystem)
    return None


def _about(wait: float | None) -> float:
    return (wait or 0) * random.uniform(0.5, 1.5)  # noqa: S311 - no secret


def _check_hope(url: str, error: Exception, *, is_last: bool) -> None:
    """Raise what an error means, unless the request may pass the next time."""
    if isinstance(error, OSError) and error.errno in _FINAL:
        raise error
    if getattr(error, "status_code", None) == RANGE_NOT_SATISFIABLE:
        raise OSError(errno.EINVAL, "the range is behind the end") from None
    if is_last or isinstance(error, DicomDaskError):
        raise _failure(url, error) from None


def _is_refusal(error: Exception) -> bool:
    names = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, PermissionError) or bool(names & _NO_ACCESS)


def _failure(url: str, error: Exception) -> DicomDaskError:
    """Say what failed. A message of a library may hold anything: only its class."""
    place = _root(url)
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
