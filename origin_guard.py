"""Which pages may call a server that asks for no key: a browser carries any page's requests here."""

import logging

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Receive, Scope, Send

from config import is_local_address
from errors import PermissionDeniedError
from http_layer import refuse

logger = logging.getLogger(__name__)


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
            await refuse(error, scope, receive, send, {"Vary": "Origin"})
