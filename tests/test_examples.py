"""The examples, run as a user runs them: with Python, the server's address and a key."""

import subprocess
import sys

import pytest

from conftest import REPOSITORY, ServerFactory, clean_environment
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


@pytest.mark.parametrize("question", [(), ("Anything?",)])
def test_function_calling_ends_in_the_demo_too(serve: ServerFactory, question: tuple[str, ...]) -> None:
    """Without an account, where the stand-in calls the first function with a city that isn't there, it ends well."""
    *_, call, answer = run("function_calling.py", serve(api_key=KEY).url, *question)
    assert call.startswith("get_temperature(")
    assert "There is no thermometer in " in call
    assert "demo upstream" in answer
