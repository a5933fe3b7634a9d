"""One completion, whole or streamed, from the parts below: model, adapter, process, events."""

import logging
import random
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, contextmanager
from dataclasses import dataclass, field, replace

import anyio
import stamina

from auth import Login
from callers import Caller
from claude_process import ClaudeProcess
from errors import (
    ApiError,
    ClaudeCodeError,
    ClaudeLoginError,
    ContextLengthExceededError,
    InvalidRequestError,
    OutputFormatError,
    TurnTimeoutError,
    UpstreamError,
    UpstreamRateLimitError,
)
from message_adapter import to_turn_request
from model_catalog import ModelCatalog
from models import ChatCompletionRequest
from parameter_mapping import Adjustment, Circumstances, find_adjustments, find_lost_thoughts, to_binding
from parameter_validator import Rules
from process_pool import Lease, ProcessPool
from quotas import Quotas
from request_options import AgentOptions, RequestOptions
from session_manager import OpenSession, SessionManager
from side_by_side import side_by_side
from tool_grants import ToolGrants
from tool_usage import ToolUsage
from turns import (
    LaunchProfile,
    Memory,
    Message,
    Origin,
    OwnToolEnded,
    TurnEnded,
    TurnEvent,
    TurnRequest,
    TurnStarted,
    UpstreamTimeouts,
)

logger = logging.getLogger(__name__)

_FIRST_WAIT_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 5
_ANSWER_SECONDS = 5
"""What an answer takes at least, for a retry to make sense."""


ChoiceEvent = tuple[int, TurnEvent]
"""An event of a choice of this number."""

_Begun = tuple[TurnEvent, AsyncGenerator[TurnEvent, None]]
"""A turn's first event, and those behind it."""


@dataclass(frozen=True)
class Completion:
    """A completion whose model has begun to answer.

    `created` is in seconds since the epoch. `events` are those after `started`, TurnEnded the last of each choice; they
    raise an ApiError where a turn fails. Close them to stop all turns.
    """

    started: TurnStarted
    """By whichever choice came first; its number is `first`."""
    first: int
    events: AsyncGenerator[ChoiceEvent, None]
    origin: Origin
    overhead_seconds: float
    """From the parsed request to a process that is prepared for it: waiting in line and a failed try included."""
    adjusted: tuple[Adjustment, ...]
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))


@dataclass(frozen=True)
class ChatService:
    """Turns a request's body into the events of its turn."""

    pool: ProcessPool
    catalog: ModelCatalog
    sessions: SessionManager
    quotas: Quotas
    grants: ToolGrants
    tool_usage: ToolUsage
    login: Login
    rules: Rules
    timeout: float
    """Seconds that a whole turn may take."""
    upstream_timeouts: UpstreamTimeouts
    retries: stamina.AsyncRetryingCaller
    """How often, and after which waits, a turn is played again that Claude's API has failed."""
    usual_thinking_tokens: int
    """Tokens that a model may think where the request says nothing of it."""

    async def begin(
        self, body: ChatCompletionRequest, caller: Caller, options: RequestOptions, request_id: str
    ) -> Completion:
        """Wait until the model begins to answer. Raises an ApiError where it doesn't."""
        if body.enable_tools:
            self.grants.check(caller.limits, options.agent)
        clock = _Clock(self.timeout)

        async def may_begin() -> None:
            # A request that has had an answer already is let finish.
            if not any(turn.has_ended for turn in turns):
                await self.quotas.check_budget(caller)

        streamed = bool(body.stream)
        turns = [_Turn(clock, self.upstream_timeouts, may_begin, streamed, number) for number in range(body.choices)]
        with clock.limit():
            circumstances = await self._circumstances(body, options)
        adjusted = find_adjustments(body, circumstances)
        if adjusted and self.rules.is_strict:
            raise adjusted[0].refusal
        asked = _ChatRequest(body, circumstances, caller, options.agent, request_id)
        events = self._events(asked, turns)
        first, started = await anext(events)
        assert isinstance(started, TurnStarted)  # noqa: S101 - for the type checker: every turn's first event
        turn = turns[first]
        if turn.has_lost_thoughts and (lost := find_lost_thoughts(body, circumstances)):
            adjusted = (*adjusted, lost)
        return Completion(started, first, events, turn.origin, turn.overhead_seconds, adjusted)

    async def _events(self, asked: "_ChatRequest", turns: Sequence["_Turn"]) -> AsyncGenerator[ChoiceEvent, None]:
        """Yield the events of turns that answer the same; before the last one session and account have them.

        No cancel scope is open across a yield: the consumer may move to another task.
        """
        last: ChoiceEvent | None = None
        clock, caller = turns[0].clock, asked.caller
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.quotas.request(caller))
            session = await self._session(stack, asked.body.session_id, caller, clock)
            with clock.limit():
                profile, request = await self._turn_request(asked, session)
            answers = [self._answered(request, profile, caller.owner, turn) for turn in turns]
            events = await stack.enter_async_context(aclosing(side_by_side(answers)))
            async for index, event in events:
                last = index, event
                if isinstance(event, TurnEnded):
                    is_first = not any(turn.has_ended for turn in turns)
                    with turns[index].marked_errors():
                        await self.quotas.book(caller.owner, event.usage, event.cost_usd, is_first_turn=is_first)
                        if session:
                            await session.commit(request, event)
                    turns[index].has_ended = True
                    if all(turn.has_ended for turn in turns):
                        break
                yield last
        # All that was held is free before the client can know that its answer is complete, and come back.
        assert last is not None  # noqa: S101 - for the type checker: every turn's last event
        yield last

    async def _session(
        self, stack: AsyncExitStack, session_id: str | None, caller: Caller, clock: "_Clock"
    ) -> OpenSession | None:
        if session_id is None:
            return None
        return await stack.enter_async_context(self.sessions.open(caller.owner, session_id, clock.left))

    async def _answered(
        self, request: TurnRequest, profile: LaunchProfile, owner: str, turn: "_Turn"
    ) -> AsyncGenerator[TurnEvent, None]:
        """Yield the events of a turn, which is played again where it fails before the client gets any of them."""
        first, rest = await self.retries(turn.wait_before_retry, self._begun, request, profile, owner, turn)
        async with aclosing(rest):
            yield first
            async for event in rest:
                yield event

    async def _begun(self, request: TurnRequest, profile: LaunchProfile, owner: str, turn: "_Turn") -> _Begun:
        """Begin to play a turn; a fresh process does where another can't, and at once."""
        try:
            return await _first(self._played(request, profile, owner, turn, fresh=False))
        except (ClaudeCodeError, InvalidRequestError) as error:
            again = None if turn.has_acted else self._again(request, error, turn.origin)
            if again is None:
                raise
            logger.warning("The turn is tried again, after %s", error.code)
        begun = await _first(self._played(again, profile, owner, turn, fresh=again is request))
        if again is not request:
            self.catalog.note_without_output_format(request.binding.model)
        return begun

    def _again(self, request: TurnRequest, error: ApiError, origin: Origin) -> TurnRequest | None:
        """Return what to try after an error: the same with a fresh process, or another form of it; None: nothing."""
        if request.binding.output_format and isinstance(error, OutputFormatError):
            return replace(request, binding=request.binding.held_by_claude_code())
        return request if _is_worth_another_try(error, origin) else None

    async def _played(
        self, request: TurnRequest, profile: LaunchProfile, owner: str, turn: "_Turn", *, fresh: bool
    ) -> AsyncGenerator[TurnEvent, None]:
        """Yield a turn's events as they come, or all at once at its end where the client gets a whole answer."""
        lease = self.pool.lease(request, owner, profile, fresh=fresh, patience=turn.patience)
        held_back: list[TurnEvent] = []
        async with aclosing(turn.events(lease, request.prompt)) as events:
            async for event in events:
                if isinstance(event, OwnToolEnded):
                    self.tool_usage.note(owner, event)
                if turn.is_streamed:
                    yield event
                else:
                    held_back.append(event)
        for event in held_back:
            yield event

    async def _circumstances(self, body: ChatCompletionRequest, options: RequestOptions) -> Circumstances:
        if not self.login.complete:
            message = f"This server has no complete login at Claude (missing: {', '.join(self.login.missing)}). "
            raise ClaudeLoginError(message + self.login.fix)
        model = await self.catalog.resolve(body.model)
        says_how_to_think = body.reasoning_effort or options.thinking_tokens is not None or self.usual_thinking_tokens
        return Circumstances(
            model=model,
            thinks=await self.catalog.thinks(model) if says_how_to_think else "if told",
            holds_output=self.catalog.holds_output(model),
            login=self.rules.login,
            thinking_tokens=options.thinking_tokens,
            usual_thinking_tokens=self.usual_thinking_tokens,
        )

    async def _turn_request(
        self, asked: "_ChatRequest", session: OpenSession | None
    ) -> tuple[LaunchProfile, TurnRequest]:
        """Return what Claude is to be asked, and the profile of the process that can."""
        body = asked.body
        binding = to_binding(body, asked.circumstances)
        request = to_turn_request(binding, body.messages, session.memory if session else Memory())
        if session:
            session.check_room_for(request)
        if not body.enable_tools:
            return self.grants.profile, request
        info = session.info if session else None
        profile, task = await self.grants.begin(
            asked.caller, asked.options, info, asked.request_id, tells_steps=bool(body.stream)
        )
        return profile, replace(request, agent=task)


@dataclass(frozen=True)
class _ChatRequest:
    """What a request wants, and for whom."""

    body: ChatCompletionRequest
    circumstances: Circumstances
    caller: Caller
    options: AgentOptions
    request_id: str


def usual_retries(most: int) -> stamina.AsyncRetryingCaller:
    """Return what plays a turn again up to so many times, each after about twice the time of before."""
    return stamina.AsyncRetryingCaller(
        attempts=1 + most,
        timeout=None,  # The request's own time is looked at.
        wait_initial=_FIRST_WAIT_SECONDS,
        wait_max=_LONGEST_WAIT_SECONDS,
        wait_jitter=_FIRST_WAIT_SECONDS,
    )


def _is_worth_another_try(error: ApiError, origin: Origin) -> bool:
    """Whether a fresh process may do what this one couldn't."""
    if isinstance(error, ContextLengthExceededError):
        # Claude Code refuses what it thinks too long after earlier answers' counts; the API is to judge.
        return origin == "adopted" and not error.sent
    return isinstance(error, ClaudeCodeError)


@dataclass
class _Turn:
    """One turn, and the process that plays it."""

    clock: "_Clock"
    upstream_timeouts: UpstreamTimeouts
    may_begin: Callable[[], Awaitable[None]]
    """Raises where the turn may not begin any more, after the wait for its session and its process."""
    is_streamed: bool
    number: int
    """Among the turns of its request."""
    origin: Origin = "spawned"
    overhead_seconds: float = 0
    has_ended: bool = False
    has_lost_thoughts: bool = False
    """Whether it goes on without thinking, though it should."""
    tries: int = 0
    """How often it has begun."""
    _process: ClaudeProcess | None = None

    @property
    def patience(self) -> float | None:
        """How long it may wait for a process; behind others of its request, as long as that may take."""
        return self.clock.left if self.number or self.tries else None

    async def events(
        self, lease: AbstractAsyncContextManager[Lease], prompt: Message
    ) -> AsyncGenerator[TurnEvent, None]:
        """Yield the turn's events."""
        self.tries += 1
        async with AsyncExitStack() as stack:
            with self.clock.limit():
                leased = await stack.enter_async_context(lease)
                await self.may_begin()
            self.origin, self.overhead_seconds = leased.origin, self.clock.passed
            self.has_lost_thoughts = leased.process.has_lost_thoughts
            self._process = leased.process
            turn = leased.process.turn(prompt, self.upstream_timeouts)
            events = await stack.enter_async_context(aclosing(turn))
            event = await self._next(events)
            while not isinstance(event, TurnEnded):
                yield event
                event = await self._next(events)
        yield event

    async def _next(self, events: AsyncGenerator[TurnEvent, None]) -> TurnEvent:
        with self.marked_errors(), self.clock.limit():
            return await anext(events)

    def wait_before_retry(self, error: Exception) -> float | bool:
        """How long to wait before the turn is played again, in seconds; True: the usual time, False: it isn't.

        What has to wait for long, or would hardly have time for an answer, is left to the client, who is told the time.
        """
        if not isinstance(error, UpstreamError | UpstreamRateLimitError) or self.has_acted:
            return False
        wait = error.retry_after or 0
        if wait > _LONGEST_WAIT_SECONDS or self.clock.left < _LONGEST_WAIT_SECONDS + _ANSWER_SECONDS:
            return False
        # So that not all that were turned away together come back together.
        return wait + random.uniform(0, _FIRST_WAIT_SECONDS) if wait > 1 else True  # noqa: S311 - no secret

    @property
    def has_acted(self) -> bool:
        """Whether a tool of Claude Code's own was called, which nobody can undo."""
        return self._process is not None and self._process.has_acted

    @contextmanager
    def marked_errors(self) -> Generator[None, None, None]:
        """Let clients, which try again by themselves, not do so with what has acted."""
        try:
            yield
        except ApiError as error:
            error.retryable = error.retryable and not self.has_acted
            raise


async def _first(events: AsyncGenerator[TurnEvent, None]) -> _Begun:
    return await anext(events), events


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
