"""A pool with few processes, and clients of it, for the tests of what processes serve whom."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio

from claude_process import ClaudeProcess
from demo_upstream import DemoUpstream
from process_pool import Lease, PoolLimits, ProcessPool
from turns import Binding, LaunchProfile, Message, TextBlock, TextDelta, TurnEvent, TurnRequest

MODEL = "claude-sonnet-4-5"
BINDING = Binding(MODEL, "Be brief.")


def request_of(*texts: str, binding: Binding = BINDING) -> TurnRequest:
    """A conversation, the user's text first, the user's last."""
    messages = [Message("assistant" if index % 2 else "user", (TextBlock(text),)) for index, text in enumerate(texts)]
    return TurnRequest(binding, tuple(messages[:-1]), messages[-1])


HELLO = request_of("Hello")


@asynccontextmanager
async def opened(profile: LaunchProfile, *, reuse: bool = True, **limits: Any) -> AsyncGenerator["Clients", None]:
    """A pool with these limits, and clients of it."""
    defaults: dict[str, Any] = {
        "processes": 2,
        "spares": 0,
        "queue_timeout": 20,
        "park_seconds": 60,
        "turns": 100,
        "memory": 2**40,
    }

    async def may_reuse() -> bool:
        return reuse

    clock = Clock()
    untold: list[tuple[str, float]] = []

    async def note(owner: str, cost: float) -> None:
        untold.append((owner, cost))

    async with ProcessPool.open(PoolLimits(**{**defaults, **limits}), profile, may_reuse, note, clock) as pool:
        yield Clients(pool, profile, clock, untold)


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


class Clients:
    """Those who use a pool."""

    def __init__(
        self, pool: ProcessPool, profile: LaunchProfile, clock: "Clock", untold: list[tuple[str, float]]
    ) -> None:
        self.pool, self.profile, self.clock, self.untold = pool, profile, clock, untold

    @asynccontextmanager
    async def lease(self, request: TurnRequest, owner: str = "anna") -> AsyncGenerator[Lease, None]:
        """Lend a process."""
        async with self.pool.lease(request, owner, self.profile) as lease:
            yield lease

    async def ask(self, *texts: str, owner: str = "anna", binding: Binding = BINDING) -> str:
        """Have a conversation answered; return where the process came from."""
        request = request_of(*texts, binding=binding)
        async with self.lease(request, owner) as lease:
            events = [event async for event in lease.process.turn(request.prompt)]
        assert said(events) == "Fine."
        return lease.origin

    async def a_spare(self) -> None:
        """Wait until there is a spare."""
        await _until(lambda: self.pool.state.spare > 0)

    async def settled(self) -> None:
        """Wait until no turn has an aftermath."""
        await _until(lambda: not self.pool.state.working)


async def ended(process: ClaudeProcess) -> None:
    """Wait until a process is gone."""
    await _until(lambda: not process.alive)


async def _until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - it happens in the background, and nobody is told
            await anyio.sleep(0.01)


def said(events: list[TurnEvent]) -> str:
    """The text of an answer."""
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def seen(upstream: DemoUpstream) -> list[str]:
    """What the model saw in the last request: the texts of all messages, and before them the system prompt's."""
    body = upstream.messages_requests()[-1].body
    system = [block["text"] for block in body["system"][2:]]
    contents = [message["content"] for message in body["messages"]]
    blocks = [[{"text": each}] if isinstance(each, str) else each for each in contents]
    return [*system, *(block["text"] for each in blocks for block in each)]
