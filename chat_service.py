"""One completion, whole or streamed, from the parts below: model, adapter, process, events."""

import logging
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, contextmanager
from dataclasses import dataclass, field
from functools import partial

import anyio

from auth import Login
from callers import Caller
from client_functions import to_tool_choice, to_tools
from errors import (
    ApiError,
    ClaudeCodeError,
    ClaudeCodeUnavailableError,
    ClaudeLoginError,
    ContextLengthExceededError,
    TurnTimeoutError,
)
from message_adapter import to_sampling, to_turn_request
from model_catalog import ModelCatalog
from models import ChatCompletionRequest
from process_pool import Lease, ProcessPool
from quotas import Quotas
from session_manager import OpenSession, SessionManager
from turns import Binding, LaunchProfile, Memory, Message, Origin, TurnEnded, TurnEvent, TurnRequest, TurnStarted

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Completion:
    """A completion whose model has begun to answer.

    `created` is in seconds since the epoch. `events` are those after `started`, TurnEnded last; they raise an ApiError
    where the turn fails. Close them to stop the turn.
    """

    started: TurnStarted
    events: AsyncGenerator[TurnEvent, None]
    origin: Origin
    overhead_seconds: float
    """From the parsed request to a process that is prepared for it: waiting in line and a failed try included."""
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))


@dataclass(frozen=True)
class ChatService:
    """Turns a request's body into the events of its turn."""

    pool: ProcessPool
    catalog: ModelCatalog
    sessions: SessionManager
    quotas: Quotas
    login: Login
    profile: LaunchProfile
    """Of the processes that chat uses."""
    timeout: float
    """Seconds that a whole turn may take."""

    async def begin(self, body: ChatCompletionRequest, caller: Caller) -> Completion:
        """Wait until the model begins to answer. Raises an ApiError where it doesn't."""
        may_begin = partial(self.quotas.check_budget, caller)
        turn = _Turn(_Clock(self.timeout), may_begin, is_streamed=bool(body.stream))
        events = self._events(body, caller, turn)
        started = await anext(events)
        assert isinstance(started, TurnStarted)  # noqa: S101 - for the type checker: every turn's first event
        return Completion(started, events, turn.origin, turn.overhead_seconds)

    async def _events(
        self, body: ChatCompletionRequest, caller: Caller, turn: "_Turn"
    ) -> AsyncGenerator[TurnEvent, None]:
        """Yield a turn's events; before the last one its session and its account have it.

        No cancel scope is open across a yield: the consumer may move to another task.
        """
        ended: TurnEnded | None = None
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.quotas.request(caller))
            session = await self._session(stack, body.session_id, caller, turn.clock)
            with turn.clock.limit():
                request = await self._turn_request(body, session)
            events = await stack.enter_async_context(aclosing(self._answered(request, caller.owner, turn)))
            async for event in events:
                if isinstance(event, TurnEnded):
                    ended = event
                    await self.quotas.book(caller.owner, event.usage, event.cost_usd)
                    if session:
                        await session.commit(request, event)
                    break
                yield event
        # All that was held is free before the client can know that its answer is complete, and come back.
        assert ended is not None  # noqa: S101 - for the type checker: every turn's last event
        yield ended

    async def _session(
        self, stack: AsyncExitStack, session_id: str | None, caller: Caller, clock: "_Clock"
    ) -> OpenSession | None:
        if session_id is None:
            return None
        return await stack.enter_async_context(self.sessions.open(caller.owner, session_id, clock.left))

    async def _answered(self, request: TurnRequest, owner: str, turn: "_Turn") -> AsyncGenerator[TurnEvent, None]:
        """Yield the events of a turn, which a fresh process plays again where another failed before one left."""
        try:
            async with aclosing(self._played(request, owner, turn, fresh=False)) as events:
                async for event in events:
                    yield event
        except (ClaudeCodeError, ContextLengthExceededError) as error:
            if turn.has_left or not _is_worth_another_try(error, turn.origin):
                raise
            logger.warning("The turn is tried again with a fresh process: %s", error)
        else:
            return
        async with aclosing(self._played(request, owner, turn, fresh=True)) as events:
            async for event in events:
                yield event

    async def _played(
        self, request: TurnRequest, owner: str, turn: "_Turn", *, fresh: bool
    ) -> AsyncGenerator[TurnEvent, None]:
        """Yield a turn's events as they come, or all at once at its end where the client gets a whole answer."""
        lease = self.pool.lease(request, owner, self.profile, fresh=fresh)
        held_back: list[TurnEvent] = []
        async with aclosing(turn.events(lease, request.prompt)) as events:
            async for event in events:
                if turn.is_streamed:
                    turn.has_left = True
                    yield event
                else:
                    held_back.append(event)
        turn.has_left = True
        for event in held_back:
            yield event

    async def _turn_request(self, body: ChatCompletionRequest, session: OpenSession | None) -> TurnRequest:
        if not self.login.complete:
            message = f"This server has no complete login at Claude (missing: {', '.join(self.login.missing)}). "
            raise ClaudeLoginError(message + self.login.fix)
        model = await self.catalog.resolve(body.model)
        binding = Binding(model, None, to_sampling(body)[0], to_tools(body), to_tool_choice(body))
        request = to_turn_request(binding, body.messages, session.memory if session else Memory())
        if session:
            session.check_room_for(request)
        return request


def _is_worth_another_try(error: ApiError, origin: Origin) -> bool:
    """Whether a fresh process may do what this one couldn't."""
    if isinstance(error, ContextLengthExceededError):
        # Claude Code refuses what it thinks too long after earlier answers' counts; the API is to judge.
        return origin == "adopted" and not error.sent
    return not isinstance(error, ClaudeCodeUnavailableError)


@dataclass
class _Turn:
    """One turn, and the process that plays it."""

    clock: "_Clock"
    may_begin: Callable[[], Awaitable[None]]
    """Raises where the turn may not begin any more, after the wait for its session and its process."""
    is_streamed: bool
    origin: Origin = "spawned"
    overhead_seconds: float = 0
    has_left: bool = False
    """Whether the client may have got any of it."""

    async def events(
        self, lease: AbstractAsyncContextManager[Lease], prompt: Message
    ) -> AsyncGenerator[TurnEvent, None]:
        """Yield the turn's events."""
        async with AsyncExitStack() as stack:
            with self.clock.limit():
                leased = await stack.enter_async_context(lease)
                await self.may_begin()
            self.origin, self.overhead_seconds = leased.origin, self.clock.passed
            events = await stack.enter_async_context(aclosing(leased.process.turn(prompt)))
            event = await self._next(events)
            while not isinstance(event, TurnEnded):
                yield event
                event = await self._next(events)
        yield event

    async def _next(self, events: AsyncGenerator[TurnEvent, None]) -> TurnEvent:
        with self.clock.limit():
            return await anext(events)


class _Clock:
    """How long a request has taken, and may take."""

    def __init__(self, timeout: float) -> None:
        self._began, self._timeout = time.monotonic(), timeout

    @property
    def passed(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._began

    @property
    def left(self) -> float:
        """Seconds that are left; less than none where the time is up."""
        return self._timeout - self.passed

    @contextmanager
    def limit(self) -> Generator[None, None, None]:
        """Raise TurnTimeoutError in here once the time is up."""
        try:
            with anyio.fail_after(self.left):
                yield
        except TimeoutError as error:
            message = f"The request took longer than {self._timeout:g} seconds and was stopped."
            raise TurnTimeoutError(message) from error
