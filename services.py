"""What the routes work with: made by the lifespan (composition.py), found on the application's state."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from slowapi.util import get_remote_address

from auth import KeyRing, Login
from callers import Caller
from chat_service import ChatService
from config import Settings
from http_layer import add_response_headers
from mcp_catalog import McpCatalog
from model_catalog import ModelCatalog
from parameter_validator import Rules
from process_pool import ProcessPool
from quotas import Quotas
from rate_limiter import LimitedRoute, RateLimiter, Standing
from request_record import record_of
from session_manager import SessionManager
from stores import Connection
from tool_grants import ToolGrants


@dataclass(frozen=True)
class Services:
    """The parts of a running server."""

    settings: Settings
    keys: KeyRing
    limiter: RateLimiter
    mcp: McpCatalog
    connection: Connection
    chat: ChatService
    claude_code_version: str

    @property
    def login(self) -> Login:
        """The Claude login in use."""
        return self.chat.login

    @property
    def pool(self) -> ProcessPool:
        """The Claude Code processes."""
        return self.chat.pool

    @property
    def catalog(self) -> ModelCatalog:
        """The models that there are."""
        return self.chat.catalog

    @property
    def sessions(self) -> SessionManager:
        """The conversations that are kept."""
        return self.chat.sessions

    @property
    def quotas(self) -> Quotas:
        """What keys may use, and have used."""
        return self.chat.quotas

    @property
    def rules(self) -> Rules:
        """What the operator decided of parameters."""
        return self.chat.rules

    @property
    def grants(self) -> ToolGrants:
        """Who may use which of Claude Code's own tools."""
        return self.chat.grants

    @property
    def backend(self) -> Literal["claude", "demo"]:
        """Who answers: Claude, or the demo upstream."""
        return "demo" if self.settings.demo else "claude"


async def _services(request: Request) -> Services:
    return cast("Services", request.app.state.services)


ServicesDependency = Annotated[Services, Depends(_services)]


_bearer = HTTPBearer(auto_error=False, description="One of the server's API keys, where it has any.")


async def require_key(
    request: Request,
    services: ServicesDependency,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Caller:
    """Route dependency: only callers with a key of ours pass, where there are keys. Returns who it is."""
    caller = services.keys.caller(credentials.credentials if credentials else None)
    record_of(request).key = caller.name
    return caller


CallerDependency = Annotated[Caller, Depends(require_key)]


def limited(route: LimitedRoute) -> Callable[[Request, Services], Awaitable[None]]:
    """Make a route dependency: only so many requests a minute pass from one address."""

    async def count(request: Request, services: ServicesDependency) -> None:
        _tell(request, await services.limiter.pass_route(route, get_remote_address(request)))

    return count


def limited_behind_key(route: LimitedRoute) -> list[Any]:
    """Make the dependencies of a route with a limit and a key: who guesses keys is counted, too."""
    return [Depends(limited(route)), Depends(require_key)]


async def require_quota(request: Request, services: ServicesDependency, caller: CallerDependency) -> None:
    """Route dependency: only so many requests a minute pass of a key that has a limit."""
    _tell(request, await services.quotas.check_rate(caller))


def _tell(request: Request, standing: Standing | None) -> None:
    # On the request, because a route that makes its own response would lose a dependency's headers. Of an address's
    # and a key's limits the tighter one is told.
    told: Standing | None = getattr(request.state, "standing", None)
    if standing and (told is None or standing.remaining < told.remaining):
        request.state.standing = standing
        add_response_headers(request, standing.headers)
