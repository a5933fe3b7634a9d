"""The examples of LangChain and the AI SDK, run as their users run them, at a server that wants a key."""

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shutil import copy

import pytest

from conftest import NOWHERE, REPOSITORY, Server, ServerFactory, clean_environment
from demo_upstream import Reply, ToolCall
from published_clients import CLIENTS, run_node, run_python

Run = Callable[..., subprocess.CompletedProcess[str]]

EXAMPLES = REPOSITORY / "examples"
KEY = "any"  # As programs of published clients have it.


def langchain(server: Server, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run LangChain's example."""
    return run_python([str(EXAMPLES / "langchain_chat.py"), *arguments], server, home)


def ai_sdk(server: Server, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the AI SDK's example, in a folder of its user's."""
    copy(EXAMPLES / "vercel_ai.mjs", home)
    if not (home / "node_modules").exists():
        (home / "node_modules").symlink_to(CLIENTS / "node_modules")
    return run_node([str(home / "vercel_ai.mjs"), *arguments], server, home)


ROME = Reply(text='{"name": "Rome", "country": "Italy"}')


@pytest.mark.parametrize(
    ("run", "replies", "lines"),
    [
        (langchain, [ROME], ["temperature({'city': 'Rome'}): 24 °C", "Rome is in Italy"]),
        (
            ai_sdk,
            [Reply(text="Warm."), ROME],
            ['temperature({"city":"Rome"}): 24 °C', "Warm.", '{"name":"Rome","country":"Italy"}'],
        ),
    ],
    ids=["langchain", "ai_sdk"],
)
def test_they_stream_call_and_fill(
    serve: ServerFactory, tmp_path: Path, run: Run, replies: list[Reply], lines: list[str]
) -> None:
    """A stream's text; a call with its result and, where the client goes on by itself, the answer; an object."""
    call = Reply(tool_calls=[ToolCall("temperature", {"city": "Rome"})])
    for key in (None, KEY):
        server = serve(api_key=key)
        for reply in (Reply(text="For its hills."), call, *replies):
            server.upstream.script(reply)
        result = run(server, tmp_path, "Rome")
        assert result.returncode == 0, result.stdout + result.stderr
        assert result.stdout.splitlines() == ["For its hills.", *lines]


@pytest.mark.parametrize("run", [langchain, ai_sdk])
def test_who_has_no_key_is_told_where_it_goes(serve: ServerFactory, tmp_path: Path, run: Run) -> None:
    """Before anything is asked."""
    server = serve(api_key="another")
    result = run(server, tmp_path)
    assert result.returncode == 1
    assert "put one into OPENAI_API_KEY" in result.stderr
    assert server.upstream.messages_requests() == []


@pytest.mark.parametrize("run", [langchain, ai_sdk])
def test_who_finds_no_server_or_no_login_is_told(serve: ServerFactory, tmp_path: Path, run: Run) -> None:
    """In a line that says what to do."""
    without_login = serve(clean_environment(HOME=str(tmp_path)), api_key=KEY)
    nobody = replace(without_login, url=NOWHERE)
    for server, hint in ((nobody, "Start the server (make run)"), (without_login, "has no login to Claude")):
        result = run(server, tmp_path)
        assert (result.returncode, result.stdout) == (1, "")
        assert hint in result.stderr
