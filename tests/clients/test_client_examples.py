"""The examples of LangChain and the AI SDK, run as their users run them, at a server that wants a key."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from shutil import copy

import pytest

from conftest import REPOSITORY, Server, ServerFactory
from demo_upstream import Reply, ToolCall
from published_clients import CLIENTS, run_node, run_python

EXAMPLES = REPOSITORY / "examples"
KEY = "any"  # As programs of published clients have it.


def langchain(server: Server, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run LangChain's example."""
    return run_python([str(EXAMPLES / "langchain_chat.py"), *arguments], server, home)


def ai_sdk(server: Server, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the AI SDK's example, in a folder of its user's."""
    copy(EXAMPLES / "vercel_ai.mjs", home)
    (home / "node_modules").symlink_to(CLIENTS / "node_modules")
    return run_node([str(home / "vercel_ai.mjs"), *arguments], server, home)


def script(server: Server, last: Reply) -> None:
    """A text, a call and what is said of its result, an object."""
    server.upstream.script(Reply(text="For its hills."))
    server.upstream.script(Reply(tool_calls=[ToolCall("temperature", {"city": "Rome"})]))
    server.upstream.script(last)


def test_langchain_streams_calls_and_fills(serve: ServerFactory, tmp_path: Path) -> None:
    """A chain's text, a call with its result, and an object."""
    server = serve(api_key=KEY)
    script(server, Reply(text='{"name": "Rome", "country": "Italy"}'))
    result = langchain(server, tmp_path, "Rome")
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.splitlines() == [
        "For its hills.",
        "temperature({'city': 'Rome'}): 24 °C",
        "Rome is in Italy",
    ]


def test_the_ai_sdk_streams_calls_and_fills(serve: ServerFactory, tmp_path: Path) -> None:
    """A stream's text, a call with its result and the answer, and an object."""
    server = serve(api_key=KEY)
    script(server, Reply(text="Warm."))
    server.upstream.script(Reply(text='{"name": "Rome", "country": "Italy"}'))
    result = ai_sdk(server, tmp_path, "Rome")
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.splitlines() == [
        "For its hills.",
        'temperature({"city":"Rome"}): 24 °C',
        "Warm.",
        '{"name":"Rome","country":"Italy"}',
    ]


@pytest.mark.parametrize("run", [langchain, ai_sdk])
def test_who_has_no_key_is_told_where_it_goes(
    serve: ServerFactory, tmp_path: Path, run: Callable[[Server, Path], subprocess.CompletedProcess[str]]
) -> None:
    """Before anything is asked."""
    server = serve(api_key="another")
    result = run(server, tmp_path)
    assert result.returncode == 1
    assert "put one into OPENAI_API_KEY" in result.stderr
    assert server.upstream.messages_requests() == []
