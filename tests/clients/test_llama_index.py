"""LlamaIndex, over OpenAILike: chats, streams, an agent with functions, objects, pictures."""

from pathlib import Path

import pytest

from conftest import ServerFactory
from demo_upstream import Reply, ToolCall
from published_clients import (
    ANSWER,
    CITY,
    CONVERSATION,
    FOLLOW_UPS,
    MODEL,
    OPENAI2,
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


@pytest.mark.parametrize("mode", ["chat", "stream", "picture"])
def test_chats(serve: ServerFactory, tmp_path: Path, mode: str) -> None:
    """Whole, in pieces, and about a picture."""
    server = serve()
    server.upstream.script(Reply(text=ANSWER))
    result = printed(run_python(["llama_index_openai_like.py", MODEL, QUESTION, mode], server, tmp_path, OPENAI2))
    assert result["answer"] == ANSWER
    assert (result.get("pieces", 0) > 2) == (mode == "stream")
    request = server.upstream.messages_requests()[-1].body
    assert QUESTION in str(request["messages"])
    assert ("Be brief." in str(request.get("system"))) == (mode == "chat")
    assert ("'image'" in str(request["messages"])) == (mode == "picture")


def test_an_agent_calls_functions_until_the_answer(serve: ServerFactory, tmp_path: Path) -> None:
    """Three requests, in one conversation."""
    server = serve()
    script_the_question(server.upstream)
    result = printed(
        run_python(["llama_index_openai_like.py", MODEL, QUESTION, "functions"], server, tmp_path, OPENAI2)
    )
    assert result == {"answer": ANSWER}
    assert seen(server.upstream) == CONVERSATION
    assert went_on(server) == FOLLOW_UPS


def test_answers_are_objects(serve: ServerFactory, tmp_path: Path) -> None:
    """A pydantic model is filled, as a function's input."""
    server = serve()
    server.upstream.script(Reply(tool_calls=[ToolCall("City", CITY)]))
    result = printed(run_python(["llama_index_openai_like.py", MODEL, QUESTION, "object"], server, tmp_path, OPENAI2))
    assert result == {"answer": CITY}
    assert demanded(server.upstream) == [("any", PROPERTIES)]
