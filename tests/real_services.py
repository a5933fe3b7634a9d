"""Real programs beside the server: a redis-server and an nginx, on free loopback ports, with directories of their own.

They are Debian's, and installed where they are missing. Whoever starts one ends it, and nothing else.
"""

import fcntl
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import redis

PROGRAMS: Mapping[str, str] = {
    "redis-server": "redis-server",
    "nginx": "nginx",
    "bwrap": "bubblewrap",
    "openssl": "openssl",
    "socat": "socat",
}
"""The programs, and Debian's packages that have them."""

_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])  # Not everybody's PATH has these.
_READY_SECONDS = 30
_END_SECONDS = 15

# The way to the packages, from before the tests build their environment from nothing.
_PROXIES = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
_INSTALL = "apt-get update && apt-get install -y --no-install-recommends {packages}"
_LOCK = Path(tempfile.gettempdir(), "claude-wrapper-tests-install.lock")
_POLICY = Path("/usr/sbin/policy-rc.d")
_START_NOTHING = "#!/bin/sh\nexit 101\n"


class MissingProgramError(Exception):
    """A program isn't there and can't be installed; the message says how to."""


def find_program(name: str) -> str:
    """Return a program's path. Raises MissingProgramError."""
    if path := shutil.which(name, path=_PATH):
        return path
    raise MissingProgramError(f"{name} isn't installed. As root: {_INSTALL.format(packages=PROGRAMS[name])}")


def install(names: Iterable[str]) -> None:
    """Install those of the programs that are missing. Raises MissingProgramError where that is impossible."""
    with _LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        missing = [name for name in names if not shutil.which(name, path=_PATH)]
        if missing:
            _install(" ".join(sorted({PROGRAMS[name] for name in missing})))


def _install(packages: str) -> None:
    command = _INSTALL.format(packages=packages)
    if os.geteuid() != 0 or not shutil.which("apt-get", path=_PATH):
        raise MissingProgramError(f"These tests need {packages}. On Debian, as root: {command}")
    environment = {**_PROXIES, "PATH": _PATH, "DEBIAN_FRONTEND": "noninteractive"}
    with _no_services():
        done = subprocess.run(
            ["sh", "-c", command],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise MissingProgramError(f"`{command}` failed:\n{done.stdout}{done.stderr}")


@contextmanager
def _no_services() -> Generator[None, None, None]:
    """Have Debian's packages start no daemon when they are installed, by Debian's own means for that."""
    if _POLICY.exists():  # The machine's owner has decided.
        yield
        return
    _POLICY.write_text(_START_NOTHING)
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()


class Program:
    """A program that runs until it is ended; its output is read all the time, so that it never waits for a reader."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        ready: str,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
    ) -> None:
        """Start it. `ready` is found in its output once it serves."""
        self._process = subprocess.Popen(
            command,
            env=environment if environment is not None else {"PATH": _PATH},
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines: list[str] = []
        self._read = threading.Condition()
        self._ready = ready
        self._ended = False
        self._reader = threading.Thread(target=self._read_output, daemon=True)
        self._reader.start()

    def _read_output(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._read:
                self._lines.append(line)
                self._read.notify_all()
        with self._read:
            self._ended = True
            self._read.notify_all()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it hasn't ended."""
        return self._process.poll() is None

    @property
    def output(self) -> str:
        """What it has written up to now."""
        with self._read:
            return "".join(self._lines)

    def _find(self, pattern: str) -> re.Match[str] | None:
        return re.search(pattern, "".join(self._lines))

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until the pattern is in the output."""
        with self._read:
            self._read.wait_for(lambda: self._ended or self._find(pattern), _READY_SECONDS)
            found = self._find(pattern)
            assert found, f"{self._process.args!r} never said {pattern!r}:\n{''.join(self._lines)}"
            return found

    def wait_until_ready(self) -> None:
        """Wait until it serves; end it if it doesn't."""
        with ExitStack() as undo:
            undo.callback(self.kill)
            self.wait_for(self._ready)
            undo.pop_all()

    def stop(self) -> None:
        """Ask it to end (SIGTERM), and wait until it has."""
        self._process.terminate()
        try:
            self._process.wait(_END_SECONDS)
        finally:
            self.kill()

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        self._process.kill()
        self._process.wait()
        self._reader.join(_END_SECONDS)
        assert self._process.stdout is not None
        self._process.stdout.close()


def free_port() -> int:
    """A loopback port that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class RedisServer:
    """A redis-server that writes down each change before it acknowledges it, so that none is lost, however it ends."""

    def __init__(self, directory: Path) -> None:
        """Start it, with its data in `directory`."""
        self._port = free_port()
        self._directory = directory
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self._program = self._start()

    def _start(self) -> Program:
        options = {
            "--bind": "127.0.0.1",
            "--port": str(self._port),
            "--dir": str(self._directory),
            "--appendonly": "yes",
            "--appendfsync": "always",
            "--save": "",
        }
        words = [word for option in options.items() for word in option]
        program = Program([find_program("redis-server"), *words], ready="Ready to accept connections")
        program.wait_until_ready()
        return program

    @property
    def pid(self) -> int:
        """The process id of the one that runs, or ran last."""
        return self._program.pid

    @property
    def running(self) -> bool:
        """Whether it hasn't been stopped or killed."""
        return self._program.running

    def empty(self) -> None:
        """Forget everything."""
        with redis.Redis.from_url(self.url) as client:
            client.flushall()

    def start(self) -> None:
        """Start it again, after `stop` or `kill`, with the same port and data."""
        self._program = self._start()

    def stop(self) -> None:
        """Shut it down as an operator would (SIGTERM)."""
        self._program.stop()

    def kill(self) -> None:
        """Take it away in the middle of whatever it does (SIGKILL)."""
        self._program.kill()

    @contextmanager
    def hung(self) -> Generator[None, None, None]:
        """Let it accept connections and answer nobody."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)


@contextmanager
def running_redis() -> Generator[RedisServer, None, None]:
    """Start a redis-server with nothing in it; end whichever one runs at the end."""
    with tempfile.TemporaryDirectory(prefix="claude-wrapper-redis-") as directory:
        server = RedisServer(Path(directory))
        try:
            yield server
        finally:
            server.kill()


# What Debian's and the official image's nginx.conf set around the files that they include.
_NGINX_MAIN = """
daemon off;
{user}
worker_processes 2;
pid {directory}/nginx.pid;
error_log stderr notice;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/client_body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    include {directory}/site.conf;
}}
"""


@contextmanager
def running_nginx(site: str) -> Generator[Program, None, None]:
    """Start an nginx with `site` inside its `http` block; end it."""
    with tempfile.TemporaryDirectory(prefix="claude-wrapper-nginx-") as name:
        directory = Path(name)
        # As root nginx would give its workers to a user who may not enter the directory.
        user = f"user {pwd.getpwuid(0).pw_name};" if os.geteuid() == 0 else ""
        main = directory / "nginx.conf"
        main.write_text(_NGINX_MAIN.format(user=user, directory=directory))
        (directory / "site.conf").write_text(site)
        command = [find_program("nginx"), "-p", name, "-e", "stderr", "-c", str(main)]
        # Its sockets listen before it starts its workers.
        nginx = Program(command, ready="start worker process ")
        try:
            nginx.wait_until_ready()
            yield nginx
        finally:
            nginx.stop()
