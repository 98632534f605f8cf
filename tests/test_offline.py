"""Nothing but the models themselves is ever connected to: checked where connections are made."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

GUARD = """
import socket, sys
reached = []
real_connect, real_lookup = socket.socket.connect, socket.getaddrinfo
def connect(self, address):
    if isinstance(address, tuple) and not str(address[0]).startswith("127."):
        reached.append(address)
        raise OSError("no network in this test")
    return real_connect(self, address)
def lookup(host, *rest, **more):
    if host not in (None, "localhost") and not str(host).startswith("127."):
        reached.append(host)
        raise socket.gaierror("no network in this test")
    return real_lookup(host, *rest, **more)
socket.socket.connect, socket.getaddrinfo = connect, lookup
sys.argv = {argv!r}
try:
    from cappy_select.cli import main
    main()
finally:
    print("REACHED", reached, file=sys.stderr)
"""


@pytest.mark.parametrize(
    "argv", [["cappy", "demo"], ["cappy", "rank", "What label? Oil prices rose.", "Sports", "Business"]]
)
def test_the_command_reaches_no_network(argv):
    env = {name: value for name, value in os.environ.items() if not name.startswith(("LITELLM_", "HF_"))}
    command = [sys.executable, "-c", GUARD.replace("{argv!r}", repr(argv))]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip().endswith("REACHED []")
