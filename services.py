"""What the routes work with: made by the lifespan, found on the application's state, closed by the lifespan."""

import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal, cast

from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from auth import Login, check_key, find_login, login_environment
from chat_service import ChatService
from cli_launch import check_cli, find_cli
from config import Settings
from demo_upstream import DemoUpstream
from model_catalog import ModelCatalog
from process_pool import ProcessPool
from turns import LaunchProfile

_DEMO_KEY = "demo-key-that-opens-nothing"


@dataclass(frozen=True)
class Services:
    """The parts of a running server."""

    settings: Settings
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
    """Start all parts, and close all of them at the end. Raises ConfigurationError where there is no usable CLI."""
    cli_path = find_cli(settings.claude_cli_path)
    version = await run_in_threadpool(check_cli, cli_path, settings.environment.get("PATH", ""))
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="claude-wrapper-", ignore_cleanup_errors=True)))
        if settings.demo:
            settings = _demo_settings(settings, await stack.enter_async_context(DemoUpstream().serve()))
        login = find_login(settings)
        profile = _launch_profile(settings, login, cli_path, directory)
        pool = await stack.enter_async_context(
            ProcessPool.open(profile, spares=settings.spare_processes, limit=settings.max_processes)
        )
        catalog = ModelCatalog(pool.inspect, settings.model_aliases, created=int(time.time()))
        chat = ChatService(pool, catalog, login, settings.timeout_seconds)
        yield Services(settings, login, pool, catalog, chat, version)


def _launch_profile(settings: Settings, login: Login, cli_path: Path, directory: Path) -> LaunchProfile:
    working_directory, config_directory = directory / "empty", directory / "config"
    working_directory.mkdir()
    config_directory.mkdir()
    environment: Mapping[str, str] = login_environment(settings, login)
    if login.method != "claude_cli":
        # Only the CLI's own login lives in the host's configuration; the others need nothing of it.
        environment = {**environment, "CLAUDE_CONFIG_DIR": str(config_directory)}
    return LaunchProfile(cli_path, environment, working_directory, login.bare)


def _demo_settings(settings: Settings, url: str) -> Settings:
    login = {"ANTHROPIC_API_KEY": _DEMO_KEY, "ANTHROPIC_BASE_URL": url}
    basic = {name: value for name, value in settings.environment.items() if not name.upper().endswith("_PROXY")}
    return settings.model_copy(update={"claude_auth_method": "anthropic"}).within({**basic, **login})


def _services(request: Request) -> Services:
    return cast("Services", request.app.state.services)


ServicesDependency = Annotated[Services, Depends(_services)]


_bearer = HTTPBearer(auto_error=False, description="One of the server's API keys, where it has any.")


def require_key(
    services: ServicesDependency, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> None:
    """Route dependency: only callers with a key of ours pass, where there are keys."""
    check_key(services.settings, credentials.credentials if credentials else None)
