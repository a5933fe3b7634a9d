"""Sessions and usage in Redis: shared by all servers that name it, and there again when they are.

A lock is a key with its holder's token, which expires when its holder stops renewing it: a server that dies frees
its sessions. Whoever saves has to hold the lock in that very moment, which a script checks. Redis forgets expired
sessions by itself; the index, by owner, of when they expire counts them.
"""

import builtins
import json
import logging
import math
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from itertools import chain
from typing import Any

import anyio
from limits.aio.storage import RedisStorage, Storage
from pydantic import TypeAdapter, ValidationError
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, RedisError, TimeoutError  # noqa: A004 - Redis's, which are no OSErrors

from errors import SessionBusyError, SessionLostError, StoreUnavailableError, TooManySessionsError
from session_locks import Locks
from stores import REPORTED_DAYS, DayUsage, Session, SessionCounts, SessionInfo, SessionLock
from turns import Memory

logger = logging.getLogger(__name__)

# The number changes when older servers, which may share the Redis during an update, couldn't read what is written.
_PREFIX = "claude-wrapper:1"
_MOST_CONNECTIONS = 64
_TIMEOUT_SECONDS = 2
_QUEUE_SECONDS = 10
_PAUSE_SECONDS = 1
_PING_TIMEOUT_SECONDS = 1
_LOCK_MS = 15_000
RENEW_SECONDS = 4
_POLL_SECONDS = 0.1
# Sessions stay in Redis a little longer than they live, to be counted as expired until they are swept.
_GRACE_SECONDS = 600
_BOOKED_SECONDS = 24 * 3600
_USAGE_SECONDS = (REPORTED_DAYS + 1) * 24 * 3600

_INFO = TypeAdapter(SessionInfo)
_MEMORY = TypeAdapter(Memory)

_ACQUIRE = """
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
return redis.call('GET', KEYS[1]) == ARGV[1] and 1 or 0
"""
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
local is_in = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not is_in and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[1], ARGV[4], ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[5])
return 1
"""

# KEYS: the booking, the usage. ARGV: seconds to remember the one and the other, then fields and what to add to them.
_BOOK = """
if not redis.call('SET', KEYS[1], '1', 'NX', 'EX', ARGV[1]) then return 0 end
for i = 3, #ARGV, 2 do redis.call('HINCRBYFLOAT', KEYS[2], ARGV[i], ARGV[i + 1]) end
redis.call('EXPIRE', KEYS[2], ARGV[2])
return 1
"""

_OWNERS = f"{_PREFIX}:owners"


def _name(*parts: str) -> str:
    return ":".join((_PREFIX, *parts))


class RedisConnection:
    """Carries out commands, so many at a time. One that fails, or takes seconds, raises StoreUnavailableError."""

    def __init__(self, url: str) -> None:
        """Connect when the first command needs it."""
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=_MOST_CONNECTIONS,
            timeout=_TIMEOUT_SECONDS,
            decode_responses=True,
            socket_timeout=_TIMEOUT_SECONDS,
            socket_connect_timeout=_TIMEOUT_SECONDS,
            # What foreign hands wrote must not break the reading of all the rest.
            encoding_errors="replace",
            # A connection that waited may be dead, as after a restart: then once more, at once. What was sent may have
            # been carried out all the same, so commands bear to be repeated.
            retry=Retry(NoBackoff(), 1, supported_errors=(ConnectionError,)),
        )
        self.client = Redis.from_pool(pool)
        # Commands wait here and not for the pool, where who waits for others couldn't be told from who waits for Redis.
        self._connections = anyio.Semaphore(pool.max_connections)
        self._is_away = False
        self._ask_again_at = -math.inf

    async def do(self, command: Callable[[], Awaitable[Any]]) -> Any:
        """Carry out a command of `client`; return what Redis answers."""
        async with self._connection():
            if time.monotonic() < self._ask_again_at:
                raise StoreUnavailableError
            try:
                answer = await command()
            except (RedisError, OSError) as error:
                self._note_failure(error)
                raise StoreUnavailableError from error
        if self._is_away:
            logger.warning("Redis is back")
        self._is_away = False
        return answer

    @asynccontextmanager
    async def _connection(self) -> AsyncGenerator[None, None]:
        """Wait for a connection, which many commands at once keep busy: that is no outage."""
        try:
            with anyio.fail_after(_QUEUE_SECONDS):
                await self._connections.acquire()
        except builtins.TimeoutError as error:
            raise StoreUnavailableError from error
        try:
            yield
        finally:
            self._connections.release()

    def _note_failure(self, error: Exception) -> None:
        if not self._is_away:
            # Of a command that it doesn't know, as an old one HELLO, it quotes the arguments, a password among them.
            logger.warning("Redis is away: %s", str(error).partition(", with args")[0])
        self._is_away = True
        if isinstance(error, TimeoutError):
            # Not every command of every request shall wait as long for one that hangs.
            self._ask_again_at = time.monotonic() + _PAUSE_SECONDS

    def counters(self) -> Storage:
        """Where the rate limiter counts, with the same connections and the same errors."""
        return _Counters(self)

    async def run(self, script: str, keys: list[str], arguments: list[str | float]) -> Any:
        """Run a script."""
        return await self.do(lambda: self.client.eval(script, len(keys), *keys, *map(str, arguments)))

    async def ping(self) -> bool:
        """See Connection."""
        try:
            with anyio.fail_after(_PING_TIMEOUT_SECONDS):
                # By a write: a Redis may answer while its disk or its memory is full.
                return bool(await self.do(lambda: self.client.set(_name("ping"), "1", ex=_PAUSE_SECONDS)))
        except (StoreUnavailableError, builtins.TimeoutError):
            return False

    async def close(self) -> None:
        """Close all connections."""
        await self.client.aclose()


class _Counters(RedisStorage):
    """The counting library's storage, over a connection of ours."""

    def __init__(self, connection: RedisConnection) -> None:
        options: dict[str, Any] = {"connection_pool": connection.client.connection_pool}
        super().__init__("async+redis://", implementation="redispy", key_prefix=_name("limits"), **options)
        self._redis = connection

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        return int(await self._redis.do(lambda: super(_Counters, self).incr(key, expiry, amount)))

    async def get(self, key: str) -> int:
        return int(await self._redis.do(lambda: super(_Counters, self).get(key)))

    async def get_expiry(self, key: str) -> float:
        # The library's own asks for whole seconds, of which there may be one less than there are.
        left = await self._redis.do(lambda: self._redis.client.pttl(self.bridge.prefixed_key(key)))
        return time.time() + max(int(left), 0) / 1000


class RedisSessionStore:
    """Sessions, each a hash of what is known of it and what was said."""

    def __init__(self, connection: RedisConnection) -> None:
        """Use a connection; somebody has to call `renew` every RENEW_SECONDS, or locks are lost."""
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
        fields = await self._redis.do(lambda: self._redis.client.hgetall(_name("session", owner, session_id)))
        info = _info(fields.get("info"))
        if info is None or info.expires_at <= now:
            return None
        memory = _memory(fields.get("memory"))
        return Session(info, memory) if memory else None

    async def load_all(self, owner: str, now: float) -> list[SessionInfo]:
        """See SessionStore."""
        index, after = _name("index", owner), f"({now!r}"
        alive = await self._redis.do(lambda: self._redis.client.zrangebyscore(index, after, "+inf"))
        pipeline = self._redis.client.pipeline(transaction=False)
        for session_id in alive:
            pipeline.hget(_name("session", owner, session_id), "info")
        infos = [info for found in await self._redis.do(pipeline.execute) if (info := _info(found))]
        return sorted(infos, key=lambda info: info.last_accessed, reverse=True)

    async def count(self, owner: str, now: float) -> SessionCounts:
        """See SessionStore."""
        pipeline = self._redis.client.pipeline(transaction=False)
        pipeline.zcount(_name("index", owner), f"({now!r}", "+inf")
        pipeline.zcount(_name("index", owner), "-inf", repr(now))
        return SessionCounts(*await self._redis.do(pipeline.execute))

    async def delete(self, owner: str, session_id: str) -> bool:
        """See SessionStore."""
        pipeline = self._redis.client.pipeline()
        pipeline.delete(_name("lock", owner, session_id))
        pipeline.delete(_name("session", owner, session_id))
        pipeline.zrem(_name("index", owner), session_id)
        locked, _, known = await self._redis.do(pipeline.execute)
        return bool(known or locked)

    async def sweep(self, now: float) -> int:
        """See SessionStore."""
        swept = 0
        for owner in await self._redis.do(lambda: self._redis.client.smembers(_OWNERS)):
            beginning = _name("session", owner, "")
            swept += await self._redis.run(_SWEEP, [_name("index", owner), _OWNERS], [repr(now), owner, beginning])
        return swept

    async def renew(self) -> None:
        """Keep the locks that are held."""
        locks = [*self._held]
        pipeline = self._redis.client.pipeline(transaction=False)
        for lock in locks:
            pipeline.eval(_RENEW, 1, lock.name, lock.token, str(_LOCK_MS))
        try:
            answers = await self._redis.do(pipeline.execute)
        except StoreUnavailableError:
            return  # Whether they are lost `save` will see.
        for lock, is_held in zip(locks, answers, strict=True):
            if not is_held:
                logger.warning("A session was deleted, or went to another server, in mid-turn")
                self._held.discard(lock)


class _Lock:
    """A key with a token of its holder."""

    def __init__(self, connection: RedisConnection, name: str) -> None:
        self._redis, self.name, self.token = connection, name, uuid.uuid4().hex

    async def acquire(self, deadline: float) -> None:
        """Wait until nobody else has it. Raises SessionBusyError at the deadline, a time of anyio's clock."""
        while not await self._redis.run(_ACQUIRE, [self.name], [self.token, _LOCK_MS]):
            if anyio.current_time() + _POLL_SECONDS >= deadline:
                raise SessionBusyError
            await anyio.sleep(_POLL_SECONDS)

    async def release(self) -> None:
        """Let the next one have it."""
        with suppress(StoreUnavailableError):  # Then it expires.
            await self._redis.run(_RELEASE, [self.name], [self.token])

    async def save(self, session: Session, most: int) -> None:
        """See SessionLock."""
        info = session.info
        keys = [self.name, _name("session", info.owner, info.id), _name("index", info.owner), _OWNERS]
        kept = round((info.expires_at - info.last_accessed + _GRACE_SECONDS) * 1000)
        said = [_INFO.dump_json(info).decode(), _MEMORY.dump_json(session.memory).decode()]
        times = [repr(info.expires_at), repr(info.last_accessed)]
        outcome = await self._redis.run(_SAVE, keys, [self.token, *said, kept, info.id, *times, most, info.owner])
        if outcome == "lost":
            raise SessionLostError
        if outcome == "too many":
            raise TooManySessionsError(most)


class RedisUsageStore:
    """Counts, a hash for each day, and requests under way, a set by the time until which they count."""

    def __init__(self, connection: RedisConnection) -> None:
        """Use a connection."""
        self._redis = connection

    async def add(self, owner: str, used: DayUsage, booking_id: str) -> None:
        """See UsageStore."""
        counts = [(field, value) for field, value in asdict(used).items() if field != "day" and value]
        keys = [_name("booked", booking_id), _name("usage", owner, used.day)]
        await self._redis.run(_BOOK, keys, [_BOOKED_SECONDS, _USAGE_SECONDS, *chain.from_iterable(counts)])

    async def read(self, owner: str, days: list[str]) -> Mapping[str, DayUsage]:
        """See UsageStore."""
        pipeline = self._redis.client.pipeline(transaction=False)
        for day in days:
            pipeline.hgetall(_name("usage", owner, day))
        found = await self._redis.do(pipeline.execute)
        return {day: _day_usage(day, fields) for day, fields in zip(days, found, strict=True) if fields}

    async def enter(self, owner: str, request_id: str, most: int, now: float, until: float) -> bool:
        """See UsageStore."""
        arguments: list[str | float] = [request_id, most, repr(now), repr(until), math.ceil(until - now) + 1]
        return bool(await self._redis.run(_ENTER, [_name("under-way", owner)], arguments))

    async def leave(self, owner: str, request_id: str) -> None:
        """See UsageStore."""
        await self._redis.do(lambda: self._redis.client.zrem(_name("under-way", owner), request_id))


def _info(written: str | None) -> SessionInfo | None:
    try:
        return _INFO.validate_json(written) if written else None
    except ValidationError:
        logger.exception("A session in Redis can't be read, so it counts as none")
        return None


def _memory(written: str | None) -> Memory | None:
    try:
        # Not pydantic's own reader of JSON: it goes no deeper than a request's, and in here everything is deeper.
        return _MEMORY.validate_python(json.loads(written or ""))
    except (ValueError, RecursionError):
        logger.exception("What was said in a session in Redis can't be read, so it counts as none")
        return None


def _number(written: str) -> float:
    try:
        number = float(written)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        logger.error("A count in Redis is no number, so it counts as none")
    return number if math.isfinite(number) else 0.0


def _day_usage(day: str, fields: Mapping[str, str]) -> DayUsage:
    cost = _number(fields.get("cost_usd", "0"))
    requests, received, written = (
        round(_number(fields.get(name, "0"))) for name in ("requests", "input_tokens", "output_tokens")
    )
    return DayUsage(day, requests, received, written, cost)
