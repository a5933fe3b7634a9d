"""The vocabulary that the OpenAI side and the Claude side share.

A request becomes a `TurnRequest` (native Claude blocks, in order), and its answer is a series of `TurnEvent`s.
Everything here is frozen: nobody changes a request on its way, nobody edits an event after the fact.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic_core import from_json

from agent_task import AgentLaunch, AgentTask


@dataclass(frozen=True)
class TextBlock:
    """Text, verbatim."""

    text: str
    type: Literal["text"] = "text"


@dataclass(frozen=True)
class Source:
    """Where an image or a document is, in the Messages API's terms: in `data`, as Base64 or as text, or at `url`."""

    type: Literal["base64", "text", "url"]
    media_type: str | None = None
    data: str | None = field(default=None, repr=False)
    url: str | None = None


@dataclass(frozen=True)
class ImageBlock:
    """An image; one at a URL is fetched by Claude's API, never from here."""

    source: Source
    type: Literal["image"] = "image"


@dataclass(frozen=True)
class DocumentBlock:
    """A PDF or a text, with the name of its file."""

    source: Source
    title: str | None = None
    type: Literal["document"] = "document"


@dataclass(frozen=True)
class ToolUseBlock:
    """A call that the assistant made, with its parsed arguments."""

    id: str
    name: str
    input: Mapping[str, Any]
    type: Literal["tool_use"] = "tool_use"

    @classmethod
    def of(cls, identifier: str, name: str, arguments: str) -> "ToolUseBlock | None":
        """Parse a call's arguments; None where they are no JSON object that can be written again."""
        try:
            parsed = from_json(arguments, allow_inf_nan=False)
            json.dumps(parsed, allow_nan=False)  # 1e999 is read as infinity.
        except ValueError:
            return None
        return cls(identifier, name, parsed) if isinstance(parsed, dict) else None


@dataclass(frozen=True)
class ToolResultBlock:
    """What the client's function answered to the call `tool_use_id`."""

    tool_use_id: str
    content: tuple[TextBlock | ImageBlock | DocumentBlock, ...]
    type: Literal["tool_result"] = "tool_result"


UserBlock = TextBlock | ImageBlock | DocumentBlock
ContentBlock = UserBlock | ToolUseBlock | ToolResultBlock


def as_json(block: ContentBlock) -> dict[str, Any]:
    """Write a block as the Messages API has it: what is None is left out."""
    return asdict(block, dict_factory=lambda pairs: {name: value for name, value in pairs if value is not None})


@dataclass(frozen=True)
class Message:
    """One message of a conversation, in the Messages API's terms."""

    role: Literal["user", "assistant"]
    content: tuple[ContentBlock, ...]


@dataclass(frozen=True)
class Sampling:
    """How the model writes, in the Messages API's terms. What is None or empty is left to Claude Code."""

    temperature: float | None = None
    top_p: float | None = None
    stop_sequences: tuple[str, ...] = ()
    max_tokens: int | None = None
    service_tier: Literal["auto", "standard_only"] | None = None


Effort = Literal["low", "medium", "high", "xhigh"]
ThinksWhen = Literal["if told", "always", "never"]


@dataclass(frozen=True)
class Thinking:
    """How much the model thinks before it answers, and whether that is to be seen.

    A budget of 0 is not at all, for models that can do without; those that judge it by themselves take any other number
    for a yes. The effort of None is the model's own.
    """

    budget_tokens: int = 0
    effort: Effort | None = None
    is_shown: bool = False

    def stopped(self) -> "Thinking":
        """Return the same without any."""
        return replace(self, budget_tokens=0)

    def may_go_on_under(self, wanted: "Binding") -> bool:
        """Whether a turn that thinks so much may go on where a request wants it otherwise; it can't change any more."""
        if self == wanted.thinking.stopped():
            return True
        has_room = self.budget_tokens < (wanted.sampling.max_tokens or math.inf)
        thinks = bool(self.budget_tokens) == bool(wanted.thinking.budget_tokens)
        return has_room and thinks and self.effort == wanted.thinking.effort


OUTPUT_TOOL = "StructuredOutput"
"""The tool that Claude Code has the model answer with, where it holds the answer to a schema."""


@dataclass(frozen=True)
class OutputFormat:
    """The form that an answer has to have: JSON of this schema, which is written as JSON itself.

    Held either by Claude's API, which lets the model write nothing else, or by Claude Code, for models that lack that.
    """

    schema: str
    held_by: Literal["api", "claude_code"] = "api"

    def held_by_claude_code(self) -> "OutputFormat":
        """Return the same, for Claude Code to hold."""
        return replace(self, held_by="claude_code")


@dataclass(frozen=True)
class Tool:
    """A function of the client's. `definition` is its JSON, as the Messages API takes it."""

    name: str
    definition: str


@dataclass(frozen=True)
class ToolChoice:
    """Whether and what the model has to call, in the Messages API's terms; `name` is for `tool`."""

    type: Literal["auto", "any", "none", "tool"]
    name: str | None = None
    disable_parallel_tool_use: bool = False

    @property
    def is_forced(self) -> bool:
        """Whether the model has to call."""
        return self.type in ("any", "tool")


@dataclass(frozen=True)
class Binding:
    """What a process takes on at run time for a turn. A rebinding sets every field."""

    model: str
    system: str | None
    sampling: Sampling = Sampling()
    tools: tuple[Tool, ...] = ()
    """In the client's order."""
    tool_choice: ToolChoice | None = None
    thinking: Thinking = Thinking()
    output_format: OutputFormat | None = None
    has_own_tools: bool = False
    """Whether Claude Code has tools of its own beside the client's, and its own system prompt before the client's."""

    @property
    def forbids_calls(self) -> bool:
        """Whether no function may be called."""
        return self.tool_choice is not None and self.tool_choice.type == "none"

    @property
    def own_schema(self) -> str | None:
        """The schema that Claude Code has to hold the answer to."""
        return self.output_format.schema if self.output_format and self.output_format.held_by == "claude_code" else None

    @property
    def fixed(self) -> tuple[bool, str | None]:
        """What a process can't change any more once it has begun: it was told of it, or wasn't."""
        return self.system is not None, self.own_schema

    def held_by_claude_code(self) -> "Binding":
        """Return the same, with Claude Code to hold the answer to its form: by a tool, with which to answer."""
        assert self.output_format is not None  # noqa: S101 - for the type checker: there is a form
        held = replace(self, output_format=self.output_format.held_by_claude_code())
        if self.tools and not self.forbids_calls:
            return held
        # Without functions that may be called there is its tool alone, to be called once.
        return replace(held, tools=(), tool_choice=ToolChoice("auto", disable_parallel_tool_use=True))

    def can_follow(self, earlier: "Binding") -> bool:
        """Whether a conversation under `earlier` may go on under this one without the model being told of a change.

        Other tools are no change that it is told of: it sees the ones that are.
        """
        return (self.model, self.system, self.own_schema) == (earlier.model, earlier.system, earlier.own_schema)


@dataclass(frozen=True)
class TurnRequest:
    """One prompt and the conversation before it.

    `history` alternates between the roles and `prompt` is always the user's: message_adapter sees to both.
    """

    binding: Binding
    history: tuple[Message, ...]
    prompt: Message
    agent: AgentTask | None = None
    """What Claude Code may do with tools of its own; None: it has none."""


@dataclass(frozen=True)
class Memory:
    """What a session remembers of its conversation."""

    system: str | None = None
    messages: tuple[Message, ...] = ()


@dataclass(frozen=True)
class UpstreamTimeouts:
    """How long a turn waits for Claude's API, in seconds: until it begins to answer, and then for each next sign."""

    first_token: float = math.inf
    idle: float = math.inf


NO_TIMEOUTS = UpstreamTimeouts()


@dataclass(frozen=True)
class LaunchProfile:
    """What a Claude Code process can't change after its start.

    `environment` is the whole environment of the process, as pairs: nothing is inherited beside it.
    """

    cli_path: Path
    environment: tuple[tuple[str, str], ...] = field(repr=False)
    working_directory: Path
    bare: bool
    base_url_variable: str = "ANTHROPIC_BASE_URL"
    """The variable that says where this login's requests go."""
    agent: AgentLaunch | None = None
    """For a process with tools of its own."""

    @property
    def keeps_spares(self) -> bool:
        """Whether others will want a process like it."""
        return self.agent is None or self.agent.keeps_spares


Origin = Literal["adopted", "recycled", "spare", "spawned"]
"""Where a turn's process came from: see process_pool."""


@dataclass(frozen=True)
class Usage:
    """Tokens of one turn, as Claude Code counted them. `input_tokens` leaves the cached ones out."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def prompt_tokens(self) -> int:
        """All that were read, as OpenAI counts them."""
        return self.input_tokens + self.cache_read_input_tokens + self.cache_creation_input_tokens

    def __add__(self, other: "Usage") -> "Usage":
        """Count both together."""
        return Usage(*map(sum, zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True)
class TurnStarted:
    """The model has begun to answer; `model` is the one that answers, aliases resolved."""

    model: str
    claude_session_id: str
    type: Literal["turn_started"] = "turn_started"


@dataclass(frozen=True)
class ThinkingDelta:
    """The next piece of what the model thinks, in the words that it is shown in."""

    thinking: str
    type: Literal["thinking_delta"] = "thinking_delta"


@dataclass(frozen=True)
class TextDelta:
    """The next piece of the answer's text, as the model wrote it."""

    text: str
    type: Literal["text_delta"] = "text_delta"


@dataclass(frozen=True)
class ToolUseStarted:
    """The model begins to call a tool; the arguments follow."""

    id: str
    name: str
    type: Literal["tool_use_started"] = "tool_use_started"


@dataclass(frozen=True)
class InputJsonDelta:
    """The next piece of the arguments of the call that started last, as the model wrote it. Together they are JSON."""

    partial_json: str
    type: Literal["input_json_delta"] = "input_json_delta"


@dataclass(frozen=True)
class OwnToolStarted:
    """The model begins to call one of Claude Code's own tools."""

    id: str
    name: str
    type: Literal["own_tool_started"] = "own_tool_started"


@dataclass(frozen=True)
class OwnToolInput:
    """What the model calls it with."""

    id: str
    name: str
    input: Mapping[str, Any]
    type: Literal["own_tool_input"] = "own_tool_input"


@dataclass(frozen=True)
class OwnToolEnded:
    """What came of the call: a summary of the result, or of the error, or why it was denied."""

    id: str
    name: str
    outcome: Literal["result", "error", "denied"]
    summary: str
    type: Literal["own_tool_ended"] = "own_tool_ended"


OwnToolEvent = OwnToolStarted | OwnToolInput | OwnToolEnded


@dataclass(frozen=True)
class TurnEnded:
    """The model has stopped; at `tool_use` it waits for results.

    `answer` is what a conversation has of it: without calls that nobody answers, and empty where it said nothing.
    `cost_usd` is None where Claude Code hasn't told it: that of a turn that waits comes with its last answer.
    """

    stop_reason: str
    usage: Usage
    cost_usd: float | None
    answer: Message
    refusal: str | None = None
    """Why the model wouldn't answer, where it wouldn't."""
    steps: int = 1
    """How often the model was asked: more than once where Claude Code's own tools were called."""
    type: Literal["turn_ended"] = "turn_ended"


def total_cost(ends: Sequence[TurnEnded]) -> float | None:
    """Return what turns cost together, in dollars; None where Claude Code hasn't told it of all."""
    costs = [ended.cost_usd for ended in ends if ended.cost_usd is not None]
    return sum(costs) if len(costs) == len(ends) else None


TurnEvent = TurnStarted | ThinkingDelta | TextDelta | ToolUseStarted | InputJsonDelta | OwnToolEvent | TurnEnded
