"""The server: composition, and the command line.

python main.py [PORT] [--host HOST] [--demo], or uvicorn main:app --reload --no-proxy-headers
"""

import argparse
import errno
import logging
import socket
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from sse_starlette.sse import AppStatus
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

import chat_routes
import info_routes
from cli_launch import check_cli, find_cli
from config import VERSION, ConfigurationError, Settings, load_settings
from http_layer import ERROR_HANDLERS, CommonHeaders, OriginGuard, describe_bodies
from models import ChatCompletionRequest
from services import open_services

_PORTS_TO_TRY = 100
_SHUTDOWN_GRACE_SECONDS = 30
_LOCAL_PAGES = r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?"

_DESCRIPTION = "OpenAI's API, answered by Claude Code."
_DEMO_BANNER = """
  ┌──────────────────────────────────────────────────────────────────────────┐
  │ DEMO: no account is used and no model answers. Claude Code is real, what  │
  │ stands behind it is a stand-in on this machine. X-Claude-Backend: demo    │
  └──────────────────────────────────────────────────────────────────────────┘
"""


def create_app(settings: Settings) -> FastAPI:
    """Put the application together; what it needs is started and stopped by its lifespan."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        # A stream that is cut at shutdown looks like a good answer to many clients: uvicorn lets it finish instead.
        AppStatus.enable_automatic_graceful_drain = False
        async with open_services(settings) as app.state.services:
            yield

    app = FastAPI(
        title="claude-wrapper",
        version=VERSION,
        description=_DESCRIPTION,
        lifespan=lifespan,
        exception_handlers=ERROR_HANDLERS,
        redirect_slashes=False,
        redoc_url=None,
    )
    describe_bodies(app, {"/v1/chat/completions": ChatCompletionRequest})
    app.include_router(info_routes.open_router)
    app.include_router(info_routes.router)
    app.include_router(chat_routes.router)
    app.add_middleware(
        OriginGuard if not settings.keys else CORSMiddleware,
        allow_origins=settings.cors_origins,
        allow_origin_regex=None if settings.cors_origins else _LOCAL_PAGES,
        allow_methods=["*"],
        allow_headers=["*"],
        expose_headers=["*"],
    )
    app.add_middleware(CommonHeaders, extra={"X-Claude-Backend": "demo"} if settings.demo else {})
    if settings.trusted_proxies:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=list(settings.trusted_proxies))
    return app


def __getattr__(name: str) -> FastAPI:
    """Make `app` when uvicorn asks for `main:app`, and not when this module is merely imported."""
    if name == "app":
        try:
            settings = load_settings()
            find_cli(settings.claude_cli_path)
        except ConfigurationError as error:
            sys.exit(f"claude-wrapper can't start. {error}")
        logging.basicConfig(level=settings.log_level)
        return create_app(settings)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to `port`, or to the next one that is free."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    last = port + _PORTS_TO_TRY if port else port
    for candidate in range(port, min(last, 65535) + 1):
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, candidate))
            # Bound is not enough: two may bind with SO_REUSEADDR, one may listen.
            listener.listen(2048)
        except OSError as error:
            listener.close()
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return listener
    raise ConfigurationError(f"No free port from {port} to {last} on {host}.")


def _parsed(arguments: Sequence[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="main.py", description=_DESCRIPTION)
    parser.add_argument("port", nargs="?", type=int, help="port to listen on (default: PORT, else 8000)")
    parser.add_argument("--host", help="address to listen on (default: HOST, else 127.0.0.1)")
    parser.add_argument("--demo", action="store_true", default=None, help="run without an account, on a stand-in")
    return {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None}


def _announce(settings: Settings, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    if settings.demo:
        print(_DEMO_BANNER, flush=True)
    if settings.port not in (0, port):
        print(f"Port {settings.port} is in use; this server takes {port}.", flush=True)
    print(f"claude-wrapper {VERSION} listens on http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server until it is told to stop. Returns the exit status."""
    try:
        settings = load_settings(**_parsed(sys.argv[1:] if arguments is None else arguments))
        logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        check_cli(find_cli(settings.claude_cli_path), settings.environment.get("PATH", ""))
        app = create_app(settings)
        listener = bind(settings.host, settings.port)
    except (ConfigurationError, OSError) as error:
        print(f"claude-wrapper can't start. {error}", file=sys.stderr)
        return 2
    _announce(settings, listener)
    # Whose X-Forwarded-For counts is TRUSTED_PROXIES' business alone; uvicorn would believe everyone on this machine.
    config = uvicorn.Config(
        app, log_config=None, proxy_headers=False, timeout_graceful_shutdown=_SHUTDOWN_GRACE_SECONDS
    )
    server = uvicorn.Server(config)
    server.run(sockets=[listener])
    return 0 if server.started else 1


if __name__ == "__main__":
    sys.exit(main())
