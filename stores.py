"""What outlives a request, and where it is kept: sessions and usage, in this server's memory or in Redis.

The values and the interfaces are here; memory_stores.py and redis_stores.py implement them, and one suite holds both
to the same behaviour. What to keep, for how long and for whom is decided elsewhere.
"""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from agent_task import ALL_TOOLS, Narrowing
from turns import Memory, Usage


@dataclass(frozen=True)
class SessionInfo:
    """What is known of a session beside what was said. Times are seconds since the epoch, usage and cost totals."""

    id: str
    owner: str
    model: str
    message_count: int
    turns: int
    usage: Usage
    cost_usd: float
    created_at: float
    last_accessed: float
    expires_at: float
    tools: Narrowing = ALL_TOOLS
    """Which of Claude Code's own tools it wants."""


@dataclass(frozen=True)
class Session:
    """A conversation that is kept for its owner."""

    info: SessionInfo
    memory: Memory


@dataclass(frozen=True)
class SessionCounts:
    """How many sessions an owner has: `active` ones, and `expired` ones that nobody swept yet."""

    active: int
    expired: int


class SessionLock(Protocol):
    """The right to be a session's next turn; lost when the session is deleted, or its holder is given up for dead."""

    async def save(self, session: Session, most: int) -> None:
        """Keep `session` in place of the one before.

        Raises SessionLostError where the lock was lost, TooManySessionsError where the owner had more than `most` then.
        """
        ...


class SessionStore(Protocol):
    """Sessions by owner and id. A store that can't be reached raises StoreUnavailableError."""

    def lock(self, owner: str, session_id: str, patience: float) -> AbstractAsyncContextManager[SessionLock]:
        """Be alone with a session, which needn't exist. Raises SessionBusyError after `patience` seconds."""
        ...

    async def load(self, owner: str, session_id: str, now: float) -> Session | None:
        """Return a session that hasn't expired."""
        ...

    async def load_all(self, owner: str, now: float) -> list[SessionInfo]:
        """Describe the owner's sessions that haven't expired, the latest used first."""
        ...

    async def count(self, owner: str, now: float) -> SessionCounts:
        """Count the owner's sessions."""
        ...

    async def delete(self, owner: str, session_id: str) -> bool:
        """Forget a session, and take its lock away; tell whether there was one, expired or only begun."""
        ...

    async def sweep(self, now: float) -> int:
        """Forget the sessions of all owners that have expired; return how many."""
        ...


REPORTED_DAYS = 31
"""Days of which usage is told; stores keep them and some more."""


@dataclass(frozen=True)
class DayUsage:
    """What one key used on one day (UTC, as `2026-01-31`)."""

    day: str
    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0

    def __add__(self, other: "DayUsage") -> "DayUsage":
        """Add what was used on the same day."""
        return DayUsage(
            self.day,
            self.requests + other.requests,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cost_usd + other.cost_usd,
        )


class UsageStore(Protocol):
    """Counts by owner and day, and the requests that are under way. Raises StoreUnavailableError as above."""

    async def add(self, owner: str, used: DayUsage, booking_id: str) -> None:
        """Add to what the owner used on that day; once for each booking, however often it is told."""
        ...

    async def read(self, owner: str, days: list[str]) -> Mapping[str, DayUsage]:
        """Return what the owner used on those of the days on which it used anything."""
        ...

    async def enter(self, owner: str, request_id: str, most: int, now: float, until: float) -> bool:
        """Count a request as under way, or for longer, unless there are `most` others already.

        It counts until `leave`, or, where its server dies, until the time `until`.
        """
        ...

    async def leave(self, owner: str, request_id: str) -> None:
        """Count a request no longer."""
        ...


class Connection(Protocol):
    """What the stores hang on."""

    async def ping(self) -> bool:
        """Tell whether it answers, soon."""
        ...
