"""What opens a store: credentials, endpoints, regions. By reference, never written.

The environment names them, as a JSON text or as the path of a JSON file, so that this
process and those it starts resolve them by themselves and nothing else carries them.
Without it, fsspec and the libraries below look where they always do: `AWS_*`,
`FSSPEC_S3_*`, `~/.aws`, instance roles.
"""

import json
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import fsspec

from dicomdask.errors import OptionError

OPTIONS_VARIABLE: Final = "DICOMDASK_STORAGE_OPTIONS"


def use_options(options: Mapping[str, Any] | str, *, url: str | None = None) -> None:
    """Let this process, and those it starts, open stores with these options.

    Parameters
    ----------
    options
        What fsspec's file system takes, such as ``{"endpoint_url": "https://…"}``; or
        such options by scheme or URL: ``{"s3://hospital": {…}, "s3": {…}}``, of which
        the longest that fits counts. As a mapping, a JSON text or the path of a file
        that holds it.
    url
        Only for what lies below this URL.

    Raises
    ------
    OptionError
        If they cannot be read. The message holds nothing of them.
    """
    told = options if isinstance(options, str) else json.dumps(dict(options))
    if url is None and not told.lstrip().startswith("{"):
        told = str(Path(told).absolute())
    found = _by_prefix(told)
    if url is not None:
        mine = {
            (url if prefix in ("", url) else prefix): some
            for prefix, some in found.items()
        }
        before = _by_prefix(os.environ.get(OPTIONS_VARIABLE, ""))
        told = json.dumps({**before, **mine})
    os.environ[OPTIONS_VARIABLE] = told


def options_of(url: str) -> dict[str, Any]:
    """Return the options that the environment names for a URL; none by default.

    Raises
    ------
    OptionError
        If they cannot be read, on this machine.
    """
    by_prefix = _by_prefix(os.environ.get(OPTIONS_VARIABLE, ""))
    fitting = [prefix for prefix in by_prefix if _fits(prefix, url)]
    return dict(by_prefix[max(fitting, key=len)]) if fitting else {}


def _fits(prefix: str, url: str) -> bool:
    if "://" not in prefix:
        return prefix in ("", url.split("://", 1)[0])
    return f"{url}/".startswith(prefix.rstrip("/") + "/")


@lru_cache(maxsize=8)
def _by_prefix(told: str) -> Mapping[str, Mapping[str, Any]]:
    """Return options by scheme or URL; the empty prefix fits everything."""
    if not told:
        return {}
    try:
        text = told if told.lstrip().startswith("{") else Path(told).read_text()
        found = json.loads(text)
    except OSError as error:
        raise OptionError(
            f"the storage options in {told} cannot be read ({error.strerror}); the "
            "file must be readable on every worker"
        ) from None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise OptionError(
            f"the storage options (--storage-options, {OPTIONS_VARIABLE}) are no JSON "
            'object; write {"endpoint_url": "https://…"} or the path of such a file'
        )
    schemes = set(fsspec.available_protocols())
    is_keyed = all("://" in name or name in schemes for name in found)
    return found if is_keyed and found else {"": found}


def forget_options() -> None:
    """Read options anew from the files that hold them, when next asked."""
    _by_prefix.cache_clear()
