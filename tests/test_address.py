"""Which schedulers may be spoken to: TLS anywhere, TCP here and by a flag only."""

import pytest

from dicomdask.address import check_address
from dicomdask.errors import OptionError

HERE = [
    "tcp://127.0.0.1:8786",
    "tcp://127.9.8.7:1",
    "tcp://localhost:8786",
    "tcp://[::1]:8786",
]
ELSEWHERE = [
    "tcp://10.0.0.1:8786",
    "tcp://scheduler.example:8786",
    "tcp://localhost.example:8786",
    "tcp://127.0.0.1.example:8786",
    "tcp://127.0.0.1@example:8786",
    "tcp://127.0.0.1:8786@example",
    "tcp://example/127.0.0.1:8786",
    "tcp://example#127.0.0.1:8786",
    "tcp://127.0.0.1:8786,tcp://example:8786",
    "tcp://0.0.0.0:8786",
    "tcp://[::]:8786",
    "tcp://[::ffff:10.0.0.1]:8786",
    "tcp://127.0.0.1:8786\n",
    "tcp://",
    "tcp://:8786",
]
OTHERS = ["ws://127.0.0.1:1", "wss://a:1", "ucx://127.0.0.1:1", "TLS://a:1", "http://a"]


@pytest.mark.parametrize("address", ["tls://scheduler.example:8786", "inproc://1/2"])
def test_tls_and_the_own_process_need_no_flag(address):
    check_address(address)


@pytest.mark.parametrize("address", HERE)
def test_plain_tcp_on_this_machine_needs_the_flag(address):
    with pytest.raises(OptionError, match="--insecure-scheduler") as raised:
        check_address(address)
    assert "--protocol tls" in str(raised.value)
    check_address(address, insecure=True)


@pytest.mark.parametrize("address", [*ELSEWHERE, *OTHERS])
@pytest.mark.parametrize("insecure", [True, False])
def test_all_else_is_refused_with_the_way_to_tls(address, insecure):
    with pytest.raises(OptionError, match="--protocol tls") as raised:
        check_address(address, insecure=insecure)
    assert "--insecure-scheduler" not in str(raised.value)
