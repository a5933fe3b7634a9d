"""pydantic-ai: an agent with functions, streamed or not, all forms of output, pictures and documents."""

import json
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
    PROPERTIES,
    QUESTION,
    demanded,
    printed,
    run_python,
    script_the_question,
    seen,
    went_on,
)


@pytest.mark.parametrize("mode", ["run", "stream"])
def test_an_agent_calls_functions_until_the_answer(serve: ServerFactory, tmp_path: Path, mode: str) -> None:
    """Three requests; the usage of all of them is added up."""
    server = serve()
    script_the_question(server.upstream)
    result = printed(run_python(["pydantic_ai_agent.py", MODEL, QUESTION, mode], server, tmp_path))
    assert result["answer"] == ANSWER
    assert (result["usage"]["requests"], result["usage"]["tool_calls"]) == (3, 3)
    assert result["usage"]["input_tokens"] > 0
    assert result["usage"]["output_tokens"] > 0
    assert (result.get("pieces", 0) > 2) == (mode == "stream")
    assert seen(server.upstream) == CONVERSATION
    assert went_on(server) == FOLLOW_UPS


FORMS: dict[str, tuple[str, list[str]]] = {
    "native": ("format", PROPERTIES),
    "prompted": ("auto", []),
    "tool": ("any", PROPERTIES),
}


@pytest.mark.parametrize("mode", FORMS)
def test_answers_are_objects(serve: ServerFactory, tmp_path: Path, mode: str) -> None:
    """Whole and streamed: held to by the API, asked for in words, or as the input of a function."""
    server = serve()
    call = ToolCall("StructuredOutput" if mode == "prompted" else "final_result", CITY)
    reply = Reply(text=json.dumps(CITY)) if mode == "native" else Reply(tool_calls=[call])
    server.upstream.script(reply, times=None)
    result = printed(run_python(["pydantic_ai_agent.py", MODEL, QUESTION, mode], server, tmp_path))
    assert result == {"whole": CITY, "streamed": CITY}
    assert demanded(server.upstream) == [FORMS[mode]] * 2


def test_pictures_and_documents_arrive(serve: ServerFactory, tmp_path: Path) -> None:
    """The model sees the bytes that the program has."""
    server = serve()
    server.upstream.script(Reply(text="A dot."))
    result = printed(run_python(["pydantic_ai_agent.py", MODEL, QUESTION, "picture"], server, tmp_path))
    assert result == {"answer": "A dot."}
    (message,) = server.upstream.messages_requests()[-1].body["messages"]
    _, picture, document = message["content"]
    assert (picture["type"], picture["source"]["media_type"]) == ("image", "image/png")
    assert "A note." in str(document)
