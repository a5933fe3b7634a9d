"""What the command line asks, warns of and makes: keys, on a terminal and without one."""

import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import httpx
import pytest

from auth import hash_key
from callers import KeyLimits
from commands import NO_CLAUDE, Start, end
from conftest import REPOSITORY, measured_environment
from keys_file import parse_keys
from main import main


class Terminal:
    """A server that was started on a terminal of its own, and whoever sits there."""

    def __init__(self, stack: ExitStack, *arguments: str, controlling: bool = True, **variables: str) -> None:
        self._descriptor, theirs = pty.openpty()
        stack.callback(os.close, self._descriptor)
        # Jobs that a shell has in the background, as these tests may be, ignore Ctrl-C, and so would what they start.
        on_terminal = ["env", "--default-signal=INT", "setsid", *(["--ctty"] if controlling else [])]
        command = [*on_terminal, sys.executable, "main.py", *arguments]
        environment = measured_environment(PYTHONUNBUFFERED="1", **NO_CLAUDE, **variables)
        self.process = subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        stack.callback(end, self.process)
        self.screen = ""

    def read_until(self, pattern: str) -> re.Match[str]:
        """Read the screen until something on it matches."""
        while not (match := re.search(pattern, self.screen)):
            read = self._read()
            assert read, self.screen
            self.screen += read
        return match

    def read_to_theend(self) -> str:
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
    screen = server.read_to_theend()
    assert "uvicorn.error" in screen, "the log is on the screen, too"
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
    screen = server.read_to_theend()
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
    command = start("main.py", "0", **NO_CLAUDE)
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
    command = start("main.py", "0", "--host", host, **NO_CLAUDE, **variables)
    command.url()
    output = "".join(command.lines)
    assert ("WARNING: no API key protects this server" in output) == warned
    assert ("[warning  ] This server listens on" in output) == warned


def new_key(output: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str]:
    """Run `keys new`; return the key and the entry."""
    assert main(["keys", "new", *arguments]) == 0
    told = output.readouterr().out
    (key,) = re.findall(r"^[A-Za-z0-9_-]{43}$", told, re.MULTILINE)
    assert told.count(key) == 1
    assert f"\nsha256:{hash_key(key)}\n" in told
    return key, told[told.index("[keys.") :]


def test_keys_new_prints_a_key_and_its_entry(capsys: pytest.CaptureFixture[str]) -> None:
    """The entry is for that key, limits nothing as it stands, and is right with every # taken off."""
    key, entry = new_key(capsys, "anna")
    (caller,) = parse_keys(entry.encode())
    assert (caller.owner, caller.name, caller.limits) == (hash_key(key), "anna", KeyLimits())
    (caller,) = parse_keys(entry.replace("# ", "").encode())
    assert None not in vars(caller.limits).values()
    assert caller.limits.tools


def test_keys_without_names_differ(capsys: pytest.CaptureFixture[str]) -> None:
    """Each has a name from its hash, so that entries can be pasted one below the other."""
    (first, one), (second, two) = new_key(capsys), new_key(capsys)
    assert first != second
    assert [caller.name for caller in parse_keys(f"{one}\n{two}".encode())] == [
        f"key-{hash_key(key)[:8]}" for key in (first, second)
    ]


@pytest.mark.parametrize("name", ["Anna B", ""])
def test_a_wrong_name_is_refused_in_words(capsys: pytest.CaptureFixture[str], name: str) -> None:
    """No key is made, and it is said what would do."""
    assert main(["keys", "new", name]) == 2
    told = capsys.readouterr()
    assert (told.out, "1 to 64 letters" in told.err) == ("", True)


@pytest.mark.parametrize("arguments", [["new", "a", "b"], ["old"], []])
def test_a_wrong_keys_command_is_refused_in_words(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    """It makes no key and says how it is used."""
    with pytest.raises(SystemExit) as caught:
        main(["keys", *arguments])
    told = capsys.readouterr()
    assert (caught.value.code, told.out, "usage: main.py keys" in told.err) == (2, "", True)


def test_the_keys_command_is_main_pys(start: Start) -> None:
    """As the README has it."""
    command = start("main.py", "keys", "new", "anna")
    told, _ = command.process.communicate(timeout=30)
    assert (command.process.returncode, "[keys.anna]" in told) == (0, True)
