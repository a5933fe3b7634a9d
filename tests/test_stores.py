"""Sessions and usage are kept the same way in memory and in a real Redis: one suite for both stores."""

import uuid
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import anyio
import pytest
import pytest_asyncio
import redis

from background import periodically
from errors import SessionBusyError, SessionLostError, StoreUnavailableError, TooManySessionsError
from memory_stores import MemorySessionStore, MemoryUsageStore
from real_services import RedisServer
from redis_stores import RedisConnection, RedisSessionStore, RedisUsageStore
from stores import DayUsage, Session, SessionCounts, SessionInfo, SessionStore, UsageStore
from turns import Memory, Message, TextBlock, ToolResultBlock, ToolUseBlock, Usage

NOW = 1_800_000_000.0
PATIENCE = 5.0
MOST = 3


@dataclass(frozen=True)
class Stores:
    """One kind of stores, empty."""

    sessions: SessionStore
    usage: UsageStore


@asynccontextmanager
async def redis_stores(url: str) -> AsyncGenerator[Stores, None]:
    """Stores in Redis."""
    connection = RedisConnection(url)
    try:
        yield Stores(RedisSessionStore(connection), RedisUsageStore(connection))
    finally:
        await connection.close()


@pytest_asyncio.fixture(params=["memory", "redis"])
async def stores(request: pytest.FixtureRequest) -> AsyncGenerator[Stores, None]:
    """Each kind of stores in turn."""
    if request.param == "memory":
        yield Stores(MemorySessionStore(), MemoryUsageStore())
        return
    server: RedisServer = request.getfixturevalue("redis_server")
    async with redis_stores(server.url) as found:
        yield found


@pytest.fixture
def owner() -> str:
    """An owner of whom no test has heard."""
    return uuid.uuid4().hex


def session_of(owner: str, session_id: str = "s", *, at: float = NOW, memory: Memory | None = None) -> Session:
    """A session that was used just now, and lives an hour."""
    memory = memory or Memory("Be brief.", (Message("user", (TextBlock("Hello"),)),))
    info = SessionInfo(
        session_id, owner, "sonnet", len(memory.messages), 1, Usage(1, 2, 3, 4, 5), 0.25, at, at, at + 3600
    )
    return Session(info, memory)


async def saved(store: SessionStore, session: Session, most: int = MOST) -> Session:
    """Keep a session."""
    async with store.lock(session.info.owner, session.info.id, PATIENCE) as lock:
        await lock.save(session, most)
    return session


@pytest.mark.asyncio
async def test_a_session_comes_back_as_it_was(stores: Stores, owner: str) -> None:
    """Every kind of block, every character, number and depth is kept."""
    deep: Any = 1
    for _ in range(190):
        deep = [deep]
    call = ToolUseBlock(
        "call_1", "weather", {"deep": deep, "city": "Zürich 漢字", "list": [1, None, 1.5], "nested": {"": "\n"}}
    )
    result = ToolResultBlock("call_1", (TextBlock("\u2028 21C \x00"), TextBlock("")))
    memory = Memory(
        None,
        (
            Message("user", (TextBlock("🙂"),)),
            Message("assistant", (TextBlock(" a"), call)),
            Message("user", (result,)),
        ),
    )
    session = await saved(stores.sessions, session_of(owner, "id with / : * and ü", memory=memory))
    assert await stores.sessions.load(owner, session.info.id, NOW) == session
    assert await stores.sessions.load_all(owner, NOW) == [session.info]


@pytest.mark.asyncio
async def test_a_session_is_its_owners_alone(stores: Stores, owner: str) -> None:
    """Another owner neither finds, lists, counts nor deletes it, and may have one of the same id."""
    session, other = await saved(stores.sessions, session_of(owner)), f"{owner}-2"
    assert await stores.sessions.load(other, "s", NOW) is None
    assert await stores.sessions.load_all(other, NOW) == []
    assert await stores.sessions.count(other, NOW) == SessionCounts(0, 0)
    assert not await stores.sessions.delete(other, "s")
    own = await saved(stores.sessions, session_of(other, memory=Memory(None, ())))
    assert [await stores.sessions.load(each, "s", NOW) for each in (owner, other)] == [session, own]


@pytest.mark.asyncio
async def test_a_session_expires_and_is_swept(stores: Stores, owner: str) -> None:
    """After its time it is no longer found; it counts as expired until it is swept, of whichever owner."""
    await saved(stores.sessions, session_of(owner, "old"))
    young = await saved(stores.sessions, session_of(owner, "young", at=NOW + 10))
    end = NOW + 3600
    assert await stores.sessions.load(owner, "old", end) is None
    assert await stores.sessions.load_all(owner, end) == [young.info]
    assert await stores.sessions.count(owner, end) == SessionCounts(1, 1)
    assert await stores.sessions.sweep(end) >= 1
    assert await stores.sessions.count(owner, end) == SessionCounts(1, 0)
    assert await stores.sessions.load(owner, "young", end) == young
    assert await stores.sessions.sweep(end + 10) >= 1
    assert await stores.sessions.count(owner, end) == SessionCounts(0, 0)


@pytest.mark.asyncio
async def test_the_latest_used_comes_first(stores: Stores, owner: str) -> None:
    """Sessions are listed by their last use."""
    for name, at in (("b", NOW + 1), ("c", NOW + 2), ("a", NOW)):
        await saved(stores.sessions, session_of(owner, name, at=at))
    assert [info.id for info in await stores.sessions.load_all(owner, NOW)] == ["c", "b", "a"]


@pytest.mark.asyncio
async def test_an_owner_has_only_so_many(stores: Stores, owner: str) -> None:
    """One session too many isn't kept; one that is there already is, and so is one in the place of an expired one."""
    for number in range(MOST):
        await saved(stores.sessions, session_of(owner, str(number)))
    with pytest.raises(TooManySessionsError):
        await saved(stores.sessions, session_of(owner, "more"))
    await saved(stores.sessions, session_of(owner, "0", at=NOW + 10))
    await saved(stores.sessions, session_of(owner, "more", at=NOW + 3600))
    assert (await stores.sessions.count(owner, NOW + 3600)).active == 2


@pytest.mark.asyncio
async def test_one_has_the_lock_at_a_time_and_in_order(stores: Stores, owner: str) -> None:
    """Who wants the lock of a session waits for its holder; who has waited longest is next; other sessions are free."""
    order: list[int] = []

    async def take(number: int) -> None:
        async with stores.sessions.lock(owner, "s", PATIENCE):
            order.append(number)

    async with anyio.create_task_group() as tasks, stores.sessions.lock(owner, "s", PATIENCE):
        for number in range(5):
            tasks.start_soon(take, number)
            await anyio.wait_all_tasks_blocked()
        async with (
            stores.sessions.lock(owner, "another", PATIENCE),
            stores.sessions.lock(f"{owner}-2", "s", PATIENCE),
        ):
            assert order == []
    assert order == [0, 1, 2, 3, 4]


@pytest.mark.asyncio
async def test_who_waits_too_long_for_a_lock_is_told(stores: Stores, owner: str) -> None:
    """After its patience a waiter gives up, and isn't in anybody's way then."""
    async with stores.sessions.lock(owner, "s", PATIENCE):
        with pytest.raises(SessionBusyError):
            async with stores.sessions.lock(owner, "s", 0.05):
                pass
    await saved(stores.sessions, session_of(owner))


@pytest.mark.asyncio
async def test_a_waiter_that_is_cancelled_leaves_the_lock_to_others(stores: Stores, owner: str) -> None:
    """Neither a waiter nor a holder that is cancelled keeps the lock."""

    async def hold() -> None:
        async with stores.sessions.lock(owner, "s", PATIENCE):
            await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hold)
        tasks.start_soon(hold)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    async with stores.sessions.lock(owner, "s", 1):
        pass


@pytest.mark.asyncio
async def test_a_lock_may_be_released_by_another_task(stores: Stores, owner: str) -> None:
    """A stream that begins in one task may end in another."""
    async with AsyncExitStack() as stack:

        async def take() -> None:
            await stack.enter_async_context(stores.sessions.lock(owner, "s", PATIENCE))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(take)
        await stack.aclose()
    async with stores.sessions.lock(owner, "s", 1):
        pass


@pytest.mark.asyncio
async def test_a_deleted_session_stays_deleted(stores: Stores, owner: str) -> None:
    """Deleting takes the lock away from a turn under way: what it would save isn't kept."""
    session = await saved(stores.sessions, session_of(owner))
    async with stores.sessions.lock(owner, "s", PATIENCE) as lock:
        assert await stores.sessions.delete(owner, "s")
        with pytest.raises(SessionLostError):
            await lock.save(session, MOST)
    assert await stores.sessions.load(owner, "s", NOW) is None
    assert not await stores.sessions.delete(owner, "s")
    await saved(stores.sessions, session)


@pytest.mark.asyncio
async def test_usage_adds_up_by_owner_and_day(stores: Stores, owner: str) -> None:
    """Counts of a day are summed; other days and owners have their own; days without any aren't there."""
    used = DayUsage("2026-01-31", 1, 10, 20, 0.1)
    for each in (used, used, replace(used, day="2026-02-01", requests=0)):
        await stores.usage.add(owner, each, uuid.uuid4().hex)
    await stores.usage.add(f"{owner}-2", used, uuid.uuid4().hex)
    read = await stores.usage.read(owner, ["2026-01-30", "2026-01-31", "2026-02-01"])
    assert read == {
        "2026-01-31": DayUsage("2026-01-31", 2, 20, 40, 0.2),
        "2026-02-01": DayUsage("2026-02-01", 0, 10, 20, 0.1),
    }


@pytest.mark.asyncio
async def test_requests_under_way_are_limited_by_owner(stores: Stores, owner: str) -> None:
    """So many may be under way; one that left, or whose time is over, makes room."""
    usage = stores.usage
    assert [await usage.enter(owner, name, 2, NOW, NOW + 60) for name in "abc"] == [True, True, False]
    assert await usage.enter(f"{owner}-2", "c", 2, NOW, NOW + 60)
    await usage.leave(owner, "a")
    assert [await usage.enter(owner, name, 2, NOW, NOW + 60) for name in "de"] == [True, False]
    assert await usage.enter(owner, "f", 2, NOW + 60, NOW + 120)


# Redis alone


@pytest.mark.asyncio
async def test_many_at_once_are_no_outage(redis_server: RedisServer, owner: str) -> None:
    """More commands than connections wait for one; none is told that Redis is away."""
    async with redis_stores(redis_server.url) as stores, anyio.create_task_group() as tasks:
        for number in range(300):
            tasks.start_soon(saved, stores.sessions, session_of(owner, str(number)), 1000)
            tasks.start_soon(stores.usage.add, owner, DayUsage("2026-01-31", 1), str(uuid.uuid4()))
    async with redis_stores(redis_server.url) as stores:
        assert (await stores.sessions.count(owner, NOW)).active == 300
        assert (await stores.usage.read(owner, ["2026-01-31"]))["2026-01-31"].requests == 300


@pytest.mark.asyncio
async def test_who_waits_for_others_waits_for_longer_than_for_redis(redis_server: RedisServer) -> None:
    """Three times as many commands as there are connections, each of a second: the last one is carried out, too."""
    connection = RedisConnection(redis_server.url)
    async with anyio.create_task_group() as tasks:
        for _ in range(3 * 64 + 1):
            tasks.start_soon(connection.do, lambda: connection.client.blpop(["nothing"], timeout=1))
    await connection.close()


@pytest.mark.asyncio
async def test_many_at_once_wait_for_one_that_hangs_together(redis_server: RedisServer, owner: str) -> None:
    """Who waited for a connection doesn't wait for Redis besides: all are told when the first are."""

    async def tries(stores: Stores) -> None:
        with pytest.raises(StoreUnavailableError):
            await stores.sessions.load(owner, "s", NOW)

    async with redis_stores(redis_server.url) as stores:
        with redis_server.hung(), anyio.fail_after(8):  # One after the other, 64 at a time take two seconds each.
            async with anyio.create_task_group() as tasks:
                for _ in range(400):
                    tasks.start_soon(tries, stores)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("field", "written"),
    [
        ("info", '{"id": "foreign"}'),
        ("info", b"\xff"),
        ("memory", "garbage"),
        ("memory", "{}  x"),
        ("memory", '{"system": 1}'),
        ("memory", "[" * 100_000),
    ],
)
async def test_a_session_that_nobody_can_read_is_none(
    redis_server: RedisServer, owner: str, field: str, written: str | bytes
) -> None:
    """What another version wrote hides nothing else."""
    async with redis_stores(redis_server.url) as stores:
        for name in ("foreign", "ours"):
            await saved(stores.sessions, session_of(owner, name))
        with redis.Redis.from_url(redis_server.url) as client:
            client.hset(f"claude-wrapper:1:session:{owner}:foreign", field, written)
        assert await stores.sessions.load(owner, "foreign", NOW) is None
        assert "ours" in [info.id for info in await stores.sessions.load_all(owner, NOW)]


@pytest.mark.asyncio
async def test_a_booking_counts_once(redis_server: RedisServer, owner: str) -> None:
    """What seemed to fail may have been booked: it is told again under its id. What is no number counts as none."""
    async with redis_stores(redis_server.url) as stores:
        for booking_id in ("one", "one", "two"):
            await stores.usage.add(owner, DayUsage("2026-01-31", 1, cost_usd=0.5), f"{owner}-{booking_id}")
        assert await stores.usage.read(owner, ["2026-01-31"]) == {"2026-01-31": DayUsage("2026-01-31", 2, cost_usd=1.0)}
        with redis.Redis.from_url(redis_server.url) as client:
            client.hset(f"claude-wrapper:1:usage:{owner}:2026-01-31", "cost_usd", "nan")
        assert (await stores.usage.read(owner, ["2026-01-31"]))["2026-01-31"].cost_usd == 0


@pytest.mark.asyncio
async def test_a_crashed_holders_lock_expires(
    redis_server: RedisServer, owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that stops renewing its lock loses it to another one, and can't save any more."""
    monkeypatch.setattr("redis_stores._LOCK_MS", 300)
    async with redis_stores(redis_server.url) as crashed, redis_stores(redis_server.url) as other:
        async with (
            crashed.sessions.lock(owner, "s", PATIENCE) as lost,
            other.sessions.lock(owner, "s", PATIENCE) as lock,
        ):
            await lock.save(session_of(owner), MOST)
            with pytest.raises(SessionLostError):
                await lost.save(session_of(owner, memory=Memory()), MOST)
        assert await other.sessions.load(owner, "s", NOW) == session_of(owner)


@pytest.mark.asyncio
async def test_a_lock_is_renewed_while_it_is_held(
    redis_server: RedisServer, owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A turn longer than a lock's life keeps its session from others."""
    monkeypatch.setattr("redis_stores._LOCK_MS", 300)
    async with (
        redis_stores(redis_server.url) as one,
        redis_stores(redis_server.url) as other,
        anyio.create_task_group() as tasks,
        one.sessions.lock(owner, "s", PATIENCE) as lock,
    ):
        assert isinstance(one.sessions, RedisSessionStore)
        tasks.start_soon(periodically, 0.05, one.sessions.renew)
        with pytest.raises(SessionBusyError):
            async with other.sessions.lock(owner, "s", 1.0):
                pass
        await lock.save(session_of(owner), MOST)
        tasks.cancel_scope.cancel()


@pytest.mark.asyncio
async def test_redis_away_is_an_error_of_its_own(redis_server: RedisServer, owner: str) -> None:
    """While nobody answers each use says so; afterwards what was saved is there again, without a new connection."""
    async with redis_stores(redis_server.url) as stores:
        session = await saved(stores.sessions, session_of(owner))
        redis_server.stop()
        try:
            with pytest.raises(StoreUnavailableError):
                await stores.sessions.load(owner, "s", NOW)
            with pytest.raises(StoreUnavailableError):
                await stores.usage.add(owner, DayUsage("2026-01-31", 1), "booking")
            with pytest.raises(StoreUnavailableError):
                async with stores.sessions.lock(owner, "s", PATIENCE):
                    pass
        finally:
            redis_server.start()
        assert await stores.sessions.load(owner, "s", NOW) == session
