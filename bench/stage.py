"""What the benchmark runs on: demo upstream and server, each a process of its own, and nothing of this machine."""

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from cli_launch import find_cli
from turns import LaunchProfile

REPOSITORY = Path(__file__).parent.parent
KEYS = tuple(f"bench-key-{number}" for number in range(4))


def scrub(home: str) -> None:
    """Forget the machine's environment, but for a new home: no login of its owner, no setting, no way out."""
    kept = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
    os.environ.clear()
    os.environ.update(kept, HOME=home)


def claude_environment(upstream: str) -> dict[str, str]:
    """Return the environment of a Claude Code process that knows the upstream and no other address."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": os.environ["HOME"],
        "CLAUDE_CONFIG_DIR": f"{os.environ['HOME']}/.claude",
        "ANTHROPIC_API_KEY": "sk-ant-dummy-loopback-only",
        "ANTHROPIC_BASE_URL": upstream,
    }


def launch_profile(upstream: str) -> LaunchProfile:
    """Return what a raw process is started with: the same as the server's."""
    environment = tuple(sorted(claude_environment(upstream).items()))
    working_directory = Path(tempfile.mkdtemp(dir=os.environ["HOME"]))
    return LaunchProfile(find_cli(None), environment, working_directory, bare=True)


@contextmanager
def _running(*command: str, environment: Mapping[str, str], ready: str) -> Generator[tuple[int, str], None, None]:
    """Start a Python program; yield its process id and what `ready` finds in its output, once it is there."""
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        found = next(match for line in process.stdout if (match := re.search(ready, line)))
        yield process.pid, found[0]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
        process.stdout.close()


@dataclass(frozen=True)
class OurServer:
    """Our server, running."""

    url: str
    pid: int

    def memory(self) -> tuple[float, float]:
        """Return the server's own resident memory, and the most that one of its processes has, in MB."""
        server = psutil.Process(self.pid)
        children = [child.memory_info().rss for child in server.children(recursive=True)]
        return server.memory_info().rss / 2**20, max(children, default=0) / 2**20

    def processes(self) -> list[psutil.Process]:
        """Return the processes that the server started."""
        return psutil.Process(self.pid).children(recursive=True)


@dataclass(frozen=True)
class Stage:
    """Everything that runs."""

    upstream: str
    server: OurServer | None


@contextmanager
def running_server(upstream: str, settings: Mapping[str, str]) -> Generator[OurServer, None, None]:
    """Start our server in front of an upstream, with these settings; end it."""
    usual = {
        "API_KEYS": ",".join(KEYS),
        "LOG_LEVEL": "ERROR",
        "PROCESS_REUSE": "on",
        "PYTHONUNBUFFERED": "1",
        "RATE_LIMIT_ENABLED": "false",
    }
    environment = {**claude_environment(upstream), **usual, **settings}
    with _running("main.py", "0", environment=environment, ready=r"http://\S+:\d+") as (pid, url):
        yield OurServer(url, pid)


@contextmanager
def set_up(*, with_server: bool, processes: int) -> Generator[Stage, None, None]:
    """Start the upstream, and our server in front of it with room for `processes`; end both."""
    with ExitStack() as stack:
        path = {"PATH": os.environ["PATH"]}
        _, upstream = stack.enter_context(_running("demo_upstream.py", environment=path, ready=r"http://\S+"))
        server = None
        if with_server:
            server = stack.enter_context(running_server(upstream, {"MAX_PROCESSES": str(processes)}))
        yield Stage(upstream, server)
