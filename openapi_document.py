"""The OpenAPI document: what FastAPI derives from the routes, and what they have in common or parse by themselves."""

from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from answer_models import ChatCompletion, ChatCompletionChunk, ErrorResponse
from models import AnyParameters, ChatCompletionRequest, ToolConfigRequest
from streaming import DONE

_BODIES: Mapping[str, type[BaseModel]] = {
    "/v1/chat/completions": ChatCompletionRequest,
    "/v1/debug/request": AnyParameters,
    "/v1/compatibility": AnyParameters,
    "/v1/tools/config": ToolConfigRequest,
}
_ERRORS: Mapping[int, str] = {
    400: "Something in the request is wrong; `param` names it.",
    401: "The key is missing or wrong, or the server has no valid login at Claude.",
    403: "Known, but not allowed: to this key, this origin, or under this name of the server.",
    404: "There is nothing of this name.",
    409: "The session is busy, or was deleted in the meantime.",
    413: "The body is too large.",
    429: "A limit is reached; `Retry-After` says when to come again.",
    500: "The server failed.",
    502: "Claude Code, or Claude's API, failed.",
    503: "The server is busy, shuts down, or has lost its store; `Retry-After` says when to come again.",
    504: "The answer took too long.",
}
"""Each in OpenAI's envelope."""
_CHUNK = {
    "type": "string",
    "contentMediaType": "application/json",
    "contentSchema": {
        "anyOf": [
            {"$ref": "#/components/schemas/ChatCompletionChunk"},
            {"$ref": "#/components/schemas/ErrorResponse"},
        ]
    },
}
_EVENT = {
    "type": "object",
    "description": "With `stream`, each event: a chunk, or at last `[DONE]`; or an error, and no more.",
    "properties": {"data": {"anyOf": [{"const": DONE}, _CHUNK]}},
    "required": ["data"],
}
_EVERYWHERE = (400, 403, 500, 503)
_KEEPS_ITS_STATUS = "An error of Claude's API that has no status here, with its own."


def complete_document(app: FastAPI) -> None:
    """Let the application's document have all bodies, and all errors."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's documented way to extend it


def _document(app: FastAPI) -> dict[str, Any]:
    found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    for path, model in _BODIES.items():
        content = {"application/json": {"schema": _schema(found, model)}}
        found["paths"][path]["post"]["requestBody"] = {"required": True, "content": content}
    error = {"application/json": {"schema": _schema(found, ErrorResponse)}}
    # FastAPI describes what is written by a function of ours as anything.
    for sent in (ChatCompletion, ChatCompletionChunk):
        _schema(found, sent)
    for operation in _operations(found):
        statuses = {*map(int, operation["responses"]), *_EVERYWHERE} - {200, 422}
        statuses |= {401} if "security" in operation else set()
        statuses |= {413} if "requestBody" in operation else set()
        answers = {"200": operation["responses"]["200"]}
        answers |= {str(status): {"description": _ERRORS[status], "content": error} for status in sorted(statuses)}
        operation["responses"] = answers
    completions = found["paths"]["/v1/chat/completions"]["post"]["responses"]
    completions["200"]["content"]["text/event-stream"] = {"schema": _EVENT}
    others = {"description": _KEEPS_ITS_STATUS, "content": error}
    completions |= {"4XX": others, "5XX": others}
    # FastAPI's own answer to what doesn't validate; here that is a 400.
    for name in ("HTTPValidationError", "ValidationError"):
        found["components"]["schemas"].pop(name, None)
    return found


def _operations(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for operations in document["paths"].values():
        yield from operations.values()


def _schema(document: dict[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """Put a model's shapes into the document; return a reference to it."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    shapes = document["components"]["schemas"]
    shapes.update(schema.pop("$defs", {}))
    shapes[model.__name__] = schema
    return {"$ref": f"#/components/schemas/{model.__name__}"}
