"""Pure: a turn's events become OpenAI chunks, in the one order that clients accept, and chunks become SSE data.

The order is a table: role → content* → finish → usage? → [DONE]. A step that it doesn't have raises StreamOrderError:
better a failed request than a stream that a client takes for something else.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Literal

from models import CompletionUsage, finish_reason
from turns import TextDelta, TurnEnded, TurnEvent, TurnStarted

DONE = "[DONE]"

_Step = Literal["start", "role", "content", "finish"]

_NEXT: Mapping[_Step, frozenset[_Step]] = {
    "start": frozenset({"role"}),
    "role": frozenset({"content", "finish"}),
    "content": frozenset({"content", "finish"}),
    "finish": frozenset(),
}


class StreamOrderError(Exception):
    """An event came where no stream may have it."""


class ChunkEncoder:
    """Turns the events of one turn into the `data` of its SSE events.

    `completion_id` and `created` (seconds since the epoch) stay the same in all chunks, and so does the model, which
    the first event names.
    """

    def __init__(self, completion_id: str, created: int, *, include_usage: bool) -> None:
        """Begin a stream; `include_usage` is OpenAI's `stream_options.include_usage`."""
        self._head: dict[str, Any] = {"id": completion_id, "object": "chat.completion.chunk", "created": created}
        self._include_usage = include_usage
        self._step: _Step = "start"

    def encode(self, event: TurnEvent) -> Iterator[str]:
        """Yield the chunks that `event` makes, each as JSON."""
        return self._encoders[type(event)](self, event)

    def _advance(self, step: _Step) -> None:
        if step not in _NEXT[self._step]:
            raise StreamOrderError(f"{step} after {self._step}")
        self._step = step

    def _chunk(self, delta: Mapping[str, Any], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return self._dump([choice], None)

    def _dump(self, choices: list[dict[str, Any]], usage: CompletionUsage | None) -> str:
        chunk = {**self._head, "service_tier": "default", "system_fingerprint": None, "choices": choices}
        if self._include_usage:
            chunk["usage"] = usage and usage.model_dump()
        return json.dumps(chunk, ensure_ascii=False, separators=(",", ":"))

    def _started(self, event: TurnStarted) -> Iterator[str]:
        self._advance("role")
        self._head["model"] = event.model
        yield self._chunk({"role": "assistant", "content": "", "refusal": None})

    def _text(self, event: TextDelta) -> Iterator[str]:
        self._advance("content")
        yield self._chunk({"content": event.text})

    def _ended(self, event: TurnEnded) -> Iterator[str]:
        self._advance("finish")
        yield self._chunk({}, finish_reason(event.stop_reason))
        if self._include_usage:
            yield self._dump([], CompletionUsage.of(event.usage))
        yield DONE

    _encoders: ClassVar[Mapping[type, Callable[..., Iterator[str]]]] = {
        TurnStarted: _started,
        TextDelta: _text,
        TurnEnded: _ended,
    }
