"""Pure: a turn's events become OpenAI chunks, in the one order that clients accept, and chunks become SSE data.

The order is a table: role → (content | call → arguments*)* → finish → usage? → [DONE]. A step that it doesn't have
raises StreamOrderError: better a failed request than a stream that a client takes for something else.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar, Literal

from client_functions import CallStyle
from models import ChatCompletionChunk, ChunkChoice, CompletionUsage
from turns import InputJsonDelta, TextDelta, ToolUseStarted, TurnEnded, TurnEvent, TurnStarted

DONE = "[DONE]"

_Step = Literal["start", "role", "content", "call", "arguments", "finish", "usage", "done"]

_NEXT: Mapping[_Step, frozenset[_Step]] = {
    "start": frozenset({"role"}),
    "role": frozenset({"content", "call", "finish"}),
    "content": frozenset({"content", "call", "finish"}),
    "call": frozenset({"content", "call", "arguments", "finish"}),
    "arguments": frozenset({"content", "call", "arguments", "finish"}),
    "finish": frozenset({"usage", "done"}),
    "usage": frozenset({"done"}),
    "done": frozenset(),
}


class StreamOrderError(Exception):
    """An event came where no stream may have it."""


class ChunkEncoder:
    """Turns the events of one turn into the `data` of its SSE events.

    `completion_id` and `created` (seconds since the epoch) stay the same in all chunks, and so does the model, which
    the first event names.
    """

    def __init__(self, completion_id: str, created: int, style: CallStyle, *, include_usage: bool) -> None:
        """Begin a stream; `style` is how to tell of calls, `include_usage` OpenAI's `stream_options.include_usage`."""
        self._id, self._created, self._model = completion_id, created, ""
        self._style, self._calls = style, 0
        self._without = None if include_usage else {"usage"}
        self._step: _Step = "start"

    def encode(self, event: TurnEvent) -> Iterator[str]:
        """Yield the chunks that `event` makes, each as JSON."""
        return self._encoders[type(event)](self, event)

    def _advance(self, step: _Step) -> None:
        if step not in _NEXT[self._step]:
            raise StreamOrderError(f"{step} after {self._step}")
        self._step = step

    def _chunk(self, step: _Step, *choices: ChunkChoice, usage: CompletionUsage | None = None) -> str:
        self._advance(step)
        chunk = ChatCompletionChunk(
            id=self._id, created=self._created, model=self._model, choices=[*choices], usage=usage
        )
        return chunk.model_dump_json(exclude=self._without)

    def _started(self, event: TurnStarted) -> Iterator[str]:
        self._model = event.model
        yield self._chunk("role", ChunkChoice(delta={"role": "assistant", "content": "", "refusal": None}))

    def _text(self, event: TextDelta) -> Iterator[str]:
        yield self._chunk("content", ChunkChoice(delta={"content": event.text}))

    def _called(self, event: ToolUseStarted) -> Iterator[str]:
        self._calls += 1
        function = {"name": self._style.own_name(event.name), "arguments": ""}
        yield self._chunk("call", self._call_delta(function, {"id": event.id, "type": "function"}))

    def _argued(self, event: InputJsonDelta) -> Iterator[str]:
        yield self._chunk("arguments", self._call_delta({"arguments": event.partial_json}, {}))

    def _call_delta(self, function: Mapping[str, str], news: Mapping[str, str]) -> ChunkChoice:
        if self._style.is_legacy:
            return ChunkChoice(delta={"function_call": function})
        return ChunkChoice(delta={"tool_calls": [{"index": self._calls - 1, **news, "function": function}]})

    def _ended(self, event: TurnEnded) -> Iterator[str]:
        reason = self._style.finish_reason(event.stop_reason)
        yield self._chunk("finish", ChunkChoice(delta={}, finish_reason=reason))
        if not self._without:
            yield self._chunk("usage", usage=CompletionUsage.of(event.usage))
        self._advance("done")
        yield DONE

    _encoders: ClassVar[Mapping[type, Callable[..., Iterator[str]]]] = {
        TurnStarted: _started,
        TextDelta: _text,
        ToolUseStarted: _called,
        InputJsonDelta: _argued,
        TurnEnded: _ended,
    }
