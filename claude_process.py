"""One Claude Code process: launch, prepare, turn, settle, close. Only this module and turn_events.py import the SDK.

The SDK's client speaks the control protocol over a transport of ours, which reaches the controls that the client
doesn't offer. What is undocumented about the CLI is used here, in cli_frames.py, cli_channel.py and cli_launch.py, and
nowhere else; tests/test_cli_contract*.py hold each of these facts against the installed CLI.
"""

import json
import logging
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import anyio
from claude_agent_sdk import (
    ClaudeAgentOptions,
    ClaudeSDKClient,
    ClaudeSDKError,
    ResultMessage,
    Transport,
)
from claude_agent_sdk import Message as SdkMessage

import cli_launch
from cli_channel import Answer, CliChannel
from cli_frames import NOWHERE, Frame, frame_of, rebinding, rewind_to, set_environment
from conversation import Conversation, Digest, digests
from errors import ClaudeCodeError
from turn_events import TurnState, events_of
from turns import (
    Account,
    Binding,
    ClaudeModel,
    Inspection,
    LaunchProfile,
    Message,
    TextBlock,
    TurnEnded,
    TurnEvent,
    TurnRequest,
)

logger = logging.getLogger(__name__)

_INITIALIZE_TIMEOUT_SECONDS = 20
_RESULT_TIMEOUT_SECONDS = 30
_SIGN_OF_LIFE_SECONDS = 15

# Not with the first word: that would come later by what this takes. An answer that is over sooner is rare, but for one
# that may have only so many tokens.
_BAR_AFTER_SECONDS = 0.25
_FEW_TOKENS = 128


class _Transport(Transport):
    """What the SDK's client reads and writes: a channel, and our own fields in the client's `initialize`."""

    def __init__(self, channel: CliChannel) -> None:
        """Use a channel to a process that was started."""
        self._channel = channel
        self.initialize_fields: dict[str, Any] = {}

    async def connect(self) -> None:
        """Nothing to do: `ClaudeProcess.launch` started the process."""

    def is_ready(self) -> bool:
        return self._channel.alive

    async def write(self, data: str) -> None:
        frame = json.loads(data) if self.initialize_fields else {}
        if frame.get("request", {}).get("subtype") == "initialize":
            frame["request"] |= self.initialize_fields
            data, self.initialize_fields = json.dumps(frame) + "\n", {}
        await self._channel.write(data)

    def read_messages(self) -> AsyncGenerator[dict[str, Any], None]:
        return self._channel.frames()

    async def end_input(self) -> None:
        await self._channel.end_input()

    async def close(self) -> None:
        await self._channel.close()


class ClaudeProcess:
    """A live Claude Code process.

    Launch it, `prepare` it for a request, run the request's `turn`, `settle`; then prepare it for the next. One task at
    a time uses it. Whatever goes wrong raises an `ApiError`; a process of which a method other than `turn` raised is to
    be closed.
    """

    def __init__(self, channel: CliChannel, profile: LaunchProfile) -> None:
        """Use `launch`."""
        self._channel, self._profile = channel, profile
        self._transport = _Transport(channel)
        self._client = ClaudeSDKClient(ClaudeAgentOptions(verbatim_prompts=True), transport=self._transport)
        self.binding: Binding | None = None
        self.conversation = Conversation()
        self.turns = 0
        self._cost_usd = self._told_usd = 0.0
        self._unsettled: _UnsettledTurn | None = None
        self._barred: Answer | None = None

    @classmethod
    async def launch(cls, profile: LaunchProfile) -> "ClaudeProcess":
        """Start a process, without waiting until it is ready. Raises ClaudeCodeError where it can't be started."""
        try:
            return cls(CliChannel(*await cli_launch.start(profile)), profile)
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

    def shared_with(self, binding: Binding, wanted: Sequence[Digest]) -> int:
        """Return how many messages of a request (given as digests) this process already holds, bound as it wants."""
        can_go_on = self.binding is not None and binding.can_follow(self.binding)
        return self.conversation.shared_with(wanted) if can_go_on else 0

    def can_become(self, binding: Binding) -> bool:
        """Whether this process can be rewound to nothing and bound anew.

        A system prompt can be replaced, but neither added nor taken away.
        """
        fits = self.binding is not None and (self.binding.system is None) == (binding.system is None)
        return fits and self.conversation.keepable(0) == 0

    async def prepare(self, request: TurnRequest) -> None:
        """Hold exactly the conversation before the request's prompt, bound as the request wants.

        What is held already is kept; what isn't is rewound, and what lacks is seeded. Nothing is sent to Claude.
        """
        shared = self.shared_with(request.binding, [*digests(request.history)])
        keep = self.conversation.keepable(shared)
        if keep is None:
            raise ClaudeCodeError("This conversation can't be rewound.")
        if self.binding is None:
            await self._initialize(request.binding.system)
        rewinds = [rewind_to(target) for target in self.conversation.rewind(keep)]
        changes = rebinding(self.binding, request.binding, self._opening())
        answers = await self._channel.controls(*rewinds, *changes)
        _check_rewound(answers[: len(rewinds)])
        self.binding, self._barred = request.binding, None
        await self._seed(request.history[keep:])

    async def inspect(self) -> Inspection:
        """Ask an unbound process for its login and its models; nothing is sent to Claude."""
        info = await self._initialize(None)
        listed = await self._channel.control("list_models")
        account = info.get("account", {})
        return Inspection(
            account=Account(account.get("tokenSource"), account.get("apiKeySource"), account.get("apiProvider")),
            models=tuple(_claude_model(row) for row in listed.get("models", [])),
        )

    async def turn(self, prompt: Message) -> AsyncGenerator[TurnEvent, None]:
        """Send `prompt` and yield the answer's events, as they come, up to and including TurnEnded.

        Raises an ApiError where the turn fails, at whatever point.
        """
        assert self.binding is not None  # noqa: S101 - for the type checker: prepared
        self.turns += 1
        state, bar_at = TurnState(self.binding.model), math.inf
        frame = frame_of(prompt)
        # Before it is sent: whoever is cancelled while a long prompt is written has begun a turn.
        self._unsettled = _UnsettledTurn(frame["uuid"])
        await self._send(frame)
        async with aclosing(self._messages()) as messages:
            message = await self._first_sign(messages)
            while True:
                if isinstance(message, ResultMessage):
                    self._note_result(state, message, prompt)
                for event in events_of(state, message):
                    bar_at = min(bar_at, time.monotonic() + self._bar_after)
                    if state.continues_by_itself and not (self._barred and self._barred.is_there):
                        self._channel.kill()
                    if isinstance(event, TurnEnded):
                        self._told_usd += event.cost_usd or 0.0
                        yield event
                        return
                    if not self._barred and time.monotonic() >= bar_at:
                        await self._bar()
                    yield event
                message = await anext(messages)

    async def _first_sign(self, messages: AsyncGenerator[SdkMessage, None]) -> SdkMessage:
        """Return what comes first after a prompt: Claude Code says that it begins, long before the model answers."""
        try:
            with anyio.fail_after(_SIGN_OF_LIFE_SECONDS):
                return await anext(messages)
        except TimeoutError as error:
            self._channel.kill()  # Or it might ask the model yet.
            raise ClaudeCodeError("The Claude Code process doesn't take up its turn.") from error

    def take_untold_cost(self) -> float:
        """Return what was spent, in dollars, and no TurnEnded told: by turns that failed or were left. Once."""
        untold, self._told_usd = self._cost_usd - self._told_usd, self._cost_usd
        return untold

    async def settle(self) -> None:
        """Undo the last turn where it didn't end well: stop it if it still runs, and take its prompt back."""
        if self._unsettled is None:
            return
        if self._unsettled.running:
            # Not waiting for the answer: it stands behind what the turn has written, which somebody has to read first.
            await self._channel.send("interrupt")
            self._cost_of(await self._next_result())
        _check_rewound(await self._channel.controls(rewind_to(self._unsettled.prompt_uuid)))
        self._unsettled = None

    @property
    def _bar_after(self) -> float:
        most = self.binding and self.binding.sampling.max_tokens
        return 0.0 if most and most <= _FEW_TOKENS else _BAR_AFTER_SECONDS

    async def _bar(self) -> None:
        """Let this turn make no second request: where Claude Code would go on by itself, it gets nowhere."""
        subtype, fields = set_environment({self._profile.base_url_variable: NOWHERE})
        self._barred = await self._channel.send(subtype, **fields)

    def _opening(self) -> Mapping[str, str]:
        """Return what lets requests be made again; an empty URL is the default one."""
        variable = self._profile.base_url_variable
        return {variable: dict(self._profile.environment).get(variable, "")} if self._barred else {}

    async def close(self) -> None:
        """End the process and reap it. Never raises, may be called twice."""
        with anyio.CancelScope(shield=True):
            await self._client.disconnect()
            await self._channel.close()

    def _note_result(self, state: TurnState, result: ResultMessage, prompt: Message) -> None:
        """Keep the process's books at the end of a turn."""
        assert self._unsettled is not None  # noqa: S101 - for the type checker: a turn is under way
        self._unsettled.running = False
        state.cost_usd = self._cost_of(result)
        # Claude Code drops blank blocks, which the client, who got their text, will send.
        if not result.is_error and state.texts and all(text.strip() for text in state.texts):
            self.conversation.append(prompt, self._unsettled.prompt_uuid)
            self.conversation.append(Message("assistant", (TextBlock(state.text),)), "")
            self._unsettled = None

    def _cost_of(self, result: ResultMessage) -> float | None:
        """Return what a turn cost: Claude Code tells what the process cost so far."""
        if result.total_cost_usd is None:
            return None
        before, self._cost_usd = self._cost_usd, result.total_cost_usd
        return result.total_cost_usd - before

    async def _seed(self, history: tuple[Message, ...]) -> None:
        """Put `history` into the conversation natively."""
        for message in history:
            frame = frame_of(message, shouldQuery=False)
            await self._send(frame)
            self.conversation.append(message, frame["uuid"])
            if message.role == "user":
                # The CLI keeps the order of frames only if each is waited for.
                await self._next_result()

    async def _initialize(self, system: str | None) -> dict[str, Any]:
        self._transport.initialize_fields = {
            "systemPrompt": [system] if system else [],
            "systemPromptSnapshot": False,
        }
        try:
            with anyio.fail_after(_INITIALIZE_TIMEOUT_SECONDS):
                await self._client.connect()
        except Exception as error:  # the edge of the process: the SDK raises bare Exceptions here
            logger.warning("Claude Code process %d didn't initialise: %s", self.pid, self._channel.last_words())
            raise ClaudeCodeError(
                "The Claude Code process could not be initialised; the server's log says why."
            ) from error
        return await self._client.get_server_info() or {}

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
            raise ClaudeCodeError("Claude Code said something that we don't understand.") from error
        raise self._channel.died()


def _check_rewound(answers: Sequence[Frame]) -> None:
    # A rewind that is refused is answered with "success", too.
    for answer in answers:
        if answer.get("rewound") is not True:
            raise ClaudeCodeError(f"Claude Code didn't rewind: {answer.get('reason')}")


def _claude_model(row: Mapping[str, Any]) -> ClaudeModel:
    alias = row["value"]
    return ClaudeModel(alias, row.get("resolvedModel") or alias)


@dataclass
class _UnsettledTurn:
    """A turn of which the conversation doesn't know yet."""

    prompt_uuid: str
    running: bool = True
