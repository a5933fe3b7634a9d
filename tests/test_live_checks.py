"""The programs that check a running server: what they print, and how they end."""

import socket
import subprocess
import sys
from contextlib import closing

import pytest

from conftest import REPOSITORY, Server, ServerFactory, clean_environment
from demo_upstream import Reply

SCRIPTS = [("endpoint", "tests/test_endpoints.py"), ("basic", "tests/test_basic.py")]
KEY = "a-key-of-the-tests"


def run(script: str, url: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program as a user does, against the server at `url`."""
    return subprocess.run(
        [sys.executable, script],
        cwd=REPOSITORY,
        env=clean_environment(BASE_URL=url, **variables),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(("kind", "script"), SCRIPTS)
def test_a_server_without_keys_passes(server: Server, kind: str, script: str) -> None:
    """Every check has its line, the summary counts them, and the exit status is 0."""
    result = run(script, f"{server.url}/")
    *_, summary = lines = result.stdout.splitlines()
    assert (result.returncode, summary) == (0, f"4/4 {kind} tests passed"), result.stdout + result.stderr
    assert [line.split()[0] for line in lines[1:-1]] == ["passed"] * 4


@pytest.mark.parametrize(("kind", "script"), SCRIPTS)
def test_a_server_with_keys_passes_with_one(serve: ServerFactory, kind: str, script: str) -> None:
    """TEST_API_KEY goes along; without it, or with a wrong one, the program says what to do, and fails."""
    url = serve(api_key=KEY).url
    result = run(script, url, TEST_API_KEY=KEY)
    assert (result.returncode, result.stdout.splitlines()[-1]) == (0, f"4/4 {kind} tests passed"), result.stdout
    for variables, reason in (({}, "wants an API key"), ({"TEST_API_KEY": "wrong"}, "refuses this TEST_API_KEY")):
        result = run(script, url, **variables)
        assert result.returncode == 1
        assert reason in result.stdout
        assert f"TEST_API_KEY=your-key python {script}" in result.stdout
        assert "tests passed" not in result.stdout


def test_a_check_that_fails_is_named_and_counted(server: Server) -> None:
    """The others go on, the summary counts what passed, and the exit status is 1."""
    server.upstream.script(Reply(status=400, error_message="Not today"), times=None)
    result = run("tests/test_endpoints.py", server.url)
    assert (result.returncode, result.stdout.splitlines()[-1]) == (1, "3/4 endpoint tests passed"), result.stdout
    (failure,) = [line for line in result.stdout.splitlines() if line.startswith("FAILED")]
    assert "chat completion" in failure
    assert "Not today" in failure


@pytest.mark.parametrize(("kind", "script"), SCRIPTS)
def test_without_a_server_it_says_so(kind: str, script: str) -> None:
    """Where nobody listens the program says where it looked."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    result = run(script, url)
    assert result.returncode == 1
    assert f"No server answers at {url}" in result.stdout
    assert not result.stderr
