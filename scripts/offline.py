"""Run a command in a network of its own, which has no other machine in it: `offline.py COMMAND…`.

Where this machine doesn't allow that (it needs Linux, with `unshare` and the right to use it) the command runs all the
same, after a word of it.
"""

import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys

_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1
_INSIDE = "--inside"


def bring_up_loopback() -> None:
    """Let a new network's own addresses be reached: see netdevice(7)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))


def main(arguments: list[str]) -> None:
    """Become the command."""
    if arguments[0] == _INSIDE:
        bring_up_loopback()
        os.execvp(arguments[1], arguments[1:])  # noqa: S606  # Our own arguments.
    # Whoever isn't root may make a network only in a user namespace, and needs its rights to bring up loopback there.
    rights = [] if os.geteuid() == 0 else ["--map-current-user", "--keep-caps"]
    inside = [shutil.which("unshare") or "unshare", "--net", *rights, sys.executable, __file__, _INSIDE]
    try:
        subprocess.run([*inside, "true"], check=True, capture_output=True)  # noqa: S603  # Our own arguments.
    except (OSError, subprocess.CalledProcessError):
        print("This machine gives out no networks: what follows could reach others.", file=sys.stderr)
        os.execvp(arguments[0], arguments)  # noqa: S606  # Our own arguments.
    os.execv(inside[0], [*inside, *arguments])  # noqa: S606  # Our own arguments.


if __name__ == "__main__":
    main(sys.argv[1:])
