"""The examples, run as a user runs them: with Python, the server's address and a key."""

import json
import subprocess
import sys
from base64 import b64decode
from pathlib import Path
from typing import Any

import httpx
import pytest

from conftest import REPOSITORY, Server, ServerFactory, clean_environment
from content_blocks import png
from demo_upstream import Reply, ToolCall

KEY = "a-key-of-the-tests"
# What they need is installed in tests/clients, where they are run; and what isn't run at all.
ELSEWHERE = {"langchain_chat.py", "connection.py", "connection.sh"}


Ended = subprocess.CompletedProcess[str]


def begin(
    example: str, server_url: str, *arguments: str, key: str | None = KEY, slash: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run an example to its end, with a key or without."""
    keys = {} if key is None else {"OPENAI_API_KEY": key}
    interpreter = "bash" if example.endswith(".sh") else sys.executable
    return subprocess.run(
        [interpreter, f"examples/{example}", *arguments],
        cwd=REPOSITORY,
        env=clean_environment(OPENAI_BASE_URL=f"{server_url}/v1{slash}", **keys, PYTHONUTF8="1"),
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=60,
    )


def run(example: str, server_url: str, *arguments: str) -> list[str]:
    """Run an example to its end, which has to be a good one. Returns the lines that it printed."""
    result = begin(example, server_url, *arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout.splitlines()


def said_by_the_user(server: Server) -> list[str]:
    """The texts of the user's messages in the last request."""
    messages = server.upstream.messages_requests()[-1].body["messages"]
    return [message["content"][0]["text"] for message in messages if message["role"] == "user"]


def test_the_sdk_shows_what_an_answer_tells(serve: ServerFactory) -> None:
    """Models, the text, tokens and cost, and an error with its code."""
    server = serve(api_key=KEY)
    server.upstream.script(Reply(text="It scatters.", usage={"output_tokens": 7}))
    models, text, tokens, cost, error = run("openai_sdk.py", server.url, "Why", "blue?")
    assert "sonnet" in models
    assert text == "It scatters."
    assert tokens.endswith(" tokens in, 7 out")
    assert float(cost.removeprefix("Cost, as Claude Code counts it: ")) > 0
    assert error.startswith("model_not_found: Error code: 404 - ")


def test_streaming_reads_several_at_once(serve: ServerFactory) -> None:
    """A dot for each chunk, then every answer beside its question."""
    server = serve(api_key=KEY)
    server.upstream.script(Reply(text="The Tiber, of course."), times=2)
    dots, *answers = run("streaming.py", server.url, "A river?", "Another?")
    assert len(dots) > 2 * 4
    for question, line in zip(("A river?", "Another?"), answers, strict=True):
        assert line.startswith(f"{question} The Tiber, of course. (")
        assert not line.endswith("(0 tokens)")


def test_a_session_is_continued_and_forgotten(serve: ServerFactory) -> None:
    """Each question sees the ones before, and nothing is left of the session."""
    server = serve(api_key=KEY)
    lines = run("session_continuity.py", server.url)
    assert lines[-2].startswith("3 turns, 6 messages, 0.")
    assert lines[-1] == "Forgotten."
    assert said_by_the_user(server) == [line.removeprefix("> ") for line in lines if line.startswith("> ")]
    assert len(said_by_the_user(server)) == 3
    with httpx.Client(headers={"Authorization": f"Bearer {KEY}"}) as client:
        assert client.get(f"{server.url}/v1/sessions").json()["sessions"] == []


def test_curl_shows_models_an_answer_a_stream_and_a_mistake(serve: ServerFactory) -> None:
    """Each as the server sent it."""
    server = serve(api_key=KEY)
    server.upstream.script(Reply(text="It scatters."), times=2)
    lines = run("curl_example.sh", server.url)
    models, answer = (json.loads(lines[lines.index(title) + 1]) for title in ("--- The models", "--- An answer"))
    assert models["object"] == "list"
    assert answer["choices"][0]["message"]["content"] == "It scatters."
    assert "data: [DONE]" in lines[lines.index("--- A stream") :]
    assert json.loads(lines[-1])["error"]["param"] == "messages"


def test_curl_continues_a_session(serve: ServerFactory) -> None:
    """It is there while it lasts, and then no more."""
    server = serve(api_key=KEY)
    lines = run("session_curl_example.sh", server.url)
    session, forgotten, gone = (
        json.loads(lines[lines.index(title) + 1]) for title in ("--- The session", "--- Forgotten", "--- Gone")
    )
    assert (session["turn_count"], session["message_count"]) == (2, 4)
    assert forgotten["deleted"] is True
    assert gone["error"]["code"] == "session_not_found"
    assert said_by_the_user(server) == ["My name is Ada.", "What is my name?"]


FILES = sorted(path.name for path in (REPOSITORY / "examples").iterdir() if path.suffix in {".py", ".sh"})
EXAMPLES = pytest.mark.parametrize("example", [name for name in FILES if name not in ELSEWHERE])
ARGUMENTS = {"vision.py": ["What is this?", "https://images.invalid/b.jpg"]}


@EXAMPLES
def test_a_server_without_keys_wants_none(serve: ServerFactory, example: str) -> None:
    """Each ends well, with nothing but the server's address."""
    result = begin(example, serve().url, *ARGUMENTS.get(example, []), key=None)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("key", [None, "wrong"])
@EXAMPLES
def test_who_has_no_key_is_told_where_it_goes(serve: ServerFactory, example: str, key: str | None) -> None:
    """Before anything is asked."""
    server = serve(api_key=KEY)
    result = begin(example, server.url, *ARGUMENTS.get(example, []), key=key)
    assert result.returncode == 1
    assert "put one into OPENAI_API_KEY" in result.stderr
    assert "Traceback" not in result.stderr
    assert server.upstream.messages_requests() == []


@pytest.mark.parametrize("example", ["openai_sdk.py", "curl_example.sh", "session_curl_example.sh"])
def test_who_finds_no_server_or_no_login_is_told(serve: ServerFactory, tmp_path: Path, example: str) -> None:
    """In a line that says what to do; also where the address is another's, while a slash at its end does no harm."""
    server, other = serve(api_key=KEY), serve(clean_environment(HOME=str(tmp_path)), api_key=KEY)
    for url, hint in (
        ("http://127.0.0.1:9", "Start the server (make run)"),
        (f"{server.url}/v2", "which ends with /v1"),
        (other.url, "has no login to Claude"),
    ):
        result = begin(example, url)
        assert (result.returncode, result.stdout) == (1, "")
        assert hint in result.stderr
    assert begin(example, server.url, slash="/").returncode == 0


def test_function_calling_runs_its_functions_until_the_answer(serve: ServerFactory) -> None:
    """It prints what the model says, the calls with their results, and the answer, at a server that wants a key."""
    server = serve(api_key=KEY)
    calls = [ToolCall("get_temperature", {"city": city}) for city in ("Paris", "Rome")]
    server.upstream.script(Reply(text="Let me look.", tool_calls=calls))
    server.upstream.script(Reply(text="In Rome."))
    assert run("function_calling.py", server.url, "Where is it", "warmer?") == [
        "Let me look.",
        'get_temperature({"city": "Paris"}): 18 °C',
        'get_temperature({"city": "Rome"}): 24 °C',
        "In Rome.",
    ]
    assert "Where is it warmer?" in str(server.upstream.messages_requests()[0].body["messages"])


def test_structured_output_prints_what_it_read(serve: ServerFactory) -> None:
    """It prints the JSON while it is written, then what stands in it; and says where Claude refused."""
    server = serve(api_key=KEY)
    server.upstream.script(Reply(text='{"destination": "Naxos", "time": "7:30", "price": 42}'))
    assert run("structured_output.py", server.url, "To Naxos!") == [
        '{"destination": "Naxos", "time": "7:30", "price": 42}',
        "To Naxos at 7:30 for 42.0",
    ]
    assert "To Naxos!" in str(server.upstream.messages_requests()[0].body["messages"])
    # As the stand-in fills the schema by itself.
    assert run("structured_output.py", server.url)[-1] == "To string at string for 3.5"


def test_vision_shows_files_and_addresses(serve: ServerFactory, tmp_path: Path) -> None:
    """An image of the disk goes along as it is, an address as an address; the answer is printed."""
    server = serve(api_key=KEY)
    (tmp_path / "a.png").write_bytes(b64decode(png()))
    server.upstream.script(Reply(text="Two pictures."))
    places = [str(tmp_path / "a.png"), "https://images.invalid/b.jpg"]
    assert run("vision.py", server.url, "What is it?", *places) == ["Two pictures."]
    message = server.upstream.messages_requests()[0].body["messages"][0]
    assert [block["type"] for block in message["content"]] == ["image", "image", "text"]
    assert [block["source"]["type"] for block in message["content"][:2]] == ["base64", "url"]


def test_reasoning_prints_thoughts_and_answer(serve: ServerFactory) -> None:
    """First what the model thinks, then what it says, then how many tokens both took."""
    server = serve(api_key=KEY)
    details: Any = {"thinking_tokens": 30}
    usage: Any = {"output_tokens": 40, "output_tokens_details": details}
    server.upstream.script(Reply(thinking="Count them all.", text="204.", usage=usage))
    lines = run("reasoning.py", server.url, "high", "How many", "squares?")
    assert lines == ["Count them all.", "---", "204.", "30 of 40 tokens"]
    assert "How many squares?" in str(server.upstream.messages_requests()[0].body["messages"])
    assert run("reasoning.py", server.url)[-1].startswith("0 of ")


def test_agent_shows_what_claude_code_does(serve: ServerFactory, tmp_path: Path) -> None:
    """It prints the text of every step, and between them each call, its result, or why it was denied."""
    (tmp_path / "harbour.txt").write_text("The ferry leaves at noon.")
    server = serve(api_key=KEY, claude_cwd=tmp_path)
    looking = [ToolCall("Glob", {"pattern": "*"}), ToolCall("Read", {"file_path": "/etc/passwd"})]
    server.upstream.script(Reply(text="I look around.", tool_calls=looking))
    server.upstream.script(Reply(text="There is one."))
    lines = run("agent.py", server.url, "What is", "here?")
    assert "I look around." in lines
    assert "[Glob] {'pattern': '*'}" in lines
    assert "[Glob] harbour.txt" in lines
    assert "[Read] denied: it is outside the working directory" in lines
    assert lines[-1] == "There is one."
    server.upstream.reset()
    assert "harbour.txt" in run("agent.py", server.url)[-1]


@pytest.mark.parametrize("question", [(), ("Anything?",)])
def test_function_calling_ends_in_the_demo_too(serve: ServerFactory, question: tuple[str, ...]) -> None:
    """Without an account, where the stand-in calls the first function with a city that isn't there, it ends well."""
    *_, call, answer = run("function_calling.py", serve(api_key=KEY).url, *question)
    assert call.startswith("get_temperature(")
    assert "There is no thermometer in " in call
    assert "demo upstream" in answer
