"""The AI SDK, over both providers: text and tools, streamed or not, objects, images and files, errors, aborting."""

import json
from pathlib import Path

import pytest

from commands import wait_until
from conftest import ServerFactory
from demo_upstream import Gate, Reply
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

PROVIDERS = pytest.mark.parametrize("provider", ["compatible", "openai"])


@pytest.mark.parametrize("mode", ["generate", "stream"])
@PROVIDERS
def test_tools_run_until_the_answer(serve: ServerFactory, tmp_path: Path, provider: str, mode: str) -> None:
    """Three steps lead to the answer; streamed, text and each call's arguments come in pieces."""
    server = serve()
    script_the_question(server.upstream)
    result = printed(run_node(["ai_sdk.mjs", MODEL, QUESTION, provider, mode], server, tmp_path))
    assert (result["answer"], result["text"]) == (ANSWER, PREAMBLE + ANSWER)
    assert result["calls"] == ["get_temperature", "get_temperature", "compare"]
    assert result["finish_reasons"] == ["tool-calls", "tool-calls", "stop"]
    assert all(tokens > 0 for tokens in result["total_tokens"])
    if mode == "stream":
        assert result["parts"]["tool-input-start"] == result["parts"]["tool-call"] == 3
        assert result["parts"]["tool-input-delta"] > 3
        assert result["parts"]["text-delta"] > 2
    assert seen(server.upstream) == CONVERSATION
    assert went_on(server) == FOLLOW_UPS


@PROVIDERS
def test_answers_are_objects(serve: ServerFactory, tmp_path: Path, provider: str) -> None:
    """Whole, and in parts that grow."""
    server = serve()
    server.upstream.script(Reply(text=json.dumps(CITY)), times=2)
    result = printed(run_node(["ai_sdk.mjs", MODEL, QUESTION, provider, "object"], server, tmp_path))
    assert (result["whole"], result["parts"][-1]) == (CITY, CITY)
    assert demanded(server.upstream) == [("format", PROPERTIES)] * 2
    assert len(result["parts"]) > 1


@PROVIDERS
def test_images_and_files_arrive(serve: ServerFactory, tmp_path: Path, provider: str) -> None:
    """The model sees an image and a document."""
    server = serve()
    server.upstream.script(Reply(text=ANSWER))
    result = printed(run_node(["ai_sdk.mjs", MODEL, QUESTION, provider, "parts"], server, tmp_path))
    assert result == {"text": ANSWER}
    content = server.upstream.messages_requests()[-1].body["messages"][-1]["content"]
    assert [block["type"] for block in content if block["type"] != "text"] == ["image", "document"]


@PROVIDERS
def test_errors_tell_whether_to_try_again(serve: ServerFactory, tmp_path: Path, provider: str) -> None:
    """Our status and words."""
    server = serve()
    for status in (401, 429, 500, 529):
        server.upstream.script(Reply(status=status))
    result = printed(run_node(["ai_sdk.mjs", MODEL, QUESTION, provider, "errors"], server, tmp_path))
    assert [each[:3] for each in result["seen"]] == [
        [True, 400, False],
        [True, 401, False],
        [True, 429, True],
        [True, 500, True],
        [True, 503, True],
    ]
    assert "temperature" in result["seen"][0][3]


@PROVIDERS
def test_who_aborts_ends_the_turn(serve: ServerFactory, tmp_path: Path, provider: str) -> None:
    """The stream ends there, and so does the request at the model."""
    server = serve()
    gate = Gate(after=3)
    server.upstream.script(Reply(text=ANSWER, gate=gate))
    result = printed(run_node(["ai_sdk.mjs", MODEL, QUESTION, provider, "abort"], server, tmp_path))
    assert result["kinds"][-1] == "abort"
    wait_until(lambda: server.upstream.messages_requests()[-1].disconnected)
