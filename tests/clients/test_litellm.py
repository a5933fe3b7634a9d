"""LiteLLM, as a client: functions, streams, objects, errors."""

import json
from pathlib import Path

import pytest

from conftest import ServerFactory
from demo_upstream import Reply
from published_clients import (
    ANSWER,
    CITY,
    CONVERSATION,
    FOLLOW_UPS,
    MODEL,
    PROPERTIES,
    QUESTION,
    demanded,
    printed,
    run_python,
    script_the_question,
    seen,
    went_on,
)

pytestmark = pytest.mark.slow_client


def test_functions_are_called_until_the_answer(serve: ServerFactory, tmp_path: Path) -> None:
    """Three requests, in one conversation."""
    server = serve()
    script_the_question(server.upstream)
    result = printed(run_python(["litellm_completion.py", MODEL, QUESTION, "functions"], server, tmp_path))
    assert result == {"answer": ANSWER}
    assert seen(server.upstream) == CONVERSATION
    assert went_on(server) == FOLLOW_UPS


def test_streams_are_put_together(serve: ServerFactory, tmp_path: Path) -> None:
    """Pieces of text, and the usage at the end."""
    server = serve()
    server.upstream.script(Reply(text=ANSWER, usage={"output_tokens": 70}))
    result = printed(run_python(["litellm_completion.py", MODEL, QUESTION, "stream"], server, tmp_path))
    assert result["answer"] == ANSWER
    assert result["pieces"] > 2
    assert result["total_tokens"] > 70


def test_answers_are_objects(serve: ServerFactory, tmp_path: Path) -> None:
    """A pydantic model's schema is held to."""
    server = serve()
    server.upstream.script(Reply(text=json.dumps(CITY)))
    assert printed(run_python(["litellm_completion.py", MODEL, QUESTION, "object"], server, tmp_path)) == {
        "answer": CITY
    }
    assert demanded(server.upstream) == [("format", PROPERTIES)]


def test_errors_are_litellms(serve: ServerFactory, tmp_path: Path) -> None:
    """Each status has its exception."""
    server = serve()
    for status in (401, 429, 500, 529):
        server.upstream.script(Reply(status=status))
    result = printed(run_python(["litellm_completion.py", MODEL, QUESTION, "errors"], server, tmp_path))
    assert result["errors"] == [
        "BadRequestError",
        "AuthenticationError",
        "RateLimitError",
        "InternalServerError",
        "ServiceUnavailableError",
    ]
