"""One Claude Code process: launch, bind, seed, turn, interrupt, close. The only module that imports the SDK.

The SDK's client speaks the control protocol over a transport of ours, which reaches the controls that the client
doesn't offer. What is undocumented about the CLI's protocol is used here and nowhere else; tests/test_cli_contract.py
holds each of these facts against the installed CLI.
"""

import json
import logging
import signal
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, suppress
from dataclasses import asdict, dataclass, field
from typing import IO, Any

import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream
from claude_agent_sdk import (
    AssistantMessage,
    ClaudeAgentOptions,
    ClaudeSDKClient,
    ClaudeSDKError,
    ResultMessage,
    StreamEvent,
    TextBlock,
    Transport,
)
from claude_agent_sdk import Message as SdkMessage

import cli_launch
from errors import ApiError, ClaudeCodeError, ClaudeLoginError, ContextLengthExceededError, from_upstream
from turns import (
    Account,
    Binding,
    ClaudeModel,
    Inspection,
    LaunchProfile,
    Message,
    TextDelta,
    TurnEnded,
    TurnEvent,
    TurnStarted,
    Usage,
)

logger = logging.getLogger(__name__)

_CONTROL_TIMEOUT_SECONDS = 30.0
_EXIT_GRACE_SECONDS = 2.0
_LONGEST_FRAME_BYTES = 64 * 2**20

# After these the CLI prompts the model again by itself, in words of its own; there is no setting against it.
_STOPS_THAT_THE_CLI_CONTINUES = frozenset({"max_tokens", "model_context_window_exceeded"})

_TOO_LONG = frozenset({"blocking_limit", "prompt_too_long"})
_INTERRUPTED = frozenset({"aborted_streaming", "aborted_tools"})
_FIRST_SERVER_ERROR = 500


class _CliTransport(Transport):
    """The pipes of one CLI process, and a way to send controls of our own."""

    def __init__(self, process: Process, stderr: IO[bytes]) -> None:
        """Take over a process that was just started."""
        assert process.stdin is not None  # noqa: S101 - launched with pipes
        assert process.stdout is not None  # noqa: S101
        self._process, self._stderr = process, stderr
        self._stdin, self._stdout = process.stdin, BufferedByteReceiveStream(process.stdout)
        self._write_lock = anyio.Lock()
        self._waiting: dict[str, _Answer] = {}
        self.initialize_fields: dict[str, Any] = {}

    @property
    def pid(self) -> int:
        return self._process.pid

    async def connect(self) -> None:
        """Nothing to do: the process was started by `ClaudeProcess.launch`."""

    def is_ready(self) -> bool:
        return self._process.returncode is None

    async def write(self, data: str) -> None:
        frame = json.loads(data) if self.initialize_fields else {}
        if frame.get("request", {}).get("subtype") == "initialize":
            frame["request"] |= self.initialize_fields
            data, self.initialize_fields = json.dumps(frame) + "\n", {}
        await self.write_frame(data)

    async def write_frame(self, data: str) -> None:
        try:
            async with self._write_lock:
                await self._stdin.send(data.encode())
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise self.died() from error

    async def read_messages(self) -> AsyncGenerator[dict[str, Any], None]:
        try:
            while True:
                frame = json.loads(await self._stdout.receive_until(b"\n", _LONGEST_FRAME_BYTES))
                response = frame.get("response", {}) if frame.get("type") == "control_response" else {}
                answer = self._waiting.get(response.get("request_id", ""))
                if answer is None:
                    yield frame
                else:
                    answer.set(response)
        except (anyio.IncompleteRead, anyio.ClosedResourceError, anyio.BrokenResourceError) as error:
            raise self.died() from error
        finally:
            for answer in self._waiting.values():
                answer.set({"subtype": "error", "error": "the process ended"})

    async def control(self, subtype: str, **fields: Any) -> dict[str, Any]:
        """Send a control request and return its response. Raises ClaudeCodeError where it fails or takes too long."""
        request_id, answer = f"wrapper_{uuid.uuid4().hex}", _Answer()
        self._waiting[request_id] = answer
        request = {"type": "control_request", "request_id": request_id, "request": {"subtype": subtype, **fields}}
        try:
            await self.write_frame(json.dumps(request) + "\n")
            with anyio.fail_after(_CONTROL_TIMEOUT_SECONDS):
                response = await answer.wait()
        except TimeoutError as error:
            raise ClaudeCodeError(f"Claude Code didn't answer `{subtype}` in time.") from error
        finally:
            del self._waiting[request_id]
        if response["subtype"] != "success":
            raise ClaudeCodeError(f"Claude Code refused `{subtype}`: {response.get('error')}")
        result: dict[str, Any] = response.get("response") or {}
        return result

    async def end_input(self) -> None:
        await self._stdin.aclose()

    async def close(self) -> None:
        """End the process, by force if need be, and reap it."""
        with anyio.CancelScope(shield=True):
            self._signal(signal.SIGTERM)
            with anyio.move_on_after(_EXIT_GRACE_SECONDS):
                await self._process.wait()
            self.kill()
            with anyio.move_on_after(_EXIT_GRACE_SECONDS):
                await self._process.aclose()
            self._stderr.close()

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    def died(self) -> ClaudeCodeError:
        """The error for a process that is gone."""
        logger.warning("Claude Code process %d ended: %s", self.pid, self.stderr_tail())
        return ClaudeCodeError("The Claude Code process ended unexpectedly. Try again.")

    def stderr_tail(self) -> str:
        """The last words of the process, for our log."""
        if self._stderr.closed:
            return ""
        size = self._stderr.seek(0, 2)
        self._stderr.seek(max(0, size - 2000))
        return self._stderr.read().decode(errors="replace").strip()


class _Answer:
    """What a control request waits for."""

    def __init__(self) -> None:
        self._event = anyio.Event()
        self._value: dict[str, Any] = {}

    def set(self, value: dict[str, Any]) -> None:
        if not self._event.is_set():
            self._value = value
            self._event.set()

    async def wait(self) -> dict[str, Any]:
        await self._event.wait()
        return self._value


class ClaudeProcess:
    """A live Claude Code process.

    Launch it, `bind` it once to a model and a system prompt, `seed` the conversation so far, then `turn` by turn. One
    task at a time uses it. Whatever goes wrong raises an `ApiError`; a process that raised is to be closed.
    """

    def __init__(self, transport: _CliTransport) -> None:
        """Use `launch`."""
        self._transport = transport
        self._client = ClaudeSDKClient(ClaudeAgentOptions(verbatim_prompts=True), transport=transport)
        self._model = ""

    @classmethod
    async def launch(cls, profile: LaunchProfile) -> "ClaudeProcess":
        """Start a process, without waiting until it is ready. Raises ClaudeCodeError where it can't be started."""
        try:
            return cls(_CliTransport(*await cli_launch.start(profile)))
        except OSError as error:
            logger.exception("Claude Code can't be started")
            raise ClaudeCodeError("Claude Code can't be started on this server; its log says why.") from error

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._transport.pid

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._transport.is_ready()

    async def bind(self, binding: Binding) -> None:
        """Take on a model and a system prompt. The conversation must be empty."""
        await self._initialize(binding.system)
        await self._transport.control("apply_flag_settings", settings={"model": binding.model})
        self._model = binding.model

    async def inspect(self) -> Inspection:
        """Ask an unbound process for its version, its login and its models; nothing is sent to Claude."""
        info = await self._initialize(None)
        listed = await self._transport.control("list_models")
        account = info.get("account", {})
        return Inspection(
            version=info.get("claude_code_version", "unknown"),
            account=Account(account.get("tokenSource"), account.get("apiKeySource"), account.get("apiProvider")),
            models=tuple(_claude_model(row) for row in listed.get("models", [])),
        )

    async def seed(self, history: tuple[Message, ...]) -> None:
        """Put `history` into the conversation natively; nothing is sent to Claude."""
        for message in history:
            await self._send(message, shouldQuery=False)
            if message.role == "user":
                # The CLI keeps the order of frames only if each is waited for.
                await self._seeded()

    async def turn(self, prompt: Message) -> AsyncGenerator[TurnEvent, None]:
        """Send `prompt` and yield the answer's events, as they come, up to and including TurnEnded.

        Raises an ApiError where the turn fails, at whatever point.
        """
        state = _TurnState(self._model)
        await self._send(prompt)
        async with aclosing(self._messages()) as messages:
            async for message in messages:
                for event in _HANDLERS.get(type(message), _ignore)(state, message):
                    if state.continues_by_itself:
                        self._transport.kill()
                    yield event
                    if isinstance(event, TurnEnded):
                        return

    async def interrupt(self) -> None:
        """Stop the turn under way: its events then end with the stop reason `interrupted`."""
        await self._transport.control("interrupt")

    def kill(self) -> None:
        """End the process at once, where nobody can wait for it."""
        self._transport.kill()

    async def close(self) -> None:
        """End the process and reap it. Never raises, may be called twice."""
        with anyio.CancelScope(shield=True):
            await self._client.disconnect()
            await self._transport.close()

    async def _initialize(self, system: str | None) -> dict[str, Any]:
        self._transport.initialize_fields = {
            "systemPrompt": [system] if system else [],
            "systemPromptSnapshot": False,
        }
        try:
            await self._client.connect()
        except Exception as error:  # the edge of the process: the SDK raises bare Exceptions here
            logger.warning("Claude Code process %d didn't initialise: %s", self.pid, self._transport.stderr_tail())
            raise ClaudeCodeError(
                "The Claude Code process could not be initialised; the server's log says why."
            ) from error
        return await self._client.get_server_info() or {}

    async def _send(self, message: Message, **fields: Any) -> None:
        async def frames() -> AsyncIterator[dict[str, Any]]:
            yield {**_FRAMES[message.role]([asdict(block) for block in message.content]), **fields}

        await self._client.query(frames())

    async def _seeded(self) -> None:
        async with aclosing(self._messages()) as messages:
            async for message in messages:
                if isinstance(message, ResultMessage):
                    return

    async def _messages(self) -> AsyncGenerator[SdkMessage, None]:
        """The process's messages from here on; raises where they end, for every turn ends before they do."""
        try:
            async for message in self._client.receive_messages():
                yield message
        except (ClaudeSDKError, ValueError, anyio.DelimiterNotFound) as error:
            raise ClaudeCodeError("Claude Code said something that we don't understand.") from error
        raise self._transport.died()


def _user_frame(content: list[dict[str, Any]]) -> dict[str, Any]:
    # `client_composed`, set by the SDK's verbatim_prompts, keeps @path and /command in it plain text.
    message = {"role": "user", "content": content}
    return {"type": "user", "message": message, "parent_tool_use_id": None, "session_id": "", "uuid": str(uuid.uuid4())}


def _assistant_frame(content: list[dict[str, Any]]) -> dict[str, Any]:
    # An id of its own, or the CLI merges the message with its neighbour.
    message = {
        "id": f"msg_{uuid.uuid4().hex}",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": content,
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 0, "output_tokens": 0},
    }
    return {
        "type": "assistant",
        "message": message,
        "parent_tool_use_id": None,
        "session_id": "",
        "uuid": str(uuid.uuid4()),
    }


_FRAMES: Mapping[str, Callable[[list[dict[str, Any]]], dict[str, Any]]] = {
    "user": _user_frame,
    "assistant": _assistant_frame,
}


def _claude_model(row: Mapping[str, Any]) -> ClaudeModel:
    alias = row["value"]
    return ClaudeModel(alias, row.get("resolvedModel") or alias, row.get("displayName") or alias)


@dataclass
class _TurnState:
    """What a turn has shown so far."""

    model: str
    started: bool = False
    login_failed: bool = False
    has_content: bool = False
    continues_by_itself: bool = False
    usage: dict[str, Any] = field(default_factory=dict)


_Events = Iterator[TurnEvent]


def _ignore(_state: _TurnState, _message: object) -> _Events:
    return iter(())


def _on_stream_event(state: _TurnState, message: StreamEvent) -> _Events:
    handler = _STREAM_HANDLERS.get(message.event["type"])
    return handler(state, message) if handler else iter(())


def _on_message_start(state: _TurnState, message: StreamEvent) -> _Events:
    started = message.event["message"]
    state.usage |= started.get("usage") or {}
    yield _started(state, started["model"], message.session_id)


def _started(state: _TurnState, model: str, session_id: str | None) -> TurnStarted:
    state.started = True
    return TurnStarted(model, session_id or "")


def _on_content_block_start(state: _TurnState, message: StreamEvent) -> _Events:
    state.has_content |= message.event["content_block"]["type"] == "tool_use"
    return iter(())


def _on_content_block_delta(state: _TurnState, message: StreamEvent) -> _Events:
    delta = message.event["delta"]
    if delta["type"] == "text_delta":
        state.has_content = True
        yield TextDelta(delta["text"])


def _on_message_delta(state: _TurnState, message: StreamEvent) -> _Events:
    """End the turn here where the CLI would go on by itself: its next request must not be made."""
    stop_reason = message.event["delta"].get("stop_reason")
    state.usage |= message.event.get("usage") or {}
    if stop_reason in _STOPS_THAT_THE_CLI_CONTINUES or (stop_reason == "end_turn" and not state.has_content):
        state.continues_by_itself = True
        yield TurnEnded(stop_reason, _usage(state.usage), cost_usd=None)


def _on_assistant(state: _TurnState, message: AssistantMessage) -> _Events:
    """Take over a whole message where nothing was streamed: so the CLI asks an upstream that can't stream."""
    state.login_failed |= message.error == "authentication_failed"
    if state.started or message.error:
        return
    yield _started(state, message.model, message.session_id)
    for block in message.content:
        if isinstance(block, TextBlock):
            yield TextDelta(block.text)


def _on_result(state: _TurnState, message: ResultMessage) -> _Events:
    if message.is_error and message.stop_reason != "refusal" and message.terminal_reason not in _INTERRUPTED:
        raise _failure(state, message)
    stop_reason = "interrupted" if message.terminal_reason in _INTERRUPTED else message.stop_reason or "end_turn"
    # A refused turn's result counts nothing; its stream did.
    usage = state.usage if stop_reason == "refusal" else message.usage or {}
    yield TurnEnded(stop_reason, _usage(usage), message.total_cost_usd)


_STREAM_HANDLERS: Mapping[str, Callable[[_TurnState, StreamEvent], _Events]] = {
    "message_start": _on_message_start,
    "content_block_start": _on_content_block_start,
    "content_block_delta": _on_content_block_delta,
    "message_delta": _on_message_delta,
}
_HANDLERS: Mapping[type, Callable[[_TurnState, Any], _Events]] = {
    StreamEvent: _on_stream_event,
    AssistantMessage: _on_assistant,
    ResultMessage: _on_result,
}


def _usage(counted: Mapping[str, Any]) -> Usage:
    details = counted.get("output_tokens_details") or {}
    return Usage(
        input_tokens=counted.get("input_tokens") or 0,
        output_tokens=counted.get("output_tokens") or 0,
        cache_read_input_tokens=counted.get("cache_read_input_tokens") or 0,
        cache_creation_input_tokens=counted.get("cache_creation_input_tokens") or 0,
        reasoning_tokens=details.get("thinking_tokens") or 0,
    )


def _failure(state: _TurnState, result: ResultMessage) -> ApiError:
    status, prose = result.api_error_status, (result.result or "").removeprefix("API Error: ")
    if result.terminal_reason in _TOO_LONG:
        return ContextLengthExceededError("This conversation is too long for its model. Shorten the messages.")
    if status is None and state.login_failed:
        return ClaudeLoginError("Claude Code is not logged in. GET /v1/auth/status says what is missing.")
    if status is None or status >= _FIRST_SERVER_ERROR:
        # The CLI's prose names the upstream's address here.
        logger.warning("Claude's API failed (HTTP %s): %s", status, prose or result.errors)
        prose = f"Claude's API failed ({f'HTTP {status}' if status else 'no answer'}). Try again in a moment."
    return from_upstream(status, prose, state.model)
