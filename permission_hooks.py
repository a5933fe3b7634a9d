"""Claude Code asks whether a call of one of its tools is made, and is told: the SDK's hook and permission callback.

The hook is asked before every call. What it leaves to Claude Code's own check, and that doesn't pass, comes to the
callback, which says no: so for reading each of both fences holds alone. Whatever goes wrong here ends in a no.
"""

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import anyio.to_thread
from claude_agent_sdk import (
    HookMatcher,
    PermissionResultAllow,
    PermissionResultDeny,
    ToolPermissionContext,
)
from claude_agent_sdk.types import HookContext, HookInput, HookJSONOutput

from agent_task import AgentTask
from content_log import log_content
from tool_policy import Decision, ToolPolicy

logger = logging.getLogger(__name__)

_NOT_PASSED = "Claude Code's own check doesn't let it pass without asking somebody"
_NOBODY = Decision("deny", "no request is under way")


class PermissionHooks:
    """Decides for one process, on the calls of the turn that it serves."""

    def __init__(self, directory: Path) -> None:
        """`directory` is where the process works."""
        self._directory = directory
        self._policy: ToolPolicy | None = None
        self._request_id = ""
        self.denials: dict[str, str] = {}
        """Why calls were denied, by their ids."""

    def serve(self, task: AgentTask, functions: frozenset[str]) -> None:
        """Decide for this task from now on; `functions` are the client's own."""
        self._policy = ToolPolicy(task.grant, self._directory, functions)
        self._request_id = task.request_id

    @property
    def _whose(self) -> Mapping[str, str]:
        # The SDK asks in a task of the process's, which serves one request after the other.
        return {"request_id": self._request_id}

    @property
    def options(self) -> dict[str, Any]:
        """What the SDK's client has to be made with."""
        return {
            "hooks": {"PreToolUse": [HookMatcher(hooks=[self._before], on_failure="block")]},
            "can_use_tool": self._asked,
        }

    async def _before(self, call: HookInput, call_id: str | None, _context: HookContext) -> HookJSONOutput:
        fields: Mapping[str, Any] = {**call}
        decision = await self._decision(fields["tool_name"], fields["tool_input"])
        self._note(fields["tool_name"], call_id, decision)
        if decision.behavior == "pass":
            return {}
        return {
            "hookSpecificOutput": {
                "hookEventName": "PreToolUse",
                "permissionDecision": decision.behavior,
                "permissionDecisionReason": _told(decision),
            }
        }

    async def _asked(
        self, name: str, _arguments: dict[str, Any], context: ToolPermissionContext
    ) -> PermissionResultAllow | PermissionResultDeny:
        # Its own words have paths and commands in them.
        log_content("check", request_id=self._request_id, tool=name, reason=context.decision_reason)
        decision = Decision("deny", _NOT_PASSED)
        self._note(name, context.tool_use_id, decision)
        return PermissionResultDeny(message=_told(decision))

    async def _decision(self, name: str, arguments: Mapping[str, Any]) -> Decision:
        if self._policy is None:
            return _NOBODY
        try:
            return await anyio.to_thread.run_sync(partial(self._policy.decide, name, arguments))
        except Exception:  # the process's edge: an answer that fails would leave the call to Claude Code
            logger.exception("Whether %r may be called can't be decided", name, extra=self._whose)
            return Decision("deny", "it can't be decided")

    def _note(self, name: str, call_id: str | None, decision: Decision) -> None:
        level = logging.WARNING if decision.behavior == "deny" else logging.INFO
        logger.log(level, "%s %r: %s", decision.behavior, name, decision.reason, extra=self._whose)
        if decision.behavior == "deny" and call_id:
            self.denials[call_id] = decision.reason


def _told(decision: Decision) -> str:
    return f"Permission for this call is {'denied' if decision.behavior == 'deny' else 'given'}: {decision.reason}."
