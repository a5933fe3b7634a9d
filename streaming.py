"""Pure: the events of a completion's turns become OpenAI chunks, in the one order that clients accept, and SSE data.

The order is a table, for each choice: role → (reasoning | content | event | call → arguments*)* → refusal? → finish;
and behind the last of them usage? → [DONE]. A step that it doesn't have raises StreamOrderError: better a failed
request than a stream that a client takes for something else.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from answer_models import ChatCompletionChunk, ChunkChoice, CompletionUsage, FinishReason
from client_functions import CallStyle
from turns import (
    InputJsonDelta,
    OwnToolEnded,
    OwnToolEvent,
    OwnToolInput,
    OwnToolStarted,
    TextDelta,
    ThinkingDelta,
    ToolUseStarted,
    TurnEnded,
    TurnEvent,
    TurnStarted,
)

DONE = "[DONE]"

_Step = Literal["start", "role", "reasoning", "content", "event", "call", "arguments", "refusal", "finish"]

_PIECES: frozenset[_Step] = frozenset({"reasoning", "content", "event", "call", "refusal", "finish"})
_IN_A_CALL: frozenset[_Step] = frozenset({"arguments", *_PIECES})
_NEXT: Mapping[_Step, frozenset[_Step]] = {
    "start": frozenset({"role"}),
    "role": _PIECES,
    "reasoning": _PIECES,
    "content": _PIECES,
    "event": _PIECES,
    "call": _IN_A_CALL,
    "arguments": _IN_A_CALL,
    "refusal": frozenset({"finish"}),
    "finish": frozenset(),
}


class StreamOrderError(Exception):
    """An event came where no stream may have it."""


@dataclass
class _Choice:
    """How far the stream of one choice has come."""

    index: int
    step: _Step = "start"
    calls: int = 0
    has_spoken: bool = False

    def advance(self, step: _Step) -> None:
        """Take a step, if the table has it."""
        if step not in _NEXT[self.step]:
            raise StreamOrderError(f"{step} after {self.step}")
        self.step = step
        self.has_spoken |= step in ("content", "call")


def _shown(event: OwnToolEvent) -> dict[str, Any]:
    """Return what a client is told of Claude Code's own tools; docs/agent.md has these."""
    shown: dict[str, Any] = {"type": "tool_started", "id": event.id, "name": event.name}
    if isinstance(event, OwnToolInput):
        return {**shown, "type": "tool_input", "input": event.input}
    if isinstance(event, OwnToolEnded) and event.outcome == "denied":
        return {**shown, "type": "tool_denied", "reason": event.summary}
    if isinstance(event, OwnToolEnded):
        return {**shown, "type": "tool_result", "summary": event.summary, "is_error": event.outcome == "error"}
    return shown


class ChunkEncoder:
    """Turns the events of a completion's turns into the `data` of its SSE events.

    `completion_id` and `created` (seconds since the epoch) stay the same in all chunks, and so does the model, which
    the first event names.
    """

    def __init__(
        self,
        completion_id: str,
        created: int,
        style: CallStyle,
        choices: int = 1,
        *,
        usage: Literal["full", "openai"] | None,
    ) -> None:
        """Begin a stream of so many choices; `style` is how to tell of calls.

        `usage` is how to end it: without a count of tokens, with OpenAI's, or with what Claude Code counted besides.
        """
        self._id, self._created, self._model = completion_id, created, ""
        self._style, self._in_full = style, usage == "full"
        self._left_out = None if usage else {"usage"}
        self._choices = [_Choice(index) for index in range(choices)]
        self._ends: list[TurnEnded] = []

    def encode(self, event: TurnEvent, index: int = 0) -> Iterator[str]:
        """Yield the chunks that an event of a choice makes, each as JSON."""
        return self._encoders[type(event)](self, self._choices[index], event)

    def _chunk(
        self, choice: _Choice, step: _Step, delta: dict[str, Any], finish_reason: FinishReason | None = None
    ) -> str:
        choice.advance(step)
        return self._written([ChunkChoice(index=choice.index, delta=delta, finish_reason=finish_reason)])

    def _written(self, choices: list[ChunkChoice], usage: CompletionUsage | None = None) -> str:
        chunk = ChatCompletionChunk(id=self._id, created=self._created, model=self._model, choices=choices, usage=usage)
        return chunk.model_dump_json(exclude=self._left_out)

    def _started(self, choice: _Choice, event: TurnStarted) -> Iterator[str]:
        choice.advance("role")
        if not self._model:
            # Those of all choices, in order: openai-python takes no index whose forerunners it hasn't seen.
            self._model = event.model
            for each in self._choices:
                delta = {"role": "assistant", "content": "", "refusal": None}
                yield self._written([ChunkChoice(index=each.index, delta=delta)])

    def _thought(self, choice: _Choice, event: ThinkingDelta) -> Iterator[str]:
        yield self._chunk(choice, "reasoning", {"reasoning_content": event.thinking})

    def _text(self, choice: _Choice, event: TextDelta) -> Iterator[str]:
        yield self._chunk(choice, "content", {"content": event.text})

    def _called(self, choice: _Choice, event: ToolUseStarted) -> Iterator[str]:
        choice.calls += 1
        function = {"name": self._style.own_name(event.name), "arguments": ""}
        yield self._chunk(choice, "call", self._call(choice, function, {"id": event.id, "type": "function"}))

    def _argued(self, choice: _Choice, event: InputJsonDelta) -> Iterator[str]:
        yield self._chunk(choice, "arguments", self._call(choice, {"arguments": event.partial_json}, {}))

    def _call(self, choice: _Choice, function: Mapping[str, str], news: Mapping[str, str]) -> dict[str, Any]:
        if self._style.is_legacy:
            return {"function_call": function}
        return {"tool_calls": [{"index": choice.calls - 1, **news, "function": function}]}

    def _used_own_tool(self, choice: _Choice, event: OwnToolEvent) -> Iterator[str]:
        if self._style.tells_own_tools:
            yield self._chunk(choice, "event", {"claude_event": _shown(event)})

    def _ended(self, choice: _Choice, event: TurnEnded) -> Iterator[str]:
        if event.refusal:
            yield self._chunk(choice, "refusal", {"refusal": event.refusal})
        yield self._chunk(choice, "finish", {}, self._style.finish_reason(event, has_spoken=choice.has_spoken))
        self._ends.append(event)
        if len(self._ends) == len(self._choices):
            if not self._left_out:
                yield self._written([], CompletionUsage.of(self._ends, in_full=self._in_full))
            yield DONE

    _encoders: ClassVar[Mapping[type, Callable[..., Iterator[str]]]] = {
        TurnStarted: _started,
        ThinkingDelta: _thought,
        TextDelta: _text,
        ToolUseStarted: _called,
        InputJsonDelta: _argued,
        OwnToolStarted: _used_own_tool,
        OwnToolInput: _used_own_tool,
        OwnToolEnded: _used_own_tool,
        TurnEnded: _ended,
    }
