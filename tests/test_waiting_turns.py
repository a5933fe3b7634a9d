"""Turns that wait for results in the pool: how long, whom they give way to, and what becomes of them."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from claude_process import ClaudeProcess
from demo_upstream import DemoUpstream, Reply, ToolCall
from pool_clients import BINDING, Clients, ended, opened, request_of, said, seen
from turns import LaunchProfile, Message, TextBlock, Tool, ToolResultBlock, TurnEnded, TurnRequest

WITH_TOOLS = replace(BINDING, tools=(Tool("weather", '{"name": "weather", "input_schema": {"type": "object"}}'),))
COST = 1000 * 3e-6 + 100 * 15e-6


@asynccontextmanager
async def waiting(
    profile: LaunchProfile, upstream: DemoUpstream, **limits: Any
) -> AsyncGenerator[tuple[Clients, ClaudeProcess, TurnRequest], None]:
    """A pool in which a turn waits, its process, and the request that has the results."""
    upstream.reset()
    usage = {"input_tokens": 1000, "output_tokens": 100}
    calls = [ToolCall("weather", {})]
    upstream.script(Reply(text="Let me see.", thinking="Where?", tool_calls=calls, usage=usage))
    upstream.script(Reply(text="Fine."), times=None)
    async with opened(profile, **limits) as clients:
        request = request_of("Go", binding=WITH_TOOLS)
        async with clients.lease(request) as lease:
            *_, ended_in_calls = [event async for event in lease.process.turn(request.prompt)]
            assert isinstance(ended_in_calls, TurnEnded)
        (call,) = (block.id for block in ended_in_calls.answer.content if block.type == "tool_use")
        results = Message("user", (ToolResultBlock(call, (TextBlock("21"),)),))
        yield clients, lease.process, TurnRequest(WITH_TOOLS, (request.prompt, ended_in_calls.answer), results)


async def origin_of(clients: Clients, request: TurnRequest) -> str:
    """Have a request answered; where its process came from."""
    async with clients.lease(request) as lease:
        assert said([event async for event in lease.process.turn(request.prompt)]) == "Fine."
    return lease.origin


@pytest.mark.asyncio
async def test_results_find_their_turn_as_long_as_it_waits(profile: LaunchProfile, upstream: DemoUpstream) -> None:
    """The process is the one that called, and what comes after goes on in it, too."""
    async with waiting(profile, upstream) as (clients, process, request):
        assert process.waits_for_results
        assert await origin_of(clients, request) == "adopted"
        assert not process.waits_for_results
        assert process.settled
        history = (*request.history, request.prompt, Message("assistant", (TextBlock("Fine."),)))
        more = TurnRequest(WITH_TOOLS, history, Message("user", (TextBlock("More"),)))
        assert await origin_of(clients, more) == "adopted"
        assert clients.untold == []
    assert len(upstream.messages_requests()) == 3


@pytest.mark.asyncio
@pytest.mark.parametrize("spares", [0, 1])
async def test_who_never_comes_back_is_waited_for_so_long(
    profile: LaunchProfile, upstream: DemoUpstream, spares: int
) -> None:
    """After PARK_SECONDS the process ends, also where an idle one would be kept, and asks the model nothing more."""
    async with waiting(profile, upstream, spares=spares) as (clients, process, request):
        clients.clock.now = 60
        clients.pool.sweep()
        assert process.alive
        clients.clock.now = 61
        clients.pool.sweep()
        assert clients.pool.state.parked == 0
        await ended(process)
        assert await origin_of(clients, request) in ("spawned", "spare")
    assert len(upstream.messages_requests()) == 2


@pytest.mark.asyncio
async def test_without_room_a_waiting_turn_is_the_last_to_go(profile: LaunchProfile, upstream: DemoUpstream) -> None:
    """Another conversation, though used later, gives way before one whose results may come any moment."""
    async with waiting(profile, upstream) as (clients, process, request):
        await clients.ask("Other", "Fine.", "More")
        assert await clients.ask("Third", "Fine.", "More") == "recycled"
        assert process.waits_for_results
        assert await origin_of(clients, request) == "adopted"


@pytest.mark.asyncio
async def test_a_waiting_turn_gives_way_where_it_must(profile: LaunchProfile, upstream: DemoUpstream) -> None:
    """It is given up, its process serves another, and of its call and its functions nothing is left there."""
    async with waiting(profile, upstream, processes=1) as (clients, process, _):
        assert await clients.ask("Other", "Fine.", "More") == "recycled"
        assert process.settled
    assert seen(upstream) == ["Be brief.", "Other", "Fine.", "More"]
    assert upstream.messages_requests()[-1].body["tools"] == []


@pytest.mark.asyncio
async def test_a_conversation_that_begins_alike_takes_no_waiting_turn(
    profile: LaunchProfile, upstream: DemoUpstream
) -> None:
    """Many conversations begin with the same words; who asks them anew isn't who has the results."""
    async with waiting(profile, upstream) as (clients, process, request):
        assert await clients.ask("Go", binding=WITH_TOOLS) == "spawned"
        assert process.waits_for_results
        assert await origin_of(clients, request) == "adopted"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "change",
    [
        {"tools": (*WITH_TOOLS.tools, Tool("news", '{"name": "news", "input_schema": {"type": "object"}}'))},
        {"tools": ()},
        {"system": "Be long."},
    ],
)
async def test_other_functions_or_words_are_another_turn(
    profile: LaunchProfile, upstream: DemoUpstream, change: dict[str, Any]
) -> None:
    """Results that come with other functions, or another system prompt, go to a conversation that is made anew."""
    async with waiting(profile, upstream) as (clients, _, request):
        await origin_of(clients, replace(request, binding=replace(WITH_TOOLS, **change)))
    body = upstream.messages_requests()[-1].body
    assert [tool["name"] for tool in body["tools"]] == [tool.name for tool in change.get("tools", WITH_TOOLS.tools)]
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]
    # Only a turn that goes on has what it thought.
    assert [block["type"] for block in body["messages"][1]["content"]] == ["text", "tool_use"]


@pytest.mark.asyncio
@pytest.mark.parametrize("bare", [True, False])
async def test_what_a_waiting_turn_cost_is_told_in_any_case(
    profile: LaunchProfile, upstream: DemoUpstream, bare: bool
) -> None:
    """With its calls; or, with a subscription's login, when it is given up."""
    if not bare:
        environment = {**dict(profile.environment), "CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat01-dummy-loopback-only"}
        environment.pop("ANTHROPIC_API_KEY")
        profile = replace(profile, environment=tuple(environment.items()), bare=False)
    async with waiting(profile, upstream) as (clients, process, _):
        clients.clock.now = 61
        clients.pool.sweep()
        await ended(process)
    costs = [cost for _, cost in clients.untold]
    assert costs == ([] if bare else [pytest.approx(COST)])
