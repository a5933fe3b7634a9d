"""The command line, and the life of the server's processes: nothing may be left behind, however it ends."""

import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

import httpx
import pytest

from auth import hash_key
from callers import KeyLimits
from cli_launch import find_cli
from conftest import REPOSITORY, clean_environment
from demo_upstream import DemoUpstream, Reply
from keys_file import parse_keys

CHAT = {"model": "claude-sonnet-4-5", "messages": [{"role": "user", "content": "Hello"}]}


class Command:
    """A server that was started as a user starts it."""

    def __init__(self, process: subprocess.Popen[str], output: IO[str]) -> None:
        self.process = process
        self._output = output
        self.lines: list[str] = []

    def read_until(self, pattern: str) -> re.Match[str]:
        """Read the output until a line matches."""
        for line in self._output:
            self.lines.append(line)
            if match := re.search(pattern, line):
                return match
        raise AssertionError("".join(self.lines))

    def url(self) -> str:
        """Wait for the server's address."""
        address = self.read_until(r"http://\S+:\d+")[0]
        self.read_until("startup complete")
        return address


Start = Callable[..., Command]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start `python …` in the repository with an environment from nothing; end it afterwards."""
    with ExitStack() as stack:

        def run(*arguments: str, **variables: str) -> Command:
            environment = clean_environment(PYTHONUNBUFFERED="1", **variables)
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=REPOSITORY,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            stack.callback(_end, process)
            assert process.stdout is not None
            return Command(process, process.stdout)

        yield run


def _end(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def descendants(pid: int) -> set[int]:
    """The processes below `pid`, from the kernel."""
    found: set[int] = set()
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, children.read_text().split()):
            found |= {child} | descendants(child)
    return found


def claude_processes(pid: int) -> set[int]:
    """The Claude Code processes of the server `pid`."""
    return {child for child in descendants(pid) if b"stream-json" in Path(f"/proc/{child}/cmdline").read_bytes()}


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Ask the kernel again and again: it has no event for the end of somebody else's child."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def gone(pids: set[int]) -> bool:
    """Whether none of the processes is left, not even as a zombie."""
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


linux = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc, and only Linux has a parent-death signal")


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
    names = set(re.findall(r"^\S+ \S+ DEBUG ([\w.]+):", log, re.MULTILINE))
    assert names <= {path.stem for path in REPOSITORY.glob("*.py")}
    assert ("request_faults" in names) == bool(names) == (debug_mode == "true")


def test_a_busy_port_moves_to_the_next_free_one(start: Start) -> None:
    """Where the port is taken the server takes the next, and says so before it serves."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = start("main.py", str(port), "--demo")
        command.read_until(f"Port {port} is in use")
        url = command.url()
        assert int(url.rsplit(":", 1)[1]) > port
        assert httpx.get(f"{url}/health").status_code == 200


def test_uvicorn_main_app_works(start: Start) -> None:
    """`uvicorn main:app` serves the app that the environment describes."""
    command = start("-m", "uvicorn", "main:app", "--port", "0", DEMO="true")
    url = command.read_until(r"http://\S+:\d+")[0]
    assert httpx.get(f"{url}/health").json()["backend"] == "demo"


def test_health_waits_for_nothing(start: Start) -> None:
    """Health answers soon after the start, with no login and before any Claude Code process has answered."""
    began = time.monotonic()
    url = start("main.py", "0").url()
    assert httpx.get(f"{url}/health").status_code == 200
    assert time.monotonic() - began < 10, "two seconds on a quiet machine; this one may be busy"


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
    """X-Forwarded-For means nothing unless a trusted proxy sends it; then its rightmost untrusted address counts.

    The access log tells: uvicorn takes the address from where the app does.
    """
    command = start("main.py", "0", PROCESS_REUSE="on", TRUSTED_PROXIES=trusted)
    httpx.get(f"{command.url()}/health", headers={"X-Forwarded-For": forwarded})
    assert command.read_until(r"(\S+):\d+ - \"GET /health")[1] == client


def test_the_stand_in_keeps_out_of_the_access_log(start: Start) -> None:
    """A server with the stand-in inside it, as in the demo or in the trial, logs its own requests alone."""
    command = start("main.py", "0", "--demo")
    url, body = command.url(), {"model": "sonnet", "messages": [{"role": "user", "content": "Hello"}]}
    assert httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).status_code == 200
    httpx.get(f"{url}/health")
    command.read_until('"GET /health')
    assert "POST /v1/chat/completions" in "".join(command.lines)
    assert "POST /v1/messages" not in "".join(command.lines)


def test_a_spoofed_address_is_no_clients_under_uvicorn_either(start: Start) -> None:
    """With `--no-proxy-headers`, as the README has it, `uvicorn main:app` believes nobody by itself."""
    command = start("-m", "uvicorn", "main:app", "--no-proxy-headers", "--port", "0", PROCESS_REUSE="on")
    url = command.read_until(r"http://\S+:\d+")[0]
    httpx.get(f"{url}/health", headers={"X-Forwarded-For": "203.0.113.9"})
    assert command.read_until(r"(\S+):\d+ - \"GET /health")[1] == "127.0.0.1"


def old_cli(directory: Path) -> Path:
    """An executable that says it is an old Claude Code."""
    path = directory / "claude"
    path.write_text("#!/bin/sh\necho '1.0.3 (Claude Code)'\n")
    path.chmod(0o755)
    return path


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
    pids = claude_processes(command.process.pid)
    command.process.send_signal(signal.SIGTERM)
    command.process.communicate(timeout=40)
    assert gone(pids)


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
        pids = claude_processes(command.process.pid)
        command.process.kill()
    wait_until(lambda: gone(pids))


@linux
def test_each_turn_leaves_no_process_behind(start: Start) -> None:
    """Without reuse a process serves one turn and is reaped; what is left are the spares."""
    command = start("main.py", "0", "--demo", SPARE_PROCESSES="1", PROCESS_REUSE="off")
    url = command.url()
    for _ in range(3):
        assert httpx.post(f"{url}/v1/chat/completions", json=CHAT, timeout=30).status_code == 200
    wait_until(lambda: len(claude_processes(command.process.pid)) == 1 and _no_zombies(command.process.pid))


def _no_zombies(pid: int) -> bool:
    states = (Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[0] for child in descendants(pid))
    return "Z" not in states


class Terminal:
    """A server that was started on a terminal of its own, and whoever sits there."""

    def __init__(self, stack: ExitStack, *arguments: str, controlling: bool = True, **variables: str) -> None:
        self._descriptor, theirs = pty.openpty()
        stack.callback(os.close, self._descriptor)
        command = ["setsid", *(["--ctty"] if controlling else []), sys.executable, "main.py", *arguments]
        environment = clean_environment(PYTHONUNBUFFERED="1", SPARE_PROCESSES="0", **variables)
        self.process = subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        stack.callback(_end, self.process)
        self.screen = ""

    def read_until(self, pattern: str) -> re.Match[str]:
        """Read the screen until something on it matches."""
        while not (match := re.search(pattern, self.screen)):
            read = self._read()
            assert read, self.screen
            self.screen += read
        return match

    def read_to_the_end(self) -> str:
        """Wait for the end of the process; return all that stood on the screen."""
        while read := self._read():
            self.screen += read
        self.process.wait(timeout=30)
        return self.screen

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._descriptor, text.encode())

    def status(self, path: str, key: str | None = None) -> int:
        """Ask the server that listens."""
        url = self.read_until(r"listens on (http://\S+:\d+)")[1]
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.get(f"{url}{path}", headers=headers, timeout=30).status_code

    def _read(self) -> str:
        try:
            return os.read(self._descriptor, 65536).decode().replace("\r\n", "\n")
        except OSError:  # Linux's way to say that nobody is left at the other end
            return ""


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    """Start `python main.py …` on a terminal; end it afterwards."""
    with ExitStack() as stack:
        yield lambda *arguments, **options: Terminal(stack, *arguments, **options)


QUESTION = r"Enable API key protection\? \(y/N\) "
needs_setsid = pytest.mark.skipif(not shutil.which("setsid"), reason="util-linux isn't installed: no way to a terminal")


@needs_setsid
def test_a_key_that_is_made_at_the_question_is_enforced(terminal: Callable[..., Terminal]) -> None:
    """Yes makes a key that opens, and no other does; the curl line works as pasted, and the log never has the key."""
    server = terminal("0", LOG_LEVEL="DEBUG")
    server.read_until(QUESTION)
    server.type("maybe\n")
    server.read_until(f"{QUESTION}(?s:.*){QUESTION}")
    server.type("y\n")
    command = server.read_until(r"curl http.*\n")[0]
    key = server.read_until(r"\n    ([A-Za-z0-9_-]{43})\n")[1]
    assert (server.status("/version", key), server.status("/version")) == (200, 401)
    assert server.status("/version", key[:-1]) == 401
    assert server.status("/health") == 200
    answer = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True, timeout=60)
    assert "You didn't provide" not in answer.stdout
    assert "Incorrect API key" not in answer.stdout
    server.process.send_signal(signal.SIGTERM)
    screen = server.read_to_the_end()
    assert "DEBUG" in screen
    assert screen.count(key) == 2, "once by itself and once in the curl line"


@needs_setsid
@pytest.mark.parametrize("answer", ["\n", "n\n", "No\n", "\x04"], ids=["enter", "n", "No", "end of input"])
def test_no_key_is_made_unless_it_is_wanted(terminal: Callable[..., Terminal], answer: str) -> None:
    """Without a yes, be it that the input ends, the server starts as it is: open to this machine."""
    server = terminal("0")
    server.read_until(QUESTION)
    server.type(answer)
    assert server.status("/version") == 200
    assert "Bearer" not in server.screen
    assert "WARNING" not in server.screen


@needs_setsid
def test_ctrl_c_at_the_question_starts_nothing(terminal: Callable[..., Terminal]) -> None:
    """The command ends with the status that shells know, and without a traceback."""
    server = terminal("0")
    server.read_until(QUESTION)
    while server.process.poll() is None:
        # Python misses a signal between its look for one and its read; whoever sits there presses again.
        server.type("\x03")
        with suppress(subprocess.TimeoutExpired):
            server.process.wait(timeout=2)
    screen = server.read_to_the_end()
    assert server.process.returncode == 130
    assert "Traceback" not in screen
    assert "listens" not in screen


@needs_setsid
@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["--demo"], {}),
        ([], {"API_KEY": "sesame"}),
        ([], {"API_KEYS": "sesame,open"}),
        ([], {"API_KEYS_FILE": os.devnull}),
        ([], {"controlling": False}),
    ],
)
def test_nobody_is_asked_in_vain(
    terminal: Callable[..., Terminal], arguments: list[str], options: dict[str, str]
) -> None:
    """No question in the demo, with keys, or where the terminal isn't ours to read from."""
    server = terminal("0", *arguments, **options)
    assert server.status("/health") == 200
    assert not re.search(QUESTION, server.screen)


def test_without_a_terminal_nobody_is_asked(start: Start) -> None:
    """A server whose output goes elsewhere starts at once."""
    command = start("main.py", "0")
    command.url()
    assert not any(re.search(QUESTION, line) for line in command.lines)


@pytest.mark.parametrize(
    ("host", "variables", "warned"),
    [
        ("0.0.0.0", {}, True),  # noqa: S104 - what is to be warned of
        ("::", {}, True),
        ("0.0.0.0", {"API_KEY": "sesame"}, False),  # noqa: S104
        ("0.0.0.0", {"API_KEYS_FILE": os.devnull}, False),  # noqa: S104
        ("127.0.0.1", {}, False),
        ("127.1.2.3", {}, False),
        ("::1", {}, False),
        ("localhost", {}, False),
    ],
)
def test_an_open_server_is_warned_of(start: Start, host: str, variables: dict[str, str], warned: bool) -> None:
    """Without a key and beyond loopback a banner and the log say so; otherwise nothing does."""
    command = start("main.py", "0", "--host", host, **variables)
    command.url()
    output = "".join(command.lines)
    assert ("WARNING: no API key protects this server" in output) == warned
    assert ("WARNING composition: This server listens on" in output) == warned


def new_key(start: Start, *arguments: str) -> tuple[str, str]:
    """Run `keys new`; return the key and the entry."""
    command = start("main.py", "keys", "new", *arguments)
    output, _ = command.process.communicate(timeout=30)
    assert command.process.returncode == 0, output
    (key,) = re.findall(r"^[A-Za-z0-9_-]{43}$", output, re.MULTILINE)
    assert output.count(key) == 1
    assert f"\nsha256:{hash_key(key)}\n" in output
    return key, output[output.index("[keys.") :]


def test_keys_new_prints_a_key_and_its_entry(start: Start) -> None:
    """The entry is for that key, limits nothing as it stands, and is right with every # taken off."""
    key, entry = new_key(start, "anna")
    (caller,) = parse_keys(entry.encode())
    assert (caller.owner, caller.name, caller.limits) == (hash_key(key), "anna", KeyLimits())
    (caller,) = parse_keys(entry.replace("# ", "").encode())
    assert None not in vars(caller.limits).values()
    assert caller.limits.tools


def test_keys_without_names_differ(start: Start) -> None:
    """Each has a name from its hash, so that entries can be pasted one below the other."""
    (first, one), (second, two) = new_key(start), new_key(start)
    assert first != second
    assert [caller.name for caller in parse_keys(f"{one}\n{two}".encode())] == [
        f"key-{hash_key(key)[:8]}" for key in (first, second)
    ]


@pytest.mark.parametrize("arguments", [["new", "Anna B"], ["new", ""], ["new", "a", "b"], ["old"], []])
def test_a_wrong_keys_command_is_refused_in_words(start: Start, arguments: list[str]) -> None:
    """A bad name or another command makes no key and says what would do."""
    command = start("main.py", "keys", *arguments)
    output, _ = command.process.communicate(timeout=30)
    assert command.process.returncode == 2
    assert "1 to 64 letters" in output or "usage: main.py keys" in output
    assert "Traceback" not in output
    assert "sha256" not in output
