"""May this caller's address ask again now: a number of requests a minute, in fixed windows, for each kind of route.

Counting is done by the library that slowapi counts with (`limits`, its async storages and its fixed window), and the
address is told as slowapi tells it. slowapi's own decorators would block while they count, and can't be dependencies.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from limits import RateLimitItemPerMinute
from limits.aio.storage import Storage
from limits.aio.strategies import FixedWindowRateLimiter

from errors import RateLimitExceededError, StoreUnavailableError

LimitedRoute = Literal["chat", "session", "auth", "debug", "health"]


@dataclass(frozen=True)
class Standing:
    """Where a caller stands in its window: requests allowed and left, and seconds until it may ask as often again."""

    limit: int
    remaining: int
    reset: float

    @property
    def headers(self) -> dict[str, str]:
        """OpenAI's headers: https://platform.openai.com/docs/guides/rate-limits#rate-limits-in-headers."""
        return {
            "x-ratelimit-limit-requests": str(self.limit),
            "x-ratelimit-remaining-requests": str(self.remaining),
            "x-ratelimit-reset-requests": duration(self.reset),
        }


class RateLimiter:
    """Counts requests by name, address or key in fixed windows of a minute that begin with the first request."""

    def __init__(
        self, storage: Storage, local: Storage, per_minute: Mapping[LimitedRoute, int], *, fail_open: bool
    ) -> None:
        """Count in `storage`, by its own clock; while that is away let all pass (`fail_open`), or none.

        Health is counted in `local`, this server's own: it has to be told also while the other is away.
        """
        self._shared, self._local = FixedWindowRateLimiter(storage), FixedWindowRateLimiter(local)
        self._per_minute, self._fail_open = per_minute, fail_open

    async def pass_route(self, route: LimitedRoute, address: str) -> Standing | None:
        """Count a request; None where nothing limits it.

        Raises RateLimitExceededError for one too many, StoreUnavailableError where it can't be counted and must be.
        """
        if route not in self._per_minute:
            return None
        strategy = self._local if route == "health" else self._shared
        return await self._count(strategy, self._per_minute[route], route, address)

    async def count(self, per_minute: int, *names: str) -> Standing | None:
        """Count a request under these names, of which there may be `per_minute`; like `pass_route`."""
        return await self._count(self._shared, per_minute, *names)

    async def _count(self, strategy: FixedWindowRateLimiter, per_minute: int, *names: str) -> Standing | None:
        item = RateLimitItemPerMinute(per_minute)
        try:
            passes = await strategy.hit(item, *names)
            window = await strategy.get_window_stats(item, *names)
        except StoreUnavailableError:
            if self._fail_open:
                return None
            raise
        standing = Standing(per_minute, window.remaining, max(0.0, window.reset_time - time.time()))
        if not passes:
            seconds = max(1, math.ceil(standing.reset))
            raise RateLimitExceededError(seconds, standing.headers)
        return standing


def duration(seconds: float) -> str:
    """Write a duration as OpenAI's headers do: `120ms`, `7s`, `6m0s`."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
