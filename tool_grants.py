"""Which of Claude Code's own tools a request gets, and where: what the operator allows, less what is narrowed.

The operator's word is CLAUDE_ALLOWED_TOOLS and MCP_CONFIG for all keys that may use tools, or a key's own list. A
session and a request's headers only take away from it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from agent_task import ALL_TOOLS, AgentLaunch, AgentTask, Confinement, Grant, Narrowing
from callers import Caller, KeyLimits
from errors import InvalidRequestError, PermissionDeniedError
from mcp_config import McpServers
from request_options import AgentOptions
from stores import SessionInfo
from tool_catalog import OWN_TOOLS, is_covered, server_of, tools_of
from turns import LaunchProfile
from workspaces import Workspaces

_MOST_DENIED = 1000
_NOT_ALLOWED = "tool_not_allowed"


@dataclass(frozen=True)
class GrantRules:
    """What the operator decided of Claude Code's own tools."""

    tools: tuple[str, ...]
    """For keys that have no list of their own."""
    servers: McpServers
    max_turns: int
    max_budget_usd: float | None
    may_bypass: bool
    most_bytes: int
    """How large a directory of a session's or a request's own may be."""
    directory: Path | None
    """Where all work; None: each in an empty directory."""
    empty_directories: Path
    """Where these are made."""
    scratch: Path
    """For files that only one process is to find."""
    fetches_by_proxy: bool
    confinement: Confinement | None


@dataclass(frozen=True)
class ToolGrants:
    """Grants the tools."""

    rules: GrantRules
    profile: LaunchProfile
    """Of processes without tools."""
    workspaces: Workspaces | None
    """Of sessions; None: these work where all do."""

    def granted(self, limits: KeyLimits) -> frozenset[str]:
        """Return the names of all tools that a key may use."""
        if isinstance(limits.tools, bool):
            all_servers = map(tools_of, self.rules.servers.names)
            return frozenset((*self.rules.tools, *all_servers)) if limits.tools else frozenset()
        return frozenset(limits.tools)

    def servers(self, limits: KeyLimits) -> tuple[str, ...]:
        """Return the MCP servers of which a key may use tools."""
        granted = {*map(server_of, self.granted(limits))}
        return tuple(name for name in self.rules.servers.names if name in granted)

    def check(self, limits: KeyLimits, options: AgentOptions) -> None:
        """Raise PermissionDeniedError for what a key may not use, InvalidRequestError for what doesn't exist."""
        if not self.granted(limits):
            raise PermissionDeniedError("This API key may not use Claude Code's tools.")
        for server in options.servers or ():
            if server not in self.servers(limits):
                self._refuse(tools_of(server), f"the MCP server '{server}'")
        self._check_narrowing(limits, options.narrowing)
        if options.mode == "bypassPermissions" and not self.rules.may_bypass:
            raise PermissionDeniedError("This server doesn't let permissions be bypassed.", code="permission_mode")

    def _check_narrowing(self, limits: KeyLimits, narrowing: Narrowing) -> None:
        """Raise as `check` for tools that are asked for."""
        granted = self.granted(limits)
        for name in filter(self._is_unknown, narrowing.denied):
            self._refuse(name, name)
        for name in narrowing.allowed or ():
            is_server = bool(server_of(name)) and any(is_covered(each, (name,)) for each in granted)
            if self._is_unknown(name) or not (is_covered(name, granted) or is_server):
                self._refuse(name, f"the tool '{name}'")

    def narrowed(self, limits: KeyLimits, before: Narrowing, further: Narrowing) -> Narrowing:
        """Return what a session wants once it's narrowed further. Raises PermissionDeniedError for tools it hasn't."""
        left = self.grant(limits, AgentOptions(), before)
        allowed: list[str] = []
        for name in further.allowed or ():
            has_all = is_covered(name, left.tools | left.mcp_tools)
            some = [name] if has_all else sorted(each for each in left.mcp_tools if is_covered(each, (name,)))
            if not some:
                raise PermissionDeniedError(f"This session may not use the tool '{name}' any more.", code=_NOT_ALLOWED)
            allowed += some
        denied = tuple(dict.fromkeys((*before.denied, *further.denied)))
        if len(denied) > _MOST_DENIED:
            raise InvalidRequestError("A session can't be denied more tools.", param="disallowed_tools")
        return Narrowing(before.allowed if further.allowed is None else tuple(dict.fromkeys(allowed)), denied)

    def _is_unknown(self, name: str) -> bool:
        server = server_of(name)
        return server is not None and server not in self.rules.servers.names

    def _refuse(self, name: str, what: str) -> None:
        if self._is_unknown(name):
            raise InvalidRequestError(f"This server has no MCP server '{server_of(name)}'.", code="unknown_mcp_server")
        raise PermissionDeniedError(f"This API key may not use {what}.", code=_NOT_ALLOWED)

    async def begin(
        self, caller: Caller, options: AgentOptions, session: SessionInfo | None, request_id: str, *, tells_steps: bool
    ) -> tuple[LaunchProfile, AgentTask]:
        """Return how to start the process that a request needs, and what it may do; `check` comes first."""
        of_session = session.tools if session else ALL_TOOLS
        grant = self.grant(caller.limits, options, of_session)
        launch = replace(self._launch(grant, options), keeps_spares=options.is_usual and of_session == ALL_TOOLS)
        if session and self.workspaces:
            directory = await self.workspaces.open(caller.owner, session.id, is_new=not session.turns)
            launch = replace(launch, keeps_spares=False)
        elif self.rules.directory is None:
            directory = self.rules.empty_directories
            launch = replace(launch, has_own_workspace=True)
        else:
            directory = self.rules.directory
            grant = replace(grant, most_bytes=None)
        # With --bare Claude Code asks no hooks.
        profile = replace(self.profile, bare=False, working_directory=directory, agent=launch)
        return profile, AgentTask(grant, request_id, tells_steps)

    def grant(self, limits: KeyLimits, options: AgentOptions, of_session: Narrowing) -> Grant:
        """Return what is left for a request of what its key may use."""
        granted = self.granted(limits)
        mcp_tools = frozenset(name for name in granted if server_of(name))
        own, mcp_tools = _narrowed(granted & OWN_TOOLS.keys(), mcp_tools, of_session)
        own, mcp_tools = _narrowed(own, mcp_tools, _with_servers(options))
        denied = frozenset((*of_session.denied, *options.narrowing.denied))
        return Grant(
            own,
            frozenset(name for name in mcp_tools if not is_covered(name, denied)),
            denied,
            options.mode,
            self.rules.most_bytes,
            self.rules.fetches_by_proxy,
        )

    def _launch(self, grant: Grant, options: AgentOptions) -> AgentLaunch:
        budgets = [each for each in (self.rules.max_budget_usd, options.max_budget_usd) if each is not None]
        servers = {server_of(name) for name in grant.mcp_tools}
        return AgentLaunch(
            tools=tuple(sorted(grant.tools)),
            scratch=self.rules.scratch,
            mcp_servers=self.rules.servers.written(name for name in self.rules.servers.names if name in servers),
            max_turns=min(options.max_turns or self.rules.max_turns, self.rules.max_turns),
            max_budget_usd=min(budgets, default=None),
            may_bypass=grant.mode == "bypassPermissions",
            confinement=self.rules.confinement,
        )

    def profile_of_servers(self, names: Iterable[str]) -> LaunchProfile:
        """Return how to start a process that has these MCP servers and no tools."""
        servers = self.rules.servers.written(names)
        launch = AgentLaunch((), self.rules.scratch, has_own_workspace=True, mcp_servers=servers, keeps_spares=False)
        return replace(self.profile, bare=False, working_directory=self.rules.empty_directories, agent=launch)


def _with_servers(options: AgentOptions) -> Narrowing:
    """Return a request's narrowing with the servers that it names; of one whose tools it names it wants only those."""
    if options.servers is None:
        return options.narrowing
    wanted = OWN_TOOLS if options.narrowing.allowed is None else options.narrowing.allowed
    named = [name for name in wanted if server_of(name) in (None, *options.servers)]
    servers = {*map(server_of, named)}
    whole = [tools_of(server) for server in options.servers if server not in servers]
    return replace(options.narrowing, allowed=(*named, *whole))


def _narrowed(
    own: frozenset[str], mcp_tools: frozenset[str], narrowing: Narrowing
) -> tuple[frozenset[str], frozenset[str]]:
    """Return what is left of Claude Code's own and of MCP servers' tools."""
    if narrowing.allowed is not None:
        own &= {*narrowing.allowed}
        mcp_tools = _both(mcp_tools, [name for name in narrowing.allowed if server_of(name)])
    return own - {*narrowing.denied}, mcp_tools


def _both(some: Iterable[str], others: Sequence[str]) -> frozenset[str]:
    """Return the names that are covered on both sides."""
    some = frozenset(some)
    named = {each for each in others if is_covered(each, some)}
    return frozenset(named | {each for each in some if is_covered(each, others)})
