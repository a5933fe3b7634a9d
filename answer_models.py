"""OpenAI's wire shapes of what we send: completions, whole and in chunks, models, and errors. They are exact.

Source: https://platform.openai.com/docs/api-reference/chat
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from models import FunctionCall, ToolCall
from turns import TurnEnded, Usage, total_cost


class Sent(BaseModel):
    """What the server sends: made once, and not changed."""

    model_config = ConfigDict(frozen=True)


FinishReason = Literal["stop", "length", "tool_calls", "function_call", "content_filter"]

_FINISH_REASONS: Mapping[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    # Of Claude Code's own tools: as many turns, or dollars, as there may be.
    "max_turns": "length",
    "budget_exhausted": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


def finish_reason(stop_reason: str) -> FinishReason:
    """Translate Claude's `stop_reason`; one that we don't know is a `stop`."""
    return _FINISH_REASONS.get(stop_reason, "stop")


def _less_none(serialize: SerializerFunctionWrapHandler, model: BaseModel, optional: frozenset[str]) -> dict[str, Any]:
    fields: dict[str, Any] = serialize(model)
    return {name: value for name, value in fields.items() if value is not None or name not in optional}


class PromptTokensDetails(Sent):
    """How many of the prompt's tokens came from a cache."""

    cached_tokens: int
    audio_tokens: int = 0


class CompletionTokensDetails(Sent):
    """How many of the answer's tokens were thinking."""

    reasoning_tokens: int
    audio_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0


class ClaudeUsage(Sent):
    """What Claude Code counted, in the Messages API's terms; without a cost where it hasn't told it."""

    cost_usd: float | None
    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int
    cache_creation_input_tokens: int

    @classmethod
    def of(cls, usage: Usage, cost_usd: float | None) -> "ClaudeUsage":
        """Take over what was counted, unchanged."""
        return cls(
            cost_usd=cost_usd,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_read_input_tokens=usage.cache_read_input_tokens,
            cache_creation_input_tokens=usage.cache_creation_input_tokens,
        )


class CompletionUsage(Sent):
    """Tokens of one completion. `prompt_tokens` has the cached ones in it, as OpenAI counts."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails
    claude: ClaudeUsage | None = None
    """An extension, for those who ask for it."""

    @model_serializer(mode="wrap")
    def _without_extension(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _less_none(serialize, self, frozenset({"claude"}))

    @classmethod
    def of(cls, ends: Sequence[TurnEnded], *, in_full: bool = False) -> "CompletionUsage":
        """Count a completion's turns together as OpenAI does; `in_full`: with what Claude Code counted, as it is."""
        usage = sum((ended.usage for ended in ends), Usage())
        return cls(
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.output_tokens,
            total_tokens=usage.prompt_tokens + usage.output_tokens,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=usage.cache_read_input_tokens),
            completion_tokens_details=CompletionTokensDetails(reasoning_tokens=usage.reasoning_tokens),
            claude=ClaudeUsage.of(usage, total_cost(ends)) if in_full else None,
        )


class AnswerMessage(Sent):
    """The assistant's whole message. Where it makes no calls, or shows no thoughts, it has no keys for them."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: str | None = None
    reasoning_content: str | None = None
    annotations: list[Any] = []
    tool_calls: list[ToolCall] | None = None
    function_call: FunctionCall | None = None

    @model_serializer(mode="wrap")
    def _without_what_it_lacks(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _less_none(serialize, self, frozenset({"reasoning_content", "tool_calls", "function_call"}))


class Choice(Sent):
    """One answer."""

    index: int = 0
    message: AnswerMessage
    logprobs: None = None
    finish_reason: FinishReason


class ChatCompletion(Sent):
    """A whole completion."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: CompletionUsage
    service_tier: Literal["default"] = "default"
    system_fingerprint: None = None


class ChunkChoice(Sent):
    """What a chunk adds to one answer: `delta` has only the keys that are news."""

    index: int = 0
    delta: dict[str, Any]
    logprobs: None = None
    finish_reason: FinishReason | None = None


class ChatCompletionChunk(Sent):
    """One chunk of a streamed completion. Without `stream_options.include_usage` it is sent without `usage`."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: CompletionUsage | None = None
    service_tier: Literal["default"] = "default"
    system_fingerprint: None = None


class Model(Sent):
    """One row of GET /v1/models."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["anthropic"] = "anthropic"


class ModelList(Sent):
    """The answer to GET /v1/models."""

    object: Literal["list"] = "list"
    data: list[Model]


class FaultDetail(Sent):
    """One of the things that are wrong with a request."""

    param: str | None
    message: str
    type: str


class ErrorDetail(Sent):
    """What went wrong; four keys, always, and with DEBUG_MODE `details` of an invalid request."""

    message: str
    type: str
    param: str | None
    code: str | None
    retry_after: int | None = None
    """Seconds to wait; only where a limit of this server was exceeded."""
    details: list[FaultDetail] = []


class ErrorResponse(Sent):
    """OpenAI's envelope for every error."""

    error: ErrorDetail
