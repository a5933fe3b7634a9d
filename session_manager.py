"""Sessions: conversations that a client needn't send again. Whose they are, how long they last, whose turn it is.

A session is what its turns committed, in a store; a live process that happens to hold the conversation is only a
cache of it. A turn that fails or is left commits nothing.
"""

import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace

from agent_task import Narrowing
from errors import InvalidRequestError, NotFoundError, StoreUnavailableError, TooManySessionsError
from stores import Session, SessionInfo, SessionLock, SessionStore
from turns import Memory, TurnEnded, TurnRequest, Usage

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 300
_LONGEST_ID = 128


@dataclass(frozen=True)
class SessionLimits:
    """Seconds that a session lives after its last turn, sessions that a key may have, messages that one may hold."""

    ttl: float
    count: int
    messages: int


@dataclass(frozen=True)
class SessionStats:
    """A key's sessions: those alive and their messages, and those expired that weren't swept yet."""

    active: int
    expired: int
    messages: int


async def _nothing_more(_owner: str, _session_id: str) -> None:
    pass


class SessionManager:
    """Opens sessions for turns, and shows and deletes them, each only to the key that it belongs to."""

    def __init__(
        self,
        store: SessionStore,
        limits: SessionLimits,
        clock: Callable[[], float] = time.time,
        on_end: Callable[[str, str], Awaitable[None]] = _nothing_more,
    ) -> None:
        """Keep sessions in `store`; `clock` tells the seconds since the epoch, `on_end` is told which were deleted."""
        self.limits = limits
        self._store, self._clock, self._on_end = store, clock, on_end
        self._begun: Counter[str] = Counter()

    @asynccontextmanager
    async def open(self, owner: str, session_id: str, patience: float) -> AsyncGenerator["OpenSession", None]:
        """Open a session, a new one where there is none, for one turn; other turns of it wait.

        Raises SessionBusyError where its turn hasn't come after `patience` seconds, and other ApiErrors for an id that
        can't be one, or for one session too many.
        """
        check_id(session_id)
        async with self._store.lock(owner, session_id, patience) as lock:
            now = self._clock()
            session = await self._store.load(owner, session_id, now)
            if session:
                yield OpenSession(session.info, session.memory, lock, self.limits, self._clock)
                return
            info = SessionInfo(session_id, owner, "", 0, 0, Usage(), 0.0, now, now, now)
            with self._place_for_one_more(owner, (await self._store.count(owner, now)).active):
                yield OpenSession(info, Memory(), lock, self.limits, self._clock)

    @contextmanager
    def _place_for_one_more(self, owner: str, active: int) -> Generator[None, None, None]:
        """Count a session that is only being begun: many at once would all be answered, and then not kept."""
        if active + self._begun[owner] >= self.limits.count:
            raise TooManySessionsError(self.limits.count)
        self._begun[owner] += 1
        try:
            yield
        finally:
            self._begun -= Counter({owner: 1})

    async def list(self, owner: str) -> list[SessionInfo]:
        """Describe the sessions of a key, the latest used first."""
        return await self._store.load_all(owner, self._clock())

    async def get(self, owner: str, session_id: str) -> SessionInfo:
        """Describe a session. Raises NotFoundError where the key has none of this id."""
        check_id(session_id)
        session = await self._store.load(owner, session_id, self._clock())
        if session is None:
            raise _unknown(session_id)
        return session.info

    async def delete(self, owner: str, session_id: str) -> None:
        """Forget a session. Raises NotFoundError where the key has none of this id."""
        check_id(session_id)
        if not await self._store.delete(owner, session_id):
            raise _unknown(session_id)
        await self._on_end(owner, session_id)

    async def lives(self, owner: str, session_id: str) -> bool:
        """Whether there is a session of this id, or there may be: the store doesn't tell."""
        try:
            return await self._store.load(owner, session_id, self._clock()) is not None
        except StoreUnavailableError:
            return True

    async def narrow(
        self, owner: str, session_id: str, narrowed: Callable[[Narrowing], Narrowing], patience: float
    ) -> SessionInfo:
        """Let a session, a new one where there is none, want what `narrowed` makes of its tools. Raises as `open`."""
        async with self.open(owner, session_id, patience) as session:
            info = replace(session.info, tools=narrowed(session.info.tools))
            return await session.keep(info, session.memory)
        raise AssertionError  # for the type checkers: nothing here is suppressed

    async def stats(self, owner: str) -> SessionStats:
        """Count the sessions of a key."""
        infos = await self.list(owner)
        expired = (await self._store.count(owner, self._clock())).expired
        return SessionStats(len(infos), expired, sum(info.message_count for info in infos))

    async def sweep(self) -> None:
        """Forget what has expired."""
        try:
            swept = await self._store.sweep(self._clock())
        except StoreUnavailableError:
            return  # Logged already; the next sweep finds them.
        if swept:
            logger.info("%d sessions have expired", swept)


@dataclass(frozen=True)
class OpenSession:
    """A session during one of its turns: what it remembers, and how to commit the turn."""

    info: SessionInfo
    memory: Memory
    _lock: SessionLock
    _limits: SessionLimits
    _clock: Callable[[], float]

    def check_room_for(self, request: TurnRequest) -> None:
        """Raise InvalidRequestError where the session couldn't hold the turn."""
        if len(request.history) + 2 > self._limits.messages:
            raise InvalidRequestError(
                f"A session of this server holds {self._limits.messages} messages at the most. Begin another one.",
                param="session_id",
                code="session_too_long",
            )

    async def commit(self, request: TurnRequest, ended: TurnEnded) -> None:
        """Remember a turn that ended well, and its answer.

        Raises SessionLostError where the session was deleted meanwhile, TooManySessionsError where there is no room.
        """
        # Claude takes no blank message, neither now nor as a part of a history.
        said = (ended.answer,) if ended.answer.content else ()
        messages = (*request.history, request.prompt, *said)
        info = replace(
            self.info,
            model=request.binding.model,
            message_count=len(messages),
            turns=self.info.turns + 1,
            usage=self.info.usage + ended.usage,
            cost_usd=self.info.cost_usd + (ended.cost_usd or 0.0),
        )
        await self.keep(info, Memory(request.binding.system, messages))

    async def keep(self, info: SessionInfo, memory: Memory) -> SessionInfo:
        """Remember this from now on, for as long as a session lives. Raises as `commit`."""
        now = self._clock()
        kept = replace(info, last_accessed=now, expires_at=now + self._limits.ttl)
        await self._lock.save(Session(kept, memory), self._limits.count)
        return kept


def check_id(session_id: str) -> None:
    """Raise InvalidRequestError for what can't be a session's id."""
    if not 1 <= len(session_id) <= _LONGEST_ID or not session_id.isprintable():
        raise InvalidRequestError(
            f"A session's id has 1 to {_LONGEST_ID} printable characters.",
            param="session_id",
            code="invalid_session_id",
        )


def _unknown(session_id: str) -> NotFoundError:
    return NotFoundError(f"There is no session '{session_id}'.", param="session_id", code="session_not_found")
