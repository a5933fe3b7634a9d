"""What all routes have in common: OpenAI's headers, security's, and OpenAI's envelope for every error."""

import logging
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from errors import ApiError, InvalidRequestError, MethodNotAllowedError, NotFoundError
from request_record import CLIENT_LEFT, RECORD, RequestRecord, note_error
from server_log import of_request

logger = logging.getLogger(__name__)

# The version that OpenAI's API has answered with for years; some clients log it.
_OPENAI_VERSION = "2020-10-01"

_RESPONSE_HEADERS = "response_headers"
_METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")


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
        record = RequestRecord.begin(scope, f"req_{uuid.uuid4().hex}")

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = int(message["status"])
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = record.request_id
                headers["openai-version"] = _OPENAI_VERSION
                headers["openai-processing-ms"] = str(round(record.elapsed_ms))
                for name, value in {**scope["state"].get(_RESPONSE_HEADERS, {}), **self._extra}.items():
                    headers.setdefault(name, value)
            await send(message)

        with of_request(record.request_id):
            try:
                await self._served(scope, receive, send_with_headers)
            finally:
                record.path = getattr(scope.get("route"), "path", record.path)
                record.write()

    async def _served(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except Exception:  # the request's edge: whatever it is, the client gets an envelope
            logger.exception("A request failed")
            if scope["state"][RECORD].status is not None:
                raise  # The server closes the connection: half an answer must not look whole.
            error = ApiError("The server had an error while processing your request. Its log says which.")
            await refuse(error, scope, receive, send)


async def refuse(
    error: ApiError, scope: Scope, receive: Receive, send: Send, headers: Mapping[str, str] | None = None
) -> None:
    """Answer a request with an error, and these headers besides."""
    note_error(scope, error)
    await error_response(error, headers)(scope, receive, send)


def error_response(error: ApiError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return an error in OpenAI's envelope."""
    return JSONResponse(error.body(), error.status, {**error.headers, **(headers or {})})


async def _on_api_error(request: Request, error: ApiError) -> JSONResponse:
    note_error(request.scope, error)
    return error_response(error)


async def _on_http_exception(request: Request, error: HTTPException) -> JSONResponse:
    """Only the router raises these: an unknown path, or a wrong method with its `Allow`."""
    address = f"{request.method} {request.url.path}"
    ours: ApiError = NotFoundError(f"Unknown request URL: {address}. The API is described at /docs.")
    if error.status_code == MethodNotAllowedError.status:
        allowed = ", ".join(_methods_of(request))
        ours = MethodNotAllowedError(
            f"Not allowed: {address}. See the Allow header, or /docs.", headers={"Allow": allowed}
        )
    return await _on_api_error(request, ours)


def _methods_of(request: Request) -> list[str]:
    """Return the methods that an address has, of all its routes: the router names those of the first."""
    routes: list[BaseRoute] = request.app.routes
    scopes = ({**request.scope, "method": method} for method in _METHODS)
    return [scope["method"] for scope in scopes if any(route.matches(scope)[0] is Match.FULL for route in routes)]


async def _on_validation_error(request: Request, error: RequestValidationError) -> JSONResponse:
    return await _on_api_error(request, InvalidRequestError(str(error)))


async def _on_client_disconnect(_request: Request, _error: ClientDisconnect) -> Response:
    return Response(status_code=CLIENT_LEFT)


ERROR_HANDLERS: dict[int | type[Exception], Callable[[Request, Any], Any]] = {
    ApiError: _on_api_error,
    HTTPException: _on_http_exception,
    RequestValidationError: _on_validation_error,
    ClientDisconnect: _on_client_disconnect,
}
"""FastAPI's `exception_handlers`: every error leaves the app in OpenAI's envelope."""
