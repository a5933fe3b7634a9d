"""What a key may use, and what it used: its own requests a minute, requests at the same time and dollars a day.

Costs are Claude Code's own, booked by the day (UTC) on which a turn ended.
"""

import math
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta, timezone

import anyio

from callers import Caller
from errors import ApiError, OverBudgetError, StoreUnavailableError, TooManyAtOnceError
from rate_limiter import RateLimiter, Standing
from stores import REPORTED_DAYS, DayUsage, UsageStore
from turns import Usage

KEEP_SECONDS = 8
# So long a request counts whose server died.
_LEASE_SECONDS = 30


class Quotas:
    """Holds keys to their limits, and keeps their accounts."""

    def __init__(
        self, store: UsageStore, limiter: RateLimiter, *, fail_open: bool, clock: Callable[[], float] = time.time
    ) -> None:
        """Keep accounts in `store`; while it is away requests pass (`fail_open`), or none does.

        Somebody has to call `keep` every KEEP_SECONDS.
        """
        self._store, self._limiter, self._fail_open, self._clock = store, limiter, fail_open, clock
        self._under_way: dict[str, Caller] = {}
        self._not_left: dict[str, str] = {}
        self._unbooked: dict[str, tuple[str, DayUsage]] = {}

    async def check_rate(self, caller: Caller) -> Standing | None:
        """Count a request of a key that has a limit of its own. Raises TooManyRequestsError for one too many."""
        limit = caller.limits.requests_per_minute
        return None if limit is None else await self._limiter.count(limit, "key", caller.owner)

    @asynccontextmanager
    async def request(self, caller: Caller) -> AsyncGenerator[None, None]:
        """Be a request of this key until the end. Raises OverBudgetError, TooManyAtOnceError where it can't be one."""
        await self.check_budget(caller)
        if caller.limits.concurrent_requests is None:
            yield
            return
        request_id = uuid.uuid4().hex
        try:  # From here on: who is given up while it enters may be in.
            await self._enter(caller, request_id)
            self._under_way[request_id] = caller
            yield
        finally:
            self._under_way.pop(request_id, None)
            with anyio.CancelScope(shield=True):
                await self._leave(caller.owner, request_id)

    async def book(self, owner: str, usage: Usage, cost_usd: float | None, *, is_first_turn: bool = True) -> None:
        """Add a turn that ended to an account, and with the first turn of a request the request."""
        received = usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens
        await self._add(
            owner, DayUsage(_day(self._clock()), int(is_first_turn), received, usage.output_tokens, cost_usd or 0.0)
        )

    async def book_cost(self, owner: str, cost_usd: float) -> None:
        """Add to an account what a turn cost that failed, or was left."""
        await self._add(owner, DayUsage(_day(self._clock()), cost_usd=cost_usd))

    async def _add(self, owner: str, used: DayUsage) -> None:
        self._unbooked[uuid.uuid4().hex] = (owner, used)
        with anyio.CancelScope(shield=True):  # Spent is spent, also where the client leaves just now.
            await self._book_all()

    async def _book_all(self) -> None:
        """Book what isn't booked yet; while the store is away it stays here.

        A booking keeps its id: what seemed to fail may have been booked.
        """
        for booking_id, (owner, used) in [*self._unbooked.items()]:
            try:
                await self._store.add(owner, used, booking_id)
            except StoreUnavailableError:
                return
            self._unbooked.pop(booking_id, None)

    async def keep(self) -> None:
        """Tell the store again what is under way, or it counts no longer, what left, and what isn't booked."""
        for request_id, caller in [*self._under_way.items()]:
            if request_id in self._under_way:
                with suppress(ApiError):  # Others may have taken its place while the store was away.
                    await self._enter(caller, request_id)
            if request_id not in self._under_way:  # It left meanwhile, and is in again.
                await self._leave(caller.owner, request_id)
        for request_id, owner in [*self._not_left.items()]:
            await self._leave(owner, request_id)
        await self._book_all()

    async def report(self, owner: str) -> list[DayUsage]:
        """Return what a key used, the latest of its days first; today in any case."""
        now = self._clock()
        days = [_day(now - 24 * 3600 * number) for number in range(REPORTED_DAYS)]
        found = await self._store.read(owner, days)
        return [found.get(day, DayUsage(day)) for day in days if day in found or day == days[0]]

    def resets_at(self) -> datetime:
        """Return when the next day begins."""
        today = datetime.fromtimestamp(self._clock(), timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0)
        return today + timedelta(days=1)

    async def check_budget(self, caller: Caller) -> None:
        """Raise OverBudgetError where the key has spent what it may; to be asked again after a wait."""
        budget = caller.limits.usd_per_day
        if budget is None:
            return
        try:
            today = _day(self._clock())
            spent = (await self._store.read(caller.owner, [today])).get(today, DayUsage(today)).cost_usd
            spent += sum(used.cost_usd for owner, used in self._unbooked.values() if owner == caller.owner)
        except StoreUnavailableError:
            if not self._fail_open:
                raise
            return
        if spent >= budget:
            resets_at = self.resets_at()
            message = (
                f"This API key has spent its ${budget:g} of today. It may go on at {resets_at:%Y-%m-%dT%H:%M:%SZ}."
            )
            raise OverBudgetError(message, math.ceil(resets_at.timestamp() - self._clock()))

    async def _enter(self, caller: Caller, request_id: str) -> None:
        most, now = caller.limits.concurrent_requests or 0, self._clock()
        try:
            entered = await self._store.enter(caller.owner, request_id, most, now, now + _LEASE_SECONDS)
        except StoreUnavailableError:
            if not self._fail_open:
                raise
            return
        if not entered:
            raise TooManyAtOnceError(f"This API key may have {most} requests at the same time. Wait for one to end.", 1)

    async def _leave(self, owner: str, request_id: str) -> None:
        try:
            await self._store.leave(owner, request_id)
        except StoreUnavailableError:
            self._not_left[request_id] = owner
        else:
            self._not_left.pop(request_id, None)


def _day(now: float) -> str:
    return datetime.fromtimestamp(now, timezone.utc).date().isoformat()
