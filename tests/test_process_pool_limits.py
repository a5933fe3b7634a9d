"""How many processes there may be, for how long, and what becomes of them at the end."""

import gc
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import psutil
import pytest
from anyio.abc import Process

import cli_launch
from claude_process import ClaudeProcess
from demo_upstream import DemoUpstream, Reply
from errors import ClaudeCodeError, QueueTimeoutError
from pool_clients import HELLO, MODEL, Clients, ended, opened, request_of, said, seen
from process_questions import inspect
from turns import Binding, LaunchProfile, TurnEnded


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
        inspection = await clients.pool.ask(profile, inspect)
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
    monkeypatch.setattr("turn_waits._SIGN_OF_LIFE_SECONDS", 5)
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
