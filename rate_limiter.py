"""May this caller's address ask again now: a number of requests a minute, in fixed windows, for each kind of route.

Counting is done by the library that slowapi counts with (`limits`, its async storages and its fixed window), and the
address is told as slowapi tells it. slowapi's own decorators would block while they count, and can't be dependencies.
"""

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, RedisStorage, Storage
from limits.aio.strategies import FixedWindowRateLimiter
from limits.errors import StorageError

from errors import StoreUnavailableError, TooManyRequestsError

logger = logging.getLogger(__name__)

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

    def __init__(self, storage: Storage, per_minute: Mapping[LimitedRoute, int], *, fail_open: bool) -> None:
        """Count in `storage`; while that is away let all pass (`fail_open`), or none."""
        self._strategy = FixedWindowRateLimiter(storage)
        self._per_minute, self._fail_open = per_minute, fail_open

    async def pass_route(self, route: LimitedRoute, address: str) -> Standing | None:
        """Count a request; None where nothing limits it. Raises TooManyRequestsError where it is one too many."""
        if route not in self._per_minute:
            return None
        return await self.count(self._per_minute[route], route, address)

    async def count(self, per_minute: int, *names: str) -> Standing | None:
        """Count a request under these names, of which there may be `per_minute`. As above."""
        item = RateLimitItemPerMinute(per_minute)
        try:
            passes = await self._strategy.hit(item, *names)
            window = await self._strategy.get_window_stats(item, *names)
        except StorageError as error:
            if self._fail_open:
                return None
            raise StoreUnavailableError from error
        standing = Standing(per_minute, window.remaining, max(0.0, window.reset_time - time.time()))
        if not passes:
            raise RateLimitExceededError(standing)
        return standing


class RateLimitExceededError(TooManyRequestsError):
    """One request more than its address, or its key, may make in a minute."""

    def __init__(self, standing: Standing) -> None:
        """Say when the window ends."""
        seconds = max(1, math.ceil(standing.reset))
        super().__init__(f"Rate limit exceeded. Try again in {seconds} seconds.", seconds)
        self.standing = standing

    @property
    def headers(self) -> dict[str, str]:
        """Also where the caller stands."""
        return {**super().headers, **self.standing.headers}


def memory_storage() -> Storage:
    """Count in this server's memory."""
    return MemoryStorage()


def redis_storage(url: str, timeout: float) -> Storage:
    """Count in Redis, with redis-py, of which a command may take `timeout` seconds."""
    return RedisStorage(
        f"async+{url}",
        wrap_exceptions=True,
        implementation="redispy",
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
    )


def duration(seconds: float) -> str:
    """Write a duration as OpenAI's headers do: `120ms`, `7s`, `6m0s`."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
