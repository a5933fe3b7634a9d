"""aider, told to do one thing: it shows the model a file, and writes what the model makes of it."""

import shlex
import sys
from pathlib import Path

import pytest

from conftest import ServerFactory
from demo_upstream import Reply
from published_clients import AIDER, documented, run_script

pytestmark = [
    pytest.mark.slow_client,
    pytest.mark.skipif(sys.version_info >= (3, 13), reason="aider has no release for this Python"),
]
BEFORE = "The ferry leaves at noon.\n"
AFTER = "The ferry leaves at one.\n"
OPTIONS = ["--yes-always", "--no-git", "--no-check-update", "--analytics-disable", "--no-show-model-warnings"]


def test_a_file_is_changed(serve: ServerFactory, tmp_path: Path) -> None:
    """Streamed, by the way in which the model names the lines to replace."""
    server = serve()
    (tmp_path / "harbour.txt").write_text(BEFORE)
    edit = f"harbour.txt\n```\n<<<<<<< SEARCH\n{BEFORE}=======\n{AFTER}>>>>>>> REPLACE\n```\n"
    server.upstream.script(Reply(text=f"So be it.\n\n{edit}"))
    _, *command = shlex.split(documented("bash", "aider", server))
    asked = ["--edit-format", "diff", "--message", "It leaves at one now."]
    result = run_script("aider", [*OPTIONS, *asked, *command], server, tmp_path, AIDER)
    assert result.returncode == 0, result.stdout + result.stderr
    assert (tmp_path / "harbour.txt").read_text() == AFTER, result.stdout + result.stderr
    request = str(server.upstream.messages_requests()[0].body["messages"])
    assert BEFORE.strip() in request
    assert "It leaves at one now." in request
