"""Makes the parts of a server from its settings, and closes them: what the lifespan of the application does."""

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

import anyio
import psutil
from anyio.abc import TaskGroup
from fastapi.concurrency import run_in_threadpool
from limits.aio.storage import Storage

import process_questions
from auth import KeyRing, Login, find_login, login_environment
from background import periodically
from chat_service import ChatService, usual_retries
from cli_launch import check_cli, find_cli
from config import Settings
from demo_upstream import DemoUpstream
from engine_probe import find_fault
from grant_setup import open_grants
from mcp_catalog import McpCatalog
from memory_stores import MemorySessionStore, MemoryUsageStore, ThisServer, memory_counters
from model_catalog import ModelCatalog
from parameter_validator import Rules
from process_pool import PoolLimits, ProcessPool
from quotas import KEEP_SECONDS, Quotas
from rate_limiter import LimitedRoute, RateLimiter
from redis_stores import RENEW_SECONDS, RedisConnection, RedisSessionStore, RedisUsageStore
from services import Services
from session_manager import SWEEP_SECONDS, SessionLimits, SessionManager
from stores import Connection, SessionStore, UsageStore
from tool_usage import ToolUsage
from turns import LaunchProfile, UpstreamTimeouts
from workspaces import Workspaces

logger = logging.getLogger(__name__)

_TYPICAL_PROCESS_BYTES = 256 * 2**20
_CONTAINER_MEMORY = Path("/sys/fs/cgroup/memory.max")
_DEMO_KEY = "demo-key-that-opens-nothing"


@asynccontextmanager
async def open_services(settings: Settings) -> AsyncGenerator[Services, None]:
    """Start all parts, and close all of them at the end.

    Raises ConfigurationError where there is no usable CLI, or a file of keys that can't be used.
    """
    keys = KeyRing(settings)
    _warn_of_open_port(settings)
    cli_path = find_cli(settings.claude_cli_path)
    version = await run_in_threadpool(check_cli, cli_path, settings.environment.get("PATH", ""))
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="claude-wrapper-", ignore_cleanup_errors=True)))
        if settings.demo:
            settings = _demo_settings(settings, await stack.enter_async_context(DemoUpstream().serve()))
        login = find_login(settings)
        profile = _launch_profile(settings, login, cli_path, directory)
        trial = partial(_may_reuse, settings, cli_path, _made(directory / "trial"))
        closing = await stack.enter_async_context(AsyncExitStack())
        tasks = await stack.enter_async_context(anyio.create_task_group())
        stack.callback(tasks.cancel_scope.cancel)
        limits_of_keys = [caller.limits for caller in keys.known()]
        grants = await run_in_threadpool(open_grants, settings, profile, directory, limits_of_keys)
        stores = _open_stores(settings, closing, tasks)
        sessions = _open_sessions(settings, stores.sessions, grants.workspaces, tasks)
        limiter, quotas = _open_quotas(settings, stores, tasks)
        pool = await stack.enter_async_context(ProcessPool.open(_limits(settings), profile, trial, quotas.book_cost))
        inspect = partial(pool.ask, profile, process_questions.inspect)
        catalog = ModelCatalog(inspect, settings.model_aliases, created=int(time.time()))
        chat = ChatService(
            pool=pool,
            catalog=catalog,
            sessions=sessions,
            quotas=quotas,
            grants=grants,
            tool_usage=ToolUsage(),
            login=login,
            rules=Rules(settings.strict_parameters, settings.max_n, login=login.method),
            timeout=settings.timeout_seconds,
            upstream_timeouts=UpstreamTimeouts(settings.first_token_timeout, settings.idle_timeout),
            retries=usual_retries(settings.upstream_retries),
            usual_thinking_tokens=settings.max_thinking_tokens,
        )
        yield Services(
            settings=settings,
            keys=keys,
            limiter=limiter,
            mcp=McpCatalog(lambda names: pool.ask(grants.profile_of_servers(names), process_questions.mcp_servers)),
            connection=stores.connection,
            chat=chat,
            claude_code_version=version,
        )


def _warn_of_open_port(settings: Settings) -> None:
    if not settings.asks_for_keys and not settings.is_local:
        logger.warning(
            "This server listens on %s and asks for no API key: whoever reaches it may use it", settings.host
        )


@dataclass(frozen=True)
class _Stores:
    """Where sessions, usage and counts are kept, all in one place."""

    connection: Connection
    sessions: SessionStore
    usage: UsageStore
    counters: Storage


def _open_stores(settings: Settings, closing: AsyncExitStack, tasks: TaskGroup) -> _Stores:
    """Make the stores; `closing` closes them after `tasks` have ended, which use them."""
    if settings.redis_url is None:
        return _Stores(ThisServer(), MemorySessionStore(), MemoryUsageStore(), memory_counters())
    connection = RedisConnection(settings.redis_url.get_secret_value())
    closing.push_async_callback(connection.close)
    sessions = RedisSessionStore(connection)
    tasks.start_soon(periodically, RENEW_SECONDS, sessions.renew)
    return _Stores(connection, sessions, RedisUsageStore(connection), connection.counters())


def _open_quotas(settings: Settings, stores: _Stores, tasks: TaskGroup) -> tuple[RateLimiter, Quotas]:
    fail_open = settings.rate_limit_fail_open
    limiter = RateLimiter(stores.counters, memory_counters(), _limits_a_minute(settings), fail_open=fail_open)
    quotas = Quotas(stores.usage, limiter, fail_open=fail_open)
    tasks.start_soon(periodically, KEEP_SECONDS, quotas.keep)
    return limiter, quotas


def _open_sessions(
    settings: Settings, store: SessionStore, workspaces: Workspaces | None, tasks: TaskGroup
) -> SessionManager:
    limits = SessionLimits(settings.session_ttl_seconds, settings.session_max_count, settings.session_max_messages)
    if workspaces is None:
        sessions = SessionManager(store, limits)
    else:
        sessions = SessionManager(store, limits, on_end=workspaces.remove)
        tasks.start_soon(periodically, SWEEP_SECONDS, partial(workspaces.sweep, sessions.lives))
    tasks.start_soon(periodically, SWEEP_SECONDS, sessions.sweep)
    return sessions


def _limits_a_minute(settings: Settings) -> dict[LimitedRoute, int]:
    if not settings.rate_limit_enabled:
        return {}
    return {
        "chat": settings.rate_limit_chat_per_minute,
        "session": settings.rate_limit_session_per_minute,
        "auth": settings.rate_limit_auth_per_minute,
        "debug": settings.rate_limit_debug_per_minute,
        "health": settings.rate_limit_health_per_minute,
    }


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
    # Else it leaves a directory in the one for everybody's temporary files.
    environment["CLAUDE_CODE_TMPDIR"] = str(_made(directory / "claude-tmp"))
    variables = tuple(sorted(environment.items()))
    return LaunchProfile(cli_path, variables, working_directory, login.bare, login.base_url_variable)


def _demo_settings(settings: Settings, url: str) -> Settings:
    login = {"ANTHROPIC_API_KEY": _DEMO_KEY, "ANTHROPIC_BASE_URL": url}
    basic = {name: value for name, value in settings.environment.items() if not name.upper().endswith("_PROXY")}
    return settings.model_copy(update={"claude_auth_method": "anthropic"}).within({**basic, **login})
