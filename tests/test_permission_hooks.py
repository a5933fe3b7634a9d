"""How Claude Code's questions are answered, by themselves: what goes wrong ends in a no."""

import logging
from pathlib import Path
from typing import Any, cast

import pytest
from claude_agent_sdk import PermissionResultDeny, ToolPermissionContext

from agent_task import AgentTask, Grant
from permission_hooks import PermissionHooks
from tool_policy import ToolPolicy

TASK = AgentTask(Grant(frozenset({"Read", "Write"})), "req_1", tells_steps=True)


async def asked(hooks: PermissionHooks, name: str, **arguments: Any) -> dict[str, Any]:
    """What the hook answers to a call."""
    (matcher,) = hooks.options["hooks"]["PreToolUse"]
    (hook,) = matcher.hooks
    assert matcher.on_failure == "block"
    answer = await hook({"tool_name": name, "tool_input": arguments}, "toolu_1", {"signal": None})
    return cast("dict[str, Any]", answer.get("hookSpecificOutput", {}))


@pytest.mark.asyncio
async def test_before_a_request_nothing_is_allowed(tmp_path: Path) -> None:
    """A process that waits has no business of its own."""
    hooks = PermissionHooks(tmp_path)
    assert (await asked(hooks, "Read", file_path="a.txt"))["permissionDecision"] == "deny"


@pytest.mark.asyncio
async def test_a_request_decides_for_itself(tmp_path: Path) -> None:
    """Reading inside is left to Claude Code, writing there allowed, all else denied, and remembered as such."""
    hooks = PermissionHooks(tmp_path)
    hooks.serve(TASK, frozenset())
    assert await asked(hooks, "Read", file_path="a.txt") == {}
    assert (await asked(hooks, "Write", file_path="a.txt", content=""))["permissionDecision"] == "allow"
    assert hooks.denials == {}
    denied = await asked(hooks, "Read", file_path="/etc/passwd")
    assert denied["permissionDecision"] == "deny"
    assert denied["permissionDecisionReason"].endswith("denied: it is outside the working directory.")
    assert hooks.denials == {"toolu_1": "it is outside the working directory"}


@pytest.mark.asyncio
async def test_what_cant_be_decided_is_denied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says why, and with which request."""

    def fail(*_arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr(ToolPolicy, "decide", fail)
    hooks = PermissionHooks(tmp_path)
    hooks.serve(TASK, frozenset())
    assert (await asked(hooks, "Read", file_path="a.txt"))["permissionDecision"] == "deny"
    assert "Whether 'Read' may be called can't be decided" in caplog.text


@pytest.mark.asyncio
async def test_what_claude_code_would_ask_somebody_is_denied(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In our words: its own have paths in them."""
    hooks = PermissionHooks(tmp_path)
    hooks.serve(TASK, frozenset())
    context = ToolPermissionContext(tool_use_id="toolu_2", decision_reason="/a/path is a sensitive file")
    with caplog.at_level(logging.INFO):
        result = await hooks.options["can_use_tool"]("Write", {"file_path": ".git/config"}, context)
    assert isinstance(result, PermissionResultDeny)
    assert "/a/path" not in result.message + caplog.text
    assert hooks.denials["toolu_2"].startswith("Claude Code's own check")
