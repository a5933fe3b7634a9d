"""`scripts/offline.py`: a command's network has itself in it, and nobody else."""

import subprocess
import sys

import pytest

from conftest import REPOSITORY, clean_environment

PROGRAM = """
import socket
with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
    print(*(name for _, name in socket.if_nameindex()))
"""
# As whom a command runs: this user, and one who isn't root and has no rights.
USERS = {"this user": (), "nobody": ("unshare", "--map-user=65534", "--map-group=65534")}


@pytest.mark.parametrize("user", USERS)
def test_loopback_is_all_there_is(user: str) -> None:
    """It can be listened on and connected to."""
    python, script = sys.executable, str(REPOSITORY / "scripts" / "offline.py")
    result = subprocess.run(
        [*USERS[user], python, script, python, "-c", PROGRAM],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    if result.stderr.startswith(("unshare:", "This machine gives out no networks")):
        pytest.skip("this machine gives out no networks, or no users")
    assert result.stdout.split() == ["lo"], result.stderr
