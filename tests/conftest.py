"""The real app on a real socket, with the real CLI, against the demo upstream; nothing else of this machine.

Every variable of the machine goes before the first test: no test can use a real login or leave the machine.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import hypothesis
import openai
import pytest
import uvicorn
from anyio.from_thread import start_blocking_portal
from starlette.types import ASGIApp

import cli_launch
from claude_cli import Lab
from commands import Command, Start, end, wait_until, working
from config import Settings, load_settings
from demo_upstream import DemoUpstream, Reply
from main import create_app
from real_services import PROGRAMS, RedisServer, install, running_redis
from turns import LaunchProfile

COVERAGE = ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")
# How much `make isolation` plays: see test_isolation.py and test_replicated_sessions.py.
BUDGETS = ("ISOLATION_TURNS", "LOAD_SESSIONS", "LOAD_TURNS")
# `PROCESS_REUSE=off make test` runs the suite with a process for every turn.
KEPT = ("PATH", "LANG", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "PROCESS_REUSE", *BUDGETS, *COVERAGE)
HOME = tempfile.mkdtemp(prefix="claude-wrapper-tests-")


# A busy machine is no fault: hypothesis needn't tell of what took long.
hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("patient")


def pytest_configure() -> None:
    """Build the environment from nothing."""
    kept = _kept(*KEPT)
    os.environ.clear()
    # No certificates: httpx would read those of all authorities for each client, which takes longer than a request.
    os.environ.update(kept, HOME=HOME, SSL_CERT_DIR=HOME)


def pytest_unconfigure() -> None:
    """Leave nothing behind."""
    shutil.rmtree(HOME, ignore_errors=True)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Install what the chosen tests need, before any test's time begins to run."""
    fixtures = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    marked = any(item.get_closest_marker("real_services") for item in session.items)
    if not session.config.option.collectonly and ("redis_server" in fixtures or marked):
        install(PROGRAMS)


# Nobody listens there: whoever wants to leave the machine is refused at once.
NOWHERE = "http://127.0.0.1:9"
NO_WAY_OUT = {
    "ANTHROPIC_BASE_URL": NOWHERE,
    "ANTHROPIC_BEDROCK_BASE_URL": NOWHERE,
    "ANTHROPIC_VERTEX_BASE_URL": NOWHERE,
    "CLAUDE_CODE_SKIP_BEDROCK_AUTH": "1",
    "CLAUDE_CODE_SKIP_VERTEX_AUTH": "1",
    "HTTP_PROXY": NOWHERE,
    "HTTPS_PROXY": NOWHERE,
    "NO_PROXY": "127.0.0.1",
}


def clean_environment(**variables: str) -> dict[str, str]:
    """Make an environment for a program, from nothing, and without a way off this machine."""
    return {**_kept("PATH", "PROCESS_REUSE"), "HOME": HOME, **NO_WAY_OUT, **variables}


def measured_environment(**variables: str) -> dict[str, str]:
    """Make such an environment for a server of ours, whose lines count as covered. That makes its start much longer."""
    return {**_kept(*COVERAGE), **clean_environment(**variables)}


def _kept(*names: str) -> dict[str, str]:
    return {name: os.environ[name] for name in names if name in os.environ}


@dataclass(frozen=True)
class Server:
    """A running server, the upstream behind it, and what is to be closed with it."""

    url: str
    upstream: DemoUpstream
    stack: ExitStack

    def client(self, **options: Any) -> openai.OpenAI:
        """Make an OpenAI client that points here and doesn't try again by itself."""
        options = {"api_key": "any", "max_retries": 0, "timeout": 30, **options}
        return self.stack.enter_context(openai.OpenAI(base_url=f"{self.url}/v1", **options))


def running(settings: Settings) -> AbstractContextManager[str]:
    """Serve the app of these settings."""
    return serving(create_app(settings))


@contextmanager
def serving(app: ASGIApp, **options: Any) -> Generator[str, None, None]:
    """Serve an app with uvicorn on a free loopback port, in a thread of its own; yields the address."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, http="h11", proxy_headers=False, **options))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        assert not thread.is_alive(), "the server didn't stop"


@pytest.fixture(scope="session")
def upstream_url() -> Iterator[tuple[DemoUpstream, str]]:
    """One demo upstream for the whole session, in a thread of its own."""
    upstream = DemoUpstream()
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(upstream.serve()) as url:
        yield upstream, url


@pytest.fixture
def upstream(upstream_url: tuple[DemoUpstream, str]) -> DemoUpstream:
    """The demo upstream, with nothing scripted and nothing recorded."""
    upstream_url[0].reset()
    return upstream_url[0]


@pytest.fixture(scope="session")
def api_key_environment(upstream_url: tuple[DemoUpstream, str]) -> Mapping[str, str]:
    """The environment of a server that logs in with an API key."""
    return clean_environment(ANTHROPIC_API_KEY="sk-ant-dummy-loopback-only", ANTHROPIC_BASE_URL=upstream_url[1])


@pytest.fixture(scope="session")
def session_server_url(api_key_environment: Mapping[str, str]) -> Iterator[str]:
    """One server for all tests that need no settings of their own."""
    settings = make_settings(api_key_environment, model_aliases={"gpt-4o": "claude-sonnet-4-5"}, spare_processes=2)
    with running(settings) as url:
        yield url


@pytest.fixture
def server(session_server_url: str, upstream: DemoUpstream) -> Iterator[Server]:
    """The session's server, in front of an upstream with nothing scripted and nothing recorded."""
    with ExitStack() as stack:
        yield Server(session_server_url, upstream, stack)
    # Whoever left early may have left a turn behind that is about to ask: not while the next test counts.
    wait_until(lambda: working(session_server_url) == 0)


@pytest.fixture
def client(server: Server) -> openai.OpenAI:
    """A published OpenAI client, pointed at the server."""
    return server.client()


@pytest.fixture
def profile(api_key_environment: Mapping[str, str], upstream: DemoUpstream, tmp_path: Path) -> LaunchProfile:
    """How to start a CLI that sees nothing of this machine."""
    upstream.script(Reply(text="Fine."), times=None)
    environment = {**api_key_environment, "CLAUDE_CONFIG_DIR": str(tmp_path / "config")}
    return LaunchProfile(cli_launch.find_cli(None), tuple(environment.items()), tmp_path, bare=True)


ServerFactory = Callable[..., Server]


@pytest.fixture
def serve(upstream: DemoUpstream, api_key_environment: Mapping[str, str]) -> Iterator[ServerFactory]:
    """Start servers with settings of their own."""
    with ExitStack() as stack:

        def start(environment: Mapping[str, str] = api_key_environment, **options: Any) -> Server:
            return Server(stack.enter_context(running(make_settings(environment, **options))), upstream, stack)

        yield start


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory for Claude Code's own tools to work in."""
    directory = tmp_path / "place"
    directory.mkdir()
    (directory / "harbour.txt").write_text("The ferry leaves at noon.")
    return directory


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One real Redis for the whole session. A test that stops it may leave it so."""
    with running_redis() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The address of the session's Redis, which runs and is empty."""
    if not redis_server.running:
        redis_server.start()
    redis_server.empty()
    return redis_server.url


def make_settings(environment: Mapping[str, str], **options: Any) -> Settings:
    """Settings as `environment` alone would give, plus `options`."""
    named = {name.lower(): value for name, value in environment.items() if name.lower() in Settings.model_fields}
    # Without a trial of Claude Code at each start: test_engine_probe.py has it.
    reuse = {"process_reuse": os.environ.get("PROCESS_REUSE", "on")}
    # Without limits a minute, and retries: tests of something else ask oftener, and want to see each failure. Without
    # spare processes: most servers of tests answer a few requests, and what each starts ahead is time for all.
    usual = {"_env_file": None, "rate_limit_enabled": False, "upstream_retries": 0, "spare_processes": 0, **reuse}
    return load_settings(**{**usual, **named, **options}).within(environment)


Run = Callable[..., Command]


@pytest.fixture
def run() -> Iterator[Run]:
    """Start a command in the repository with an environment from nothing; end it afterwards."""
    with ExitStack() as stack:

        def begin(*command: str, **variables: str) -> Command:
            environment = measured_environment(**{"PYTHONUNBUFFERED": "1", **variables})
            process = subprocess.Popen(
                command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            stack.callback(end, process)
            assert process.stdout is not None
            return Command(process, process.stdout)

        yield begin


@pytest.fixture
def start(run: Run) -> Start:
    """Start `python …` like that."""
    return partial(run, sys.executable)


@pytest.fixture
def lab(upstream: DemoUpstream, upstream_url: tuple[DemoUpstream, str], tmp_path: Path) -> Lab:
    """Where CLI processes are started, with nothing of this machine in reach."""
    return Lab(upstream, upstream_url[1], tmp_path)


REPOSITORY = Path(__file__).parent.parent
