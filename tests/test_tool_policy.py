"""The policy on calls of Claude Code's own tools, by itself: a grant, a directory, and what comes of a call."""

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_task import Grant, PermissionMode
from tool_catalog import OWN_TOOLS
from tool_policy import ToolPolicy, size_of

ALL = frozenset(OWN_TOOLS)


def decide(directory: Path, name: str, mode: PermissionMode = "default", **arguments: Any) -> str:
    """What becomes of a call where all tools are granted."""
    return ToolPolicy(Grant(ALL, mode=mode), directory).decide(name, arguments).behavior


@pytest.mark.parametrize(
    ("name", "arguments", "behavior"),
    [
        ("Read", {"file_path": "a.txt"}, "pass"),
        ("Read", {"file_path": "deep/../a.txt"}, "pass"),
        ("Read", {"file_path": "$HOME/a.txt"}, "pass"),
        ("Read", {"file_path": "../a.txt"}, "deny"),
        ("Read", {"file_path": "~"}, "deny"),
        ("Read", {"file_path": "~root/a.txt"}, "deny"),
        ("Read", {"file_path": "~nobody-of-this-name/a.txt"}, "deny"),
        ("Read", {"file_path": "a" * 5000}, "pass"),
        ("Read", {"file_path": "a\0b"}, "deny"),
        ("Read", {"file_path": 7}, "deny"),
        ("Read", {"file_path": ["a.txt"]}, "deny"),
        ("Read", {}, "pass"),
        ("Grep", {"pattern": "x"}, "pass"),
        ("Grep", {"pattern": "x", "path": "/"}, "deny"),
        ("Glob", {"pattern": "**/*.txt"}, "pass"),
        ("Glob", {"pattern": "a..b/*"}, "pass"),
        ("Glob", {"pattern": "../*"}, "deny"),
        ("Glob", {"pattern": "x/{a,../../b}"}, "deny"),
        ("Glob", {"pattern": "{/etc/*,b}"}, "deny"),
        ("Glob", {"pattern": "~/*"}, "deny"),
        ("Write", {"file_path": "a.txt", "content": "x"}, "allow"),
        ("Write", {"file_path": "/etc/a.txt", "content": "x"}, "deny"),
        ("NotebookEdit", {"notebook_path": "../a.ipynb"}, "deny"),
        ("Bash", {"command": "anything"}, "allow"),
        ("WebFetch", {"url": "https://93.184.216.34/"}, "allow"),
        ("WebFetch", {"url": "https://93.184.216.34:8443/x?y=1#z"}, "allow"),
        ("WebFetch", {"url": "https://[2606:4700:4700::1111]/"}, "allow"),
        ("WebFetch", {"url": "https://user@93.184.216.34:8443/x"}, "deny"),
        ("WebFetch", {"url": "http://127.0.0.1\\@93.184.216.34/"}, "deny"),
        ("WebFetch", {"url": "http://127.0.0.1:80\\@pages.invalid/"}, "deny"),
        ("WebFetch", {"url": "http://127%2e0.0.1/"}, "deny"),
        ("WebFetch", {"url": "http://127.0.0.1./"}, "deny"),
        ("WebFetch", {"url": "http://0x7f.0.0.0x1/"}, "deny"),
        ("WebFetch", {"url": "http://127.1/"}, "deny"),
        ("WebFetch", {"url": "http://127。0。0。1/"}, "deny"),
        ("WebFetch", {"url": "http:127.0.0.1/"}, "deny"),
        ("WebFetch", {"url": " https://93.184.216.34/"}, "deny"),
        ("WebFetch", {"url": "http://localhost/"}, "deny"),
        ("WebFetch", {"url": "http://metadata.google.internal/"}, "deny"),
        ("WebFetch", {"url": "http://nowhere.invalid/"}, "deny"),
        ("WebFetch", {"url": "http://[64:ff9b::7f00:1]/"}, "deny"),
        ("WebFetch", {"url": "http://[2002:7f00:1::]/"}, "deny"),
        ("WebFetch", {"url": "http://[::127.0.0.1]/"}, "deny"),
        ("WebFetch", {"url": "http://[fec0::1]/"}, "deny"),
        ("WebFetch", {"url": "http://224.0.0.1/"}, "deny"),
        ("WebFetch", {"url": "http://127.0.0.1/"}, "deny"),
        ("WebFetch", {"url": "http://2130706433/"}, "deny"),
        ("WebFetch", {"url": "http://10.1.2.3/"}, "deny"),
        ("WebFetch", {"url": "http://[fe80::1]/"}, "deny"),
        ("WebFetch", {"url": "http://[::ffff:127.0.0.1]/"}, "deny"),
        ("WebFetch", {"url": "ftp://93.184.216.34/"}, "deny"),
        ("WebFetch", {"url": "http://["}, "deny"),
        ("WebFetch", {"url": 7}, "deny"),
        ("WebSearch", {"query": "ferries"}, "allow"),
        ("Task", {"prompt": "x"}, "deny"),
        ("mcp__x__y", {}, "deny"),
    ],
    ids=str,
)
def test_calls_are_allowed_denied_or_left_to_claude_code(
    tmp_path: Path, name: str, arguments: dict[str, Any], behavior: str
) -> None:
    """Places count by where they lead, addresses by what they are, and what isn't granted is denied."""
    assert decide(tmp_path, name, **arguments) == behavior


def test_what_never_ends_isnt_read(tmp_path: Path) -> None:
    """A pipe waits until somebody writes."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").touch()
    assert decide(tmp_path, "Read", file_path="pipe") == "deny"
    assert decide(tmp_path, "Grep", pattern="x", path="pipe") == "deny"
    assert [decide(tmp_path, "Grep", pattern="x", path=name) for name in ("directory", "file", "none")] == ["pass"] * 3


def test_names_that_only_a_proxy_may_know(tmp_path: Path) -> None:
    """Are its business, but for those of networks."""
    policy = ToolPolicy(Grant(ALL, fetches_by_proxy=True), tmp_path)
    urls = ("https://pages.invalid/", "https://printer.local/", "https://127.0.0.1/")
    found = [policy.decide("WebFetch", {"url": url}).behavior for url in urls]
    assert found == ["allow", "deny", "deny"]


def test_a_directory_behind_a_link_is_the_directory(tmp_path: Path) -> None:
    """It is where the operator says, by whatever name."""
    (tmp_path / "real").mkdir()
    (tmp_path / "name").symlink_to(tmp_path / "real")
    assert decide(tmp_path / "name", "Read", file_path=str(tmp_path / "real" / "a.txt")) == "pass"
    assert decide(tmp_path / "name", "Read", file_path=str(tmp_path / "a.txt")) == "deny"


@pytest.mark.parametrize("name", OWN_TOOLS)
def test_modes(tmp_path: Path, name: str) -> None:
    """Plan mode only reads; whoever bypasses permissions may do with a tool what it can, but has no more tools."""
    is_reading = OWN_TOOLS[name].is_safe
    assert decide(tmp_path, name, mode="plan") == ("pass" if is_reading else "deny")
    outside = dict.fromkeys(OWN_TOOLS[name].places, "/etc/passwd")
    assert decide(tmp_path, name, mode="bypassPermissions", **outside) == "allow"
    nothing = ToolPolicy(Grant(frozenset(), mode="bypassPermissions"), tmp_path)
    assert nothing.decide(name, outside).behavior == "deny"


def test_tools_of_servers_and_functions(tmp_path: Path) -> None:
    """A server's are allowed where it was chosen, less what isn't meant; a client's own are its own affair."""
    grant = Grant(frozenset(), frozenset({"mcp__a", "mcp__b__one"}), frozenset({"mcp__a__two"}))
    policy = ToolPolicy(grant, tmp_path, frozenset({"Bash"}))
    names = ("mcp__a__one", "mcp__a__two", "mcp__b__one", "mcp__b__two", "mcp__c__one", "Bash", "Read")
    found = {name: policy.decide(name, {}).behavior for name in names}
    assert [name for name, behavior in found.items() if behavior == "allow"] == ["mcp__a__one", "mcp__b__one"]
    assert found["Bash"] == "pass"
    plan = ToolPolicy(Grant(frozenset(), frozenset({"mcp__a"}), mode="plan"), tmp_path)
    assert plan.decide("mcp__a__one", {}).behavior == "deny"


def test_what_replaces_much_counts_as_often(tmp_path: Path) -> None:
    """A short text in the place of many shorter ones makes a large file."""
    (tmp_path / "a.txt").write_text("x" * 1000)
    policy = ToolPolicy(Grant(ALL, most_bytes=20_000), tmp_path)
    call = {"file_path": "a.txt", "old_string": "x", "new_string": "y" * 100}
    assert policy.decide("Edit", call).behavior == "allow"
    assert policy.decide("Edit", {**call, "replace_all": True}).behavior == "deny"
    assert policy.decide("Edit", {**call, "file_path": "none.txt", "replace_all": True}).behavior == "allow"


def test_sizes_are_those_of_files_not_of_what_links_lead_to(tmp_path: Path) -> None:
    """Deep ones count, and what goes away meanwhile doesn't."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a").write_bytes(bytes(1000))
    (tmp_path / "b").write_bytes(bytes(10))
    before = size_of(tmp_path)
    assert before == 1010
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "a")
    assert before < size_of(tmp_path) < before + 500


def test_what_is_closed_counts_as_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can tell how much is in it."""

    def walk(_directory: Path, onerror: Callable[[OSError], None]) -> Iterator[tuple[str, list[str], list[str]]]:
        onerror(PermissionError())
        yield str(tmp_path), [], []

    monkeypatch.setattr(os, "walk", walk)
    assert size_of(tmp_path) == math.inf
    policy = ToolPolicy(Grant(ALL, most_bytes=1000), tmp_path)
    assert "closed" in policy.decide("Bash", {"command": "ls"}).reason
