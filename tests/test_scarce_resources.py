"""A machine that lacks something: a clear message, and service again once it is there."""

import resource
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from cli_launch import find_cli
from commands import CHAT, Command, Start, command_of, descendants, linux, wait_until, working
from conftest import Run
from containers import TMPFS, Container
from demo_upstream import DemoUpstream, Gate, Reply

pytestmark = [linux, pytest.mark.real_services]
DEMO = ("main.py", "0", "--demo")
TEMPORARY = "/tmp"  # noqa: S108 - the place's own


def ask(url: str) -> httpx.Response:
    """Have a completion made."""
    return httpx.post(f"{url}/v1/chat/completions", json=CHAT, timeout=60)


def lets_in(url: str) -> bool:
    """Whether a server takes connections: without descriptors it closes them, until it sees that others have left."""
    with suppress(httpx.TransportError):
        return httpx.get(f"{url}/health").status_code == 200
    return False


def stopped(command: Command) -> str:
    """Stop a server; return all that it has written."""
    command.process.send_signal(signal.SIGTERM)
    rest, _ = command.process.communicate(timeout=40)
    return "".join(command.lines) + rest


def test_a_full_disk_ends_nothing(run: Run, tmp_path: Path) -> None:
    """With no room for temporary files there is an answer, or an error in the envelope; later all is as before."""
    container = Container.prepare(tmp_path, {**TMPFS, TEMPORARY: "size=4m"})
    command = run(*container.command(["python", *DEMO], SPARE_PROCESSES="0", PROCESS_REUSE="off"))
    url = command.url()
    (server,) = [child for child in descendants(command.process.pid) if command_of(child)[1:] == [*DEMO]]
    filler = Path(f"/proc/{server.pid}/root{TEMPORARY}/filler")
    with pytest.raises(OSError, match="No space left"), filler.open("wb") as file:
        file.write(bytes(8 * 2**20))
    for _ in range(2):
        answer = ask(url)
        assert answer.status_code == 200 or answer.json()["error"]["code"] == "claude_code_error"
        assert "Traceback" not in answer.text
    filler.unlink()
    assert ask(url).status_code == 200


def test_a_full_disk_is_no_start(run: Run, tmp_path: Path) -> None:
    """The message says that nothing can be written."""
    container = Container.prepare(tmp_path, {**TMPFS, TEMPORARY: "size=1m"})
    fill = f"head -c 2000000 /dev/zero > {TEMPORARY}/filler; exec python {' '.join(DEMO)}"
    command = run(*container.command(["sh", "-c", fill]))
    output, _ = command.process.communicate(timeout=30)
    assert "No temporary directory can be written to" in output
    assert "Traceback" not in output


def test_nowhere_to_write_is_no_start(run: Run, tmp_path: Path) -> None:
    """The message says what is missing, without a traceback, however the server is started."""
    container = Container.prepare(tmp_path, {})
    for arguments in (DEMO, ("-m", "uvicorn", "main:app", "--port", "0")):
        command = run(*container.command(["python", *arguments], DEMO="true"))
        output, _ = command.process.communicate(timeout=30)
        assert command.process.returncode
        assert "No temporary directory" in output
        assert "Traceback" not in output


def test_without_file_descriptors_there_is_an_error(run: Run) -> None:
    """Whoever got in is told that it can't be done now; when others have left it can."""
    limited = f"ulimit -n 64; exec {sys.executable} {' '.join(DEMO)}"
    command = run("sh", "-c", limited, SPARE_PROCESSES="0", PROCESS_REUSE="off")
    url = command.url()
    address = urlsplit(url)
    with httpx.Client(timeout=60) as client, ExitStack() as crowd:
        assert client.get(f"{url}/health").status_code == 200
        for _ in range(64):
            crowd.enter_context(socket.create_connection((str(address.hostname), address.port or 80)))
        answer = client.post(f"{url}/v1/chat/completions", json=CHAT)
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "claude_code_error")
        assert "can't be started on this server" in answer.json()["error"]["message"]
    wait_until(lambda: lets_in(url))
    assert ask(url).status_code == 200
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 64, "the limit was the server's own"
    assert "Claude Code can't be started" in stopped(command)


def test_turns_that_end_without_file_descriptors_give_their_places_back(
    start: Start, upstream: DemoUpstream, api_key_environment: Mapping[str, str]
) -> None:
    """Whether the answer ends then, or its client leaves: afterwards all is as before."""
    login = {name: value for name, value in api_key_environment.items() if name.startswith("ANTHROPIC_")}
    command = start("main.py", "0", MAX_PROCESSES="1", SPARE_PROCESSES="0", **login)
    url, server = command.url(), psutil.Process(command.process.pid)
    limits = server.rlimit(psutil.RLIMIT_NOFILE)
    for leaves in (False, True):
        gate = Gate(after=1)
        upstream.script(Reply(text=["One ", "two."], gate=gate))
        body = {**CHAT, "stream": True}
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=30) as response:
            gate.reached()
            server.rlimit(psutil.RLIMIT_NOFILE, (3, limits[1]))
            if not leaves:
                gate.open()
                response.read()
        if leaves:
            upstream.wait_for(lambda upstream: upstream.messages_requests()[-1].disconnected)
        server.rlimit(psutil.RLIMIT_NOFILE, limits)
        assert ask(url).status_code == 200
        wait_until(lambda: working(url) == 0)


def test_a_cli_that_vanishes_is_an_error_until_it_is_back(start: Start, tmp_path: Path) -> None:
    """As while it is updated: the log names it, the client is told, and the next request finds it."""
    link = tmp_path / "claude"
    link.symlink_to(find_cli(None))
    command = start(*DEMO, CLAUDE_CLI_PATH=str(link), SPARE_PROCESSES="0", PROCESS_REUSE="off")
    url = command.url()
    assert ask(url).status_code == 200
    link.unlink()
    answer = ask(url)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "claude_code_error")
    assert str(link) not in answer.text
    link.symlink_to(find_cli(None))
    assert ask(url).status_code == 200
    assert str(link) in stopped(command)
