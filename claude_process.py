"""One Claude Code process: launch, prepare, turn, settle, close.

The SDK's client speaks the control protocol over a transport of ours, which reaches the controls that the client
doesn't offer. What is undocumented about the CLI is used here, in cli_frames.py, cli_channel.py and cli_launch.py, and
nowhere else; tests/test_cli_contract*.py hold each of these facts against the installed CLI.
"""

import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

import anyio
import anyio.to_thread
from claude_agent_sdk import (
    ClaudeAgentOptions,
    ClaudeSDKClient,
    ClaudeSDKError,
    ResultMessage,
)
from claude_agent_sdk import Message as SdkMessage

import cli_launch
from agent_task import AgentTask
from cli_channel import CliChannel
from cli_frames import Frame, frame_of, rebinding, rewind_to, server_name
from cli_launch import Started
from conversation import Conversation, Digest, digests
from errors import ApiError, ClaudeCodeError
from permission_hooks import PermissionHooks
from process_books import Costs, DiskWatch
from request_bar import RequestBar
from sdk_transport import ChannelTransport
from server_log import of_no_request
from tool_bridge import results_in
from tool_calls import OwnToolCalls
from turn_events import events_of
from turn_state import TurnState
from turn_waits import first_sign, next_message
from turns import (
    NO_TIMEOUTS,
    OUTPUT_TOOL,
    Binding,
    LaunchProfile,
    Message,
    ToolResultBlock,
    TurnEnded,
    TurnEvent,
    TurnRequest,
    UpstreamTimeouts,
)

logger = logging.getLogger(__name__)

_INITIALIZE_TIMEOUT_SECONDS = 20
_RESULT_TIMEOUT_SECONDS = 30
_CUT_OFF_SECONDS = 5


class ClaudeProcess:
    """A live Claude Code process.

    Launch it, `prepare` it for a request, run the request's `turn`, `settle`; then prepare it for the next. A turn that
    has called functions goes on with the next one, where that brings the results. One task at a time uses it. Whatever
    goes wrong raises an `ApiError`; a process of which a method other than `turn` raised is to be closed.
    """

    def __init__(self, started: Started, profile: LaunchProfile) -> None:
        """Use `launch`."""
        self._channel, self._profile = CliChannel(started, has_children=profile.agent is not None), profile
        self._transport = ChannelTransport(self._channel)
        self._permissions = PermissionHooks(started.directory)
        self.disk = DiskWatch(started.written)
        self.costs = Costs()
        options = ClaudeAgentOptions(verbatim_prompts=True, **(self._permissions.options if profile.agent else {}))
        self._client = ClaudeSDKClient(options, transport=self._transport)
        self.binding: Binding | None = None
        self.conversation = Conversation()
        self.turns = 0
        self.has_lost_thoughts = False
        """Whether the turn that is prepared has to do without thinking, as what was thought before is lost."""
        self._unsettled: _UnsettledTurn | None = None
        self._awaited: frozenset[str] = frozenset()
        self._bar = RequestBar(self._channel, profile)
        self._agent: AgentTask | None = None
        self._own_calls = OwnToolCalls(self._permissions.denials)

    @classmethod
    async def launch(cls, profile: LaunchProfile) -> "ClaudeProcess":
        """Start a process, without waiting until it is ready. Raises ClaudeCodeError where it can't be started."""
        try:
            return cls(await cli_launch.start(profile), profile)
        except OSError as error:
            logger.exception("Claude Code can't be started")
            raise ClaudeCodeError("Claude Code can't be started on this server; its log says why.") from error

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._channel.pid

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._channel.alive

    @property
    def settled(self) -> bool:
        """Whether the last turn ended well, so that the conversation has it."""
        return self._unsettled is None

    @property
    def has_tools(self) -> bool:
        """Whether it has tools of its own: then it serves one conversation."""
        return self._profile.agent is not None

    @property
    def has_acted(self) -> bool:
        """Whether a tool of its own was called, which nobody can undo."""
        return self._own_calls.has_begun

    @property
    def waits_for_results(self) -> bool:
        """Whether the last turn has called functions and goes on when their results come."""
        return bool(self._awaited)

    def kill(self, fault: ApiError | None = None) -> None:
        """End the process at once, with all that it started; its turn fails with this error."""
        self._channel.kill(fault)

    def note_death(self) -> None:
        """Log how the process ended, where it wasn't ended by us and nobody has logged it yet."""
        self._channel.died()

    def shared_with(self, binding: Binding, wanted: Sequence[Digest]) -> int:
        """Return how many messages of a request (given as digests) this process already holds, bound as it wants."""
        can_go_on = self.binding is not None and binding.can_follow(self.binding)
        return self.conversation.shared_with(wanted) if can_go_on else 0

    def can_become(self, binding: Binding) -> bool:
        """Whether this process can be rewound to nothing and bound anew.

        A system prompt can be replaced, but neither added nor taken away; a schema of Claude Code's own can't change.
        """
        fits = self.binding is not None and self.binding.fixed == binding.fixed and not self.has_tools
        return fits and self.conversation.keepable(0) == 0

    async def prepare(self, request: TurnRequest) -> None:
        """Hold exactly the conversation before the request's prompt, bound as the request wants.

        What is held already is kept; what isn't is rewound, and what lacks is seeded. A turn that waits for other
        results than the prompt brings is given up. Nothing is sent to Claude.
        """
        wanted = [*digests(request.history)]
        if self.waits_for_results and not self._is_answered_by(request, wanted):
            await self.settle()
        keep = self.conversation.keepable(self.shared_with(request.binding, wanted))
        if keep is None:
            raise ClaudeCodeError("This conversation can't be rewound.")
        if self.binding is None:
            await self.initialize(request.binding)
        if request.agent:
            await self._serve(request.agent, request.binding)
        binding = self._possible(request, keep)
        self._channel.bridge.offer(binding.tools, in_full=binding.has_own_tools)
        rewinds = [rewind_to(target) for target in self.conversation.rewind(keep)]
        changes = rebinding(self.binding, binding, self._bar.opening())
        answers = await self._channel.controls(*rewinds, *changes)
        _check_rewound(answers[: len(rewinds)])
        self.binding = binding
        self._bar.take_down()
        self.has_lost_thoughts = binding.thinking != request.binding.thinking and not binding.thinking.budget_tokens
        await self._seed(request.history[keep:])

    def _possible(self, request: TurnRequest, keep: int) -> Binding:
        """Return the binding that a request can have, of whose history so many messages are kept."""
        wanted = request.binding
        if self.waits_for_results and self.binding:
            # How much the model thinks is settled for a whole turn.
            return replace(wanted, thinking=self.binding.thinking)
        is_resumed = any(isinstance(block, ToolResultBlock) for block in request.prompt.content)
        if keep < len(request.history) and is_resumed:
            # What the model thought before its call is lost, and some models, while they think, refuse a call without.
            return replace(wanted, thinking=wanted.thinking.stopped())
        return wanted

    def _is_answered_by(self, request: TurnRequest, wanted: Sequence[Digest]) -> bool:
        """Whether a request, of which `wanted` is the history, brings just what the turn waits for."""
        assert self.binding is not None  # noqa: S101 - for the type checker: it has a turn
        has_all = self.shared_with(request.binding, wanted) == len(self.conversation) == len(wanted)
        is_bound_alike = self.binding.thinking.may_go_on_under(request.binding)
        has_functions = server_name(request.binding.tools) == server_name(self.binding.tools)
        return (
            has_all and is_bound_alike and has_functions and self._awaited == (results_in(request.prompt) or {}).keys()
        )

    async def initialize(self, binding: Binding) -> Frame:
        """Tell a fresh process what can't be told later; return what it tells of itself. Claude is sent nothing."""
        system, schema = binding.system, binding.own_schema
        # With tools of its own Claude Code is told how to use them, and the client's prompt stands behind that.
        own = {"appendSystemPrompt": system} if system else {}
        self._transport.initialize_fields = {
            **(own if binding.has_own_tools else {"systemPrompt": [system] if system else []}),
            "systemPromptSnapshot": False,
            **({"jsonSchema": json.loads(schema)} if schema else {}),
        }
        try:
            with anyio.fail_after(_INITIALIZE_TIMEOUT_SECONDS), of_no_request():
                await self._client.connect()
        except Exception as error:  # the edge of the process: the SDK raises bare Exceptions here
            cli, words = self._profile.cli_path, self._channel.last_words()
            logger.warning("Claude Code process %d (%s) didn't initialise: %s", self.pid, cli, words)
            raise ClaudeCodeError(
                "The Claude Code process could not be initialised; the server's log says why."
            ) from error
        return await self._client.get_server_info() or {}

    async def control(self, subtype: str) -> Frame:
        """Send a control request that takes nothing, and return its answer."""
        return await self._channel.control(subtype)

    async def turn(self, prompt: Message, timeouts: UpstreamTimeouts = NO_TIMEOUTS) -> AsyncGenerator[TurnEvent, None]:
        """Send `prompt` and yield the answer's events, as they come, up to and including TurnEnded.

        Where a turn waits for results, `prompt` has them, and the turn goes on.

        Raises an ApiError where the turn fails, at whatever point; UpstreamTimeoutError where Claude's API is silent
        for longer than the `timeouts`.
        """
        assert self.binding is not None  # noqa: S101 - for the type checker: prepared
        self.turns += 1
        tells_steps = self._agent is None or self._agent.tells_steps
        state = TurnState.of(self.binding, self._own_calls, tells_steps=tells_steps)
        self._bar.begin_turn(self.binding)
        is_after_a_tool = self.waits_for_results and self._agent is not None
        await (self._answer(prompt) if self.waits_for_results else self._ask(prompt))
        async with aclosing(self._messages()) as messages:
            message = await self._first_sign(messages, is_after_a_tool=is_after_a_tool)
            while True:
                if isinstance(message, ResultMessage):
                    self._note_result(state, message, prompt)
                for event in self._events_of(state, message):
                    if isinstance(event, TurnEnded):
                        yield await self._ended(event, state, prompt, messages)
                        return
                    await self._bar.note_event()
                    yield event
                message = await next_message(messages, state, timeouts)

    def _events_of(self, state: TurnState, message: SdkMessage) -> Iterator[TurnEvent]:
        """Yield what a message means, and end the process where it would ask the model once more."""
        try:
            for event in events_of(state, message):
                if not self.has_tools:  # `_ended` sees to these.
                    self._stop_continuing(state)
                yield event
        except ApiError:
            self._stop_continuing(state)
            raise

    def _stop_continuing(self, state: TurnState) -> None:
        if state.continues_by_itself and not self._bar.holds:
            self._channel.kill()

    async def _first_sign(self, messages: AsyncGenerator[SdkMessage, None], *, is_after_a_tool: bool) -> SdkMessage:
        try:
            return await first_sign(messages, is_after_a_tool=is_after_a_tool)
        except ClaudeCodeError:
            self._channel.kill()  # Or it might ask the model yet.
            raise

    async def _ask(self, prompt: Message) -> None:
        frame = frame_of(prompt)
        # Before it is sent: whoever is cancelled while a long prompt is written has begun a turn.
        self._unsettled = _UnsettledTurn(frame["uuid"], len(self.conversation))
        await self._send(frame)

    async def _answer(self, prompt: Message) -> None:
        """Let the turn that waits for results have them."""
        results = results_in(prompt)
        assert results is not None  # noqa: S101 - for the type checker: prepared for them
        self._awaited = frozenset()
        await self._channel.write_frames(self._channel.bridge.answer(results))

    async def settle(self) -> None:
        """Undo the last turn where it didn't end well: stop it if it still runs or waits, and take its prompt back."""
        if self._unsettled is None:
            return
        self._awaited = frozenset()
        if self._unsettled.running:
            # Not waiting for the answer: it stands behind what the turn has written, which somebody has to read first.
            await self._channel.send("interrupt")
            self.costs.of_turn((await self._next_result()).total_cost_usd)
            self._channel.bridge.forget()
        _check_rewound(await self._channel.controls(rewind_to(self._unsettled.prompt_uuid)))
        self.conversation.forget(self._unsettled.place)
        self._unsettled = None

    async def close(self) -> None:
        """End the process and reap it. Never raises, may be called twice."""
        with anyio.CancelScope(shield=True):
            await self._client.disconnect()
            await self._channel.close()

    def _note_result(self, state: TurnState, result: ResultMessage, prompt: Message) -> None:
        """Keep the process's books at the end of a turn."""
        assert self._unsettled is not None  # noqa: S101 - for the type checker: a turn is under way
        self._unsettled.running = False
        state.cost_usd = self.costs.of_turn(result.total_cost_usd)
        if not result.is_error and state.is_kept:
            self._keep(state, prompt)
            self._unsettled = None

    async def _ended(
        self, event: TurnEnded, state: TurnState, prompt: Message, messages: AsyncGenerator[SdkMessage, None]
    ) -> TurnEnded:
        """Take notice of a turn's end; where that is in calls, the conversation goes on with their results."""
        if state.continues_by_itself and self.has_tools:
            event = replace(event, cost_usd=await self._cut_off(messages))
        elif state.waits_for_results and state.is_kept:
            event = replace(event, cost_usd=await self._cost_until_now())
            self._keep(state, prompt)
            self._awaited = frozenset(call.id for call in state.calls)
        self.costs.tell(event.cost_usd)
        return event

    async def _cut_off(self, messages: AsyncGenerator[SdkMessage, None]) -> float | None:
        """Stop a turn of many steps that Claude Code would go on with; return what it cost, None where that isn't told.

        The process is of no more use, but what it has spent is to be booked. It may have asked once more by then, which
        is cut off; if it were killed at once, nobody would know what the steps before have cost.
        """
        try:
            await self._bar.put_up()
            await self._channel.send("interrupt")
            with anyio.fail_after(_CUT_OFF_SECONDS):
                async for message in messages:
                    if isinstance(message, ResultMessage):
                        return self.costs.of_turn(message.total_cost_usd)
        except (TimeoutError, ClaudeCodeError) as error:
            logger.warning("Claude Code process %d doesn't tell its cost: %r", self.pid, error)
        finally:
            self._channel.kill()
        return None

    async def _cost_until_now(self) -> float | None:
        """Return what a turn cost that goes on later; None where that is told then."""
        if not self._profile.bare:
            return None  # A subscription's login would be asked for its limits besides, which takes a request.
        try:
            told = await self._channel.control("get_usage", skip_behaviors=True)
            return self.costs.of_turn(told["session"]["total_cost_usd"])
        except (ClaudeCodeError, LookupError) as error:
            logger.warning("Claude Code process %d doesn't tell its cost: %r", self.pid, error)
            return None

    def _keep(self, state: TurnState, prompt: Message) -> None:
        assert self._unsettled is not None  # noqa: S101 - for the type checker: a turn is under way
        self.conversation.append(prompt, self._unsettled.prompt_uuid)
        self.conversation.append(state.answer, "")

    async def _serve(self, task: AgentTask, binding: Binding) -> None:
        """Let the turn have what it is granted."""
        self._agent = task
        await anyio.to_thread.run_sync(self.disk.begin, task.grant)
        answering = {OUTPUT_TOOL} if binding.own_schema else set[str]()
        self._permissions.serve(task, frozenset(tool.name for tool in binding.tools) | answering)
        await self._channel.control("set_permission_mode", mode=task.grant.mode)

    async def _seed(self, history: tuple[Message, ...]) -> None:
        """Put `history` into the conversation natively."""
        for message in history:
            frame = frame_of(message, shouldQuery=False)
            await self._send(frame)
            self.conversation.append(message, frame["uuid"])
            if message.role == "user":
                # The CLI keeps the order of frames only if each is waited for.
                await self._next_result()

    async def _send(self, frame: Frame) -> None:
        async def frames() -> AsyncIterator[Frame]:
            yield frame

        await self._client.query(frames())

    async def _next_result(self) -> ResultMessage:
        try:
            with anyio.fail_after(_RESULT_TIMEOUT_SECONDS):
                async with aclosing(self._messages()) as messages:
                    async for message in messages:
                        if isinstance(message, ResultMessage):
                            return message
        except TimeoutError as error:
            raise ClaudeCodeError("Claude Code didn't answer in time.") from error
        raise self._channel.died()

    async def _messages(self) -> AsyncGenerator[SdkMessage, None]:
        """The process's messages from here on; raises where they end, for every turn ends before they do."""
        try:
            async for message in self._client.receive_messages():
                yield message
        except (ClaudeSDKError, ValueError, anyio.DelimiterNotFound) as error:
            logger.warning("Claude Code process %d isn't understood: %s", self.pid, type(error).__name__)
            raise ClaudeCodeError("Claude Code said something that we don't understand.") from error
        raise self._channel.died()


def _check_rewound(answers: Sequence[Frame]) -> None:
    # A rewind that is refused is answered with "success", too.
    for answer in answers:
        if answer.get("rewound") is not True:
            raise ClaudeCodeError(f"Claude Code didn't rewind: {answer.get('reason')}")


@dataclass
class _UnsettledTurn:
    """A turn of which the conversation doesn't know yet."""

    prompt_uuid: str
    place: int
    """In the conversation, where its prompt is or will be."""
    running: bool = True
