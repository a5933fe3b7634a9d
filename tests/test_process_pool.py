"""Which process serves which turn, with real processes against the demo upstream."""

import gc
import os
import signal
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractContextManager, AsyncExitStack, aclosing, asynccontextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import psutil
import pytest
from anyio.abc import Process

import cli_launch
from claude_process import ClaudeProcess
from cli_channel import CliChannel
from cli_frames import Control, Frame
from demo_upstream import DemoUpstream, Gate, Reply
from errors import ApiError, ClaudeCodeError, QueueTimeoutError
from process_pool import Lease, PoolLimits, ProcessPool
from turns import Binding, LaunchProfile, Message, TextBlock, TextDelta, TurnEnded, TurnEvent, TurnRequest, TurnStarted

MODEL = "claude-sonnet-4-5"
BINDING = Binding(MODEL, "Be brief.")


def request_of(*texts: str, binding: Binding = BINDING) -> TurnRequest:
    """A conversation, the user's text first, the user's last."""
    messages = [Message("assistant" if index % 2 else "user", (TextBlock(text),)) for index, text in enumerate(texts)]
    return TurnRequest(binding, tuple(messages[:-1]), messages[-1])


HELLO = request_of("Hello")


@pytest.fixture
def profile(api_key_environment: Mapping[str, str], upstream: DemoUpstream, tmp_path: Path) -> LaunchProfile:
    """How to start a CLI that sees nothing of this machine."""
    upstream.script(Reply(text="Fine."), times=None)
    environment = {**api_key_environment, "CLAUDE_CONFIG_DIR": str(tmp_path / "config")}
    return LaunchProfile(cli_launch.find_cli(None), tuple(environment.items()), tmp_path, bare=True)


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
        with anyio.fail_after(10):
            while not self.pool.state.spare:  # noqa: ASYNC110 - it starts in the background
                await anyio.sleep(0.01)

    async def settled(self) -> None:
        """Wait until no turn has an aftermath."""
        with anyio.fail_after(10):
            while self.pool.state.working:  # noqa: ASYNC110 - it happens in the background, and nobody is told
                await anyio.sleep(0.01)


async def ended(process: ClaudeProcess) -> None:
    """Wait until a process is gone."""
    with anyio.fail_after(10):
        while process.alive:  # noqa: ASYNC110 - it ends in the background, and nobody is told
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


# The four ways


@pytest.mark.asyncio
async def test_a_lease_serves_a_turn(profile: LaunchProfile) -> None:
    """A leased process is prepared, and its turn begins with TurnStarted and ends with TurnEnded."""
    async with opened(profile) as clients, clients.lease(HELLO) as lease:
        events = [event async for event in lease.process.turn(HELLO.prompt)]
    assert lease.origin == "spawned"
    assert isinstance(events[0], TurnStarted)
    assert isinstance(events[-1], TurnEnded)


@pytest.mark.asyncio
async def test_a_conversation_goes_on_in_its_process(profile: LaunchProfile, upstream: DemoUpstream) -> None:
    """A request that holds a parked conversation and one message more adopts it, and sends the one message."""
    async with opened(profile) as clients:
        origins = [await clients.ask("One"), await clients.ask("One", "Fine.", "Two")]
    assert origins == ["spawned", "adopted"]
    assert seen(upstream) == ["Be brief.", "One", "Fine.", "Two"]
    assert len(upstream.messages_requests()) == 2


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "conversation",
    [
        ("One", "Fine.", "Two", "Fine.", "Three"),
        ("One", "Fine.", "Another"),
        ("One",),
        ("One", "Edited.", "Two"),
        ("One", "Fine.", "Two", "Edited.", "Three", "Fine.", "Four"),
    ],
    ids=["regenerated", "edited", "from the start", "answer edited", "answer edited, and on"],
)
async def test_an_edited_conversation_is_rewound(
    profile: LaunchProfile, upstream: DemoUpstream, conversation: tuple[str, ...]
) -> None:
    """Where a parked conversation is the request's up to some message, it is rewound to there."""
    async with opened(profile) as clients:
        for texts in [("One",), ("One", "Fine.", "Two"), ("One", "Fine.", "Two", "Fine.", "Three")]:
            await clients.ask(*texts)
        assert await clients.ask(*conversation) == "adopted"
    assert seen(upstream) == ["Be brief.", *conversation]
    assert len(upstream.messages_requests()) == 4


@pytest.mark.asyncio
async def test_nobody_adopts_what_isnt_theirs(profile: LaunchProfile) -> None:
    """Another owner, model or system prompt doesn't adopt a conversation, be it the same letter by letter."""
    async with opened(profile, processes=8) as clients:
        await clients.ask("One")
        origins = [
            await clients.ask("One", "Fine.", "Two", owner="berta"),
            await clients.ask("One", "Fine.", "Two", binding=Binding("claude-opus-4-1", BINDING.system)),
            await clients.ask("One", "Fine.", "Two", binding=Binding(MODEL, "Be long.")),
            await clients.ask("One", "Fine.", "Two"),
        ]
    assert origins == ["spawned", "spawned", "spawned", "adopted"]


@pytest.mark.asyncio
async def test_without_room_the_oldest_conversation_is_recycled(profile: LaunchProfile, upstream: DemoUpstream) -> None:
    """A process is rewound and rebound for another conversation, and nothing of the old one is left in it."""
    other = Binding("claude-opus-4-1", "Be long.")
    async with opened(profile, processes=1) as clients:
        await clients.ask("Secret", "Fine.", "More")
        assert await clients.ask("Old", "Answer.", "New", binding=other) == "recycled"
        assert seen(upstream) == ["Be long.", "Old", "Answer.", "New"]
        assert upstream.messages_requests()[-1].body["model"] == "claude-opus-4-1"
        assert await clients.ask("Old", "Answer.", "New", "Fine.", "Newer", binding=other) == "adopted"
        assert await clients.ask("Last") == "recycled"
    assert seen(upstream) == ["Be brief.", "Last"]
    assert len(upstream.messages_requests()) == 4


@pytest.mark.asyncio
async def test_a_conversation_that_is_over_is_recycled(profile: LaunchProfile) -> None:
    """After PARK_SECONDS, and not before, a process takes another conversation, though there is room for one more."""
    async with opened(profile, processes=8, park_seconds=60) as clients:
        origins = [await clients.ask("One", "Fine.", "More")]
        for seconds in (60, 61):
            clients.clock.now = seconds
            origins.append(await clients.ask(f"Other {seconds}", "Fine.", "More"))
    assert origins == ["spawned", "spawned", "recycled"]


@pytest.mark.asyncio
async def test_a_system_prompt_is_neither_added_nor_taken_away(profile: LaunchProfile, upstream: DemoUpstream) -> None:
    """A process with a system prompt doesn't serve a request without one, nor the other way round."""
    bare = Binding(MODEL, None)
    async with opened(profile, processes=1) as clients:
        assert [await clients.ask("One"), await clients.ask("Two", binding=bare)] == ["spawned", "spawned"]
        assert seen(upstream) == ["Two"]
        assert [await clients.ask("Three", binding=bare), await clients.ask("Four")] == ["recycled", "spawned"]


@pytest.mark.asyncio
async def test_another_owner_gets_another_process(profile: LaunchProfile) -> None:
    """Where one owner's process has to make room for another's turn, it ends."""
    async with opened(profile, processes=1) as clients:
        async with clients.lease(HELLO) as first:
            assert [event async for event in first.process.turn(HELLO.prompt)]
        assert await clients.ask("Hello", owner="berta") == "spawned"
        assert clients.pool.state.parked == 1
        await ended(first.process)


@pytest.mark.asyncio
async def test_two_that_race_for_a_conversation_both_get_it(profile: LaunchProfile, upstream: DemoUpstream) -> None:
    """One adopts the process, the other takes the next way."""
    origins: list[str] = []

    async def ask(clients: Clients, text: str) -> None:
        origins.append(await clients.ask("One", "Fine.", text))

    async with opened(profile) as clients:
        await clients.ask("One")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, clients, "Two")
            tasks.start_soon(ask, clients, "Too")
    assert sorted(origins) == ["adopted", "spawned"]
    assert {record.body["messages"][-1]["content"][0]["text"] for record in upstream.messages_requests()[1:]} == {
        "Two",
        "Too",
    }


# What goes wrong


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("failure", "outcome"),
    [
        (Reply(status=500), pytest.raises(ApiError)),
        (Reply(text=["One ", "two"], cut_after=1), pytest.raises(ApiError)),
        (Reply(text="No", stop_reason="refusal"), nullcontext()),
    ],
    ids=["error", "cut", "refusal"],
)
async def test_a_failed_turn_leaves_no_trace(
    profile: LaunchProfile, upstream: DemoUpstream, failure: Reply, outcome: AbstractContextManager[Any]
) -> None:
    """After a turn that failed, its process is where it was before, and the conversation goes on in it."""
    async with opened(profile) as clients:
        await clients.ask("One")
        upstream.reset()
        upstream.script(failure)
        upstream.script(Reply(text="Fine."), times=None)
        failing = request_of("One", "Fine.", "Two")
        async with clients.lease(failing) as lease:
            with outcome:
                assert [event async for event in lease.process.turn(failing.prompt)]
        await clients.settled()
        assert await clients.ask("One", "Fine.", "Three") == "adopted"
    assert seen(upstream) == ["Be brief.", "One", "Fine.", "Three"]


@pytest.mark.asyncio
async def test_a_turn_that_is_left_is_stopped(profile: LaunchProfile, upstream: DemoUpstream) -> None:
    """A turn that nobody waits for closes its upstream's connection; its process goes on without a trace of it."""
    async with opened(profile, processes=1) as clients:
        upstream.reset()
        upstream.script(Reply(text=["one ", "two "], gate=Gate(after=1)))
        upstream.script(Reply(text="Fine."), times=None)
        async with clients.lease(HELLO) as lease, aclosing(lease.process.turn(HELLO.prompt)) as events:
            while await anext(events) != TextDelta("one "):
                pass
        await anyio.to_thread.run_sync(upstream.wait_for, lambda upstream: upstream.messages_requests()[0].disconnected)
        await clients.settled()
        assert await clients.ask("Hello again") == "recycled"
    assert seen(upstream) == ["Be brief.", "Hello again"]


@pytest.mark.asyncio
async def test_a_turn_that_is_left_with_much_unread_is_stopped(profile: LaunchProfile, upstream: DemoUpstream) -> None:
    """More than the SDK keeps for us stands unread when the turn is left: its process goes on all the same."""
    async with opened(profile, processes=1) as clients:
        upstream.reset()
        upstream.script(Reply(text=[f"{number} " for number in range(400)], gate=Gate(after=399)))
        upstream.script(Reply(text="Fine."), times=None)
        async with clients.lease(HELLO) as lease, aclosing(lease.process.turn(HELLO.prompt)) as events:
            assert isinstance(await anext(events), TurnStarted)
        await clients.settled()
        assert await clients.ask("Hello again") == "recycled"


@pytest.mark.asyncio
async def test_a_turn_that_is_left_while_its_prompt_is_written_is_stopped(
    profile: LaunchProfile, upstream: DemoUpstream
) -> None:
    """A prompt that is longer than the pipe has begun a turn: nobody else reads its answer."""
    long = request_of("x" * 2**20)
    async with opened(profile, processes=1) as clients:
        async with clients.lease(long) as lease:
            with anyio.move_on_after(0):
                await anext(lease.process.turn(long.prompt))
        await clients.settled()
        assert await clients.ask("Hello") in ("recycled", "spawned")
    assert seen(upstream) == ["Be brief.", "Hello"]


@pytest.mark.asyncio
@pytest.mark.parametrize("stop_reason", ["max_tokens", "tool_use"])
async def test_an_answer_that_is_cut_short_costs_no_process(
    profile: LaunchProfile, upstream: DemoUpstream, stop_reason: str
) -> None:
    """Where Claude Code would go on by itself its next request gets nowhere, and its process goes on with others."""
    async with opened(profile, processes=1) as clients:
        upstream.reset()
        upstream.script(Reply(text=["one ", "two ", "three"], stop_reason=stop_reason, delta_delay=0.3))
        upstream.script(Reply(text="Fine."), times=None)
        async with clients.lease(HELLO) as lease:
            *_, ended = [event async for event in lease.process.turn(HELLO.prompt)]
        assert isinstance(ended, TurnEnded)
        assert ended.stop_reason == stop_reason
        await clients.settled()
        assert await clients.ask("Other") == "recycled"
    assert seen(upstream) == ["Be brief.", "Other"]
    assert len(upstream.messages_requests()) == 2


@pytest.mark.asyncio
async def test_an_answer_with_a_blank_block_is_not_adopted(profile: LaunchProfile, upstream: DemoUpstream) -> None:
    """Claude Code drops blank blocks, the client got their text: what it sends back is seeded, letter by letter."""
    async with opened(profile, processes=1) as clients:
        upstream.reset()
        upstream.script(Reply(text=["A"], more_text=["\n\n", "B"]))
        upstream.script(Reply(text="Fine."), times=None)
        async with clients.lease(HELLO) as lease:
            assert said([event async for event in lease.process.turn(HELLO.prompt)]) == "A\n\nB"
        await clients.settled()
        await clients.ask("Hello", "A\n\nB", "More")
    assert seen(upstream) == ["Be brief.", "Hello", "A\n\nB", "More"]


@pytest.mark.asyncio
async def test_a_spare_that_dies_is_replaced(profile: LaunchProfile) -> None:
    """The dead aren't counted, and a sweep replaces them."""
    async with opened(profile, spares=1) as clients:
        await clients.a_spare()
        (spare,) = clients.pool.spares
        os.kill(spare.pid, signal.SIGKILL)
        await ended(spare)
        assert clients.pool.state.spare == 0
        clients.pool.sweep()
        await clients.a_spare()


@pytest.mark.asyncio
async def test_a_process_that_dies_in_mid_turn_is_an_error(profile: LaunchProfile, upstream: DemoUpstream) -> None:
    """Killed while the model writes, a process ends its turn with a ClaudeCodeError, and not in silence."""
    upstream.reset()
    upstream.script(Reply(text=["one ", "two "], gate=Gate(after=1)))
    async with (
        opened(profile) as clients,
        clients.lease(HELLO) as lease,
        aclosing(lease.process.turn(HELLO.prompt)) as events,
    ):
        while await anext(events) != TextDelta("one "):
            pass
        os.kill(lease.process.pid, signal.SIGKILL)
        with pytest.raises(ClaudeCodeError):
            await anext(events)


@pytest.mark.asyncio
async def test_a_dead_process_costs_nobody_an_error(profile: LaunchProfile) -> None:
    """A spare, and a parked process, that died while they waited are replaced."""
    async with opened(profile, spares=1) as clients:
        await clients.a_spare()
        (spare,) = clients.pool.spares
        os.kill(spare.pid, signal.SIGKILL)
        async with clients.lease(HELLO) as lease:
            assert lease.process is not spare
            assert [event async for event in lease.process.turn(HELLO.prompt)]
        os.kill(lease.process.pid, signal.SIGKILL)
        await ended(lease.process)
        assert await clients.ask("Hello", "Fine.", "Again") != "adopted"


@pytest.mark.asyncio
async def test_a_process_that_doesnt_rewind_is_replaced(
    profile: LaunchProfile, upstream: DemoUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The danger: Claude Code answers a rewind with "success" though it didn't rewind."""
    controls = CliChannel.controls

    async def refusing(self: CliChannel, *requests: Control) -> list[Frame]:
        rewinds = any(subtype == "rewind_conversation" for subtype, _ in requests)
        return [{"rewound": False, "reason": "stale_target"}] if rewinds else await controls(self, *requests)

    monkeypatch.setattr(CliChannel, "controls", refusing)
    async with opened(profile) as clients:
        await clients.ask("One")
        assert await clients.ask("One") == "spawned"
    assert seen(upstream) == ["Be brief.", "One"]


@pytest.mark.asyncio
async def test_an_executable_that_is_no_cli_is_an_error(profile: LaunchProfile, tmp_path: Path) -> None:
    """A program that ends at once makes an error of the server's, not a hanging request."""
    program = tmp_path / "not-claude"
    program.write_text("#!/bin/sh\necho nonsense >&2\nexit 3\n")
    program.chmod(0o755)
    broken = LaunchProfile(program, profile.environment, profile.working_directory, bare=True)
    async with opened(broken) as clients:
        with pytest.raises(ClaudeCodeError):
            async with clients.lease(HELLO):
                raise AssertionError


# Limits


@pytest.mark.asyncio
@pytest.mark.parametrize("limit", [{"turns": 1}, {"memory": 1}, {"reuse": False}], ids=["turns", "memory", "reuse"])
async def test_a_process_beyond_its_limits_is_replaced(profile: LaunchProfile, limit: dict[str, Any]) -> None:
    """After so many turns, with so much memory, or where reuse is off, a conversation goes on in a new process."""
    async with opened(profile, **limit) as clients:
        assert [await clients.ask("One"), await clients.ask("One", "Fine.", "Two")] == ["spawned", "spawned"]
        assert clients.pool.state.parked == 0


@pytest.mark.asyncio
async def test_turns_beyond_the_limit_wait(profile: LaunchProfile) -> None:
    """With one process allowed, a second lease begins when the first has ended."""
    order: list[str] = []

    async def second(clients: Clients) -> None:
        order.append("second asks")
        async with clients.lease(HELLO):
            order.append("second works")

    async with (
        opened(profile, processes=1) as clients,
        anyio.create_task_group() as tasks,
        clients.lease(HELLO) as lease,
    ):
        tasks.start_soon(second, clients)
        assert [event async for event in lease.process.turn(HELLO.prompt)]
        order.append("first ends")
    assert order == ["second asks", "first ends", "second works"]


@pytest.mark.asyncio
async def test_who_waits_too_long_is_told_to_come_back(profile: LaunchProfile) -> None:
    """After QUEUE_TIMEOUT a waiting request is a 503 with Retry-After."""
    async with opened(profile, processes=1, queue_timeout=0.01) as clients, clients.lease(HELLO):
        with pytest.raises(QueueTimeoutError) as caught:
            async with clients.lease(HELLO):
                raise AssertionError
    assert caught.value.status == 503
    assert int(caught.value.headers["Retry-After"]) > 0


@pytest.mark.asyncio
async def test_conversations_that_are_over_dont_pile_up(profile: LaunchProfile) -> None:
    """Beyond as many as there are spares, processes whose conversation is over end."""
    async with opened(profile, processes=8, spares=1, park_seconds=60) as clients:
        for text in ("One", "Two", "Three"):
            await clients.ask(text, "Fine.", "More")
        for seconds, parked in [(60, 3), (61, 1), (1000, 1)]:
            clients.clock.now = seconds
            clients.pool.sweep()
            assert clients.pool.state.parked == parked


@pytest.mark.asyncio
async def test_single_questions_run_on_few_processes(profile: LaunchProfile) -> None:
    """Of conversations of one exchange few are kept, whatever room there is; longer ones aren't touched for that."""
    async with opened(profile, processes=8) as clients:
        await clients.ask("Long", "Fine.", "Longer")
        origins = [await clients.ask(str(number)) for number in range(4)]
        assert origins == ["spawned", "spawned", "recycled", "recycled"]
        assert await clients.ask("Long", "Fine.", "Longer", "Fine.", "Longest") == "adopted"


@pytest.mark.asyncio
async def test_closing_the_pool_ends_every_process(profile: LaunchProfile) -> None:
    """At the pool's exit spares, parked and leased processes are gone."""
    async with AsyncExitStack() as leases, opened(profile, spares=1) as clients:
        async with clients.lease(HELLO) as parked:
            assert [event async for event in parked.process.turn(HELLO.prompt)]
        leased = await leases.enter_async_context(clients.lease(request_of("Other")))
        await clients.a_spare()
        processes: list[ClaudeProcess] = [parked.process, leased.process, *clients.pool.spares]
    assert len(processes) == 3
    assert not any(process.alive for process in processes)


@pytest.mark.asyncio
async def test_a_process_knows_its_account_and_models(profile: LaunchProfile, upstream: DemoUpstream) -> None:
    """Inspecting a process tells login and models, and sends nothing to Claude."""
    async with opened(profile) as clients:
        inspection = await clients.pool.inspect(profile)
    assert inspection.account.api_key_source == "ANTHROPIC_API_KEY"
    assert {"sonnet", "opus", "haiku"} <= {model.alias for model in inspection.models}
    assert not upstream.messages_requests()


@pytest.mark.asyncio
async def test_two_processes_answer_side_by_side(profile: LaunchProfile, upstream: DemoUpstream) -> None:
    """Turns at the same time don't mix: each gets the answer to its own prompt."""
    answers: dict[str, str] = {}

    async def ask(clients: Clients, name: str) -> None:
        request = request_of(name)
        async with clients.lease(request) as lease:
            answers[name] = said([event async for event in lease.process.turn(request.prompt)])

    names = ["alpha", "beta", "gamma", "delta"]
    upstream.reset()
    for name in names:
        upstream.script(Reply(text=f"I am {name}"), when=name)
    async with opened(profile, processes=4) as clients, anyio.create_task_group() as tasks:
        for name in names:
            tasks.start_soon(ask, clients, name)
    assert answers == {name: f"I am {name}" for name in names}


@pytest.mark.asyncio
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_request_given_up_while_its_process_starts_leaves_none(
    profile: LaunchProfile, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Who is cancelled in that moment leaves no process, no open file and no taken place."""
    started: list[int] = []
    open_process = anyio.open_process

    async def given_up_meanwhile(*arguments: Any, **options: Any) -> Process:
        if moment == "before":
            tasks.cancel_scope.cancel()
        process = await open_process(*arguments, **options)
        started.append(process.pid)
        tasks.cancel_scope.cancel()
        await anyio.lowlevel.checkpoint()
        return process

    monkeypatch.setattr(anyio, "open_process", given_up_meanwhile)
    async with opened(profile) as clients:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(clients.ask, "Hello")
        assert clients.pool.state.working == 0
    assert started or moment == "before"
    assert not [pid for pid in started if psutil.pid_exists(pid)]
    gc.collect()  # A file that nobody closed warns now, and warnings are errors.


@pytest.mark.asyncio
async def test_a_process_that_cannot_start_leaves_nothing_open(profile: LaunchProfile, tmp_path: Path) -> None:
    """A failed start is an error of ours, and closes what it opened."""
    with pytest.raises(ClaudeCodeError):
        await ClaudeProcess.launch(replace(profile, working_directory=tmp_path / "missing"))
    gc.collect()  # As above.


@asynccontextmanager
async def frozen(process: ClaudeProcess) -> AsyncGenerator[None, None]:
    """A process that does nothing, until it is ended."""
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        if process.alive:
            os.kill(process.pid, signal.SIGCONT)


@pytest.mark.asyncio
async def test_a_control_that_isnt_answered_costs_the_process(
    profile: LaunchProfile, upstream: DemoUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that doesn't answer when it is bound anew is ended, and the request takes the next way."""
    async with opened(profile, processes=1) as clients:
        async with clients.lease(HELLO) as lease:
            process = lease.process
            assert said([event async for event in process.turn(HELLO.prompt)]) == "Fine."
        # Longer than a busy machine needs for a fresh one's answers.
        monkeypatch.setattr("cli_channel._CONTROL_TIMEOUT_SECONDS", 5)
        async with frozen(process):
            assert await clients.ask("Other", binding=Binding(MODEL, "Be kind.")) == "spawned"
        await ended(process)
    assert seen(upstream) == ["Be kind.", "Other"]


@pytest.mark.asyncio
async def test_a_process_that_doesnt_take_up_its_turn_is_an_error(
    profile: LaunchProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An adopted process may have nothing to be told but the prompt: one that hangs is noticed there."""
    monkeypatch.setattr("claude_process._SIGN_OF_LIFE_SECONDS", 5)
    async with opened(profile, processes=1) as clients:
        assert await clients.ask("Hello") == "spawned"
        more = request_of("Hello", "Fine.", "More")
        async with clients.lease(more) as lease, frozen(lease.process):
            with pytest.raises(ClaudeCodeError):
                await anext(lease.process.turn(more.prompt))
        await ended(lease.process)
        assert await clients.ask("Hello again") == "spawned"


@pytest.mark.asyncio
@pytest.mark.parametrize("text", [[], ["\n", " "]])
async def test_an_answer_that_stops_before_it_says_anything_is_whole(
    profile: LaunchProfile, upstream: DemoUpstream, text: list[str]
) -> None:
    """A stop sequence right at the beginning leaves nothing: Claude Code would ask again, in words of its own."""
    async with opened(profile) as clients:
        upstream.reset()
        upstream.script(Reply(text=text, stop_reason="stop_sequence", stop_sequence="This"), times=None)
        async with clients.lease(HELLO) as lease:
            *_, last = [event async for event in lease.process.turn(HELLO.prompt)]
        assert isinstance(last, TurnEnded)
        assert last.stop_reason == "stop_sequence"
        await clients.settled()
    assert len(upstream.messages_requests()) == 1


@pytest.mark.asyncio
async def test_what_a_turn_cost_is_told_once(profile: LaunchProfile, upstream: DemoUpstream) -> None:
    """A turn tells its cost at its end; of one that was cut short the pool tells it, when it is known."""
    usage = {"input_tokens": 1000, "output_tokens": 100}
    async with opened(profile) as clients:
        upstream.reset()
        upstream.script(Reply(text="Fine.", usage=usage))
        async with clients.lease(HELLO) as lease:
            *_, last = [event async for event in lease.process.turn(HELLO.prompt)]
        assert isinstance(last, TurnEnded)
        assert last.cost_usd
        assert clients.untold == []
        upstream.script(Reply(text=["one ", "two"], usage=usage, stop_reason="max_tokens", delta_delay=0.3))
        async with clients.lease(request_of("Again")) as lease:
            *_, last = [event async for event in lease.process.turn(request_of("Again").prompt)]
        assert isinstance(last, TurnEnded)
        assert last.cost_usd is None
        await clients.settled()
    assert [owner for owner, _ in clients.untold] == ["anna"]
    assert clients.untold[0][1] > 0


@pytest.mark.asyncio
async def test_never_more_processes_live_than_may(profile: LaunchProfile, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is being ended counts until it is gone: the next one isn't started before."""
    most: list[int] = []
    start = cli_launch.start

    async def counted(profile: LaunchProfile) -> Any:
        started = await start(profile)
        most.append(sum("stream-json" in " ".join(child.cmdline()) for child in psutil.Process().children()))
        return started

    before = sum("stream-json" in " ".join(child.cmdline()) for child in psutil.Process().children())
    monkeypatch.setattr(cli_launch, "start", counted)
    async with opened(profile, processes=1, turns=1) as clients:
        assert [await clients.ask(str(number)) for number in range(4)] == ["spawned"] * 4
    assert len(most) == 4
    assert max(most) - before <= 1
