"""URLs: what they stand for, and how they are joined."""

import os
from typing import Final
from urllib.parse import urlsplit

import fsspec

from dicomdask.errors import StoreError
from dicomdask.storage.local import decode_path, encode_path

EXTRAS: Final = {
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), "adlfs"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("s3", "s3a"), "s3fs"),
    **dict.fromkeys(("http", "https"), "aiohttp"),
    **dict.fromkeys(("sftp", "ssh"), "paramiko"),
}
"""The package that fsspec needs for a scheme."""


def is_local(url: str) -> bool:
    """Return whether a URL is a path of this machine."""
    return "://" not in url or url.startswith("file://")


def join(base: str, *names: str) -> str:
    """Return the URL of an object below `base`."""
    return "/".join([base.rstrip("/"), *names])


def resolve(url: str) -> str:
    """Return a URL, or the absolute path of a local one, in the form tables keep.

    Raises
    ------
    StoreError
        If nothing installed reads such URLs, or it holds a password.
    """
    if is_local(url):
        return encode_path(os.path.abspath(decode_path(url)))
    scheme = url.split("://", 1)[0]
    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError:
        package = EXTRAS.get(scheme, "a package of its own")
        raise StoreError(
            f"{scheme}:// needs {package}; install it, on every worker too"
        ) from None
    except ValueError:
        raise StoreError(
            f"{scheme}:// is unknown; give a local path or a URL that fsspec reads"
        ) from None
    if "@" in urlsplit(url).netloc and ":" in urlsplit(url).netloc.split("@")[0]:
        raise StoreError(
            f"the {scheme}:// URL holds a password, which would be written down; give "
            "it by --storage-options"
        )
    return url.rstrip("/")
