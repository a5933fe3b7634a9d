"""What a turn has shown so far: what turn_events.py notes while it reads a process's messages."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent_task import AgentTask
from own_tools import OwnTools
from turns import Binding, Message, TextBlock, ToolUseBlock, Usage


@dataclass
class Call:
    """A call as it is written."""

    id: str
    name: str
    arguments: str = ""

    @property
    def block(self) -> ToolUseBlock | None:
        """The whole call; None where its arguments are no JSON object, or not complete."""
        return ToolUseBlock.of(self.id, self.name, self.arguments)


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
    waits_for_results: bool = False
    continues_by_itself: bool = False
    has_stopped: bool = False
    """Whether the message that has started has told why it ends; one that breaks behind a whole block never does."""
    usage: dict[str, Any] = field(default_factory=dict)
    """Of the message that is written."""
    used_before: Usage = field(default_factory=Usage)
    refusal: str | None = None
    is_output: bool = False
    """Whether what is written now is the answer, as a tool's input."""
    has_prose: bool = False
    """Whether the model wrote text that isn't the answer."""
    own_tools: OwnTools | None = None
    """Of Claude Code's own, where it has any: then it asks the model again by itself when it has called them."""

    @classmethod
    def of(
        cls, binding: Binding, agent: AgentTask | None = None, denials: Mapping[str, str] | None = None
    ) -> "TurnState":
        """Begin a turn under a binding; `denials` are the calls of `agent` that weren't made."""
        functions = frozenset(tool.name for tool in binding.tools)
        state = cls(binding.model, functions, binding.thinking.is_shown, binding.own_schema is not None)
        if agent and binding.has_own_tools:
            state.own_tools = OwnTools({} if denials is None else denials, tells_steps=agent.tells_steps)
        return state

    @property
    def used(self) -> Usage:
        """The tokens up to now."""
        return self.used_before + counted_usage(self.usage)

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
        if self.own_tools:
            return (
                True  # Nothing but a turn that waits goes on in its process, and for that it is as the client has it.
            )
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
