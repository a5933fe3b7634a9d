"""The server: composition, and the command line.

python main.py [PORT] [--host HOST] [--demo], or uvicorn main:app --reload --http h11 --no-proxy-headers;
python main.py keys new [NAME] makes a key
"""

import argparse
import errno
import logging
import os
import secrets
import socket
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.middleware.gzip import GZipMiddleware
from pydantic import SecretStr
from sse_starlette.sse import AppStatus
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

import agent_routes
import chat_routes
import debug_routes
import info_routes
import session_routes
from auth import KeyRing, hash_key
from browser_headers import SAFE_HEADERS
from cli_launch import check_cli, find_cli
from composition import open_services
from config import VERSION, ConfigurationError, Settings, load_settings
from graceful_shutdown import Drain, DrainMiddleware, GracefulServer
from grant_setup import check_grants
from host_guard import HostGuard
from http_layer import ERROR_HANDLERS, CommonHeaders
from keys_file import check_name
from openapi_document import complete_document
from origin_guard import OriginGuard
from server_log import hold_lines, start_logging

logger = logging.getLogger(__name__)

_PORTS_TO_TRY = 100
_CUT_OFF_SECONDS = 1
"""For connections that are still open when all answers are given."""
_INTERRUPTED = 130
"""The exit status of what Ctrl-C ended, as shells have it."""
_WORTH_COMPRESSING_BYTES = 1024
_FAST = 1
"""zlib's level of least work: the event loop waits for it, and JSON shrinks nearly as much as at the highest."""
_LOCAL_PAGES = r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?"

_DESCRIPTION = "OpenAI's API, answered by Claude Code."
_KEY_BYTES = 32
_DEMO_BANNER = (
    "DEMO: no account is used and no model answers. Claude Code is real, what",
    "stands behind it is a stand-in on this machine. X-Claude-Backend: demo",
)
_OPEN_BANNER = (
    "WARNING: no API key protects this server, and other machines may reach",
    "it. Whoever does can use it. Set API_KEY, or listen on 127.0.0.1.",
)
_NEW_KEY = """The key, which is shown this once:

{key}

Its hash:

sha256:{digest}

The entry for the file that API_KEYS_FILE names; take the # off what you want to limit:

[keys.{name}]
hash = "sha256:{digest}"
# requests_per_minute = 60
# concurrent_requests = 4
# usd_per_day = 5.0
# models = ["sonnet", "claude-haiku-*"]
# tools = true
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
        docs_url=None,
        redoc_url=None,
    )
    complete_document(app)
    app.include_router(info_routes.open_router)
    app.include_router(info_routes.router)
    app.include_router(info_routes.limited_router)
    app.include_router(chat_routes.router)
    app.include_router(debug_routes.router)
    app.include_router(session_routes.router)
    app.include_router(agent_routes.router)
    app.include_router(agent_routes.limited_router)
    # It leaves streams alone, and what is short.
    app.add_middleware(GZipMiddleware, minimum_size=_WORTH_COMPRESSING_BYTES, compresslevel=_FAST)
    app.add_middleware(
        CORSMiddleware if settings.asks_for_keys else OriginGuard,
        allow_origins=settings.cors_origins,
        allow_origin_regex=None if settings.cors_origins else _LOCAL_PAGES,
        allow_methods=["*"],
        allow_headers=["*"],
        expose_headers=["*"],
    )
    if settings.allowed_hosts or not settings.asks_for_keys:
        app.add_middleware(HostGuard, allowed=settings.allowed_hosts)
    app.state.drain = Drain()
    app.add_middleware(DrainMiddleware, drain=app.state.drain)
    app.add_middleware(CommonHeaders, extra={**SAFE_HEADERS, **({"X-Claude-Backend": "demo"} if settings.demo else {})})
    if settings.trusted_proxies:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=list(settings.trusted_proxies))
    return app


def __getattr__(name: str) -> FastAPI:
    """Make `app` when uvicorn asks for `main:app`, and not when this module is merely imported."""
    if name == "app":
        hold_lines()
        try:
            settings = load_settings()
            find_cli(settings.claude_cli_path)
            _check_settings(settings)
        except ConfigurationError as error:
            sys.exit(f"claude-wrapper can't start. {error}")
        _start_logging(settings)
        app = globals()["app"] = create_app(settings)  # uvicorn asks more than once.
        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _start_logging(settings: Settings) -> None:
    ours = (module.stem for module in Path(__file__).parent.glob("*.py"))
    is_verbose = settings.debug_mode or settings.log_level == "DEBUG"
    start_logging(
        settings.log_level, settings.log_format, verbose=ours if is_verbose else (), content=settings.log_prompts
    )


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


def _check_settings(settings: Settings) -> None:
    """Raise ConfigurationError for what the lifespan would stumble over, with a traceback."""
    KeyRing(settings)
    check_grants(settings)
    try:
        gettempdir()
    except FileNotFoundError as error:  # As in a container whose disk can't be written to.
        raise ConfigurationError("No temporary directory can be written to. Name one in TMPDIR.") from error


def _parsed(arguments: Sequence[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(
        prog="main.py", description=_DESCRIPTION, epilog="main.py keys new [NAME] makes an API key and its entry."
    )
    parser.add_argument("port", nargs="?", type=int, help="port to listen on (default: PORT, else 8000)")
    parser.add_argument("--host", help="address to listen on (default: HOST, else 127.0.0.1)")
    parser.add_argument("--demo", action="store_true", default=None, help="run without an account, on a stand-in")
    return {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None}


def _keys_command(arguments: Sequence[str]) -> int:
    """Carry out `keys new [NAME]`. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="main.py keys", description="Make API keys.")
    new = parser.add_subparsers(required=True, metavar="new").add_parser("new", help="print a key and its entry")
    new.add_argument("name", nargs="?", metavar="NAME", help="whose it is (default: one made from the key's hash)")
    given: str | None = parser.parse_args(arguments).name
    key = secrets.token_urlsafe(_KEY_BYTES)
    digest = hash_key(key)
    try:
        name = check_name(f"key-{digest[:8]}" if given is None else given)
    except ValueError as error:
        print(f"{given!r} can't be the name: {error}.", file=sys.stderr)
        return 2
    print(_NEW_KEY.format(key=key, digest=digest, name=name), end="")
    return 0


def _somebody_is_there() -> bool:
    """Whether a person can answer: a job in the background of a terminal would be stopped by its own question."""
    if not all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout)):
        return False
    if sys.platform == "win32":
        return True
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except OSError:  # a terminal, but not the one that controls us
        return False


def _wants_key() -> bool:
    """Ask whether callers shall show a key. The end of the input is a no."""
    while True:
        print("Enable API key protection? (y/N) ", end="", flush=True)
        try:
            answer = input().strip().lower()
        except EOFError:
            print()
            return False
        if answer in {"", "n", "no", "y", "yes"}:
            return answer.startswith("y")


def _offered_key(settings: Settings) -> SecretStr | None:
    """A new key, where there is none, somebody to ask, and that is what they want."""
    if settings.asks_for_keys or settings.demo or not _somebody_is_there() or not _wants_key():
        return None
    return SecretStr(secrets.token_urlsafe(_KEY_BYTES))


def _announce(settings: Settings, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    if settings.demo:
        _say(settings, *_DEMO_BANNER)
    if not settings.asks_for_keys and not settings.is_local:
        _say(settings, *_OPEN_BANNER)
    if settings.port not in (0, port):
        _say(settings, f"Port {settings.port} is in use; this server takes {port}.")
    _say(settings, f"claude-wrapper {VERSION} listens on {_url(settings.host, port)}")


def _say(settings: Settings, *lines: str) -> None:
    """Tell a person, several lines in a box; or a program that reads an object on every line."""
    if settings.log_format == "json":
        logger.info("%s", " ".join(lines))
    else:
        print(lines[0] if len(lines) == 1 else _boxed(lines), flush=True)


def _boxed(lines: Sequence[str]) -> str:
    width = max(map(len, lines))
    middle = [f"  │ {line:{width}} │" for line in lines]
    edge = "─" * (width + 2)
    return "\n".join(["", f"  ┌{edge}┐", *middle, f"  └{edge}┘", ""])


def _show(key: SecretStr, settings: Settings, listener: socket.socket) -> None:
    # Who listens everywhere can be asked nearby.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 - it binds nothing
    bearer = f"Authorization: Bearer {key.get_secret_value()}"
    print("The API key, which is shown this once and is gone when the server ends:\n")
    print(f"    {key.get_secret_value()}\n")
    print(f'    curl {_url(host, listener.getsockname()[1])}/v1/models -H "{bearer}"\n', flush=True)


def _url(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server until it is told to stop, or make a key. Returns the exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["keys"]:
        return _keys_command(given[1:])
    overrides = _parsed(given)
    hold_lines()
    try:
        settings = load_settings(**overrides)
        _start_logging(settings)
        check_cli(find_cli(settings.claude_cli_path), settings.environment.get("PATH", ""))
        _check_settings(settings)
        new_key = _offered_key(settings)
        listener = bind(settings.host, settings.port)
    except (ConfigurationError, OSError) as error:
        print(f"claude-wrapper can't start. {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print()
        return _INTERRUPTED
    # As the system has it: a name, or nothing, may mean any address.
    settings = settings.model_copy(update={"host": listener.getsockname()[0]})
    if new_key:
        settings = settings.model_copy(update={"api_key": new_key})
    _announce(settings, listener)
    if new_key:
        _show(new_key, settings, listener)
    app = create_app(settings)

    def give_up() -> None:
        app.state.services.pool.stop()

    # Whose X-Forwarded-For counts is TRUSTED_PROXIES' business alone; uvicorn would believe everyone on this machine.
    # h11: httptools forgets who has left where requests are sent ahead, and the body behind an `Upgrade` to HTTP/2.
    config = uvicorn.Config(
        app, log_config=None, http="h11", ws="none", proxy_headers=False, timeout_graceful_shutdown=_CUT_OFF_SECONDS
    )
    server = GracefulServer(config, app.state.drain, settings.shutdown_grace, give_up)
    server.run(sockets=[listener])
    return 0 if server.started else 1


if __name__ == "__main__":
    sys.exit(main())
