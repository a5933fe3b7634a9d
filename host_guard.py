"""By which names the server answers, so that no page gets in by a name of its own (DNS rebinding).

A page of evil.example can have its name lead to 127.0.0.1: to a browser the server is then the page's own. Nobody can
have an address, or a name that only networks at hand give, lead elsewhere.
"""

import re
from collections.abc import Collection
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from errors import PermissionDeniedError
from http_layer import refuse

_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[^\[\]:]+)(:[0-9]*)?", re.IGNORECASE)
_DOCKERS_HOST = "host.docker.internal"


class HostGuard:
    """ASGI middleware that refuses requests under names that somebody else can give to this server.

    Starlette's TrustedHostMiddleware decides and answers, in plain text, in one step that can't be taken apart.
    `X-Forwarded-Host` and `Forwarded` are never asked.
    """

    def __init__(self, app: ASGIApp, allowed: Collection[str]) -> None:
        """`allowed` are more names; `*.example.com` stands for all below that one, `*` for any."""
        self._app = app
        self._allowed = allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. One without a `Host` comes from no browser."""
        hosts = Headers(scope=scope).getlist("host") if scope["type"] == "http" else []
        if all(self._is_allowed(host) for host in hosts if host):
            await self._app(scope, receive, send)
            return
        error = PermissionDeniedError(
            "This server doesn't answer by this name. The operator can add the name to ALLOWED_HOSTS, or else "
            "reach the server at its address."
        )
        await refuse(error, scope, receive, send)

    def _is_allowed(self, host: str) -> bool:
        found = _HOST.fullmatch(host)
        if not found:
            return False
        name = found["name"].lower().rstrip(".")
        return _is_near(name) or any(_matches(name, pattern) for pattern in self._allowed)


def _is_near(name: str) -> bool:
    """Whether a name is an address, or one that no public name server gives, such as a container's."""
    if "." not in name and not name.startswith("["):
        return True
    return name == _DOCKERS_HOST or name.endswith(".localhost") or _is_address(name.strip("[]"))


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _matches(name: str, pattern: str) -> bool:
    return pattern in ("*", name) or (pattern.startswith("*.") and name.endswith(pattern[1:]))
