"""`make audit`: our code has no fault that bandit knows, and each version of the locks is asked about."""

import json
import re
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from conftest import NOWHERE, REPOSITORY, clean_environment

MAKEFILE = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
BANDIT = ["-m", "bandit", "--quiet", "--configfile", "pyproject.toml", "--recursive", "."]
LOCKS = [REPOSITORY / folder / "poetry.lock" for folder in (".", "tests/clients", "tests/clients/openai2")]


def run(*arguments: str | Path, directory: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    """Run Python in a directory, without a way off this machine."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=directory, env=clean_environment(), capture_output=True, text=True, check=False, timeout=110,
    )  # fmt: skip


def test_bandit_finds_nothing() -> None:
    """The command is the Makefile's."""
    assert f"$(RUN) {' '.join(BANDIT)}\n" in MAKEFILE
    done = run(*BANDIT)
    assert done.returncode == 0, done.stdout


def test_bandit_would_find_something(tmp_path: Path) -> None:
    """With our configuration a shell that is given a client's words is a finding."""
    (tmp_path / "pyproject.toml").write_text((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    (tmp_path / "unsafe.py").write_text("import subprocess\nsubprocess.run(input(), shell=True)\n")
    done = run(*BANDIT, directory=tmp_path)
    assert (done.returncode, "B602" in done.stdout) == (1, True)


@contextmanager
def service(vulnerable: str = "", status: int = 200) -> Generator[tuple[str, set[tuple[str, str]]], None, None]:
    """A stand-in for the vulnerability service, its address, and what it was asked about."""
    asked: set[tuple[str, str]] = set()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's names
            """Say nothing."""

        def do_POST(self) -> None:
            question = json.loads(self.rfile.read(int(self.headers["content-length"])))
            asked.add((question["package"]["name"], question["version"]))
            package = {"name": vulnerable, "ecosystem": "PyPI"}
            known = [{"id": "TEST-1", "summary": "A test.", "affected": [{"package": package}]}]
            answer = json.dumps({"vulns": known} if question["package"]["name"] == vulnerable else {}).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def audit(address: str) -> subprocess.CompletedProcess[str]:
    """Run the audit against a service."""
    return run("scripts/audit.py", address)


def locked() -> set[tuple[str, str]]:
    """What the locks name, as a reader who knows no TOML finds it."""
    pattern = re.compile(r'^\[\[package\]\]\nname = "(.+)"\nversion = "(.+)"$', re.MULTILINE)
    return {(name, version) for lock in LOCKS for name, version in pattern.findall(lock.read_text(encoding="utf-8"))}


def test_every_locked_version_is_asked_about() -> None:
    """Those of the server and of the tests' clients, whether or not they are installed here; nothing found is a 0."""
    with service() as (address, asked):
        done = audit(address)
    assert (done.returncode, "No known vulnerabilities" in done.stderr) == (0, True), done
    assert asked == locked()


def test_what_is_known_fails() -> None:
    """A dependency with a vulnerability is named, and the status is one that stops CI."""
    with service(vulnerable="starlette") as (address, _):
        done = audit(address)
    assert (done.returncode, "TEST-1" in done.stdout, "starlette" in done.stdout) == (1, True, True), done


@pytest.mark.parametrize("status", [None, 403, 503])
def test_a_service_that_cant_be_asked_is_said_to_be_so(status: int | None) -> None:
    """Where nobody answers, or a gateway does, nothing is claimed, and CI goes on."""
    with service(status=status or 200) as (address, _):
        done = audit(NOWHERE if status is None else address)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("NOT AUDITED: the vulnerability service can't be reached from here")
