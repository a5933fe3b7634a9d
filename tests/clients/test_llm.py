"""llm, with extra-openai-models.yaml: answers, streamed or not, conversations, schemas, functions, pictures."""

import json
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from conftest import Server, ServerFactory
from content_blocks import png
from demo_upstream import Reply
from published_clients import (
    ANSWER,
    CONVERSATION,
    FOLLOW_UPS,
    MODEL,
    PREAMBLE,
    QUESTION,
    documented,
    run_script,
    script_the_question,
    seen,
    went_on,
)

pytestmark = pytest.mark.slow_client

FUNCTIONS = """
def get_temperature(city: str) -> str:
    "Look up the temperature in a city now."
    return {"Paris": "18 °C", "Rome": "24 °C"}[city]

def compare(first: str, second: str) -> str:
    "Tell which of two temperatures is higher, and by how much."
    return f"the second, by {int(second.removesuffix(' °C')) - int(first.removesuffix(' °C'))} °C"
"""

Llm = Callable[..., CompletedProcess[str]]


@pytest.fixture
def server(serve: ServerFactory) -> Server:
    """A server of its own."""
    return serve()


@pytest.fixture
def llm(server: Server, tmp_path: Path) -> Llm:
    """Run the command, in a home where it knows the server."""
    settings = tmp_path / ".config" / "io.datasette.llm"
    settings.mkdir(parents=True)
    # Another model than the documented one, whose requests have nothing of Claude Code's own among the messages.
    models = documented("yaml", "model_id", server).replace("model_name: sonnet", f"model_name: {MODEL}")
    (settings / "extra-openai-models.yaml").write_text(models)

    def run(*arguments: str) -> CompletedProcess[str]:
        result = run_script("llm", ["-m", "claude", *arguments], server, tmp_path)
        assert result.returncode == 0, result.stdout + result.stderr
        return result

    return run


@pytest.mark.parametrize("options", [[], ["--no-stream"]])
def test_a_question_is_answered(llm: Llm, server: Server, options: list[str]) -> None:
    """The text, streamed or not; the next question goes on in the conversation."""
    server.upstream.script(Reply(text=ANSWER))
    assert llm(QUESTION, *options).stdout == ANSWER + "\n"
    server.upstream.script(Reply(text="By far."))
    assert llm("--continue", "Much?", *options).stdout == "By far.\n"
    assert seen(server.upstream) == [("user", [QUESTION]), ("assistant", [ANSWER]), ("user", ["Much?"])]


def test_schemas_are_held_to(llm: Llm, server: Server) -> None:
    """In llm's short form for schemas."""
    city = {"name": "Rome", "people": 2_700_000}
    server.upstream.script(Reply(text=json.dumps(city)))
    assert json.loads(llm("--schema", "name, people int", QUESTION).stdout) == city
    schema = server.upstream.messages_requests()[-1].body["output_config"]["format"]["schema"]
    assert schema["required"] == ["name", "people"]


def test_functions_are_called_until_the_answer(llm: Llm, server: Server) -> None:
    """Three requests, in one conversation."""
    script_the_question(server.upstream)
    assert llm("--functions", FUNCTIONS, QUESTION).stdout.split() == f"{PREAMBLE} {ANSWER}".split()
    assert seen(server.upstream) == CONVERSATION
    assert went_on(server) == FOLLOW_UPS


def test_pictures_arrive(llm: Llm, server: Server, tmp_path: Path) -> None:
    """An attachment is an image to the model."""
    (tmp_path / "a.png").write_bytes(b64decode(png()))
    server.upstream.script(Reply(text="A dot."))
    assert llm(QUESTION, "-a", str(tmp_path / "a.png")).stdout == "A dot.\n"
    content = server.upstream.messages_requests()[-1].body["messages"][-1]["content"]
    assert [block["type"] for block in content if block["type"] != "text"] == ["image"]
