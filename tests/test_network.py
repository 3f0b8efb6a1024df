"""No network at import or in tests."""

import socket
import subprocess
import sys

import pytest

IMPORT_ALL = """
import importlib, pkgutil, socket, sys

def refuse(*arguments, **options):
    raise SystemExit(f"an import asks the network: {arguments}")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
for name in sys.argv[1:]:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, f"{name}."):
        importlib.import_module(module.name)
"""
PACKAGES = ("stpn_kernels", "stpn_core", "stpn_backbones", "stpn_data", "stpn_tasks")


def test_no_module_asks_the_network_when_it_is_imported():
    subprocess.run([sys.executable, "-c", IMPORT_ALL, *PACKAGES], check=True)


def test_tests_cannot_reach_the_network():
    with pytest.raises(RuntimeError, match=r"asks 'example\.org'"):
        socket.getaddrinfo("example.org", 443)
    with (
        socket.socket() as there,
        pytest.raises(RuntimeError, match=r"asks '192\.0\.2\.1'"),
    ):
        there.connect(("192.0.2.1", 443))


def test_tests_reach_their_own_machine():
    with socket.create_server(("localhost", 0)) as server:
        socket.create_connection(server.getsockname()).close()
