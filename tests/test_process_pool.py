"""Which process serves which turn, with real processes against the demo upstream."""

import anyio
import pytest

from demo_upstream import DemoUpstream
from pool_clients import BINDING, HELLO, MODEL, Clients, ended, opened, seen
from turns import Binding, LaunchProfile, TurnEnded, TurnStarted


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
