"""The error tree: every class has its status and fits OpenAI's envelope; upstream's failures find their class."""

import re
from collections.abc import Iterator
from http import HTTPStatus

import pytest

import errors
from errors import (
    ApiError,
    AuthenticationError,
    ClaudeLoginError,
    ContextLengthExceededError,
    InvalidRequestError,
    MissingKeyError,
    ModelNotFoundError,
    PermissionDeniedError,
    RequestTooLargeError,
    TurnTimeoutError,
    UpstreamError,
    UpstreamRateLimitError,
    UpstreamRefusalError,
    from_upstream,
)

# Name and status of each line of the drawing; errors that get their status at the raise have a list there.
DRAWN = re.findall(r"(\w+Error)(?: (\d{3}))?(?=\n)", errors.__doc__ or "")
DRAWN_NAMES = re.findall(r"\w+Error\b", errors.__doc__ or "")


def tree(root: type[ApiError]) -> Iterator[type[ApiError]]:
    """A class of errors and all below it."""
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


CLASSES = {each.__name__: each for each in tree(ApiError)}


@pytest.mark.parametrize(("name", "status"), DRAWN)
def test_the_drawn_tree_is_the_real_one(name: str, status: str) -> None:
    """Each class that the module's drawing names exists, with its status where that is one."""
    assert CLASSES[name].status == int(status or 500)


def test_the_drawing_is_complete() -> None:
    """Every class is drawn, once."""
    assert sorted(DRAWN_NAMES) == sorted(CLASSES)


@pytest.mark.parametrize("error_class", CLASSES.values())
def test_every_status_is_an_errors(error_class: type[ApiError]) -> None:
    """No class of errors answers as a success or a redirect, and its type is 4xx's or 5xx's own."""
    assert HTTPStatus(error_class.status).value >= 400
    assert (error_class.type == "server_error") == (error_class.status >= 500)


def test_the_envelope_has_all_four_keys() -> None:
    """Message, type, param and code are there even where there is nothing to say."""
    body = InvalidRequestError("No.").body()
    assert body == {"error": {"message": "No.", "type": "invalid_request_error", "param": None, "code": None}}


def test_an_error_can_say_more_than_its_class() -> None:
    """`param` and `code` given at the raise reach the envelope, and the class's own code stays as it was."""
    body = UpstreamRateLimitError("Slow.", param="model", code="insufficient_quota").body()["error"]
    assert (body["param"], body["code"]) == ("model", "insufficient_quota")
    assert UpstreamRateLimitError("Slow.").code == "rate_limit_exceeded"


@pytest.mark.parametrize(
    ("error", "param", "code"),
    [
        (ContextLengthExceededError("Too long."), "messages", "context_length_exceeded"),
        (MissingKeyError(), None, None),
        (AuthenticationError("Wrong."), None, "invalid_api_key"),
        (ModelNotFoundError("gpt-9"), None, "model_not_found"),
    ],
)
def test_errors_that_know_their_own_words(error: ApiError, param: str | None, code: str | None) -> None:
    """Errors with a fixed cause fill `param` and `code` by themselves."""
    assert (error.param, error.code) == (param, code)


@pytest.mark.parametrize(
    ("error", "retry"),
    [
        (UpstreamRateLimitError("Slow."), "true"),
        (UpstreamError("Down.", 500), "true"),
        (UpstreamRefusalError("No.", 402), "false"),
        (UpstreamRefusalError("Later.", 409), "true"),
    ],
)
def test_clients_are_told_whether_to_try_again(error: ApiError, retry: str) -> None:
    """x-should-retry follows the class."""
    assert error.headers["x-should-retry"] == retry


def test_a_turn_that_took_too_long_is_not_tried_again() -> None:
    """The same prompt would take as long again, so clients are told to leave it."""
    assert TurnTimeoutError("Late.").headers["x-should-retry"] == "false"


@pytest.mark.parametrize("error", [MissingKeyError(), AuthenticationError("Wrong."), ClaudeLoginError("None.")])
def test_every_401_names_its_scheme(error: ApiError) -> None:
    """RFC 9110 wants WWW-Authenticate on a 401, beside the headers that all errors have."""
    assert error.headers == {"WWW-Authenticate": "Bearer", "x-should-retry": "false"}


def test_headers_of_the_raise_are_added() -> None:
    """Headers given at the raise stand beside the class's own."""
    error = UpstreamRateLimitError("Slow.", headers={"retry-after": "7"})
    assert error.headers == {"x-should-retry": "true", "retry-after": "7"}


@pytest.mark.parametrize(
    ("upstream", "error_class", "status"),
    [
        (None, UpstreamError, 502),
        (200, UpstreamError, 502),
        (400, InvalidRequestError, 400),
        (401, ClaudeLoginError, 401),
        (403, PermissionDeniedError, 403),
        (404, ModelNotFoundError, 404),
        (402, UpstreamRefusalError, 402),
        (409, UpstreamRefusalError, 409),
        (413, RequestTooLargeError, 413),
        (429, UpstreamRateLimitError, 429),
        (500, UpstreamError, 500),
        (504, UpstreamError, 504),
        (529, UpstreamError, 503),
    ],
)
def test_upstreams_status_finds_its_class(upstream: int | None, error_class: type[ApiError], status: int) -> None:
    """Each status of Claude's API has one class, no answer at all is a 502, and "overloaded" becomes HTTP's 503."""
    error = from_upstream(upstream, "such luck", "claude-x")
    assert (type(error), error.status) == (error_class, status)
    assert error.message == ("such luck" if upstream != 404 else ModelNotFoundError("claude-x").message)
