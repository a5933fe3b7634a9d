"""What the clients' programs have of the world: the server, and nothing else."""

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from conftest import Server
from published_clients import run_node, run_python

Run = Callable[[Sequence[str], Server, Path], subprocess.CompletedProcess[str]]
BY_NODE = """
fetch("http://elsewhere.invalid/").catch((error) => console.log(error.cause.code));
"""
BY_PYTHON = """
import httpx
try:
    httpx.get("http://elsewhere.invalid/")
except httpx.ConnectError as error:
    print(error)
"""
PRINT_ENVIRONMENT = "import os; print(*os.environ)"


@pytest.mark.parametrize(
    ("run", "arguments", "refusal"),
    [(run_node, ["-e", BY_NODE], "ECONNREFUSED"), (run_python, ["-c", BY_PYTHON], "Connection refused")],
)
def test_who_wants_to_leave_the_machine_is_refused(
    server: Server, tmp_path: Path, run: Run, arguments: list[str], refusal: str
) -> None:
    """A request to anywhere else fails at once, and not for want of a name: it is sent where nobody listens."""
    result = run(arguments, server, tmp_path)
    assert refusal in result.stdout, result.stdout + result.stderr


def test_nothing_of_this_machine_goes_along(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program's environment has no variable of whoever runs the tests but PATH."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "a-secret")
    names = run_python(["-c", PRINT_ENVIRONMENT], server, tmp_path).stdout.split()
    ours = {"HOME", "PATH", "OPENAI_BASE_URL", "OPENAI_API_KEY"}
    assert {name for name in names if "PROXY" not in name.upper() and not name.startswith(("PYTHON", "LC_"))} == ours
