"""How long sessions live, and what a turn leaves in them; what clients see of it is in test_sessions.py."""

from dataclasses import replace

import pytest

from errors import InvalidRequestError, NotFoundError, SessionBusyError, StoreUnavailableError, TooManySessionsError
from memory_stores import MemorySessionStore
from session_manager import SessionLimits, SessionManager, SessionStats
from turns import Binding, Memory, Message, TextBlock, TurnEnded, TurnRequest, Usage

LIMITS = SessionLimits(ttl=3600, count=2, messages=6)
NOTHING = Message("assistant", ())
ANSWER = Message("assistant", (TextBlock("Fine."),))
ENDED = TurnEnded("end_turn", Usage(1, 2, 3, 4, 5), 0.25, ANSWER)


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


def request_of(memory: Memory, text: str) -> TurnRequest:
    """A turn that goes on with what is remembered."""
    return TurnRequest(Binding("sonnet", "Be brief."), memory.messages, Message("user", (TextBlock(text),)))


async def play(sessions: SessionManager, session_id: str = "s", owner: str = "anna", answer: Message = ANSWER) -> None:
    """Have a turn of a session answered."""
    async with sessions.open(owner, session_id, 1) as session:
        request = request_of(session.memory, "Hello")
        session.check_room_for(request)
        await session.commit(request, replace(ENDED, answer=answer))


@pytest.mark.asyncio
async def test_a_session_lives_from_its_last_turn_on() -> None:
    """Each turn begins its hour anew; without one it is gone, first for its owner, then with the next sweep."""
    clock = Clock()
    sessions = SessionManager(MemorySessionStore(), LIMITS, clock)
    await play(sessions)
    clock.now += 3599
    await play(sessions)
    clock.now += 3599
    info = await sessions.get("anna", "s")
    assert (info.turns, info.message_count, info.usage, info.cost_usd) == (2, 4, Usage(2, 4, 6, 8, 10), 0.5)
    clock.now += 1
    with pytest.raises(NotFoundError):
        await sessions.get("anna", "s")
    assert await sessions.stats("anna") == SessionStats(active=0, expired=1, messages=0)
    await sessions.sweep()
    assert await sessions.stats("anna") == SessionStats(active=0, expired=0, messages=0)


@pytest.mark.asyncio
async def test_a_turn_that_outlasts_its_session_keeps_it() -> None:
    """A session that expires, and is swept, while its turn is answered lives on with that turn."""
    clock = Clock()
    sessions = SessionManager(MemorySessionStore(), LIMITS, clock)
    await play(sessions)
    async with sessions.open("anna", "s", 1) as session:
        clock.now += 4000
        await sessions.sweep()
        await session.commit(request_of(session.memory, "More"), ENDED)
    assert (await sessions.get("anna", "s")).message_count == 4


@pytest.mark.asyncio
async def test_a_blank_answer_is_no_message() -> None:
    """Claude takes no blank message, so what the user says next joins what was said before."""
    sessions = SessionManager(MemorySessionStore(), LIMITS)
    await play(sessions, answer=NOTHING)
    async with sessions.open("anna", "s", 1) as session:
        assert [message.role for message in session.memory.messages] == ["user"]


@pytest.mark.asyncio
async def test_a_turn_that_is_not_committed_leaves_nothing() -> None:
    """Neither a new session nor a message more."""
    sessions = SessionManager(MemorySessionStore(), LIMITS)
    async with sessions.open("anna", "s", 1):
        pass
    assert await sessions.list("anna") == []


@pytest.mark.asyncio
async def test_limits_hold_at_the_beginning_and_at_the_end() -> None:
    """One session, or message, too many is refused before a turn is spent, and after it, where others were quicker."""
    store = MemorySessionStore()
    sessions = SessionManager(store, LIMITS)
    others = SessionManager(store, LIMITS)  # Another server's.
    async with sessions.open("anna", "late", 1) as late:
        for name in "ab":
            await play(others, name)
        with pytest.raises(TooManySessionsError):
            await late.commit(request_of(late.memory, "Hello"), ENDED)
    with pytest.raises(TooManySessionsError):
        await play(sessions, "c")
    await play(sessions, "c", "berta")
    for _ in range(2):
        await play(sessions, "a")
    with pytest.raises(InvalidRequestError, match="6 messages"):
        await play(sessions, "a")


@pytest.mark.asyncio
async def test_many_that_begin_at_once_are_counted_at_once() -> None:
    """One too many is refused before it costs anything, and a place that isn't used is free again."""
    sessions = SessionManager(MemorySessionStore(), LIMITS)
    async with sessions.open("anna", "a", 1), sessions.open("anna", "b", 1), sessions.open("berta", "a", 1):
        with pytest.raises(TooManySessionsError):
            await play(sessions, "c")
    await play(sessions, "c")


@pytest.mark.asyncio
async def test_who_waits_too_long_is_told() -> None:
    """A session's next turn waits for the one before, but not for ever."""
    sessions = SessionManager(MemorySessionStore(), LIMITS)
    async with sessions.open("anna", "s", 1):
        with pytest.raises(SessionBusyError):
            await play_within(sessions, 0.05)


async def play_within(sessions: SessionManager, patience: float) -> None:
    """Open a session, and close it."""
    async with sessions.open("anna", "s", patience):
        pass


class AwayStore(MemorySessionStore):
    """A store that can't be reached."""

    async def sweep(self, now: float) -> int:  # noqa: ARG002 - the interface's
        """See SessionStore."""
        raise StoreUnavailableError


@pytest.mark.asyncio
async def test_a_sweep_without_a_store_is_none() -> None:
    """The sweeper outlives the store's absence."""
    await SessionManager(AwayStore(), LIMITS).sweep()
