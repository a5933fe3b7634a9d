"""A machine that lacks something: a clear message, and service again once it is there."""

import resource
import signal
import socket
import sys
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from cli_launch import find_cli
from commands import CHAT, Command, Start, command_of, descendants, linux
from confinement import DEMO, confined
from conftest import Run

pytestmark = [linux, pytest.mark.real_services]
TEMPORARY = "/tmp"  # noqa: S108 - the place's own


def ask(url: str) -> httpx.Response:
    """Have a completion made."""
    return httpx.post(f"{url}/v1/chat/completions", json=CHAT, timeout=60)


def stopped(command: Command) -> str:
    """Stop a server; return all that it has written."""
    command.process.send_signal(signal.SIGTERM)
    rest, _ = command.process.communicate(timeout=40)
    return "".join(command.lines) + rest


def test_a_full_disk_ends_nothing(run: Run) -> None:
    """With no room for temporary files there is an answer, or an error in the envelope; later all is as before."""
    place = confined(sys.executable, *DEMO, tmpfs=[TEMPORARY], sizes={TEMPORARY: 4 * 2**20})
    command = run(*place, HOME=TEMPORARY, SPARE_PROCESSES="0", PROCESS_REUSE="off")
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


def test_a_full_disk_is_no_start(run: Run) -> None:
    """The message says that nothing can be written."""
    fill = f"head -c 100000000 /dev/zero > {TEMPORARY}/filler; exec {sys.executable} {' '.join(DEMO)}"
    command = run(*confined("sh", "-c", fill, tmpfs=[TEMPORARY], sizes={TEMPORARY: 2**20}))
    output, _ = command.process.communicate(timeout=30)
    assert "No temporary directory can be written to" in output
    assert "Traceback" not in output


def test_nowhere_to_write_is_no_start(run: Run) -> None:
    """The message says what is missing, without a traceback, however the server is started."""
    for arguments in (DEMO, ("-m", "uvicorn", "main:app", "--port", "0")):
        command = run(*confined(sys.executable, *arguments, tmpfs=[]), DEMO="true")
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
    assert ask(url).status_code == 200
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 64, "the limit was the server's own"
    assert "Too many open files" in stopped(command)


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
