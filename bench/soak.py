"""Everything at once, for as long as it is told to, with faults in it: `make soak ARGS=10` (minutes).

The server and its Claude Code processes are real; the model is demo_upstream.py. Each request has a mark of its own,
which its answer has to bring back, and each kind of request says which outcomes are right. The table is Markdown, as
docs/reliability.md has it; the exit status is 1 where anything was lost, mixed up, unexpected or left behind.
"""

import argparse
import random
import signal
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory

import anyio
import httpx
import psutil

from demo_upstream import DemoUpstream
from soak_clients import CLIENTS, FAULTS, Clients, Outcome
from stage import KEYS, OurServer, running_server, scrub

_KILL_EVERY_SECONDS = 5
_LOOK_EVERY_SECONDS = 2
_IDLE_CONNECTIONS = 500
_SETTINGS = {
    "MAX_PROCESSES": "6",
    "FIRST_TOKEN_TIMEOUT": "3",
    "IDLE_TIMEOUT": "3",
    "UPSTREAM_RETRIES": "1",
    "QUEUE_TIMEOUT": "120",
    "MAX_REQUEST_SIZE": str(2**20),
    "WORKSPACE_MAX_MB": "10",
}


@dataclass
class Watch:
    """What is seen of the server while it runs."""

    memory: list[float] = field(default_factory=list)
    """The server's own, in MB, every now and then."""
    most_processes: int = 0
    killed: int = 0

    async def look(self, server: OurServer) -> None:
        """Look again and again."""
        while True:
            with suppress(psutil.NoSuchProcess):
                self.memory.append(server.memory()[0])
                self.most_processes = max(self.most_processes, len(_claude_processes(server)))
            await anyio.sleep(_LOOK_EVERY_SECONDS)

    async def kill(self, server: OurServer) -> None:
        """Kill one of its processes again and again, whatever it does."""
        while True:
            await anyio.sleep(_KILL_EVERY_SECONDS)
            if processes := _claude_processes(server):
                with suppress(psutil.NoSuchProcess):
                    random.choice(processes).send_signal(signal.SIGKILL)
                    self.killed += 1

    def tenth(self, number: int) -> float:
        """Return the usual memory of this tenth of the time, counted from 0, or from the end."""
        size = max(1, len(self.memory) // 10)
        parts = [self.memory[begin : begin + size] for begin in range(0, len(self.memory), size)]
        return statistics.median(parts[number])


def _claude_processes(server: OurServer) -> list[psutil.Process]:
    found = []
    for process in server.processes():
        with suppress(psutil.Error):
            if "stream-json" in process.cmdline():
                found.append(process)
    return found


async def soak(seconds: float, server: OurServer, upstream: DemoUpstream) -> tuple[list[Outcome], Watch]:
    """Play all kinds of clients at once; return what they got, and what was seen of the server."""
    outcomes, watch = list[Outcome](), Watch()
    deadline = time.monotonic() + seconds
    limits = httpx.Limits(max_connections=200, max_keepalive_connections=50)
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=server.url, timeout=180, limits=limits))
        clients = Clients(http, upstream, KEYS)
        for name, reply in FAULTS.items():
            upstream.script(reply, when=f"fault {name}.", times=None)
        watching = await stack.enter_async_context(anyio.create_task_group())
        stack.callback(watching.cancel_scope.cancel)
        watching.start_soon(watch.look, server)
        watching.start_soon(watch.kill, server)
        for _ in range(_IDLE_CONNECTIONS):
            host, _, port = server.url.removeprefix("http://").partition(":")
            await stack.enter_async_context(await anyio.connect_tcp(host, int(port)))
        async with anyio.create_task_group() as playing:
            for kind, (client, number) in CLIENTS.items():
                for _ in range(number):
                    playing.start_soon(_play, kind, client, clients, deadline, outcomes)
    return outcomes, watch


async def _play(
    kind: str,
    client: Callable[[Clients], Awaitable[Outcome]],
    clients: Clients,
    deadline: float,
    outcomes: list[Outcome],
) -> None:
    while time.monotonic() < deadline:
        outcome = await client(clients)
        outcomes.append(outcome.of(kind))
        clients.forget_records()


def table(seconds: float, outcomes: Sequence[Outcome], watch: Watch, left: int) -> str:
    """Return the report, as Markdown."""
    counted: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for outcome in outcomes:
        counted[outcome.kind][outcome.result] += 1
    lines = [
        "| requests | sent | answered | refused or failed, as it should be | failed as its process was killed | left |"
    ]
    lines.append("|---|---:|---:|---:|---:|---:|")
    for kind in CLIENTS:
        each = counted[kind]
        row = [each.total(), *(each[result] for result in ("answered", "expected error", "killed", "left"))]
        lines.append(f"| {kind} | {' | '.join(map(str, row))} |")
    warm, last = watch.tenth(1), watch.tenth(-1)
    lines += ["", "| in all | |", "|---|---:|"]
    for name, value in {
        "seconds": f"{seconds:.0f}",
        "requests": len(outcomes),
        "requests a second": f"{len(outcomes) / seconds:.1f}",
        "connections open beside them": _IDLE_CONNECTIONS,
        "Claude Code processes that were killed": watch.killed,
        "the most Claude Code processes at a time": watch.most_processes,
        "lost: no answer, and no honest error": _count(outcomes, "lost"),
        "mixed up: somebody else's answer": _count(outcomes, "mixed up"),
        "unexpected: an error that nothing explains": _count(outcomes, "unexpected"),
        "processes left behind": left,
        "the server's memory, second tenth": f"{warm:.0f} MB",
        "the server's memory, last tenth": f"{last:.0f} MB",
    }.items():
        lines.append(f"| {name} | {value} |")
    return "\n".join(lines)


def _count(outcomes: Sequence[Outcome], result: str) -> int:
    return sum(outcome.result == result for outcome in outcomes)


async def _run(seconds: float) -> int:
    upstream = DemoUpstream()
    async with upstream.serve() as url:
        with running_server(url, _SETTINGS) as server:
            outcomes, watch = await soak(seconds, server, upstream)
            children = server.processes()
        left = len([child for child in children if child.is_running()])
    print(table(seconds, outcomes, watch, left))
    bad = [outcome for outcome in outcomes if outcome.result in ("lost", "mixed up", "unexpected")]
    for outcome in bad[:20]:
        print(outcome, file=sys.stderr)
    return 1 if bad or left else 0


def main() -> int:
    """Run it; return 1 where something went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("minutes", nargs="?", type=float, default=10)
    minutes: float = parser.parse_args().minutes
    with TemporaryDirectory(prefix="claude-wrapper-soak-", ignore_cleanup_errors=True) as home:
        scrub(home)
        return anyio.run(_run, minutes * 60)


if __name__ == "__main__":
    sys.exit(main())
