"""What this server tells beside OpenAI's API: health, pool, sessions, usage, validation. Wire shapes, nothing else."""

from datetime import datetime
from typing import Any, Literal

from answer_models import Sent
from tool_catalog import Category
from turns import Origin


class Health(Sent):
    """The answer to GET /health."""

    status: Literal["healthy", "degraded"]
    service: Literal["claude-wrapper"] = "claude-wrapper"
    version: str
    backend: Literal["claude", "demo"]


class Version(Sent):
    """The answer to GET /version."""

    version: str
    claude_code_version: str
    claude_agent_sdk_version: str
    python_version: str


class PoolStatus(Sent):
    """The answer to GET /v1/pool. Waits are of the latest requests, in seconds."""

    processes: dict[Literal["working", "parked", "spare"], int]
    limit: int
    reuse: bool
    leases: dict[Origin, int]
    queue: dict[Literal["length"], int]
    waits: dict[Literal["mean", "p95", "longest"], float]


class SessionUsage(Sent):
    """Tokens of all turns of a session, in the Messages API's terms."""

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int
    cache_creation_input_tokens: int
    reasoning_tokens: int


class SessionDescription(Sent):
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


class SessionList(Sent):
    """The answer to GET /v1/sessions."""

    sessions: list[SessionDescription]
    total: int


class SessionCountsReport(Sent):
    """How many sessions a key has; `expired_sessions` have expired and aren't swept yet."""

    active_sessions: int
    expired_sessions: int
    total_messages: int


class SessionStatsReport(Sent):
    """The answer to GET /v1/sessions/stats."""

    session_stats: SessionCountsReport
    cleanup_interval_minutes: float
    default_ttl_hours: float


class SessionDeleted(Sent):
    """The answer to DELETE /v1/sessions/{id}."""

    session_id: str
    deleted: Literal[True] = True
    message: str


class DayOfUsage(Sent):
    """What a key used on one day (UTC)."""

    day: str
    requests: int
    input_tokens: int
    output_tokens: int
    cost_usd: float


class LimitsReport(Sent):
    """What a key may use; null is no limit."""

    requests_per_minute: int | None
    concurrent_requests: int | None
    usd_per_day: float | None
    models: tuple[str, ...] | None
    tools: bool | tuple[str, ...]


class UsageReport(Sent):
    """The answer to GET /v1/usage: the latest days first, and the key's own limits."""

    key: str | None
    days: list[DayOfUsage]
    limits: LimitsReport
    resets_at: datetime


class RequestFault(Sent):
    """One of the things that are wrong with a request, as its error would name it."""

    param: str | None
    message: str
    code: str | None


class ValidationReport(Sent):
    """Whether a chat completion could be tried, and if so with which parameters, else all that is in the way."""

    valid: bool
    errors: list[RequestFault]
    errors_left_out: int = 0
    normalized_request: dict[str, Any] | None


class ParameterFates(Sent):
    """Names of a body's parameters by what becomes of them; `adjusted` ones take effect, but not just as sent."""

    honoured: list[str]
    adjusted: list[str]
    ignored: list[str]
    refused: list[str]


class DebugInfo(Sent):
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


class DebugReport(Sent):
    """The answer to POST /v1/debug/request."""

    debug_info: DebugInfo


class ParameterFate(Sent):
    """One parameter: what Claude gets for it, if it is not the same; why it has no effect, if it has none."""

    parameter: str
    becomes: str | None
    reason: str | None


class CompatibilityReport(Sent):
    """The answer to POST /v1/compatibility: each parameter of the body is in one of the lists. Nulls are left out."""

    supported: list[ParameterFate]
    mapped: list[ParameterFate]
    ignored: list[ParameterFate]
    refused: list[ParameterFate]
    unknown: list[ParameterFate]


class AuthStatus(Sent):
    """The answer to GET /v1/auth/status. No secret is in it, ever."""

    method: str | None
    complete: bool
    missing: list[str]
    hint: str | None
    api_key_required: bool
    account: dict[str, str | None] | None
    claude_code_version: str


class ToolDescription(Sent):
    """One of Claude Code's own tools; a safe one only reads."""

    name: str
    description: str
    category: Category
    safe: bool
    allowed: bool


class ToolList(Sent):
    """The answer to GET /v1/tools."""

    tools: list[ToolDescription]
    total: int


class ToolConfigReport(Sent):
    """The answer to GET and POST /v1/tools/config: what was narrowed, and what is left."""

    session_id: str | None
    allowed_tools: list[str] | None
    disallowed_tools: list[str]
    effective_tools: list[str]


class ToolStats(Sent):
    """How the calls of one tool ended."""

    calls: int
    succeeded: int
    failed: int
    denied: int


class ToolStatsReport(Sent):
    """The answer to GET /v1/tools/stats."""

    tools: dict[str, ToolStats]
    total_calls: int


class McpServerReport(Sent):
    """One of the operator's MCP servers, in Claude Code's words: `connected`, `failed`, `needs-auth`, `pending`."""

    name: str
    status: str
    tools: list[str]
    error: str | None


class McpServerList(Sent):
    """The answer to GET /v1/mcp/servers."""

    servers: list[McpServerReport]
    total: int
