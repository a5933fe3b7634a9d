"""The server as compose runs it: an ordinary user without rights, on a disk that can't be written to."""

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from agent_requests import ask, results, trying
from commands import CHAT, descendants, linux
from conftest import Server
from containers import COMMAND, HEALTHCHECK, SERVICE, TMPFS, Container, environment_outside
from demo_upstream import DemoUpstream, ToolCall
from real_services import Program, free_port

pytestmark = [pytest.mark.real_services, linux]

HOME = "/root"
CREDENTIALS = {"accessToken": "sk-ant-oat01-dummy", "expiresAt": 9999999999999, "scopes": ["user:inference"]}
LOOK_AROUND = """
import os
from pathlib import Path

def is_writable(place):
    try:
        Path(place, "tried").touch()
    except OSError:
        return False
    return True

status = dict(line.split(":\\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(*(status[name].split()[0] for name in ("Uid", "Gid", "CapEff", "CapPrm", "CapBnd", "NoNewPrivs")))
print(*(place for place in ("/", "/app", "/etc", "/usr", "/tmp", "/root", "/root/.claude") if is_writable(place)))
"""


class Running:
    """A server in a container, and its address."""

    def __init__(self, container: Container, **variables: str) -> None:
        """Start it."""
        self._container = container
        self.port = str(free_port())
        command = container.command(COMMAND, PORT=self.port, **variables)
        self.program = Program(command, ready="startup complete", environment=environment_outside())
        self.url = f"http://127.0.0.1:{self.port}"

    def home(self) -> set[str]:
        """What is in its home, seen from its processes."""
        places = [Path(f"/proc/{child.pid}/root{HOME}") for child in descendants(self.program.pid)]
        return {path.name for place in places if place.is_dir() for path in place.iterdir()}

    def is_healthy(self) -> bool:
        """Whether the image's own check says so."""
        command = self._container.command(HEALTHCHECK, PORT=self.port)
        return subprocess.run(command, env=environment_outside(), check=False, timeout=30).returncode == 0


Run = Callable[..., Running]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Start servers in containers; end them."""
    with ExitStack() as stack:

        def start(tmpfs: Mapping[str, str] = TMPFS, **variables: str) -> Running:
            running = Running(Container.prepare(tmp_path, tmpfs), **variables)
            stack.callback(running.program.kill)
            return running

        yield start


@pytest.fixture
def login(tmp_path: Path, upstream: DemoUpstream, upstream_url: tuple[DemoUpstream, str]) -> Mapping[str, str]:
    """The variables of a server with Claude Code's own login, which is a dummy, in the volume."""
    (tmp_path / "login").mkdir()
    (tmp_path / "login" / ".credentials.json").write_text(json.dumps({"claudeAiOauth": CREDENTIALS}))
    no_more = {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_AUTOUPDATER": "1"}
    return {"CLAUDE_AUTH_METHOD": "claude_cli", "ANTHROPIC_BASE_URL": upstream_url[1], **no_more}


def test_a_container_has_no_rights(tmp_path: Path) -> None:
    """No root, no capability, no way to any, and nothing to write to but what compose declares."""
    command = Container.prepare(tmp_path).command(["python", "-c", LOOK_AROUND])
    shown = subprocess.run(
        command, env=environment_outside(), check=True, capture_output=True, text=True, timeout=60
    ).stdout.splitlines()
    none = "0" * 16
    assert shown == [f"1000 1000 {none} {none} {none} 1", " ".join([*TMPFS, "/root/.claude"])]


def test_the_demo_answers_in_it(run: Run) -> None:
    """Without rights the server starts, passes the image's health check, and answers."""
    running = run(DEMO="true")
    running.program.wait_until_ready()
    assert running.is_healthy()
    response = httpx.post(f"{running.url}/v1/chat/completions", json=CHAT, timeout=60)
    assert "demo upstream" in response.json()["choices"][0]["message"]["content"]


def test_the_health_check_fails_where_nobody_listens(tmp_path: Path) -> None:
    """It can."""
    command = Container.prepare(tmp_path).command(HEALTHCHECK, PORT=str(free_port()))
    done = subprocess.run(command, env=environment_outside(), check=False, capture_output=True, timeout=30)
    assert done.returncode == 1


def test_claude_codes_own_login_and_tools_work_in_it(
    run: Run, login: Mapping[str, str], upstream: DemoUpstream
) -> None:
    """With the login in its volume Claude Code keeps its state in its home, and its tools find files in /tmp."""
    running = run(**login)
    running.program.wait_until_ready()
    with ExitStack() as stack:
        server = Server(running.url, upstream, stack)
        trying(server, ToolCall("Grep", {"pattern": "anything"}), ToolCall("Glob", {"pattern": "*"}))
        response = ask(server)
        assert response.status_code == 200, response.text
        told = [results(server, number)[0] for number in (1, 2)]
    assert [text.splitlines()[0] for text in told] == ["No files found", "No files found"]
    assert ".claude.json" in running.home()


def without(place: str) -> dict[str, str]:
    """What compose declares, but for one place."""
    assert place in TMPFS
    return {name: options for name, options in TMPFS.items() if name != place}


def test_without_tmp_there_is_no_server(run: Run) -> None:
    """The server says what it misses, and ends."""
    running = run(without("/tmp"), DEMO="true")  # noqa: S108 - the container's own
    running.program.wait_for("claude-wrapper can't start. No temporary directory can be written to")
    assert "Traceback" not in running.program.output


def test_without_its_home_claude_code_keeps_no_state(run: Run, login: Mapping[str, str]) -> None:
    """It answers all the same, but what it has to note is lost."""
    running = run(without(HOME), **login)
    running.program.wait_until_ready()
    assert httpx.post(f"{running.url}/v1/chat/completions", json=CHAT, timeout=60).status_code == 200
    assert running.home() >= {".claude"}
    assert ".claude.json" not in running.home()


def test_the_users_login_is_all_that_stays() -> None:
    """Compose's volume is the login's, so nothing else outlives a container; the rest is anybody's."""
    assert SERVICE["read_only"] is True
    assert {*TMPFS.values()} == {"mode=1777"}, "RUN_AS may be any user"
    assert [volume.split(":")[1:] for volume in SERVICE["volumes"]] == [[f"{HOME}/.claude"]]
