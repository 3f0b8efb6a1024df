"""What holds for the tests of all packages: none of them asks the network."""

import ipaddress
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # also for the processes that tests start


def _is_here(host: Any) -> bool:
    """Tell whether a host is this machine: browsers and worker processes are spoken to so."""
    name = host.decode() if isinstance(host, bytes) else host
    if name in (None, "", "localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True, scope="session")
def _no_network() -> Iterator[None]:
    """Refuse every connection and look-up that leaves the machine; fail though it be caught."""
    asked: list[str] = []
    look_up, connect, connect_ex = (
        socket.getaddrinfo,
        socket.socket.connect,
        socket.socket.connect_ex,
    )

    def check(host: Any) -> None:
        if not _is_here(host):
            asked.append(f"{os.environ.get('PYTEST_CURRENT_TEST')}: {host}")
            raise RuntimeError(f"tests must not ask the network, and this one asks {host!r}")

    def checked(function: Any) -> Any:
        def connect_here(self: socket.socket, address: Any) -> Any:
            if isinstance(address, tuple):  # Unix sockets have a path
                check(address[0])
            return function(self, address)

        return connect_here

    def look_up_here(host: Any, *arguments: Any, **options: Any) -> Any:
        check(host)
        return look_up(host, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", look_up_here)
        patch.setattr(socket.socket, "connect", checked(connect))
        patch.setattr(socket.socket, "connect_ex", checked(connect_ex))
        yield
        asked_on_purpose = "test_network.py"
        assert [place for place in asked if asked_on_purpose not in place] == []
