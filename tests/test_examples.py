"""The examples, run as a user runs them: with Python, the server's address and a key."""

import subprocess
import sys
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

from conftest import REPOSITORY, ServerFactory, clean_environment
from content_blocks import png
from demo_upstream import Reply, ToolCall

KEY = "a-key-of-the-tests"


def run(example: str, server_url: str, *arguments: str) -> list[str]:
    """Run an example to its end. Returns the lines that it printed."""
    result = subprocess.run(
        [sys.executable, f"examples/{example}", *arguments],
        cwd=REPOSITORY,
        env=clean_environment(OPENAI_BASE_URL=f"{server_url}/v1", OPENAI_API_KEY=KEY, PYTHONUTF8="1"),
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=60,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout.splitlines()


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
