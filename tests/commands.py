"""The server as a user starts it, and its processes as the kernel knows them, for the tests of the command line."""

import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

CHAT = {"model": "claude-sonnet-4-5", "messages": [{"role": "user", "content": "Hello"}]}


class Command:
    """A server that was started as a user starts it."""

    def __init__(self, process: subprocess.Popen[str], output: IO[str]) -> None:
        self.process = process
        self._output = output
        self.lines: list[str] = []

    def read_until(self, pattern: str) -> re.Match[str]:
        """Read the output until a line matches."""
        for line in self._output:
            self.lines.append(line)
            if match := re.search(pattern, line):
                return match
        raise AssertionError("".join(self.lines))

    def url(self) -> str:
        """Wait for the server's address."""
        address = self.read_until(r"http://\S+:\d+")[0]
        self.read_until("startup complete")
        return address


Start = Callable[..., Command]


def end(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    """End a process at once."""
    process.kill()
    process.communicate()


def descendants(pid: int) -> set[int]:
    """The processes below `pid`, from the kernel."""
    found: set[int] = set()
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, children.read_text().split()):
            found |= {child} | descendants(child)
    return found


def claude_processes(pid: int) -> set[int]:
    """The Claude Code processes of the server `pid`."""
    return {child for child in descendants(pid) if b"stream-json" in Path(f"/proc/{child}/cmdline").read_bytes()}


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Ask the kernel again and again: it has no event for the end of somebody else's child."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def gone(pids: set[int]) -> bool:
    """Whether none of the processes is left, not even as a zombie."""
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


linux = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc, and only Linux has a parent-death signal")
