"""What a key is told of Claude Code's own tools, and how it narrows them for a session."""

from typing import Any

import httpx
import pytest

from agent_requests import ask, offered, trying
from conftest import Server, ServerFactory
from demo_upstream import ToolCall

Json = dict[str, Any]


@pytest.fixture
def server(serve: ServerFactory) -> Server:
    """A server that lets sessions read and write."""
    return serve(claude_allowed_tools=("Read", "Glob", "Write"))


def get(server: Server, path: str) -> httpx.Response:
    """Get something of the server's."""
    return httpx.get(f"{server.url}{path}", timeout=30)


def narrow(server: Server, **body: Any) -> httpx.Response:
    """Narrow a session's tools."""
    return httpx.post(f"{server.url}/v1/tools/config", json=body, timeout=30)


def test_tools_are_listed_with_what_the_key_may_use(server: Server) -> None:
    """Name, description, category, whether it only reads, and whether this key may use it."""
    answer = get(server, "/v1/tools").json()
    assert answer["total"] == len(answer["tools"]) == 9
    tools = {each.pop("name"): each for each in answer["tools"]}
    assert tools["Read"] == {"description": "Read a file.", "category": "read", "safe": True, "allowed": True}
    assert {name for name, each in tools.items() if each["allowed"]} == {"Read", "Glob", "Write"}
    assert {name for name, each in tools.items() if each["safe"]} == {"Read", "Glob", "Grep"}
    assert {each["category"] for each in tools.values()} == {"read", "write", "run", "web"}


def test_a_session_is_narrowed(server: Server) -> None:
    """From the next turn on the model is offered just these tools; a header takes away from them as well."""
    answer = narrow(server, session_id="one", allowed_tools=["Read", "Write"], disallowed_tools=["Write"])
    assert answer.json() == {
        "session_id": "one",
        "allowed_tools": ["Read", "Write"],
        "disallowed_tools": ["Write"],
        "effective_tools": ["Read"],
    }
    assert get(server, "/v1/tools/config?session_id=one").json() == answer.json()
    found: dict[str, list[str]] = {}
    for name, session, headers in (
        ("narrowed", "one", {}),
        ("further", "one", {"X-Claude-Allowed-Tools": "Write"}),
        ("other", "two", {}),
    ):
        trying(server)
        assert ask(server, headers, session_id=session).status_code == 200
        found[name] = offered(server)
    assert found == {"narrowed": ["Read"], "further": [], "other": ["Glob", "Read", "Write"]}
    assert get(server, "/v1/sessions/one").json()["turn_count"] == 2


def test_what_was_narrowed_stays_so(server: Server) -> None:
    """A session can be narrowed further, but doesn't get back what it had: that is a 403 that names the tool."""
    narrow(server, session_id="one", allowed_tools=["Read", "Write"])
    for again in (["Read", "Glob"], ["Glob"]):
        answer = narrow(server, session_id="one", allowed_tools=again)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "tool_not_allowed")
        assert "'Glob'" in answer.json()["error"]["message"]
    assert narrow(server, session_id="one", disallowed_tools=["Read"]).json()["effective_tools"] == ["Write"]
    assert narrow(server, session_id="one").json()["effective_tools"] == ["Write"]
    assert narrow(server, session_id="one", allowed_tools=["Read"]).status_code == 403


def test_narrowing_never_widens(server: Server) -> None:
    """What the key may not use is a 403 that names the tool; the session stays as it was."""
    answer = narrow(server, session_id="one", allowed_tools=["Read", "Bash"])
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "tool_not_allowed")
    assert "'Bash'" in answer.json()["error"]["message"]
    assert get(server, "/v1/tools/config?session_id=one").status_code == 404


def test_without_a_session_the_keys_own_tools_are_told(server: Server) -> None:
    """Those that a request gets that says nothing."""
    assert get(server, "/v1/tools/config").json() == {
        "session_id": None,
        "allowed_tools": None,
        "disallowed_tools": [],
        "effective_tools": ["Glob", "Read", "Write"],
    }


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"allowed_tools": ["Read"]}, "session_id"),
        ({"session_id": 7}, "session_id"),
        ({"session_id": ""}, "session_id"),
        ({"session_id": "a", "allowed_tools": "Read"}, "allowed_tools"),
        ({"session_id": "a", "allowed_tools": [7]}, "allowed_tools.[0]"),
        ({"session_id": "a", "disallowed_tools": ["Raed"]}, "disallowed_tools.[0]"),
        ({"session_id": "a", "max_turns": 3}, "max_turns"),
    ],
    ids=str,
)
def test_bad_configurations_are_refused(server: Server, body: Json, param: str) -> None:
    """By the field at fault."""
    answer = narrow(server, **body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_calls_are_counted(server: Server) -> None:
    """By tool and by how they ended."""
    outside = ToolCall("Read", {"file_path": "/etc/passwd"})
    trying(server, [ToolCall("Glob", {"pattern": "*"}), outside, ToolCall("Read", {"file_path": "missing"})])
    assert ask(server).status_code == 200
    assert get(server, "/v1/tools/stats").json() == {
        "tools": {
            "Glob": {"calls": 1, "succeeded": 1, "failed": 0, "denied": 0},
            "Read": {"calls": 2, "succeeded": 0, "failed": 1, "denied": 1},
        },
        "total_calls": 3,
    }


def test_keys_see_their_own(serve: ServerFactory) -> None:
    """Counts and sessions of others don't exist."""
    server = serve(api_keys=("anna", "bert"))
    keys: dict[str, Json] = {name: {"Authorization": f"Bearer {name}"} for name in ("anna", "bert")}
    trying(server, ToolCall("Glob", {"pattern": "*"}))
    assert ask(server, keys["anna"], session_id="one").status_code == 200
    counts = {
        name: httpx.get(f"{server.url}/v1/tools/stats", headers=headers).json()["total_calls"]
        for name, headers in keys.items()
    }
    assert counts == {"anna": 1, "bert": 0}
    address = f"{server.url}/v1/tools/config?session_id=one"
    assert {name: httpx.get(address, headers=headers).status_code for name, headers in keys.items()} == {
        "anna": 200,
        "bert": 404,
    }
    for path in ("/v1/tools", "/v1/tools/config", "/v1/tools/stats", "/v1/mcp/servers"):
        assert get(server, path).status_code == 401
