"""Sessions and usage in Redis: shared by all servers that name it, and there again when they are.

A lock is a key with its holder's token, which expires when its holder stops renewing it: a server that dies frees
its sessions. Whoever saves has to hold the lock in that very moment, which a script checks. Redis forgets expired
sessions by itself; the index, by owner, of when they expire counts them.
"""

import logging
import math
import uuid
from collections.abc import AsyncGenerator, Awaitable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import asdict
from typing import Any

import anyio
from limits.aio.storage import RedisStorage, Storage
from pydantic import TypeAdapter
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from errors import SessionBusyError, SessionLostError, StoreUnavailableError, TooManySessionsError
from session_locks import Locks
from stores import REPORTED_DAYS, DayUsage, Session, SessionCounts, SessionInfo, SessionLock
from turns import Memory

logger = logging.getLogger(__name__)

_PREFIX = "claude-wrapper"
_SOCKET_TIMEOUT_SECONDS = 3
_PING_TIMEOUT_SECONDS = 1
_LOCK_MS = 15_000
_RENEW_SECONDS = 4
_POLL_SECONDS = 0.1
# Sessions stay in Redis a little longer than they live, to be counted as expired until they are swept.
_GRACE_SECONDS = 600
_USAGE_SECONDS = (REPORTED_DAYS + 1) * 24 * 3600

_INFO = TypeAdapter(SessionInfo)
_MEMORY = TypeAdapter(Memory)

_RENEW = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
"""
_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""
# KEYS: lock, session, the owner's index, the owners.
# ARGV: token, info, memory, ms to keep it, id, its end, now, most, owner.
_SAVE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'lost' end
local others = redis.call('ZCOUNT', KEYS[3], '(' .. ARGV[7], '+inf')
local own = redis.call('ZSCORE', KEYS[3], ARGV[5])
if own and tonumber(own) > tonumber(ARGV[7]) then others = others - 1 end
if others >= tonumber(ARGV[8]) then return 'too many' end
redis.call('HSET', KEYS[2], 'info', ARGV[2], 'memory', ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
redis.call('ZADD', KEYS[3], ARGV[6], ARGV[5])
redis.call('SADD', KEYS[4], ARGV[9])
return 'saved'
"""
# KEYS: the owner's index, the owners. ARGV: now, owner, how a session's name begins.
_SWEEP = """
local expired = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1])
for _, id in ipairs(expired) do
  redis.call('DEL', ARGV[3] .. id)
  redis.call('ZREM', KEYS[1], id)
end
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('SREM', KEYS[2], ARGV[2]) end
return #expired
"""
# KEYS: the requests under way. ARGV: id, most, now, until, seconds between them.
_ENTER = """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[3])
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[1], ARGV[4], ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[5])
return 1
"""

_OWNERS = f"{_PREFIX}:owners"


def _name(*parts: str) -> str:
    return ":".join((_PREFIX, *parts))


@contextmanager
def _reaching_redis() -> Generator[None, None, None]:
    try:
        yield
    except (RedisError, OSError) as error:
        logger.warning("Redis can't be used: %s", error)
        raise StoreUnavailableError from error


class RedisConnection:
    """A pool of connections. A command that fails, or takes seconds, raises StoreUnavailableError."""

    def __init__(self, url: str) -> None:
        """Connect when the first command needs it."""
        self.client = Redis.from_url(
            url,
            decode_responses=True,
            socket_timeout=_SOCKET_TIMEOUT_SECONDS,
            socket_connect_timeout=_SOCKET_TIMEOUT_SECONDS,
            # Once, at once: a connection that waited may be dead, as after a restart. Requests don't wait longer.
            retry=Retry(NoBackoff(), 1),
        )

    async def do(self, command: Awaitable[Any]) -> Any:
        """Await a command of `client`, which answers with what Redis has there."""
        with _reaching_redis():
            return await command

    def counters(self) -> Storage:
        """Where the rate limiter counts, with the same connections."""
        pool = self.client.connection_pool
        options: dict[str, Any] = {"connection_pool": pool}
        return RedisStorage("async+redis://", wrap_exceptions=True, implementation="redispy", **options)

    async def run(self, script: str, keys: list[str], arguments: list[str | float]) -> Any:
        """Run a script."""
        return await self.do(self.client.eval(script, len(keys), *keys, *map(str, arguments)))

    async def ping(self) -> bool:
        """See Connection."""
        try:
            with anyio.fail_after(_PING_TIMEOUT_SECONDS):
                return bool(await self.do(self.client.ping()))
        except (StoreUnavailableError, TimeoutError):
            return False

    async def close(self) -> None:
        """Close all connections."""
        await self.client.aclose()


class RedisSessionStore:
    """Sessions, each a hash of what is known of it and what was said."""

    def __init__(self, connection: RedisConnection) -> None:
        """Use a connection; somebody has to run `renew_again_and_again`, or locks are lost after some seconds."""
        self._redis = connection
        # Who waits on this server waits here, in order; only the first of them asks Redis.
        self._locks = Locks()
        self._held: set[_Lock] = set()

    @asynccontextmanager
    async def lock(self, owner: str, session_id: str, patience: float) -> AsyncGenerator[SessionLock, None]:
        """See SessionStore."""
        deadline = anyio.current_time() + patience
        async with self._locks.hold((owner, session_id), patience):
            lock = _Lock(self._redis, _name("lock", owner, session_id))
            try:  # From here on: who is given up while it acquires may have it.
                await lock.acquire(deadline)
                self._held.add(lock)
                yield lock
            finally:
                self._held.discard(lock)
                with anyio.CancelScope(shield=True):
                    await lock.release()

    async def load(self, owner: str, session_id: str, now: float) -> Session | None:
        """See SessionStore."""
        fields = await self._redis.do(self._redis.client.hgetall(_name("session", owner, session_id)))
        if not fields:
            return None
        info = _INFO.validate_json(fields["info"])
        return Session(info, _MEMORY.validate_json(fields["memory"])) if info.expires_at > now else None

    async def load_all(self, owner: str, now: float) -> list[SessionInfo]:
        """See SessionStore."""
        alive = await self._redis.do(self._redis.client.zrangebyscore(_name("index", owner), f"({now!r}", "+inf"))
        pipeline = self._redis.client.pipeline(transaction=False)
        for session_id in alive:
            pipeline.hget(_name("session", owner, session_id), "info")
        found = await self._redis.do(pipeline.execute())
        infos = [_INFO.validate_json(info) for info in found if info]
        return sorted(infos, key=lambda info: info.last_accessed, reverse=True)

    async def count(self, owner: str, now: float) -> SessionCounts:
        """See SessionStore."""
        pipeline = self._redis.client.pipeline(transaction=False)
        pipeline.zcount(_name("index", owner), f"({now!r}", "+inf")
        pipeline.zcount(_name("index", owner), "-inf", repr(now))
        return SessionCounts(*await self._redis.do(pipeline.execute()))

    async def delete(self, owner: str, session_id: str) -> bool:
        """See SessionStore."""
        pipeline = self._redis.client.pipeline()
        pipeline.delete(_name("lock", owner, session_id))
        pipeline.delete(_name("session", owner, session_id))
        pipeline.zrem(_name("index", owner), session_id)
        _, _, known = await self._redis.do(pipeline.execute())
        return bool(known)

    async def sweep(self, now: float) -> int:
        """See SessionStore."""
        swept = 0
        for owner in await self._redis.do(self._redis.client.smembers(_OWNERS)):
            beginning = _name("session", owner, "")
            swept += await self._redis.run(_SWEEP, [_name("index", owner), _OWNERS], [repr(now), owner, beginning])
        return swept

    async def renew_again_and_again(self) -> None:
        """Keep the locks that are held."""
        while True:
            await anyio.sleep(_RENEW_SECONDS)
            for lock in [*self._held]:
                if not await lock.renew():
                    self._held.discard(lock)


class _Lock:
    """A key with a token of its holder."""

    def __init__(self, connection: RedisConnection, name: str) -> None:
        self._redis, self._name, self._token = connection, name, uuid.uuid4().hex

    async def acquire(self, deadline: float) -> None:
        """Wait until nobody else has it. Raises SessionBusyError at the deadline, a time of anyio's clock."""
        command = self._redis.client.set
        while not await self._redis.do(command(self._name, self._token, nx=True, px=_LOCK_MS)):
            if anyio.current_time() + _POLL_SECONDS >= deadline:
                raise SessionBusyError
            await anyio.sleep(_POLL_SECONDS)

    async def renew(self) -> bool:
        """Keep it; False where it was lost."""
        try:
            return bool(await self._redis.run(_RENEW, [self._name], [self._token, _LOCK_MS]))
        except StoreUnavailableError:
            return True  # Nobody knows: `save` will.

    async def release(self) -> None:
        """Let the next one have it."""
        with suppress(StoreUnavailableError):  # Then it expires.
            await self._redis.run(_RELEASE, [self._name], [self._token])

    async def save(self, session: Session, most: int) -> None:
        """See SessionLock."""
        info = session.info
        keys = [self._name, _name("session", info.owner, info.id), _name("index", info.owner), _OWNERS]
        kept = round((info.expires_at - info.last_accessed + _GRACE_SECONDS) * 1000)
        said = [_INFO.dump_json(info).decode(), _MEMORY.dump_json(session.memory).decode()]
        times = [repr(info.expires_at), repr(info.last_accessed)]
        outcome = await self._redis.run(_SAVE, keys, [self._token, *said, kept, info.id, *times, most, info.owner])
        if outcome == "lost":
            raise SessionLostError
        if outcome == "too many":
            raise TooManySessionsError(most)


class RedisUsageStore:
    """Counts, a hash for each day, and requests under way, a set by the time until which they count."""

    def __init__(self, connection: RedisConnection) -> None:
        """Use a connection."""
        self._redis = connection

    async def add(self, owner: str, used: DayUsage) -> None:
        """See UsageStore."""
        name = _name("usage", owner, used.day)
        pipeline = self._redis.client.pipeline()
        for field, value in asdict(used).items():
            if field != "day" and value:
                pipeline.hincrbyfloat(name, field, value)
        pipeline.expire(name, _USAGE_SECONDS)
        await self._redis.do(pipeline.execute())

    async def read(self, owner: str, days: list[str]) -> Mapping[str, DayUsage]:
        """See UsageStore."""
        pipeline = self._redis.client.pipeline(transaction=False)
        for day in days:
            pipeline.hgetall(_name("usage", owner, day))
        found = await self._redis.do(pipeline.execute())
        return {day: _day_usage(day, fields) for day, fields in zip(days, found, strict=True) if fields}

    async def enter(self, owner: str, request_id: str, most: int, now: float, until: float) -> bool:
        """See UsageStore."""
        arguments: list[str | float] = [request_id, most, repr(now), repr(until), math.ceil(until - now) + 1]
        return bool(await self._redis.run(_ENTER, [_name("under-way", owner)], arguments))

    async def leave(self, owner: str, request_id: str) -> None:
        """See UsageStore."""
        await self._redis.do(self._redis.client.zrem(_name("under-way", owner), request_id))


def _day_usage(day: str, fields: Mapping[str, str]) -> DayUsage:
    cost = float(fields.get("cost_usd", 0))
    requests, received, written = (
        round(float(fields.get(name, 0))) for name in ("requests", "input_tokens", "output_tokens")
    )
    return DayUsage(day, requests, received, written, cost)
