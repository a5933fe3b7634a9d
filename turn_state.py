"""What a turn has shown so far: what turn_events.py notes while it reads a process's messages."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tool_calls import Call, OwnToolCalls
from turns import Binding, Message, OwnToolEnded, TextBlock, Usage


@dataclass
class TurnState:
    """What a turn has shown so far. `cost_usd` is to be set before its result is taken."""

    model: str
    functions: frozenset[str] = frozenset()
    """The names of the client's."""
    shows_thinking: bool = False
    has_own_schema: bool = False
    """Whether Claude Code holds the answer to a schema: then that is the input of a tool of its own."""
    texts: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    cost_usd: float | None = None
    started: bool = False
    login_failed: bool = False
    limit_resets_at: int | None = None
    """When a subscription's limit that was reached ends, in seconds since the epoch."""
    waits_for_results: bool = False
    continues_by_itself: bool = False
    has_stopped: bool = False
    """Whether the message that has started has told why it ends; one that breaks never does."""
    usage: dict[str, Any] = field(default_factory=dict)
    """Of the message that is written."""
    used_before: Usage = field(default_factory=Usage)
    refusal: str | None = None
    is_output: bool = False
    """Whether what is written now is the answer, as a tool's input."""
    has_prose: bool = False
    """Whether the model wrote text that isn't the answer."""
    own_calls: OwnToolCalls | None = None
    """Of Claude Code's own tools, where it has any: then it asks the model again by itself when it has called them."""
    tells_steps: bool = True
    """Whether the client gets the text of every such step, or only that of the last."""
    steps: int = 0
    """How often the model was asked."""
    early: list[OwnToolEnded] = field(default_factory=list)
    """What came of calls of its own before the turn began for the client: it goes on with results."""
    has_step_spoken: bool = False
    """Whether there is text of the step that is written."""

    @classmethod
    def of(cls, binding: Binding, own_calls: OwnToolCalls, *, tells_steps: bool = True) -> "TurnState":
        """Begin a turn under a binding; `own_calls` are those of the process."""
        return cls(
            binding.model,
            functions=frozenset(tool.name for tool in binding.tools),
            shows_thinking=binding.thinking.is_shown,
            has_own_schema=binding.own_schema is not None,
            own_calls=own_calls if binding.has_own_tools else None,
            tells_steps=tells_steps,
        )

    @property
    def used(self) -> Usage:
        """The tokens up to now."""
        return self.used_before + counted_usage(self.usage)

    @property
    def runs_tools(self) -> bool:
        """Whether what is waited for is a tool of Claude Code's own, and not the model."""
        return self.has_stopped and self.own_calls is not None and self.own_calls.are_open

    @property
    def is_answering(self) -> bool:
        """Whether the model has begun to answer what it was asked last."""
        return self.started and not self.has_stopped

    @property
    def spoken(self) -> Message:
        """The answer's text up to now, as a conversation has it."""
        text = "".join(self.texts)
        return Message("assistant", (TextBlock(text),) if text.strip() else ())

    @property
    def answer(self) -> Message:
        """The answer up to now, as a conversation has it."""
        calls = (block for call in self.calls if (block := call.block))
        return Message("assistant", (*self.spoken.content, *calls))

    @property
    def is_kept(self) -> bool:
        """Whether Claude Code's conversation has what the client will send: it drops blank blocks.

        The client has got their text, too; but where there is no other, that is none for it either. And of an answer
        that it holds to a schema it has a call.
        """
        if self.own_calls:
            # Nothing but a turn that waits goes on in its process, and for that it is as the client has it.
            return True
        if self.has_prose or (self.has_own_schema and self.texts):
            return False
        said = [text for text in self.texts if text.strip()]
        return said == self.texts if said else bool(self.calls)


def counted_usage(counted: Mapping[str, Any]) -> Usage:
    """Return the tokens that an API counted, in its own terms."""
    details = counted.get("output_tokens_details") or {}
    return Usage(
        input_tokens=counted.get("input_tokens") or 0,
        output_tokens=counted.get("output_tokens") or 0,
        cache_read_input_tokens=counted.get("cache_read_input_tokens") or 0,
        cache_creation_input_tokens=counted.get("cache_creation_input_tokens") or 0,
        reasoning_tokens=details.get("thinking_tokens") or 0,
    )
