"""The server in the place that docker-compose.yml gives to it: nobody special, and hardly anywhere to write."""

import sys
from pathlib import Path

import httpx
import pytest
import yaml

from commands import CHAT, Command, command_of, descendants, linux
from confinement import DEMO, confined
from conftest import REPOSITORY, Run

pytestmark = [linux, pytest.mark.real_services]
SERVICE = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text(encoding="utf-8"))["services"]["claude-wrapper"]
HOME = "/root"
"""The image's."""


def started(run: Run, *tmpfs: str, **variables: str) -> Command:
    """Start the server where it may write to these places only."""
    return run(*confined(sys.executable, *DEMO, tmpfs=tmpfs), HOME=HOME, **variables)


def test_the_compose_file_gives_away_nothing() -> None:
    """No root, no capabilities, no new ones, and a file system that is read-only."""
    assert SERVICE["read_only"] is True
    assert SERVICE["cap_drop"] == ["ALL"]
    assert "cap_add" not in SERVICE
    assert SERVICE["security_opt"] == ["no-new-privileges:true"]
    assert not SERVICE["user"].startswith("0")
    assert "privileged" not in SERVICE


def test_what_it_gives_is_enough(run: Run) -> None:
    """Requests are answered, also with tools, and the processes are what they are meant to be."""
    command = started(run, *SERVICE["tmpfs"])
    url = command.url()
    for more in ({}, {"stream": True}, {"enable_tools": True}):
        answer = httpx.post(f"{url}/v1/chat/completions", json={**CHAT, **more}, timeout=60)
        assert answer.status_code == 200
    (server,) = [child for child in descendants(command.process.pid) if command_of(child)[1:] == [*DEMO]]
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{server.pid}/status").read_text(encoding="utf-8").splitlines()
    )
    assert {status[name] for name in ("CapEff", "CapPrm", "CapBnd")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"


def test_it_isnt_more_than_is_needed(run: Run) -> None:
    """Without a place for temporary files there is no start."""
    output, _ = started(run, HOME).process.communicate(timeout=30)
    assert "No temporary directory can be written to" in output
