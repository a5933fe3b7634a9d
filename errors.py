"""Every error that a client can see, with its HTTP status and its place in OpenAI's envelope.

    ApiError
    ├── InvalidRequestError 400
    │   ├── ContextLengthExceededError 400
    │   ├── OutputFormatError 400
    │   ├── TooManySessionsError 400
    │   └── UpstreamRefusalError 402, 409 …
    ├── AuthenticationError 401
    │   ├── MissingKeyError 401
    │   └── ClaudeLoginError 401
    ├── PermissionDeniedError 403
    ├── NotFoundError 404
    │   └── ModelNotFoundError 404
    ├── MethodNotAllowedError 405
    ├── SessionBusyError 409
    ├── SessionLostError 409
    ├── RequestTooLargeError 413
    ├── UpstreamRateLimitError 429
    ├── TooManyRequestsError 429
    │   ├── RateLimitExceededError 429
    │   ├── TooManyAtOnceError 429
    │   └── OverBudgetError 429
    ├── UpstreamError 500, 502, 503 …
    ├── StoreUnavailableError 503
    ├── ShuttingDownError 503
    ├── ClaudeCodeError 502
    ├── QueueTimeoutError 503
    └── TurnTimeoutError 504
        └── UpstreamTimeoutError 504

An error carries its status from where it is raised: nobody guesses it from its text. The envelope has all four keys,
always: https://platform.openai.com/docs/guides/error-codes
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any


class ApiError(Exception):
    """An answer other than success: what went wrong and what the reader can do about it.

    `param` names the request's field at fault, `code` is for programs. `retryable` becomes `x-should-retry`, and
    `retry_after`, the seconds until a retry has a chance, `Retry-After`.
    """

    status: int = HTTPStatus.INTERNAL_SERVER_ERROR
    type: str = "server_error"
    code: str | None = None
    retryable: bool = False

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Make the error; `headers` are added to those of its class."""
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or self.code
        self.retry_after = retry_after
        self._headers = dict(headers or {})

    @property
    def headers(self) -> dict[str, str]:
        """The response headers that belong to this error."""
        told = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return {"x-should-retry": "true" if self.retryable else "false", **told, **self._headers}

    def body(self) -> dict[str, Any]:
        """OpenAI's error envelope."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class InvalidRequestError(ApiError):
    """The request can't be carried out as it stands. `details`, if there are any, go into the envelope, too."""

    status: int = HTTPStatus.BAD_REQUEST
    type = "invalid_request_error"
    details: Sequence[Mapping[str, str | None]] = ()

    def body(self) -> dict[str, Any]:
        """The envelope, with the details."""
        error = super().body()["error"]
        return {"error": {**error, "details": [*self.details]} if self.details else error}


class ContextLengthExceededError(InvalidRequestError):
    """The conversation is longer than its model can read."""

    code = "context_length_exceeded"

    def __init__(self, message: str, *, sent: bool = True) -> None:
        """Name `messages` as the field at fault; `sent` says whether Claude's API was asked."""
        super().__init__(message, param="messages")
        self.sent = sent


class OutputFormatError(InvalidRequestError):
    """Claude's API can't hold this model's answers to a schema."""

    code = "unsupported_response_format"

    def __init__(self, message: str) -> None:
        """Name `response_format` as the field at fault."""
        super().__init__(message, param="response_format")


class AuthenticationError(ApiError):
    """No key, a wrong key, or no valid login at Claude."""

    status = HTTPStatus.UNAUTHORIZED
    type = "invalid_request_error"
    code: str | None = "invalid_api_key"

    @property
    def headers(self) -> dict[str, str]:
        """RFC 9110, 15.5.2: a 401 names the scheme to use."""
        return {"WWW-Authenticate": "Bearer", **super().headers}


class MissingKeyError(AuthenticationError):
    """The request shows no key at all."""

    code = None

    def __init__(self) -> None:
        """Use OpenAI's wording."""
        super().__init__(
            "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer "
            "auth (i.e. Authorization: Bearer YOUR_KEY)."
        )


class ClaudeLoginError(AuthenticationError):
    """The server itself has no valid login at Claude; the caller's key is not at fault."""

    code = "claude_login_required"


class PermissionDeniedError(ApiError):
    """Known, but not allowed."""

    status = HTTPStatus.FORBIDDEN
    type = "invalid_request_error"
    code = "permission_denied"


class NotFoundError(ApiError):
    """There is nothing at this address."""

    status = HTTPStatus.NOT_FOUND
    type = "invalid_request_error"
    code = "not_found"


class ModelNotFoundError(NotFoundError):
    """The model is unknown to us or to Claude."""

    code = "model_not_found"

    def __init__(self, model: str) -> None:
        """Use OpenAI's wording, which clients know."""
        super().__init__(f"The model `{model}` does not exist or you do not have access to it.")


class MethodNotAllowedError(ApiError):
    """The address exists, for another method."""

    status = HTTPStatus.METHOD_NOT_ALLOWED
    type = "invalid_request_error"
    code = "method_not_allowed"


class RequestTooLargeError(ApiError):
    """The body is larger than MAX_REQUEST_SIZE or than Claude takes."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    type = "invalid_request_error"
    code = "request_too_large"


class SessionBusyError(ApiError):
    """Another turn of the session took as long as this request may."""

    status = HTTPStatus.CONFLICT
    type = "invalid_request_error"
    code = "session_busy"
    retryable = True

    def __init__(self) -> None:
        """Say what to do."""
        super().__init__(
            "Another request of this session is still being answered. Try again later.", param="session_id"
        )


class SessionLostError(ApiError):
    """The session was deleted during a turn of it, or went to a server that took this one for dead."""

    status = HTTPStatus.CONFLICT
    type = "invalid_request_error"
    code = "session_lost"

    def __init__(self) -> None:
        """Say what became of the turn."""
        super().__init__(
            "The session was deleted, or taken over, while this request was answered: the answer isn't part of it.",
            param="session_id",
        )


class TooManySessionsError(InvalidRequestError):
    """The key has as many sessions as it may have."""

    code = "too_many_sessions"

    def __init__(self, most: int) -> None:
        """Say how to go on."""
        super().__init__(
            f"This API key has {most} sessions, the most that it may have. Delete one (DELETE /v1/sessions/{{id}}), or "
            "wait until one expires.",
            param="session_id",
        )


class StoreUnavailableError(ApiError):
    """What keeps sessions, limits and usage can't be reached."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "store_unavailable"
    retryable = True

    def __init__(self) -> None:
        """It may be back after a moment."""
        super().__init__(
            "This server can't reach the store of its sessions and limits. Try again in a moment.", retry_after=2
        )


class ShuttingDownError(ApiError):
    """The server has been told to stop."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "shutting_down"
    retryable = True

    def __init__(self) -> None:
        """Another server, or the next one, may be there soon."""
        super().__init__("This server is shutting down. Try again in a moment.", retry_after=5)


class TooManyRequestsError(ApiError):
    """More requests than a limit of this server allows; `seconds` is when there may be more."""

    status = HTTPStatus.TOO_MANY_REQUESTS
    type = "rate_limit_exceeded"
    code = "too_many_requests"
    retryable = True

    def __init__(self, message: str, seconds: int, headers: Mapping[str, str] | None = None) -> None:
        """Tell the time to wait in the header and in the body; add `headers`."""
        super().__init__(message, retry_after=seconds, headers=headers)

    def body(self) -> dict[str, Any]:
        """The envelope, with the seconds to wait."""
        error = super().body()["error"]
        return {"error": {**error, "retry_after": self.retry_after}}


class RateLimitExceededError(TooManyRequestsError):
    """One request more than an address, or a key, may make in a minute."""

    def __init__(self, seconds: int, headers: Mapping[str, str]) -> None:
        """Say when the window ends; `headers` say where the caller stands."""
        super().__init__(f"Rate limit exceeded. Try again in {seconds} seconds.", seconds, headers)


class TooManyAtOnceError(TooManyRequestsError):
    """The key has as many requests under way as it may have."""

    code = "too_many_concurrent_requests"


class OverBudgetError(TooManyRequestsError):
    """The key has spent what it may spend in a day."""

    type = "insufficient_quota"
    code = "insufficient_quota"
    retryable = False


class UpstreamRateLimitError(ApiError):
    """Claude refused the request because of its limits."""

    status = HTTPStatus.TOO_MANY_REQUESTS
    type = "rate_limit_error"
    code = "rate_limit_exceeded"
    retryable = True


class UpstreamRefusalError(InvalidRequestError):
    """Claude's API refused the request for a reason that has no class of its own; `status` says which."""

    def __init__(self, message: str, status: int, retry_after: int | None = None) -> None:
        """Keep the status that the refusal came with."""
        super().__init__(message, retry_after=retry_after)
        self.status = status
        self.retryable = status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT)


class UpstreamError(ApiError):
    """Claude's API failed; `status` says how."""

    code = "upstream_error"
    retryable = True

    def __init__(self, message: str, status: int, retry_after: int | None = None) -> None:
        """Keep the status that the failure came with."""
        super().__init__(message, retry_after=retry_after)
        self.status = status


class ClaudeCodeError(ApiError):
    """The Claude Code process failed, not the model behind it."""

    status = HTTPStatus.BAD_GATEWAY
    code = "claude_code_error"
    retryable = True


class QueueTimeoutError(ApiError):
    """Every process was busy for too long."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "overloaded"
    retryable = True

    def __init__(self, waited: float) -> None:
        """Say how long the request waited, in seconds; it may come back after a moment."""
        super().__init__(
            f"This server is busy: no Claude Code process became free within {waited:g} seconds. Try again later.",
            retry_after=5,
        )


class TurnTimeoutError(ApiError):
    """The turn took longer than MAX_TIMEOUT."""

    status = HTTPStatus.GATEWAY_TIMEOUT
    code = "timeout"


class UpstreamTimeoutError(TurnTimeoutError):
    """Claude's API didn't answer, or stopped in the middle, for longer than a request waits for it."""

    code = "upstream_timeout"
    retryable = True


_UPSTREAM_ERRORS: Mapping[int, type[ApiError]] = {
    400: InvalidRequestError,
    401: ClaudeLoginError,
    403: PermissionDeniedError,
    413: RequestTooLargeError,
    429: UpstreamRateLimitError,
}

# Anthropic's own status for "overloaded"; OpenAI's clients know 503 for it.
_OVERLOADED = 529


def from_upstream(status: int | None, message: str, model: str, *, retry_after: int | None = None) -> ApiError:
    """Turn a failure that Claude Code reports into the error that the client sees.

    `status` is the HTTP status of Claude's API, None where the connection failed before there was one (then 502).
    `retry_after` are the seconds until a retry has a chance.
    """
    if status is None or status < HTTPStatus.BAD_REQUEST:
        return UpstreamError(message, HTTPStatus.BAD_GATEWAY, retry_after)
    if status == HTTPStatus.NOT_FOUND:
        return ModelNotFoundError(model)
    if status in _UPSTREAM_ERRORS:
        return _UPSTREAM_ERRORS[status](message, retry_after=retry_after)
    if status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return UpstreamRefusalError(message, status, retry_after)
    return UpstreamError(message, HTTPStatus.SERVICE_UNAVAILABLE if status == _OVERLOADED else status, retry_after)
