"""Sessions and usage in this server's memory: gone when it ends, seen by no other."""

from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

from limits.aio.storage import MemoryStorage, Storage

from errors import SessionLostError, TooManySessionsError
from session_locks import Locks
from stores import REPORTED_DAYS, DayUsage, Session, SessionCounts, SessionInfo, SessionLock

_Key = tuple[str, str]


class MemorySessionStore:
    """Sessions in a dictionary."""

    def __init__(self) -> None:
        """Begin with none."""
        self._sessions: dict[str, dict[str, Session]] = defaultdict(dict)
        self._locks = Locks()
        self._holders: dict[_Key, _Lock] = {}

    @asynccontextmanager
    async def lock(self, owner: str, session_id: str, patience: float) -> AsyncGenerator[SessionLock, None]:
        """See SessionStore."""
        key = (owner, session_id)
        async with self._locks.hold(key, patience):
            lock = self._holders[key] = _Lock(self, key)
            try:
                yield lock
            finally:
                self._holders.pop(key, None)

    async def load(self, owner: str, session_id: str, now: float) -> Session | None:
        """See SessionStore."""
        session = self._sessions.get(owner, {}).get(session_id)
        return session if session and session.info.expires_at > now else None

    async def load_all(self, owner: str, now: float) -> list[SessionInfo]:
        """See SessionStore."""
        alive = [session.info for session in self._sessions.get(owner, {}).values() if session.info.expires_at > now]
        return sorted(alive, key=lambda info: info.last_accessed, reverse=True)

    async def count(self, owner: str, now: float) -> SessionCounts:
        """See SessionStore."""
        active = len(await self.load_all(owner, now))
        return SessionCounts(active, len(self._sessions.get(owner, {})) - active)

    async def delete(self, owner: str, session_id: str) -> bool:
        """See SessionStore."""
        was_locked = self._holders.pop((owner, session_id), None) is not None
        return self._forget(owner, session_id) or was_locked

    async def sweep(self, now: float) -> int:
        """See SessionStore."""
        expired = [
            (owner, session_id)
            for owner, sessions in self._sessions.items()
            for session_id, session in sessions.items()
            if session.info.expires_at <= now
        ]
        return sum(self._forget(*key) for key in expired)

    def _forget(self, owner: str, session_id: str) -> bool:
        if session_id not in self._sessions.get(owner, {}):
            return False
        del self._sessions[owner][session_id]
        if not self._sessions[owner]:
            del self._sessions[owner]
        return True

    def save(self, lock: "_Lock", session: Session, most: int) -> None:
        """Keep a session for the holder of its lock."""
        if self._holders.get(lock.key) is not lock:
            raise SessionLostError
        info = session.info
        others = [each.info for each in self._sessions.get(info.owner, {}).values() if each.info.id != info.id]
        if sum(each.expires_at > info.last_accessed for each in others) >= most:
            raise TooManySessionsError(most)
        self._sessions[info.owner][info.id] = session


class _Lock:
    def __init__(self, store: MemorySessionStore, key: _Key) -> None:
        self._store = store
        self.key = key

    async def save(self, session: Session, most: int) -> None:
        """See SessionLock."""
        self._store.save(self, session, most)


class MemoryUsageStore:
    """Counts in dictionaries, of the latest days."""

    def __init__(self) -> None:
        """Begin with none."""
        self._days: dict[str, dict[str, DayUsage]] = {}
        self._under_way: dict[str, dict[str, float]] = defaultdict(dict)

    async def add(self, owner: str, used: DayUsage, booking_id: str) -> None:  # noqa: ARG002 - told once, in here
        """See UsageStore."""
        days = self._days.setdefault(used.day, {})
        days[owner] = days.get(owner, DayUsage(used.day)) + used
        while len(self._days) > REPORTED_DAYS + 1:
            del self._days[min(self._days)]

    async def read(self, owner: str, days: list[str]) -> Mapping[str, DayUsage]:
        """See UsageStore."""
        return {day: self._days[day][owner] for day in days if owner in self._days.get(day, {})}

    async def enter(self, owner: str, request_id: str, most: int, now: float, until: float) -> bool:
        """See UsageStore."""
        alive = {each: end for each, end in self._under_way[owner].items() if end > now}
        fits = len({*alive} - {request_id}) < most
        self._under_way[owner] = {**alive, request_id: until} if fits else alive
        return fits

    async def leave(self, owner: str, request_id: str) -> None:
        """See UsageStore."""
        self._under_way[owner].pop(request_id, None)
        if not self._under_way[owner]:
            del self._under_way[owner]


class ThisServer:
    """The connection of these stores, which is always there."""

    async def ping(self) -> bool:
        """See Connection."""
        return True


def memory_counters() -> Storage:
    """Where the rate limiter counts."""
    return MemoryStorage()
