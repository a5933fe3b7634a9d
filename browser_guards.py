"""What keeps web pages, which anybody's browser may carry here, from using a server that isn't theirs."""

import logging
from collections.abc import Sequence
from fnmatch import fnmatchcase
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from config import is_local_address
from errors import PermissionDeniedError
from http_layer import refuse

logger = logging.getLogger(__name__)


class HostGuard:
    """ASGI middleware: only requests to known names pass.

    A page whose name is pointed to this machine after it was loaded (DNS rebinding) is of the same origin as the server
    for its browser, and may read all answers. Its name stands in `Host`.
    """

    def __init__(self, app: ASGIApp, allowed: Sequence[str]) -> None:
        """`allowed` are names, with `*.` for all beneath; none: addresses, and names that no page from outside has."""
        self._app, self._allowed = app, allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] == "http" and not self._knows(_host(Headers(scope=scope).get("host", ""))):
            message = "This server isn't known by this name. The operator can add it to ALLOWED_HOSTS."
            await refuse(PermissionDeniedError(message, code="unknown_host"), scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _knows(self, host: str) -> bool:
        if not self._allowed:
            return _is_out_of_reach(host)
        return any(fnmatchcase(host, name.lower()) for name in self._allowed)


def _host(value: str) -> str:
    """Return the name or address of a `Host` header, without the port."""
    host = value.lower().rpartition("]")[0].removeprefix("[") if value.startswith("[") else value.partition(":")[0]
    return host.lower().rstrip(".")


def _is_out_of_reach(host: str) -> bool:
    """Whether no page on the internet can have this host as its own name."""
    # Names without a dot are those of containers and of machines nearby.
    if "." not in host or host.endswith((".localhost", ".internal")):
        return True
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


class OriginGuard(CORSMiddleware):
    """CORS that also refuses the requests of foreign pages, whose answers they couldn't read anyway.

    For a server without keys: otherwise any page that its user opens could spend the Claude login.
    """

    _warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; the first one from beyond this machine is worth a warning."""
        server = (scope.get("server") or ("",))[0]
        if server and not self._warned and not is_local_address(server):
            self._warned = True
            logger.warning(
                "This server is reached at %s and asks for no API key: whoever reaches it may use it", server
            )
        await super().__call__(scope, receive, send)

    async def simple_response(self, scope: Scope, receive: Receive, send: Send, request_headers: Headers) -> None:
        """Answer a request that names its origin."""
        origin = request_headers.get("origin")
        if origin is None or self.is_allowed_origin(origin=origin):
            await super().simple_response(scope, receive, send, request_headers=request_headers)
        else:
            error = PermissionDeniedError(
                "Pages of this origin may not call here. The operator can name it in CORS_ORIGINS, or set API_KEYS."
            )
            await refuse(error, scope, receive, send)
