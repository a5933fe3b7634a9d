"""Leases, with real processes against the demo upstream."""

import os
import signal
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

import cli_launch
from claude_process import ClaudeProcess
from demo_upstream import DemoUpstream, Gate, Reply
from errors import ClaudeCodeError
from process_pool import ProcessPool
from turns import Binding, LaunchProfile, Message, TextBlock, TextDelta, TurnEnded, TurnRequest, TurnStarted

PROMPT = Message("user", (TextBlock("Hello"),))
REQUEST = TurnRequest(Binding("claude-sonnet-4-5", "Be brief."), (), PROMPT)


@pytest.fixture
def profile(api_key_environment: Mapping[str, str], upstream: DemoUpstream, tmp_path: Path) -> LaunchProfile:
    """How to start a CLI that sees nothing of this machine."""
    assert upstream.requests == []
    environment = {**api_key_environment, "CLAUDE_CONFIG_DIR": str(tmp_path / "config")}
    return LaunchProfile(cli_launch.find_cli(None), environment, tmp_path, bare=True)


@asynccontextmanager
async def launched(profile: LaunchProfile) -> AsyncGenerator[ClaudeProcess, None]:
    """A process that is closed afterwards."""
    process = await ClaudeProcess.launch(profile)
    try:
        yield process
    finally:
        await process.close()


async def a_spare_of(pool: ProcessPool) -> ClaudeProcess:
    """A spare, once there is one."""
    with anyio.fail_after(10):
        while not pool.spares:  # noqa: ASYNC110 - they are started in the background, and nobody is told
            await anyio.sleep(0.01)
    return pool.spares[0]


@pytest.mark.asyncio
async def test_a_lease_serves_a_turn(profile: LaunchProfile) -> None:
    """A leased process is bound, and its turn begins with TurnStarted and ends with TurnEnded."""
    async with ProcessPool.open(profile, spares=1, limit=2) as pool, pool.lease(REQUEST) as process:
        events = [event async for event in process.turn(PROMPT)]
    assert isinstance(events[0], TurnStarted)
    assert isinstance(events[-1], TurnEnded)
    assert all(isinstance(event, TextDelta) for event in events[1:-1])


@pytest.mark.asyncio
async def test_a_dead_spare_is_replaced(profile: LaunchProfile) -> None:
    """A spare that died while it waited costs nobody an error."""
    async with ProcessPool.open(profile, spares=1, limit=2) as pool:
        async with pool.lease(REQUEST) as first:
            pass
        spare = await a_spare_of(pool)
        assert spare is not first
        os.kill(spare.pid, signal.SIGKILL)
        async with pool.lease(REQUEST) as process:
            assert process is not spare
            assert [event async for event in process.turn(PROMPT)]


@pytest.mark.asyncio
async def test_turns_beyond_the_limit_wait(profile: LaunchProfile) -> None:
    """With one process allowed, a second lease begins when the first has ended."""
    order: list[str] = []

    async def second(pool: ProcessPool) -> None:
        order.append("second asks")
        async with pool.lease(REQUEST):
            order.append("second works")

    async with (
        ProcessPool.open(profile, spares=0, limit=1) as pool,
        anyio.create_task_group() as tasks,
        pool.lease(REQUEST) as process,
    ):
        tasks.start_soon(second, pool)
        assert [event async for event in process.turn(PROMPT)]
        order.append("first ends")
    assert order == ["second asks", "first ends", "second works"]


@pytest.mark.asyncio
async def test_closing_the_pool_ends_every_process(profile: LaunchProfile) -> None:
    """At the pool's exit spares and leased processes are gone."""
    async with ProcessPool.open(profile, spares=2, limit=2) as pool, pool.lease(REQUEST) as leased:
        processes = [leased, await a_spare_of(pool)]
    assert not any(process.alive for process in processes)


@pytest.mark.asyncio
async def test_a_process_that_dies_in_mid_turn_is_an_error(profile: LaunchProfile, upstream: DemoUpstream) -> None:
    """Killed while the model writes, a process ends its turn with a ClaudeCodeError, and not in silence."""
    upstream.script(Reply(text=["one ", "two "], gate=Gate(after=1)))
    async with launched(profile) as process:
        await process.bind(REQUEST.binding)
        async with aclosing(process.turn(PROMPT)) as events:
            assert isinstance(await anext(events), TurnStarted)
            assert await anext(events) == TextDelta("one ")
            os.kill(process.pid, signal.SIGKILL)
            with pytest.raises(ClaudeCodeError):
                await anext(events)


@pytest.mark.asyncio
async def test_an_interrupted_turn_ends(profile: LaunchProfile, upstream: DemoUpstream) -> None:
    """`interrupt` stops the turn: its last event says so, and the upstream's connection closes."""
    upstream.script(Reply(text=["one ", "two "], gate=Gate(after=1)))
    async with launched(profile) as process:
        await process.bind(REQUEST.binding)
        events = process.turn(PROMPT)
        while await anext(events) != TextDelta("one "):
            pass
        await process.interrupt()
        *_, ended = [event async for event in events]
    assert isinstance(ended, TurnEnded)
    assert ended.stop_reason == "interrupted"
    await anyio.to_thread.run_sync(upstream.wait_for, lambda upstream: upstream.messages_requests()[0].disconnected)


@pytest.mark.asyncio
async def test_a_process_knows_its_account_and_models(profile: LaunchProfile, upstream: DemoUpstream) -> None:
    """Inspecting a process tells version, login and models, and sends nothing to Claude."""
    async with launched(profile) as process:
        inspection = await process.inspect()
    assert inspection.account.api_key_source == "ANTHROPIC_API_KEY"
    assert {"sonnet", "opus", "haiku"} <= {model.alias for model in inspection.models}
    assert not upstream.messages_requests()


@pytest.mark.asyncio
async def test_an_executable_that_is_no_cli_is_an_error(profile: LaunchProfile, tmp_path: Path) -> None:
    """A program that ends at once makes an error of the server's, not a hanging request."""
    program = tmp_path / "not-claude"
    program.write_text("#!/bin/sh\necho nonsense >&2\nexit 3\n")
    program.chmod(0o755)
    broken = LaunchProfile(program, profile.environment, profile.working_directory, bare=True)
    async with ProcessPool.open(broken, spares=0, limit=1) as pool:
        with pytest.raises(ClaudeCodeError):
            async with pool.lease(REQUEST):
                raise AssertionError


@pytest.mark.asyncio
async def test_two_processes_answer_side_by_side(profile: LaunchProfile, upstream: DemoUpstream) -> None:
    """Turns at the same time don't mix: each gets the answer to its own prompt."""
    answers: dict[str, str] = {}

    async def ask(pool: ProcessPool, name: str) -> None:
        prompt = Message("user", (TextBlock(name),))
        async with pool.lease(TurnRequest(REQUEST.binding, (), prompt)) as process:
            events = [event async for event in process.turn(prompt)]
        answers[name] = "".join(event.text for event in events if isinstance(event, TextDelta))

    names = ["alpha", "beta", "gamma", "delta"]
    for name in names:
        upstream.script(Reply(text=f"I am {name}"), when=name)
    async with ProcessPool.open(profile, spares=2, limit=4) as pool, anyio.create_task_group() as tasks:
        for name in names:
            tasks.start_soon(ask, pool, name)
    assert answers == {name: f"I am {name}" for name in names}
