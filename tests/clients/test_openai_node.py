"""openai-node: `create`, streams, `parse`, `runTools`, errors."""

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
    PREAMBLE,
    PROPERTIES,
    QUESTION,
    demanded,
    printed,
    run_node,
    script_the_question,
    seen,
    went_on,
)


@pytest.mark.parametrize("mode", ["whole", "stream"])
def test_run_tools_runs_until_the_answer(serve: ServerFactory, tmp_path: Path, mode: str) -> None:
    """The runner calls the program's functions and ends with the answer; streamed, texts come in pieces."""
    server = serve()
    script_the_question(server.upstream)
    result = printed(run_node(["openai_node.mjs", MODEL, QUESTION, mode], server, tmp_path))
    assert result["answer"] == ANSWER
    assert result["calls"] == ["get_temperature", "get_temperature", "compare"]
    assert result["finish_reasons"] == ["tool_calls", "tool_calls", "stop"]
    assert [content or None for content in result["contents"]] == [PREAMBLE, None, ANSWER]
    assert "".join(result["pieces"]) == PREAMBLE + ANSWER
    assert (len(result["pieces"]) > 2) == (mode == "stream")
    assert result["total_tokens"] > 0
    assert seen(server.upstream) == CONVERSATION
    assert went_on(server) == FOLLOW_UPS


def test_create_stream_and_parse(serve: ServerFactory, tmp_path: Path) -> None:
    """A text, a text in pieces, and an object that zod describes."""
    server = serve()
    for text in (ANSWER, ANSWER, json.dumps(CITY)):
        server.upstream.script(Reply(text=text))
    result = printed(run_node(["openai_node.mjs", MODEL, QUESTION, "create"], server, tmp_path))
    assert (result["whole"], "".join(result["pieces"]), result["parsed"]) == (ANSWER, ANSWER, CITY)
    assert demanded(server.upstream)[-1] == ("format", PROPERTIES)
    assert len(result["pieces"]) > 3


def test_errors_have_their_classes(serve: ServerFactory, tmp_path: Path) -> None:
    """Our status and id are in them; a stream that breaks off is an error as well."""
    server = serve()
    for status in (401, 429, 500, 529):
        server.upstream.script(Reply(status=status))
    server.upstream.script(Reply(text=ANSWER, error_after=3))
    result = printed(run_node(["openai_node.mjs", MODEL, QUESTION, "errors"], server, tmp_path))
    assert result["names"] == [
        ["BadRequestError", 400, True],
        ["AuthenticationError", 401, True],
        ["RateLimitError", 429, True],
        ["InternalServerError", 500, True],
        ["InternalServerError", 503, True],
        ["APIError"],
    ]
