"""The operator's MCP servers, real ones: over stdio and over HTTP, chosen by requests and limited by keys."""

import json
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

import mcp_notes
from agent_requests import ask, offered, results, trying
from auth import hash_key
from conftest import REPOSITORY, Server, ServerFactory, serving
from demo_upstream import Gate, Reply, ToolCall

Json = dict[str, Any]

STDIO = {"command": sys.executable, "args": [str(REPOSITORY / "tests" / "mcp_notes.py")]}
BROKEN = {"command": "/there/is/no/such/program"}
CHOICE = "X-Claude-MCP-Servers"
ALLOWED = "X-Claude-Allowed-Tools"


@pytest.fixture
def remote() -> Iterator[str]:
    """A server over streamable HTTP."""
    mcp_notes.notes.clear()
    # Its clients keep a stream open.
    with serving(mcp_notes.server.streamable_http_app(), timeout_graceful_shutdown=1) as url:
        yield f"{url}/mcp"


def config(directory: Path, **servers: Mapping[str, Any]) -> Path:
    """Write a `.mcp.json` of these servers."""
    path = directory / ".mcp.json"
    path.write_text(json.dumps({"mcpServers": servers}))
    return path


def listed(server: Server, **headers: str) -> dict[str, Json]:
    """What GET /v1/mcp/servers tells, by the servers' names."""
    answer = httpx.get(f"{server.url}/v1/mcp/servers", headers=headers, timeout=30).json()
    assert answer["total"] == len(answer["servers"])
    return {each["name"]: each for each in answer["servers"]}


def test_tools_of_both_kinds_of_servers_are_called(serve: ServerFactory, tmp_path: Path, remote: str) -> None:
    """One that Claude Code starts, with variables that the file names, and one that it reaches over HTTP."""
    path = config(
        tmp_path,
        local={**STDIO, "env": {"NOTEBOOK": "${SHELF:-the blue one}"}},
        remote={"type": "http", "url": remote},
    )
    server = serve(mcp_config=path)
    trying(server, ToolCall("mcp__local__note", {"text": "noon"}), ToolCall("mcp__remote__note", {"text": "dawn"}))
    assert ask(server).status_code == 200
    assert offered(server) == [
        *("Glob", "Grep", "Read"),
        *("mcp__local__forget", "mcp__local__note", "mcp__remote__forget", "mcp__remote__note"),
    ]
    assert "noted: noon (the blue one)" in results(server, 1)[0]
    assert "noted: dawn (no notebook)" in results(server)[0]
    assert mcp_notes.notes == ["dawn"]


def test_a_server_that_cant_start_is_reported_and_left_out(serve: ServerFactory, tmp_path: Path) -> None:
    """The turn goes on with the others; GET /v1/mcp/servers tells how each is, and which tools it has."""
    server = serve(mcp_config=config(tmp_path, local=STDIO, broken=BROKEN))
    trying(server, ToolCall("mcp__local__note", {"text": "noon"}))
    assert ask(server).status_code == 200
    assert "noted: noon" in results(server)[0]
    found = listed(server)
    assert (found["local"]["status"], sorted(found["local"]["tools"])) == ("connected", ["forget", "note"])
    assert (found["broken"]["status"], found["broken"]["tools"]) == ("failed", [])
    assert "log of this server" in found["broken"]["error"]
    assert "/there/is" not in json.dumps(found)


@pytest.mark.parametrize(
    ("headers", "names"),
    [
        ({}, "one__forget one__note two__forget two__note"),
        ({CHOICE: "two"}, "two__forget two__note"),
        ({CHOICE: ""}, ""),
        ({ALLOWED: "Read"}, ""),
        ({ALLOWED: "Read, mcp__one"}, "one__forget one__note"),
        ({ALLOWED: "Read", CHOICE: "one"}, "one__forget one__note"),
        ({ALLOWED: "mcp__one", CHOICE: "two"}, "two__forget two__note"),
        ({"X-Claude-Disallowed-Tools": "mcp__one"}, "two__forget two__note"),
    ],
    ids=str,  # Of sets they would differ from process to process.
)
def test_requests_choose_servers(serve: ServerFactory, tmp_path: Path, headers: Mapping[str, str], names: str) -> None:
    """All of them by default; a header names some, or takes some away."""
    server = serve(mcp_config=config(tmp_path, one=STDIO, two=STDIO))
    trying(server)
    assert ask(server, headers).status_code == 200
    assert sorted(name.removeprefix("mcp__") for name in offered(server) if name.startswith("mcp__")) == names.split()


@pytest.mark.parametrize(
    "headers",
    [{ALLOWED: "mcp__one__note"}, {"X-Claude-Disallowed-Tools": "mcp__one__forget"}],
    ids=str,
)
def test_single_tools_of_a_server_can_be_kept_back(
    serve: ServerFactory, tmp_path: Path, remote: str, headers: Mapping[str, str]
) -> None:
    """A call of the others is denied, whatever the model is offered."""
    server = serve(mcp_config=config(tmp_path, one={"type": "http", "url": remote}))
    trying(server, ToolCall("mcp__one__note", {"text": "noon"}), ToolCall("mcp__one__forget", {}))
    assert ask(server, headers).status_code == 200
    assert "not allowed here" in results(server)[0]
    assert mcp_notes.notes == ["noon"]


def test_a_session_doesnt_get_a_whole_server_back(serve: ServerFactory, tmp_path: Path) -> None:
    """Of one that was narrowed to a single tool, the server's name stands for that tool."""
    server = serve(mcp_config=config(tmp_path, one=STDIO))
    bodies = [
        {"session_id": "mine", "allowed_tools": allowed} for allowed in (["Read", "mcp__one__note"], ["mcp__one"])
    ]
    answers = [httpx.post(f"{server.url}/v1/tools/config", json=body, timeout=30) for body in bodies]
    assert answers[-1].json()["effective_tools"] == ["mcp__one__note"]


def test_unknown_servers_are_an_error(serve: ServerFactory, tmp_path: Path) -> None:
    """A header that names one is a 400 that says so, and nothing is asked."""
    server = serve(mcp_config=config(tmp_path, one=STDIO))
    for headers in ({CHOICE: "three"}, {ALLOWED: "mcp__three__note"}):
        answer = ask(server, headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unknown_mcp_server")
        assert "'three'" in answer.json()["error"]["message"]
    assert not server.upstream.messages_requests()


def test_a_key_has_the_servers_of_its_list(serve: ServerFactory, tmp_path: Path) -> None:
    """Others don't exist for its requests, which may not ask for them, nor for what is listed."""
    hashes = {name: hash_key(name) for name in ("all", "one", "none")}
    keys = tmp_path / "keys.toml"
    keys.write_text(
        f'[keys.all]\nhash = "sha256:{hashes["all"]}"\ntools = true\n'
        f'[keys.one]\nhash = "sha256:{hashes["one"]}"\ntools = ["Read", "mcp__one"]\n'
        f'[keys.none]\nhash = "sha256:{hashes["none"]}"\n'
    )
    server = serve(mcp_config=config(tmp_path, one=STDIO, two=STDIO), api_keys_file=keys)
    key = {name: {"Authorization": f"Bearer {name}"} for name in hashes}
    assert {name: set(listed(server, **headers)) for name, headers in key.items()} == {
        "all": {"one", "two"},
        "one": {"one"},
        "none": set(),
    }
    trying(server)
    assert ask(server, key["one"]).status_code == 200
    assert offered(server) == ["Read", "mcp__one__forget", "mcp__one__note"]
    refused = ask(server, {**key["one"], CHOICE: "two"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "tool_not_allowed")
    assert ask(server, key["none"]).status_code == 403


def test_secrets_of_servers_are_told_to_nobody(serve: ServerFactory, tmp_path: Path, remote: str) -> None:
    """They don't stand on a command line, which everyone on the machine could read, and in no answer."""
    secret = "a-secret-of-the-server"
    path = config(tmp_path, one={"type": "http", "url": remote, "headers": {"Authorization": f"Bearer {secret}"}})
    server = serve(mcp_config=path)
    server.upstream.reset()
    gate = Gate(after=0)
    server.upstream.script(Reply(text="Done.", gate=gate))
    with ThreadPoolExecutor() as threads:
        asking = threads.submit(ask, server)
        gate.reached()
        commands = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
        gate.open()
        assert asking.result().status_code == 200
    assert any("--mcp-config" in command for command in commands)
    assert not any(secret in command for command in commands)
    assert secret not in json.dumps(listed(server))
