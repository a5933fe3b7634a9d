"""What is known of MCP servers, by itself: asked once for a while, one process at a time."""

import anyio
import pytest

from inspections import McpServer
from mcp_catalog import McpCatalog, ServerNames


@pytest.mark.asyncio
async def test_servers_are_asked_once_in_a_while() -> None:
    """However many want to know; others' servers are others'; and none are none."""
    now, asked = [0.0], list[ServerNames]()

    async def ask(names: ServerNames) -> tuple[McpServer, ...]:
        asked.append(names)
        await anyio.lowlevel.checkpoint()
        return tuple(McpServer(name, "connected") for name in names)

    catalog = McpCatalog(ask, clock=lambda: now[0])
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(catalog.servers, ("a", "b"))
    assert asked == [("a", "b")]
    assert await catalog.servers(()) == ()
    assert [server.name for server in await catalog.servers(("a",))] == ["a"]
    now[0] = 29
    await catalog.servers(("a", "b"))
    assert asked == [("a", "b"), ("a",)]
    now[0] = 31
    await catalog.servers(("a", "b"))
    assert asked == [("a", "b"), ("a",), ("a", "b")]


@pytest.mark.asyncio
async def test_what_is_known_is_told_while_others_are_asked() -> None:
    """A server that hangs holds up only those who ask for it."""
    hanging = anyio.Event()

    async def ask(names: ServerNames) -> tuple[McpServer, ...]:
        if "slow" in names:
            hanging.set()
            await anyio.sleep_forever()
        return ()

    catalog = McpCatalog(ask)
    await catalog.servers(("quick",))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(catalog.servers, ("slow",))
        await hanging.wait()
        with anyio.fail_after(5):
            assert await catalog.servers(("quick",)) == ()
        tasks.cancel_scope.cancel()
