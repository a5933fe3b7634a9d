"""What a key may use, and its account: counted the same way in memory and in a real Redis."""

import uuid
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack

import anyio
import anyio.lowlevel
import pytest
import pytest_asyncio

from callers import Caller, KeyLimits
from errors import OverBudgetError, RateLimitExceededError, StoreUnavailableError, TooManyAtOnceError
from memory_stores import MemoryUsageStore, memory_counters
from quotas import Quotas
from rate_limiter import RateLimiter
from real_services import RedisServer
from redis_stores import RedisConnection, RedisUsageStore
from stores import DayUsage, UsageStore
from turns import Usage

NOON = 1_769_860_800.0  # 2026-01-31, 12:00 UTC
USAGE = Usage(10, 20, 3, 4, 5)


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """The time."""
    return Clock()


@pytest_asyncio.fixture(params=["memory", "redis"])
async def quotas(request: pytest.FixtureRequest, clock: Clock) -> AsyncGenerator[Quotas, None]:
    """Quotas over each kind of store."""
    async with AsyncExitStack() as stack:
        store: UsageStore = MemoryUsageStore()
        if request.param == "redis":
            connection = RedisConnection(request.getfixturevalue("redis_server").url)
            stack.push_async_callback(connection.close)
            store = RedisUsageStore(connection)
        limiter = RateLimiter(memory_counters(), memory_counters(), {}, fail_open=True)
        yield Quotas(store, limiter, fail_open=True, clock=clock)


def caller(**limits: float) -> Caller:
    """A caller of whom no test has heard."""
    return Caller(uuid.uuid4().hex, "anna", KeyLimits(**limits))  # type: ignore[arg-type]


@pytest.mark.asyncio
async def test_an_account_adds_up_by_day(quotas: Quotas, clock: Clock) -> None:
    """Requests, tokens and costs of a day; what is told later is a cost without a request; the latest day is first."""
    anna = caller()
    assert await quotas.report(anna.owner) == [DayUsage("2026-01-31")]
    await quotas.book(anna.owner, USAGE, 0.5)
    await quotas.book(anna.owner, USAGE, None)
    await quotas.book_cost(anna.owner, 0.25)
    clock.now += 24 * 3600
    await quotas.book(anna.owner, USAGE, 1.0)
    days = [DayUsage("2026-02-01", 1, 17, 20, 1.0), DayUsage("2026-01-31", 2, 34, 40, 0.75)]
    assert await quotas.report(anna.owner) == days
    clock.now += 31 * 24 * 3600
    assert await quotas.report(anna.owner) == [DayUsage("2026-03-04")]


@pytest.mark.asyncio
async def test_who_is_over_budget_waits_for_the_next_day(quotas: Quotas, clock: Clock) -> None:
    """The error says when the day ends; then the key may go on."""
    anna = caller(usd_per_day=1.0)
    async with quotas.request(anna):
        await quotas.book(anna.owner, USAGE, 0.6)
    async with quotas.request(anna):
        await quotas.book_cost(anna.owner, 0.4)
    with pytest.raises(OverBudgetError, match="2026-02-01T00:00:00Z") as caught:
        async with quotas.request(anna):
            pass
    error = caught.value
    assert (error.status, error.type, error.code) == (429, "insufficient_quota", "insufficient_quota")
    assert error.headers == {"x-should-retry": "false", "Retry-After": str(12 * 3600)}
    clock.now += 12 * 3600
    async with quotas.request(anna):
        pass


@pytest.mark.asyncio
async def test_a_key_has_so_many_requests_at_a_time(quotas: Quotas, clock: Clock) -> None:
    """One too many is a 429; one that ended makes room; one whose server died counts for half a minute."""
    anna = caller(concurrent_requests=2)
    async with quotas.request(anna), AsyncExitStack() as stack:
        await stack.enter_async_context(quotas.request(anna))
        with pytest.raises(TooManyAtOnceError) as caught:
            async with quotas.request(anna):
                pass
        assert (caught.value.status, caught.value.code) == (429, "too_many_concurrent_requests")
        await stack.aclose()
        async with quotas.request(anna):
            pass
        async with quotas.request(anna):
            clock.now += 20
            await quotas.keep()
            clock.now += 20
            with pytest.raises(TooManyAtOnceError):
                await quotas.request(anna).__aenter__()
            clock.now += 31
            async with quotas.request(anna), quotas.request(anna):
                pass


@pytest.mark.asyncio
async def test_who_is_given_up_frees_its_place(quotas: Quotas) -> None:
    """A request that is cancelled at whatever moment isn't counted any more."""
    anna = caller(concurrent_requests=1)
    for _ in range(20):
        async with anyio.create_task_group() as tasks:

            async def ask() -> None:
                async with quotas.request(anna):
                    await anyio.sleep_forever()

            tasks.start_soon(ask)
            await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
    async with quotas.request(anna):
        pass


@pytest.mark.asyncio
async def test_a_redis_that_hangs_makes_nothing_count_twice(redis_url: str, redis_server: RedisServer) -> None:
    """What was told while it hung is booked once; what left then is gone; a budget counts what isn't booked yet."""
    connection = RedisConnection(redis_url)
    limiter = RateLimiter(memory_counters(), memory_counters(), {}, fail_open=True)
    quotas, anna = Quotas(RedisUsageStore(connection), limiter, fail_open=False), caller(usd_per_day=2.0)
    berta = caller(concurrent_requests=1)
    async with quotas.request(berta):
        with redis_server.hung():
            for _ in range(2):
                await quotas.book(anna.owner, USAGE, 1.0)
    with pytest.raises((OverBudgetError, StoreUnavailableError)):
        await quotas.check_budget(anna)
    with anyio.fail_after(20):
        while quotas._unbooked or quotas._not_left:
            await quotas.keep()
    assert [(day.requests, day.cost_usd) for day in await quotas.report(anna.owner)] == [(2, 2.0)]
    async with quotas.request(berta):
        pass
    await connection.close()


@pytest.mark.asyncio
async def test_a_key_has_so_many_requests_a_minute(quotas: Quotas) -> None:
    """One too many is a 429; a key without a limit has none, and another key its own."""
    anna = caller(requests_per_minute=1)
    standing = await quotas.check_rate(anna)
    assert standing
    assert (standing.limit, standing.remaining) == (1, 0)
    with pytest.raises(RateLimitExceededError):
        await quotas.check_rate(anna)
    assert await quotas.check_rate(caller(requests_per_minute=1))
    assert await quotas.check_rate(caller()) is None


@pytest.mark.asyncio
@pytest.mark.parametrize("fail_open", [True, False])
async def test_while_redis_is_away_keys_fail_as_set(redis_server: RedisServer, fail_open: bool) -> None:
    """Requests of limited keys pass, or none does; what is used is booked when it is back."""
    connection = RedisConnection(redis_server.url)
    limiter = RateLimiter(connection.counters(), memory_counters(), {}, fail_open=fail_open)
    quotas = Quotas(RedisUsageStore(connection), limiter, fail_open=fail_open)
    redis_server.stop()
    try:
        for limits in ({"usd_per_day": 1.0}, {"concurrent_requests": 1}):
            if fail_open:
                async with quotas.request(caller(**limits)):
                    pass
            else:
                with pytest.raises(StoreUnavailableError):
                    async with quotas.request(caller(**limits)):
                        pass
        anna = caller()
        async with quotas.request(anna):
            await quotas.book(anna.owner, USAGE, 1.0)
            await quotas.book(anna.owner, USAGE, 0.5)
    finally:
        redis_server.start()
    await quotas.keep()
    ((day),) = await quotas.report(anna.owner)
    assert (day.requests, day.cost_usd) == (2, 1.5)
    await connection.close()
