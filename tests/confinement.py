"""Commands in a place of their own, made by bubblewrap: as a container has it, without a container's image."""

import sys
from collections.abc import Sequence
from pathlib import Path

from conftest import REPOSITORY
from real_services import find_program

DEMO = ("main.py", "0", "--demo")
"""What Python is to run."""


def confined(*command: str, tmpfs: Sequence[str], sizes: dict[str, int] | None = None) -> list[str]:
    """Return a command that runs another as nobody special, on a read-only file system.

    It may write to the `tmpfs` only, which are empty, and hold so many bytes (`sizes`), or as much as there is memory.
    Its user is 1000, it has no capabilities, and it is alone with its children.
    """
    own = {REPOSITORY, Path(sys.prefix), Path(sys.base_prefix)}
    places = [word for place in tmpfs for word in (*_size(place, sizes or {}), "--tmpfs", place)]
    kept = [word for path in sorted(map(str, own)) for word in ("--ro-bind", path, path)]
    user = ("--unshare-user", "--uid", "1000", "--gid", "1000", "--cap-drop", "ALL", "--unshare-pid")
    base = ("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--die-with-parent")
    return [find_program("bwrap"), *base, *places, *kept, *user, "--chdir", str(REPOSITORY), "--", *command]


def _size(place: str, sizes: dict[str, int]) -> Sequence[str]:
    return ("--size", str(sizes[place])) if place in sizes else ()
