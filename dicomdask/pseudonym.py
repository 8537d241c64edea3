"""Keyed replacement values: the same on every worker, today and next year.

A pseudonym is an HMAC-SHA256 of a secret key and the old value, so no table of old and
new values is needed and workers agree without talking to each other. The key itself
never travels: tasks carry a `KeyReference`, and each worker resolves it by itself.
"""

import hashlib
import hmac
import os
import secrets
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dicomdask.errors import PolicyError

ENVIRONMENT_VARIABLE: Final = "DICOMDASK_KEY"
MIN_KEY_BYTES: Final = 16
MAX_SHIFT_DAYS: Final = 3650


@dataclass(frozen=True, slots=True)
class KeyReference:
    """Where the key is: a local file, or the environment when `path` is None."""

    path: str | None = None


class Key:
    """A secret key and what is derived from it.

    Parameters
    ----------
    secret
        At least 16 bytes (128 bits).

    Raises
    ------
    PolicyError
        If the secret is too short.
    """

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        if len(secret) < MIN_KEY_BYTES:
            raise PolicyError(
                f"the key has {len(secret)} bytes; at least {MIN_KEY_BYTES} are "
                "needed: make one with `openssl rand -hex 32`"
            )
        self._secret = secret

    def __repr__(self) -> str:
        return f"Key({self.fingerprint()})"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a key is never pickled; pass a KeyReference")

    def _mac(self, purpose: str, parts: tuple[str, ...]) -> bytes:
        message = "\x1f".join([purpose, *(f"{len(part)}:{part}" for part in parts)])
        data = message.encode("utf-8", "surrogateescape")
        return hmac.digest(self._secret, data, hashlib.sha256)

    def digest(self, purpose: str, *parts: str, nbytes: int = 16) -> str:
        """Return a keyed digest in hex; `purpose` keeps different uses apart."""
        return self._mac(purpose, parts)[:nbytes].hex()

    def uid(self, old: str) -> str:
        """Return the UID that replaces `old`: 2.25 with the bits of a UUIDv8.

        PS3.5 B.2; RFC 9562 section 5.8.
        """
        bits = int.from_bytes(self._mac("uid", (old,))[:16], "big")
        bits = bits & ~(0xF << 76) | (0x8 << 76)  # version 8
        bits = bits & ~(0x3 << 62) | (0x2 << 62)  # variant
        return f"2.25.{uuid.UUID(int=bits).int}"

    def shift_days(self, patient: str) -> int:
        """Return by how many days a patient's dates move: never 0, always back."""
        number = int.from_bytes(self._mac("shift", (patient,))[:8], "big")
        return -(1 + number % MAX_SHIFT_DAYS)

    def fingerprint(self) -> str:
        """Return a short name of the key that tells nothing about it."""
        return self.digest("fingerprint", nbytes=8)


def resolve_key(reference: KeyReference) -> Key:
    """Return the key that a reference names.

    Raises
    ------
    PolicyError
        If there is no key where the reference points to.
    """
    if reference.path is None:
        text = os.environ.get(ENVIRONMENT_VARIABLE)
        if not text:
            raise PolicyError(
                f"no key: set {ENVIRONMENT_VARIABLE} or pass --key-file "
                "(on a cluster, on every worker)"
            )
        return Key(text.strip().encode())
    try:
        return Key(Path(reference.path).read_bytes().strip())
    except OSError as error:
        raise PolicyError(
            f"the key file {reference.path} cannot be read ({error.strerror}); "
            "it must be readable on every worker"
        ) from None


def create_key_file(path: Path) -> None:
    """Write a new random key, readable by its owner only, unless one is there.

    The key appears whole or not at all; of several writers one wins. One that is there
    is closed to others, as the folder around it is.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.exists():
        with suppress(PermissionError):  # somebody else's: they decide
            path.chmod(0o600)
        return
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink()
