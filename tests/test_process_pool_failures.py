"""What becomes of processes and their turns where something goes wrong, or somebody leaves."""

import os
import signal
from contextlib import AbstractContextManager, aclosing, nullcontext
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from cli_channel import CliChannel
from cli_frames import Control, Frame
from commands import shell_script
from demo_upstream import DemoUpstream, Gate, Reply
from errors import ApiError, ClaudeCodeError
from pool_clients import HELLO, ended, opened, request_of, said, seen
from turns import LaunchProfile, TextDelta, TurnEnded, TurnStarted


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
        # A stream that breaks in the middle costs its process: Claude Code would ask again.
        assert await clients.ask("One", "Fine.", "Three") in {"adopted", "spawned" if failure.cut_after else "adopted"}
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
    program = shell_script(tmp_path / "not-claude", "echo nonsense >&2\nexit 3")
    broken = LaunchProfile(program, profile.environment, profile.working_directory, bare=True)
    async with opened(broken) as clients:
        with pytest.raises(ClaudeCodeError):
            async with clients.lease(HELLO):
                raise AssertionError
