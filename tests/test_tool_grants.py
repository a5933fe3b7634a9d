"""What is granted, by itself: the operator's word, or a key's list, less what sessions and requests take away."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agent_task import ALL_TOOLS, Narrowing
from callers import Caller, KeyLimits
from errors import InvalidRequestError, PermissionDeniedError
from mcp_config import McpServers
from request_options import AgentOptions
from stores import SessionInfo
from tool_grants import GrantRules, ToolGrants
from turns import LaunchProfile, Usage
from workspaces import Workspaces

ALL = KeyLimits(tools=True)
CALLER = Caller("anna", limits=ALL)
EVERYWHERE = Path("/everywhere")


def grants(workspaces: Workspaces | None = None, **rules: Any) -> ToolGrants:
    """An operator's who allows reading, and two MCP servers."""
    usual: dict[str, Any] = {
        "tools": ("Read", "Glob"),
        "servers": McpServers({"a": {"command": "a"}, "b": {"command": "b"}}),
        "max_turns": 10,
        "max_budget_usd": None,
        "may_bypass": False,
        "most_bytes": 1000,
        "directory": None,
        "empty_directories": Path("/empty"),
        "scratch": Path("/scratch"),
        "fetches_by_proxy": False,
        "confinement": None,
    }
    profile = LaunchProfile(Path("claude"), (), Path("/chat"), bare=True)
    return ToolGrants(GrantRules(**{**usual, **rules}), profile, workspaces)


def granted(options: AgentOptions, of_session: Narrowing = ALL_TOOLS, limits: KeyLimits = ALL) -> set[str]:
    """The names that a request gets."""
    grant = grants().grant(limits, options, of_session)
    return {*grant.tools, *grant.mcp_tools}


@pytest.mark.parametrize(
    ("narrowing", "servers", "names"),
    [
        (ALL_TOOLS, None, "Glob Read mcp__a mcp__b"),
        (Narrowing(("Read",)), None, "Read"),
        (Narrowing(("Read", "mcp__a__x")), None, "Read mcp__a__x"),
        (Narrowing(("Read", "mcp__a__x")), ("b",), "Read mcp__b"),
        (Narrowing(("Read", "mcp__a__x")), ("a", "b"), "Read mcp__a__x mcp__b"),
        (Narrowing(denied=("Read", "mcp__b")), None, "Glob mcp__a"),
        (Narrowing(denied=("mcp__b__x",)), None, "Glob Read mcp__a mcp__b"),
        (ALL_TOOLS, (), "Glob Read"),
    ],
    ids=str,  # Of sets they would differ from process to process.
)
def test_a_request_takes_away(narrowing: Narrowing, servers: tuple[str, ...] | None, names: str) -> None:
    """Tools by their names, servers by theirs."""
    assert sorted(granted(AgentOptions(narrowing, servers))) == names.split()


def test_a_session_takes_away_before_that() -> None:
    """What both leave is left."""
    of_session = Narrowing(("Read", "mcp__a__x"), ("Glob",))
    assert granted(AgentOptions(), of_session) == {"Read", "mcp__a__x"}
    assert granted(AgentOptions(Narrowing(("Glob", "mcp__a"))), of_session) == {"mcp__a__x"}


def test_a_keys_own_list_is_all_it_has() -> None:
    """Whatever the operator allows to others."""
    limits = KeyLimits(tools=("Bash", "mcp__a__x"))
    assert granted(AgentOptions(), limits=limits) == {"Bash", "mcp__a__x"}
    assert grants().servers(limits) == ("a",)
    assert granted(AgentOptions(), limits=KeyLimits()) == set()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"narrowing": Narrowing(("Bash",))}, PermissionDeniedError),
        ({"narrowing": Narrowing(("mcp__c",))}, InvalidRequestError),
        ({"narrowing": Narrowing(denied=("mcp__c__x",))}, InvalidRequestError),
        ({"servers": ("c",)}, InvalidRequestError),
        ({"mode": "bypassPermissions"}, PermissionDeniedError),
    ],
    ids=str,
)
def test_what_isnt_there_or_isnt_allowed_is_refused(options: Mapping[str, Any], error: type[Exception]) -> None:
    """Before anything is done; a misspelt prohibition, too, for it would prohibit nothing."""
    with pytest.raises(error):
        grants().check(ALL, AgentOptions(**options))


def test_a_session_is_only_narrowed() -> None:
    """Of a server that it has a part of, the name stands for that part; and there is an end to what can be denied."""
    of = grants().narrowed
    first = of(ALL, ALL_TOOLS, further=Narrowing(("Read", "mcp__a__x"), ("Glob",)))
    assert of(ALL, first, further=Narrowing(("mcp__a",), ("Read",))) == Narrowing(("mcp__a__x",), ("Glob", "Read"))
    for name in ("Glob", "mcp__b", "mcp__a__y"):
        with pytest.raises(PermissionDeniedError, match=name):
            of(ALL, first, further=Narrowing((name,)))
    many = tuple(f"mcp__a__{number}" for number in range(1001))
    with pytest.raises(InvalidRequestError):
        of(ALL, ALL_TOOLS, further=Narrowing(denied=many))


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("directory", "has_workspaces", "has_session", "where"),
    [
        (None, False, False, "empty"),
        (EVERYWHERE, False, False, "everywhere"),
        (EVERYWHERE, False, True, "everywhere"),
        (EVERYWHERE, True, False, "everywhere"),
        (EVERYWHERE, True, True, "session"),
        (None, True, True, "session"),
        (None, True, False, "empty"),
    ],
)
async def test_where_a_request_works(
    tmp_path: Path, directory: Path | None, has_workspaces: bool, has_session: bool, where: str
) -> None:
    """Where all do, in its session's directory, or in an empty one; these two are limited in size."""
    granting = grants(Workspaces(tmp_path, 1) if has_workspaces else None, directory=directory)
    info = SessionInfo("s", "anna", "", 0, 0, Usage(), 0.0, 0.0, 0.0, 0.0) if has_session else None
    profile, task = await granting.begin(CALLER, AgentOptions(), info, "req_1", tells_steps=True)
    assert profile.agent
    found = {"/empty": "empty", "/everywhere": "everywhere"}.get(str(profile.working_directory), "session")
    assert found == where
    assert profile.agent.has_own_workspace == (where == "empty")
    assert (task.grant.most_bytes is None) == (where == "everywhere")
    assert profile.keeps_spares == (where != "session")
    assert not profile.bare


@pytest.mark.asyncio
async def test_spares_are_kept_of_what_others_want() -> None:
    """Not of what headers, or a session, have narrowed."""
    info = SessionInfo("s", "anna", "", 0, 0, Usage(), 0.0, 0.0, 0.0, 0.0, Narrowing(("Read",)))
    cases = [
        (AgentOptions(tells_events=True, headers=("X-Claude-Events",)), None),
        (AgentOptions(max_turns=3), None),
        (AgentOptions(mode="plan"), None),
        (AgentOptions(), info),
    ]
    granting = grants(directory=EVERYWHERE)
    kept = [
        (await granting.begin(CALLER, options, session, "req_1", tells_steps=True))[0].keeps_spares
        for options, session in cases
    ]
    assert kept == [True, False, False, False]
