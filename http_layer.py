"""What all routes have in common: OpenAI's headers, OpenAI's envelope for every error, and the OpenAPI document."""

import logging
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from config import is_local_address
from errors import ApiError, InvalidRequestError, MethodNotAllowedError, NotFoundError, PermissionDeniedError

logger = logging.getLogger(__name__)

# The version that OpenAI's API has answered with for years; some clients log it.
_OPENAI_VERSION = "2020-10-01"

CLIENT_LEFT = 499
"""Nobody reads this answer: the client has left. The status is nginx's name for it."""


_RESPONSE_HEADERS = "response_headers"


def add_response_headers(request: Request, headers: Mapping[str, str]) -> None:
    """Send these with the request's response, whatever that will be, where it hasn't got them of its own."""
    setattr(request.state, _RESPONSE_HEADERS, {**getattr(request.state, _RESPONSE_HEADERS, {}), **headers})


class CommonHeaders:
    """ASGI middleware: `x-request-id` and OpenAI's other headers on every response, also where the app fails."""

    def __init__(self, app: ASGIApp, extra: Mapping[str, str]) -> None:
        """`extra` goes on every response, too, where it hasn't got these of its own."""
        self._app = app
        self._extra = extra

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = scope.setdefault("state", {})["request_id"] = f"req_{uuid.uuid4().hex}"
        begun = False

        async def send_with_headers(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                headers["openai-version"] = _OPENAI_VERSION
                headers["openai-processing-ms"] = str(round((time.perf_counter() - started) * 1000))
                for name, value in {**scope.get("state", {}).get(_RESPONSE_HEADERS, {}), **self._extra}.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception:  # the request's edge: whatever it is, the client gets an envelope
            logger.exception("%s failed", request_id)
            if begun:
                raise  # The server closes the connection: half an answer must not look whole.
            error = ApiError("The server had an error while processing your request. Its log says which.")
            await _answer(error)(scope, receive, send_with_headers)


class OriginGuard(CORSMiddleware):
    """CORS that also refuses the requests of foreign pages, whose answers they couldn't read anyway.

    For a server without keys: otherwise any page that its user opens could spend the Claude login.
    """

    _warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; the first one from beyond this machine is worth a warning."""
        server = (scope.get("server") or ("",))[0]
        if server and not self._warned and not is_local_address(server):
            self._warned = True
            logger.warning(
                "This server is reached at %s and asks for no API key: whoever reaches it may use it", server
            )
        await super().__call__(scope, receive, send)

    async def simple_response(self, scope: Scope, receive: Receive, send: Send, request_headers: Headers) -> None:
        """Answer a request that names its origin."""
        origin = request_headers.get("origin")
        if origin is None or self.is_allowed_origin(origin=origin):
            await super().simple_response(scope, receive, send, request_headers=request_headers)
        else:
            error = PermissionDeniedError(
                "Pages of this origin may not call here. The operator can name it in CORS_ORIGINS, or set API_KEYS."
            )
            await _answer(error, {"Vary": "Origin"})(scope, receive, send)


def _answer(error: ApiError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse(error.body(), error.status, {**error.headers, **(headers or {})})


async def _on_api_error(_request: Request, error: ApiError) -> JSONResponse:
    return _answer(error)


async def _on_http_exception(request: Request, error: HTTPException) -> JSONResponse:
    """Only the router raises these: an unknown path, or a wrong method with its `Allow`."""
    address = f"{request.method} {request.url.path}"
    if error.status_code == MethodNotAllowedError.status:
        return _answer(MethodNotAllowedError(f"Not allowed: {address}. See the Allow header, or /docs."), error.headers)
    return _answer(NotFoundError(f"Unknown request URL: {address}. The API is described at /docs."), error.headers)


async def _on_validation_error(_request: Request, error: RequestValidationError) -> JSONResponse:
    return _answer(InvalidRequestError(str(error)))


async def _on_client_disconnect(_request: Request, _error: ClientDisconnect) -> Response:
    return Response(status_code=CLIENT_LEFT)


ERROR_HANDLERS: dict[int | type[Exception], Callable[[Request, Any], Any]] = {
    ApiError: _on_api_error,
    HTTPException: _on_http_exception,
    RequestValidationError: _on_validation_error,
    ClientDisconnect: _on_client_disconnect,
}
"""FastAPI's `exception_handlers`: every error leaves the app in OpenAI's envelope."""


def describe_bodies(app: FastAPI, bodies: Mapping[str, type[BaseModel]]) -> None:
    """Add the bodies of these POST routes, which we parse ourselves, to the OpenAPI document."""
    derived = app.openapi

    def complete() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = derived()
            for path, model in bodies.items():
                schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
                document["components"]["schemas"].update(schema.pop("$defs", {}))
                content = {"application/json": {"schema": schema}}
                document["paths"][path]["post"]["requestBody"] = {"required": True, "content": content}
            _forget_422(document)
        return derived()

    app.openapi = complete  # type: ignore[method-assign]  # FastAPI's documented way to extend it


def _forget_422(document: dict[str, Any]) -> None:
    """FastAPI names its own answer to what doesn't validate; here that is a 400 in OpenAI's envelope."""
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
