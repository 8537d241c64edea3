"""Which schedulers may be spoken to: whoever reaches one runs code as its workers do.

So a connection is TLS with certificates on both sides, or it stays on this machine and
the user said so.
"""

import ipaddress
import json
import re
from pathlib import Path
from typing import Final

from dicomdask.errors import OptionError, PlanError

HOST_AND_PORT: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[\w.-]+)(:\d+)?/?", re.ASCII)
LOOPBACK: Final = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1"))
HOW_TO_GET_TLS: Final = (
    "start the scheduler and its workers with --protocol tls and certificates "
    "(--tls-ca-file, --tls-cert, --tls-key), and give their tls:// address"
)


def read_address(scheduler: str) -> str:
    """Return an address as it is, and the one that a scheduler file holds.

    Raises
    ------
    OptionError, PlanError
        If it is neither.
    """
    if "://" in scheduler:
        return scheduler
    if not Path(scheduler).is_file():
        raise OptionError(
            f"{scheduler} is neither synchronous, threads, processes, an address such "
            "as tls://host:8786, nor a scheduler file; check --scheduler"
        )
    try:
        return str(json.loads(Path(scheduler).read_bytes())["address"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PlanError(
            f"{scheduler} is no scheduler file ({type(error).__name__}); start the "
            "scheduler anew, or leave --scheduler out to run on this machine"
        ) from None


def check_address(address: str, *, insecure: bool = False) -> None:
    """Raise OptionError for a scheduler that others could listen or speak to.

    Parameters
    ----------
    address
        As Dask writes it: `tls://host:8786`.
    insecure
        Whether the user allows plain TCP; even so only within this machine.
    """
    protocol, _, place = address.partition("://")
    if protocol in ("tls", "inproc"):  # inproc: the caller's own process
        return
    if protocol != "tcp":
        raise OptionError(
            f"{protocol}:// is no way to a scheduler that can be trusted; "
            f"{HOW_TO_GET_TLS}"
        )
    if not _is_loopback(place):
        raise OptionError(
            "tcp:// to another machine is neither encrypted nor authenticated; "
            f"{HOW_TO_GET_TLS}"
        )
    if not insecure:
        raise OptionError(
            "tcp:// lets every user of this machine run code on the workers; "
            f"{HOW_TO_GET_TLS}, or allow it with --insecure-scheduler"
        )


def _is_loopback(place: str) -> bool:
    found = HOST_AND_PORT.fullmatch(place)
    if found is None:
        return False
    host = found[1].strip("[]")
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(address in network for network in LOOPBACK)
