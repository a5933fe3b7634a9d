"""Claude Code's own tools, as a key may use them: /v1/tools, and the operator's MCP servers: /v1/mcp/servers."""

from collections import Counter, defaultdict
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request

from agent_task import ALL_TOOLS, Narrowing
from callers import Caller
from report_models import (
    McpServerList,
    McpServerReport,
    ToolConfigReport,
    ToolDescription,
    ToolList,
    ToolStats,
    ToolStatsReport,
)
from request_body import parse_json_object, parse_tool_config, read_body
from request_options import AgentOptions
from services import CallerDependency, Services, ServicesDependency, limited_behind_key, require_key
from stores import SessionInfo
from tool_catalog import OWN_TOOLS

router = APIRouter(dependencies=[Depends(require_key)])
limited_router = APIRouter(dependencies=limited_behind_key("session"), responses={429: {}})

# What exactly is a matter between the operator and the server.
_FAILED = "It can't be used; the log of this server says why."


@router.head("/v1/tools", include_in_schema=False)
@router.get("/v1/tools")
async def list_tools(services: ServicesDependency, caller: CallerDependency) -> ToolList:
    """List Claude Code's own tools, and which of them the key may use."""
    granted = services.grants.granted(caller.limits)
    return ToolList(
        tools=[
            ToolDescription(
                name=name,
                description=tool.description,
                category=tool.category,
                safe=tool.is_safe,
                allowed=name in granted,
            )
            for name, tool in OWN_TOOLS.items()
        ],
        total=len(OWN_TOOLS),
    )


@limited_router.head("/v1/tools/config", include_in_schema=False)
@limited_router.get("/v1/tools/config", responses={404: {}})
async def tool_config(
    services: ServicesDependency, caller: CallerDependency, session_id: Annotated[str | None, Query()] = None
) -> ToolConfigReport:
    """Tell which tools a request of the key's, or of one of its sessions, gets."""
    session = None if session_id is None else await services.sessions.get(caller.owner, session_id)
    return _config(services, caller, session)


@limited_router.post("/v1/tools/config", responses={404: {}, 409: {}})
async def narrow_tools(request: Request, services: ServicesDependency, caller: CallerDependency) -> ToolConfigReport:
    """Let a session, from its next turn on, use only some of the tools that it has; it doesn't get them back."""
    raw = await read_body(request.stream(), services.settings.max_request_size)
    body = parse_tool_config(parse_json_object(raw))
    allowed = None if body.allowed_tools is None else tuple(dict.fromkeys(body.allowed_tools))
    narrowing = Narrowing(allowed, tuple(dict.fromkeys(body.disallowed_tools)))
    services.grants.check(caller.limits, AgentOptions(narrowing))
    narrowed = partial(services.grants.narrowed, caller.limits, further=narrowing)
    session = await services.sessions.narrow(caller.owner, body.session_id, narrowed, services.chat.timeout)
    return _config(services, caller, session)


def _config(services: Services, caller: Caller, session: SessionInfo | None) -> ToolConfigReport:
    narrowing = session.tools if session else ALL_TOOLS
    grant = services.grants.grant(caller.limits, AgentOptions(), narrowing)
    return ToolConfigReport(
        session_id=session and session.id,
        allowed_tools=None if narrowing.allowed is None else [*narrowing.allowed],
        disallowed_tools=[*narrowing.denied],
        effective_tools=sorted(grant.tools | grant.mcp_tools),
    )


@router.head("/v1/tools/stats", include_in_schema=False)
@router.get("/v1/tools/stats")
async def tool_stats(services: ServicesDependency, caller: CallerDependency) -> ToolStatsReport:
    """Count the key's calls of tools since this server began."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for (name, outcome), count in services.chat.tool_usage.of(caller.owner).items():
        counts[name][outcome] += count
    stats = {
        name: ToolStats(calls=each.total(), succeeded=each["result"], failed=each["error"], denied=each["denied"])
        for name, each in sorted(counts.items())
    }
    return ToolStatsReport(tools=stats, total_calls=sum(each.calls for each in stats.values()))


@limited_router.head("/v1/mcp/servers", include_in_schema=False)
@limited_router.get("/v1/mcp/servers", responses={502: {}})
async def mcp_servers(services: ServicesDependency, caller: CallerDependency) -> McpServerList:
    """Start the MCP servers that the key may use, and tell their state and their tools."""
    found = await services.mcp.servers(services.grants.servers(caller.limits))
    servers = [
        McpServerReport(name=each.name, status=each.status, tools=[*each.tools], error=each.error and _FAILED)
        for each in found
    ]
    return McpServerList(servers=servers, total=len(servers))
