"""The server as a user starts it, and its processes as the kernel knows them, for the tests of the command line."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import httpx
import psutil
import pytest

CHAT = {"model": "claude-sonnet-4-5", "messages": [{"role": "user", "content": "Hello"}]}
# For a server that isn't asked for an answer: it starts no Claude Code.
NO_CLAUDE = {"SPARE_PROCESSES": "0", "PROCESS_REUSE": "off"}


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

    def next_request(self) -> dict[str, Any]:
        """Wait for the next line that the log, as JSON, has of a request."""
        line: dict[str, Any] = json.loads(self.read_until(r'.*"event": "request".*')[0])
        return line


Start = Callable[..., Command]


def end(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    """End a process at once."""
    process.kill()
    process.communicate()


def descendants(pid: int | None = None) -> list[psutil.Process]:
    """The processes below `pid`, or below this test run."""
    return psutil.Process(pid).children(recursive=True)


def claude_processes(pid: int | None = None) -> set[psutil.Process]:
    """The Claude Code processes of the server `pid`, or of all servers in this test run."""
    return {child for child in descendants(pid) if "stream-json" in command_of(child)}


def command_of(process: psutil.Process) -> list[str]:
    """The command line of a process; nothing where it is gone."""
    with suppress(psutil.Error):
        return process.cmdline()
    return []


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Ask again and again for what happens in the background and tells nobody, like the end of others' children."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def working(url: str) -> int:
    """How many turns of a server have a place."""
    return int(httpx.get(f"{url}/v1/pool", timeout=30).json()["processes"]["working"])


def shell_script(path: Path, text: str) -> Path:
    """Write a program."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def gone(processes: Iterable[psutil.Process]) -> bool:
    """Whether none of the processes is left, not even as a zombie."""
    return not any(process.is_running() for process in processes)


linux = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc, and only Linux has a parent-death signal")
