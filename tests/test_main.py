"""The command line, and the life of the server's processes: nothing may be left behind, however it ends."""

import json
import re
import shutil
import signal
import socket
import threading
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from cli_launch import find_cli
from commands import CHAT, NO_CLAUDE, Start, claude_processes, descendants, gone, linux, shell_script, wait_until
from conftest import REPOSITORY
from demo_upstream import DemoUpstream, Reply


def test_demo_runs_without_an_account_and_says_so(start: Start) -> None:
    """--demo answers through the real CLI with no login at all, and every part of it says that it is a demo."""
    command = start("main.py", "0", "--demo")
    command.read_until("DEMO")
    url = command.url()
    response = httpx.post(f"{url}/v1/chat/completions", json=CHAT, timeout=30)
    assert response.headers["x-claude-backend"] == "demo"
    assert "demo" in response.json()["choices"][0]["message"]["content"].lower()
    assert httpx.get(f"{url}/health").json()["backend"] == "demo"


@pytest.mark.parametrize("debug_mode", ["false", "true"])
def test_debug_mode_logs_more_of_ours_and_nothing_more_of_others(start: Start, debug_mode: str) -> None:
    """With DEBUG_MODE our own modules' debug lines are in the log, whatever LOG_LEVEL is; other packages' are not."""
    command = start("main.py", "0", "--demo", DEBUG_MODE=debug_mode)
    url = command.url()
    assert httpx.post(f"{url}/v1/chat/completions", json={**CHAT, "n": 9}, timeout=30).status_code == 400
    assert httpx.post(f"{url}/v1/chat/completions", json=CHAT, timeout=30).status_code == 200
    command.process.send_signal(signal.SIGTERM)
    log, _ = command.process.communicate(timeout=40)
    names = set(re.findall(r"^\S+ \[debug *\].*\[([\w.]+)\]", log, re.MULTILINE))
    assert names <= {path.stem for path in REPOSITORY.glob("*.py")}
    assert ("request_faults" in names) == bool(names) == (debug_mode == "true")


def test_a_busy_port_moves_to_the_next_free_one(start: Start) -> None:
    """Where the port is taken the server takes the next, and says so before it serves."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = start("main.py", str(port), "--demo", **NO_CLAUDE)
        command.read_until(f"Port {port} is in use")
        url = command.url()
        assert int(url.rsplit(":", 1)[1]) > port
        assert httpx.get(f"{url}/health").status_code == 200


def test_uvicorn_main_app_works(start: Start) -> None:
    """`uvicorn main:app` serves the app that the environment describes."""
    command = start("-m", "uvicorn", "main:app", "--port", "0", DEMO="true", **NO_CLAUDE)
    url = command.read_until(r"http://\S+:\d+")[0]
    assert httpx.get(f"{url}/health").json()["backend"] == "demo"


def test_a_body_behind_an_offer_of_http_2_is_read(start: Start) -> None:
    """As Java's client makes it; what stands in the body is never taken for a request."""
    address = urlsplit(start("main.py", "0", "--demo").url())
    body = json.dumps(CHAT).encode()
    offer = "Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n{offer}Content-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((str(address.hostname), address.port or 80)) as connection:
        connection.sendall(head.encode())
        connection.sendall(body)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.count(b"HTTP/1.1") == 1


def test_health_waits_for_nothing(start: Start, tmp_path: Path) -> None:
    """Health answers with no login, and with no Claude Code process that has ever answered."""
    never = f'case "$*" in *stream-json*) exec tail -f /dev/null; esac\nexec {find_cli(None)} "$@"'
    silent = shell_script(tmp_path / "claude", never)
    url = start("main.py", "0", CLAUDE_CLI_PATH=str(silent)).url()
    assert httpx.get(f"{url}/health").status_code == 200


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"MAX_TIMEOUT": "soon"}, "MAX_TIMEOUT"),
        ({"CLAUDE_AUTH_METHOD": "magic"}, "CLAUDE_AUTH_METHOD"),
        ({"MODEL_ALIASES": "gpt-4o"}, "MODEL_ALIASES"),
    ],
)
def test_nonsense_in_the_environment_is_refused_by_name(start: Start, variables: dict[str, str], said: str) -> None:
    """A setting that makes no sense ends the start with its name, and without a traceback."""
    command = start("main.py", "0", **variables)
    output, _ = command.process.communicate(timeout=30)
    assert command.process.returncode == 2
    assert said in output
    assert "Traceback" not in output


def test_a_wrong_file_of_keys_ends_the_start_in_words(start: Start, tmp_path: Path) -> None:
    """File, key and field are named, with neither the secret nor a traceback, however the server is started."""
    path = tmp_path / "keys.toml"
    path.write_text('[keys.anna]\nhash = "a-secret"\n', encoding="utf-8")
    for arguments in (["main.py", "0"], ["-m", "uvicorn", "main:app", "--port", "0"]):
        command = start(*arguments, API_KEYS_FILE=str(path))
        output, _ = command.process.communicate(timeout=30)
        assert command.process.returncode
        assert f"API_KEYS_FILE {path} can't be used: keys.anna.hash: " in output
        assert "Traceback" not in output
        assert "a-secret" not in output


@pytest.mark.parametrize(
    ("trusted", "forwarded", "client"),
    [
        ("", "203.0.113.9", "127.0.0.1"),
        ("10.0.0.0/8", "203.0.113.9", "127.0.0.1"),
        ("127.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("127.0.0.0/8,10.0.0.0/8", "198.51.100.1, 203.0.113.9, 10.1.2.3", "203.0.113.9"),
    ],
)
def test_a_clients_address_comes_from_trusted_proxies_only(
    start: Start, trusted: str, forwarded: str, client: str
) -> None:
    """X-Forwarded-For means nothing unless a trusted proxy sends it; then its rightmost untrusted address counts."""
    command = start("main.py", "0", **NO_CLAUDE, TRUSTED_PROXIES=trusted, LOG_FORMAT="json")
    httpx.get(f"{command.url()}/health", headers={"X-Forwarded-For": forwarded})
    assert command.next_request()["client"] == client


def test_a_spoofed_address_is_no_clients_under_uvicorn_either(start: Start) -> None:
    """With `--no-proxy-headers`, as the README has it, `uvicorn main:app` believes nobody by itself."""
    uvicorn = ("-m", "uvicorn", "main:app", "--no-proxy-headers", "--port", "0")
    command = start(*uvicorn, **NO_CLAUDE, LOG_FORMAT="json")
    url = command.read_until(r"http://[^\s\"]+:\d+")[0]
    httpx.get(f"{url}/health", headers={"X-Forwarded-For": "203.0.113.9"})
    assert command.next_request()["client"] == "127.0.0.1"


def old_cli(directory: Path) -> Path:
    """An executable that says it is an old Claude Code."""
    return shell_script(directory / "claude", "echo '1.0.3 (Claude Code)'")


def test_a_missing_cli_is_a_clear_error_at_start(start: Start) -> None:
    """A CLAUDE_CLI_PATH that leads nowhere is named at the start, with the way out."""
    command = start("main.py", "0", CLAUDE_CLI_PATH="/nowhere/claude")
    output, _ = command.process.communicate(timeout=30)
    assert command.process.returncode == 2
    assert "/nowhere/claude" in output
    assert "bundled" in output


def test_an_old_cli_is_a_clear_error_at_start(start: Start, tmp_path: Path) -> None:
    """A CLI that can't keep prompts verbatim is refused at the start, with the version that is needed."""
    command = start("main.py", "0", CLAUDE_CLI_PATH=str(old_cli(tmp_path)))
    output, _ = command.process.communicate(timeout=30)
    assert command.process.returncode == 2
    assert "1.0.3" in output
    assert "too old" in output


def test_another_cli_can_replace_the_bundled_one(start: Start, tmp_path: Path) -> None:
    """CLAUDE_CLI_PATH runs the CLI that it names, here a link to the bundled one."""
    link = tmp_path / "my-claude"
    link.symlink_to(find_cli(None))
    url = start("main.py", "0", "--demo", CLAUDE_CLI_PATH=str(link)).url()
    assert httpx.post(f"{url}/v1/chat/completions", json=CHAT, timeout=30).status_code == 200


@contextmanager
def hanging_request(url: str, upstream: DemoUpstream) -> Generator[None, None, None]:
    """A request that waits for an upstream that never answers."""
    upstream.script(Reply(hang=True))
    with httpx.Client(timeout=60) as client, ExitStack() as stack:

        def ask() -> None:
            with pytest.raises(httpx.HTTPError):
                client.post(f"{url}/v1/chat/completions", json=CHAT).raise_for_status()

        thread = threading.Thread(target=ask)
        thread.start()
        stack.callback(thread.join)
        upstream.wait_for(lambda it: bool(it.messages_requests()))
        yield


@linux
def test_sigterm_leaves_no_process_behind(start: Start) -> None:
    """After SIGTERM the server ends, and so have its Claude Code processes, busy or spare."""
    command = start("main.py", "0", "--demo")
    url = command.url()
    assert httpx.post(f"{url}/v1/chat/completions", json=CHAT, timeout=30).status_code == 200
    wait_until(lambda: len(claude_processes(command.process.pid)) >= 2)
    processes = claude_processes(command.process.pid)
    command.process.send_signal(signal.SIGTERM)
    command.process.communicate(timeout=40)
    assert gone(processes)


@linux
@pytest.mark.skipif(
    not shutil.which("setpriv"), reason="util-linux isn't installed: nothing can end the processes then"
)
def test_sigkill_leaves_no_process_behind(
    start: Start, upstream: DemoUpstream, api_key_environment: Mapping[str, str]
) -> None:
    """A server that is killed takes its Claude Code processes along, also one that waits for its upstream."""
    login = {name: value for name, value in api_key_environment.items() if name.startswith("ANTHROPIC_")}
    command = start("main.py", "0", **login)
    url = command.url()
    with hanging_request(url, upstream):
        wait_until(lambda: len(claude_processes(command.process.pid)) >= 3)
        processes = claude_processes(command.process.pid)
        command.process.kill()
    wait_until(lambda: gone(processes))


@linux
def test_each_turn_leaves_no_process_behind(start: Start) -> None:
    """Without reuse a process serves one turn and is reaped; what is left are the spares."""
    command = start("main.py", "0", "--demo", SPARE_PROCESSES="1", PROCESS_REUSE="off")
    url = command.url()
    for _ in range(3):
        assert httpx.post(f"{url}/v1/chat/completions", json=CHAT, timeout=30).status_code == 200
    wait_until(lambda: len(claude_processes(command.process.pid)) == 1 and _no_zombies(command.process.pid))


def _no_zombies(pid: int) -> bool:
    return not any(child.is_running() and _state(child) == psutil.STATUS_ZOMBIE for child in descendants(pid))


def _state(process: psutil.Process) -> str | None:
    with suppress(psutil.NoSuchProcess):
        return process.status()
    return None
