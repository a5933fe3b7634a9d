"""What the routes work with: made by the lifespan, found on the application's state, closed by the lifespan."""

import logging
import math
import os
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal, cast

import psutil
from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from auth import KeyRing, Login, find_login, login_environment
from callers import Caller
from chat_service import ChatService
from cli_launch import check_cli, find_cli
from config import Settings
from demo_upstream import DemoUpstream
from engine_probe import find_fault
from model_catalog import ModelCatalog
from process_pool import PoolLimits, ProcessPool
from turns import LaunchProfile

logger = logging.getLogger(__name__)

_TYPICAL_PROCESS_BYTES = 256 * 2**20
_CONTAINER_MEMORY = Path("/sys/fs/cgroup/memory.max")
_DEMO_KEY = "demo-key-that-opens-nothing"


@dataclass(frozen=True)
class Services:
    """The parts of a running server."""

    settings: Settings
    keys: KeyRing
    login: Login
    pool: ProcessPool
    catalog: ModelCatalog
    chat: ChatService
    claude_code_version: str

    @property
    def backend(self) -> Literal["claude", "demo"]:
        """Who answers: Claude, or the demo upstream."""
        return "demo" if self.settings.demo else "claude"


@asynccontextmanager
async def open_services(settings: Settings) -> AsyncGenerator[Services, None]:
    """Start all parts, and close all of them at the end.

    Raises ConfigurationError where there is no usable CLI, or a file of keys that can't be used.
    """
    keys = KeyRing(settings)
    if not settings.asks_for_keys and not settings.is_local:
        logger.warning(
            "This server listens on %s and asks for no API key: whoever reaches it may use it", settings.host
        )
    cli_path = find_cli(settings.claude_cli_path)
    version = await run_in_threadpool(check_cli, cli_path, settings.environment.get("PATH", ""))
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="claude-wrapper-", ignore_cleanup_errors=True)))
        if settings.demo:
            settings = _demo_settings(settings, await stack.enter_async_context(DemoUpstream().serve()))
        login = find_login(settings)
        profile = _launch_profile(settings, login, cli_path, directory)
        trial = partial(_may_reuse, settings, cli_path, _made(directory / "trial"))
        pool = await stack.enter_async_context(ProcessPool.open(_limits(settings), profile, trial))
        catalog = ModelCatalog(partial(pool.inspect, profile), settings.model_aliases, created=int(time.time()))
        chat = ChatService(pool, catalog, login, profile, settings.timeout_seconds)
        yield Services(settings, keys, login, pool, catalog, chat, version)


def _limits(settings: Settings) -> PoolLimits:
    return PoolLimits(
        processes=settings.max_processes or _affordable_processes(),
        spares=settings.spare_processes,
        queue_timeout=settings.queue_timeout,
        park_seconds=settings.park_seconds,
        turns=settings.process_max_turns,
        memory=settings.process_max_memory_mb * 2**20,
    )


def _affordable_processes() -> int:
    # A container's limit, where there is one; psutil sees the whole machine.
    limit = _CONTAINER_MEMORY.read_text(encoding="ascii").strip() if _CONTAINER_MEMORY.is_file() else ""
    memory = min(psutil.virtual_memory().total, int(limit) if limit.isdigit() else math.inf)
    return max(2, min(4 * (os.cpu_count() or 1), int(memory / 2 / _TYPICAL_PROCESS_BYTES)))


async def _may_reuse(settings: Settings, cli_path: Path, directory: Path) -> bool:
    if settings.process_reuse != "auto":
        return settings.process_reuse == "on"
    fault = await find_fault(cli_path, settings.environment.get("PATH", ""), directory)
    if fault:
        logger.warning("This Claude Code's processes can't be used again, so each serves one turn: %s", fault)
    return fault is None


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def _launch_profile(settings: Settings, login: Login, cli_path: Path, directory: Path) -> LaunchProfile:
    working_directory, config_directory = _made(directory / "empty"), _made(directory / "config")
    environment = login_environment(settings, login)
    if login.method != "claude_cli":
        # Only the CLI's own login lives in the host's configuration; the others need nothing of it.
        environment["CLAUDE_CONFIG_DIR"] = str(config_directory)
    variables = tuple(sorted(environment.items()))
    return LaunchProfile(cli_path, variables, working_directory, login.bare, login.base_url_variable)


def _demo_settings(settings: Settings, url: str) -> Settings:
    login = {"ANTHROPIC_API_KEY": _DEMO_KEY, "ANTHROPIC_BASE_URL": url}
    basic = {name: value for name, value in settings.environment.items() if not name.upper().endswith("_PROXY")}
    return settings.model_copy(update={"claude_auth_method": "anthropic"}).within({**basic, **login})


async def _services(request: Request) -> Services:
    return cast("Services", request.app.state.services)


ServicesDependency = Annotated[Services, Depends(_services)]


_bearer = HTTPBearer(auto_error=False, description="One of the server's API keys, where it has any.")


async def require_key(
    services: ServicesDependency, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Caller:
    """Route dependency: only callers with a key of ours pass, where there are keys. Returns who it is."""
    return services.keys.caller(credentials.credentials if credentials else None)


CallerDependency = Annotated[Caller, Depends(require_key)]
