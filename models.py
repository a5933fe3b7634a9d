"""OpenAI's wire shapes of what a client sends to us, and nothing else.

They tolerate what they don't know: clients add fields of their own, also inside messages.
Source: https://platform.openai.com/docs/api-reference/chat
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from tool_catalog import check_tool


class _Received(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class TextPart(_Received):
    """A piece of text."""

    type: Literal["text"]
    text: str


class RefusalPart(_Received):
    """A refusal that the assistant gave earlier."""

    type: Literal["refusal"]
    refusal: str


class ImageUrl(_Received):
    """Where an image is: an address, or a data URI that is the image itself."""

    url: str
    detail: str | None = None


class ImagePart(_Received):
    """An image."""

    type: Literal["image_url"]
    image_url: ImageUrl


class FileData(_Received):
    """A file's name, and the file itself as a data URI or as Base64."""

    filename: str | None = None
    file_data: str | None = None
    file_id: str | None = None


class FilePart(_Received):
    """A file."""

    type: Literal["file"]
    file: FileData


class OtherPart(_Received):
    """A part of another kind; content_parts refuses it by its name."""

    type: str


_PART_KINDS = frozenset({"text", "refusal", "image_url", "file"})


def _part_kind(value: object) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return kind if isinstance(kind, str) and kind in _PART_KINDS else "other"


ContentPart = Annotated[
    Annotated[TextPart, Tag("text")]
    | Annotated[RefusalPart, Tag("refusal")]
    | Annotated[ImagePart, Tag("image_url")]
    | Annotated[FilePart, Tag("file")]
    | Annotated[OtherPart, Tag("other")],
    Discriminator(_part_kind),
]
Content = str | list[ContentPart]


class FunctionCall(_Received):
    """A call's function name and its arguments as a JSON string."""

    name: str
    arguments: str


class ToolCall(_Received):
    """A call that the assistant made: one of its tools."""

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
    function_call: FunctionCall | None = None


class ToolMessage(_Received):
    """What a function answered."""

    role: Literal["tool"]
    content: Content
    tool_call_id: str


class FunctionMessage(_Received):
    """What a function answered, in the form of the time before tools; it may have said nothing."""

    role: Literal["function"]
    name: str
    content: Content | None = None


ChatMessage = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage | FunctionMessage, Field(discriminator="role")
]


class StreamOptions(_Received):
    """How to stream."""

    include_usage: bool | None = None


class FunctionDefinition(_Received):
    """A function of the client's; `parameters` is a JSON Schema, without which it takes none."""

    name: str = Field(min_length=1, max_length=64)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionTool(_Received):
    """A function as a tool: the one kind of tool that there is here."""

    type: Literal["function"]
    function: FunctionDefinition


class FunctionName(_Received):
    """Which function."""

    name: str


class NamedToolChoice(_Received):
    """The function that has to be called."""

    type: Literal["function"]
    function: FunctionName


def _choice_kind(value: object) -> str:
    return "mode" if isinstance(value, str) else "named"


ToolChoiceOption = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("mode")] | Annotated[NamedToolChoice, Tag("named")],
    Discriminator(_choice_kind),
]
FunctionCallOption = Annotated[
    Annotated[Literal["none", "auto"], Tag("mode")] | Annotated[FunctionName, Tag("named")],
    Discriminator(_choice_kind),
]


class TextFormat(_Received):
    """Text, as always."""

    type: Literal["text"]


class JsonObjectFormat(_Received):
    """A JSON object of any kind."""

    type: Literal["json_object"]


class NamedSchema(_Received):
    """A JSON Schema with a name, which says nothing here, and whether to keep to it, which is kept to in any case."""

    name: str = Field(min_length=1, max_length=64)
    description: str | None = None
    definition: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class JsonSchemaFormat(_Received):
    """JSON that is valid for a schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]
ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]


def _one_or_many(value: object) -> object:
    return [value] if isinstance(value, str) else value


MOST_FUNCTIONS = 128
MOST_STOPS = 4


_Stops = Annotated[list[str], Field(max_length=MOST_STOPS)]


class ChatCompletionRequest(_Received):
    """The body of POST /v1/chat/completions, as far as it is understood; parameter_validator sees to the rest."""

    model: str = Field(min_length=1, max_length=256)
    messages: list[ChatMessage] = Field(min_length=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    stop: Annotated[_Stops | None, BeforeValidator(_one_or_many, json_schema_input_type=str | _Stops | None)] = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    tools: Annotated[list[FunctionTool], Field(min_length=1, max_length=MOST_FUNCTIONS)] | None = None
    tool_choice: ToolChoiceOption | None = None
    parallel_tool_calls: bool | None = None
    functions: Annotated[list[FunctionDefinition], Field(min_length=1, max_length=MOST_FUNCTIONS)] | None = None
    function_call: FunctionCallOption | None = None
    n: int | None = Field(default=None, ge=1)
    response_format: ResponseFormat | None = None
    reasoning_effort: ReasoningEffort | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority"] | None = None
    session_id: str | None = None
    enable_tools: bool | None = None

    @property
    def choices(self) -> int:
        """How many answers are asked for."""
        return self.n or 1

    @property
    def token_limit(self) -> int | None:
        """How much may be written, thoughts included."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a chunk that counts its tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)


ToolName = Annotated[str, AfterValidator(check_tool)]


class ToolConfigRequest(_Received):
    """The body of POST /v1/tools/config: which tools a session wants of those that its key may use."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    session_id: str
    allowed_tools: Annotated[list[ToolName], Field(max_length=MOST_FUNCTIONS)] | None = None
    disallowed_tools: Annotated[list[ToolName], Field(max_length=MOST_FUNCTIONS)] = []


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
