"""OpenAI's wire shapes: what a client sends to us and what it gets back, and nothing else.

Requests tolerate what they don't know (clients add fields of their own, also inside messages); answers are exact.
Source: https://platform.openai.com/docs/api-reference/chat
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from turns import Origin, Usage


class _Received(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class _Sent(BaseModel):
    model_config = ConfigDict(frozen=True)


# Requests


class TextPart(_Received):
    """A piece of text."""

    type: Literal["text"]
    text: str


class RefusalPart(_Received):
    """A refusal that the assistant gave earlier."""

    type: Literal["refusal"]
    refusal: str


class OtherPart(_Received):
    """A part that is not text; message_adapter refuses it by its name."""

    type: str


def _part_kind(value: object) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return kind if kind in ("text", "refusal") else "other"


ContentPart = Annotated[
    Annotated[TextPart, Tag("text")] | Annotated[RefusalPart, Tag("refusal")] | Annotated[OtherPart, Tag("other")],
    Discriminator(_part_kind),
]
Content = str | list[ContentPart]


class FunctionCall(_Received):
    """A call's function name and its arguments as a JSON string."""

    name: str
    arguments: str


class ToolCall(_Received):
    """A call that the assistant made earlier."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class SystemMessage(_Received):
    """Instructions; `developer` is their newer name."""

    role: Literal["system", "developer"]
    content: Content


class UserMessage(_Received):
    """What the user said."""

    role: Literal["user"]
    content: Content


class AssistantMessage(_Received):
    """What the assistant said earlier; `content` may be missing beside tool calls."""

    role: Literal["assistant"]
    content: Content | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None


class ToolMessage(_Received):
    """What a function answered."""

    role: Literal["tool"]
    content: Content
    tool_call_id: str


ChatMessage = Annotated[SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]


class StreamOptions(_Received):
    """How to stream."""

    include_usage: bool | None = None


def _one_or_many(value: object) -> object:
    return [value] if isinstance(value, str) else value


class ChatCompletionRequest(_Received):
    """The body of POST /v1/chat/completions, as far as it is understood; parameter_validator sees to the rest."""

    model: str = Field(min_length=1, max_length=256)
    messages: list[ChatMessage] = Field(min_length=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    stop: Annotated[list[str] | None, BeforeValidator(_one_or_many), Field(max_length=4)] = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    session_id: str | None = None

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a chunk that counts its tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)


EXAMPLE_REQUEST: Mapping[str, Any] = {
    "model": "sonnet",
    "messages": [
        {"role": "system", "content": "You are a poet."},
        {"role": "user", "content": "A line about servers, please."},
    ],
}
"""A request that is valid; nothing in it is to be left out."""


class AnyParameters(BaseModel):
    """The body of POST /v1/debug/request and POST /v1/compatibility: what a client sends, right or wrong."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [dict(EXAMPLE_REQUEST)]})


# Answers

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]

_FINISH_REASONS: Mapping[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


def finish_reason(stop_reason: str) -> FinishReason:
    """Translate Claude's `stop_reason`; one that we don't know is a `stop`."""
    return _FINISH_REASONS.get(stop_reason, "stop")


class PromptTokensDetails(_Sent):
    """How many of the prompt's tokens came from a cache."""

    cached_tokens: int
    audio_tokens: int = 0


class CompletionTokensDetails(_Sent):
    """How many of the answer's tokens were thinking."""

    reasoning_tokens: int
    audio_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0


class CompletionUsage(_Sent):
    """Tokens of one completion. `prompt_tokens` has the cached ones in it, as OpenAI counts."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails

    @classmethod
    def of(cls, usage: Usage) -> "CompletionUsage":
        """Count as OpenAI does what Claude Code counted."""
        prompt = usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens
        return cls(
            prompt_tokens=prompt,
            completion_tokens=usage.output_tokens,
            total_tokens=prompt + usage.output_tokens,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=usage.cache_read_input_tokens),
            completion_tokens_details=CompletionTokensDetails(reasoning_tokens=usage.reasoning_tokens),
        )


class AnswerMessage(_Sent):
    """The assistant's whole message."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: str | None = None
    annotations: list[Any] = []


class Choice(_Sent):
    """One answer."""

    index: int = 0
    message: AnswerMessage
    logprobs: None = None
    finish_reason: FinishReason


class ChatCompletion(_Sent):
    """A whole completion."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: CompletionUsage
    service_tier: Literal["default"] = "default"
    system_fingerprint: None = None


class ChunkChoice(_Sent):
    """What a chunk adds to one answer: `delta` has only the keys that are news."""

    index: int = 0
    delta: dict[str, Any]
    logprobs: None = None
    finish_reason: FinishReason | None = None


class ChatCompletionChunk(_Sent):
    """One chunk of a streamed completion. Without `stream_options.include_usage` it is sent without `usage`."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: CompletionUsage | None = None
    service_tier: Literal["default"] = "default"
    system_fingerprint: None = None


class Model(_Sent):
    """One row of GET /v1/models."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["anthropic"] = "anthropic"


class ModelList(_Sent):
    """The answer to GET /v1/models."""

    object: Literal["list"] = "list"
    data: list[Model]


class FaultDetail(_Sent):
    """One of the things that are wrong with a request."""

    param: str | None
    message: str
    type: str


class ErrorDetail(_Sent):
    """What went wrong; four keys, always, and with DEBUG_MODE `details` of an invalid request."""

    message: str
    type: str
    param: str | None
    code: str | None
    details: list[FaultDetail] = []


class ErrorResponse(_Sent):
    """OpenAI's envelope for every error."""

    error: ErrorDetail


class Health(_Sent):
    """The answer to GET /health."""

    status: Literal["healthy", "degraded"]
    service: Literal["claude-wrapper"] = "claude-wrapper"
    version: str
    backend: Literal["claude", "demo"]


class Version(_Sent):
    """The answer to GET /version."""

    version: str
    claude_code_version: str
    claude_agent_sdk_version: str
    python_version: str


class PoolStatus(_Sent):
    """The answer to GET /v1/pool. Waits are of the latest requests, in seconds."""

    processes: dict[Literal["working", "parked", "spare"], int]
    limit: int
    reuse: bool
    leases: dict[Origin, int]
    queue: dict[Literal["length"], int]
    waits: dict[Literal["mean", "p95", "longest"], float]


class SessionUsage(_Sent):
    """Tokens of all turns of a session, in the Messages API's terms."""

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int
    cache_creation_input_tokens: int
    reasoning_tokens: int


class SessionDescription(_Sent):
    """The answer to GET /v1/sessions/{id}. Usage and cost are those of all its turns."""

    session_id: str
    created_at: datetime
    last_accessed: datetime
    expires_at: datetime
    message_count: int
    turn_count: int
    model: str
    usage: SessionUsage
    cost_usd: float


class SessionList(_Sent):
    """The answer to GET /v1/sessions."""

    sessions: list[SessionDescription]
    total: int


class SessionCountsReport(_Sent):
    """How many sessions a key has; `expired_sessions` have expired and aren't swept yet."""

    active_sessions: int
    expired_sessions: int
    total_messages: int


class SessionStatsReport(_Sent):
    """The answer to GET /v1/sessions/stats."""

    session_stats: SessionCountsReport
    cleanup_interval_minutes: float
    default_ttl_hours: float


class SessionDeleted(_Sent):
    """The answer to DELETE /v1/sessions/{id}."""

    session_id: str
    deleted: Literal[True] = True
    message: str


class DayOfUsage(_Sent):
    """What a key used on one day (UTC)."""

    day: str
    requests: int
    input_tokens: int
    output_tokens: int
    cost_usd: float


class LimitsReport(_Sent):
    """What a key may use; null is no limit."""

    requests_per_minute: int | None
    concurrent_requests: int | None
    usd_per_day: float | None
    models: tuple[str, ...] | None
    tools: bool


class UsageReport(_Sent):
    """The answer to GET /v1/usage: the latest days first, and the key's own limits."""

    key: str | None
    days: list[DayOfUsage]
    limits: LimitsReport
    resets_at: datetime


class RequestFault(_Sent):
    """One of the things that are wrong with a request, as its error would name it."""

    param: str | None
    message: str
    code: str | None


class ValidationReport(_Sent):
    """Whether a chat completion could be tried, and if so with which parameters, else all that is in the way."""

    valid: bool
    errors: list[RequestFault]
    errors_left_out: int = 0
    normalized_request: dict[str, Any] | None


class ParameterFates(_Sent):
    """Names of a body's parameters by what becomes of them; `adjusted` ones take effect, but not just as sent."""

    honoured: list[str]
    adjusted: list[str]
    ignored: list[str]
    refused: list[str]


class DebugInfo(_Sent):
    """What we received, and how it validates. Header values that are secrets are not in it."""

    method: str
    url: str
    headers: dict[str, str]
    raw_body_size: int
    is_json: bool
    json_parse_error: str | None
    parsed_body: Any
    validation_result: ValidationReport
    parameters: ParameterFates
    debug_mode_enabled: bool
    example_valid_request: dict[str, Any]


class DebugReport(_Sent):
    """The answer to POST /v1/debug/request."""

    debug_info: DebugInfo


class ParameterFate(_Sent):
    """One parameter: what Claude gets for it, if it is not the same; why it has no effect, if it has none."""

    parameter: str
    becomes: str | None
    reason: str | None


class CompatibilityReport(_Sent):
    """The answer to POST /v1/compatibility: each parameter of the body is in one of the lists. Nulls are left out."""

    supported: list[ParameterFate]
    mapped: list[ParameterFate]
    ignored: list[ParameterFate]
    refused: list[ParameterFate]
    unknown: list[ParameterFate]


class AuthStatus(_Sent):
    """The answer to GET /v1/auth/status. No secret is in it, ever."""

    method: str | None
    complete: bool
    missing: list[str]
    hint: str | None
    api_key_required: bool
    account: dict[str, str | None] | None
    claude_code_version: str
