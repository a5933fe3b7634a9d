"""What Claude Code's own tools may do: the model tries, with and without permission, and the file system proves it."""

import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from agent_requests import ask, offered, results, trying
from conftest import ServerFactory
from demo_upstream import ToolCall

SECRET = "nobody-is-to-read-this"
EVERYTHING = ("Read", "Glob", "Grep", "Edit", "Write", "NotebookEdit", "Bash", "WebFetch", "WebSearch")


@pytest.fixture
def place(place: Path, tmp_path: Path) -> Path:
    """A directory to work in, with a secret beside it and links that lead there."""
    (tmp_path / "secret.txt").write_text(SECRET)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "deep.txt").write_text(SECRET)
    (place / "link.txt").symlink_to(tmp_path / "secret.txt")
    (place / "linked").symlink_to(tmp_path / "elsewhere")
    return place


OUTSIDE = [
    ToolCall("Read", {"file_path": "/etc/passwd"}),
    ToolCall("Read", {"file_path": "../secret.txt"}),
    ToolCall("Read", {"file_path": "./nothing/../../secret.txt"}),
    ToolCall("Read", {"file_path": "link.txt"}),
    ToolCall("Read", {"file_path": "linked/deep.txt"}),
    ToolCall("Read", {"file_path": "~/.bashrc"}),
    ToolCall("Read", {"file_path": "/proc/self/environ"}),
    ToolCall("Read", {"file_path": "$HOME/.bashrc"}),
    ToolCall("Read", {"file_path": "${PWD}/../secret.txt"}),
    ToolCall("Grep", {"pattern": "nobody", "path": "..", "output_mode": "content"}),
    ToolCall("Grep", {"pattern": "nobody", "path": "linked", "output_mode": "content"}),
    ToolCall("Grep", {"pattern": "nobody", "path": "link.txt", "output_mode": "content"}),
    ToolCall("Grep", {"pattern": "nobody", "output_mode": "content", "glob": "../*.txt"}),
    ToolCall("Glob", {"pattern": "../*"}),
    ToolCall("Glob", {"pattern": "*", "path": "/etc"}),
    ToolCall("Glob", {"pattern": "/etc/pass*"}),
    ToolCall("Glob", {"pattern": "{/etc/pass*,../*}"}),
    ToolCall("Glob", {"pattern": "linked/*"}),
    ToolCall("Glob", {"pattern": "**/*", "path": "linked"}),
]


def test_nothing_outside_the_directory_is_read(serve: ServerFactory, place: Path) -> None:
    """However a place outside is named, neither what stands in its files nor their names come to the model."""
    server = serve(claude_cwd=place, claude_allowed_tools=EVERYTHING)
    trying(server, *OUTSIDE)
    assert ask(server).status_code == 200
    for number, call in enumerate(OUTSIDE, 1):
        (told,) = results(server, number)
        assert SECRET not in told, call
        assert "root:" not in told, call
        for name in ("secret.txt", "deep.txt", "passwd"):
            assert name not in told or name in str(call.input), (call, told)


WRITING = [
    ToolCall("Write", {"file_path": "new.txt", "content": "new"}),
    ToolCall("Edit", {"file_path": "harbour.txt", "old_string": "noon", "new_string": "dawn"}),
    ToolCall("Bash", {"command": "echo new > new.txt", "description": "Write"}),
]


@pytest.mark.parametrize("call", WRITING, ids=lambda call: call.name)
def test_nothing_is_written_or_run_unless_the_operator_allows_it(
    serve: ServerFactory, place: Path, call: ToolCall
) -> None:
    """By default the model isn't even offered such tools, and one that it calls all the same does nothing."""
    server = serve(claude_cwd=place)
    trying(server, ToolCall("Read", {"file_path": "harbour.txt"}), call)
    assert ask(server).status_code == 200
    assert call.name not in offered(server)
    assert not (place / "new.txt").exists()
    assert (place / "harbour.txt").read_text() == "The ferry leaves at noon."


@pytest.mark.parametrize("call", WRITING, ids=lambda call: call.name)
def test_what_the_operator_allows_is_done(serve: ServerFactory, place: Path, call: ToolCall) -> None:
    """In the directory, and the file system shows it."""
    server = serve(claude_cwd=place, claude_allowed_tools=("Read", call.name))
    trying(server, ToolCall("Read", {"file_path": "harbour.txt"}), call)
    assert ask(server).status_code == 200
    done = (place / "new.txt").exists() or (place / "harbour.txt").read_text() == "The ferry leaves at dawn."
    assert done, results(server)


@pytest.mark.parametrize("path", ["../new.txt", "linked/new.txt", "link.txt", "~/new.txt", "/new-by-claude.txt"])
def test_nothing_outside_is_written(serve: ServerFactory, place: Path, path: str) -> None:
    """Not through links, either."""
    server = serve(claude_cwd=place, claude_allowed_tools=("Read", "Write", "Edit"))
    trying(server, ToolCall("Read", {"file_path": path}), ToolCall("Write", {"file_path": path, "content": "new"}))
    assert ask(server).status_code == 200
    (told,) = results(server)
    assert "outside the working directory" in told or "has not been read yet" in told
    assert (place.parent / "secret.txt").read_text() == SECRET
    assert not any(file.name.startswith("new") for file in place.parent.rglob("*"))
    assert not Path("/new-by-claude.txt").exists()


@pytest.mark.parametrize("path", [".git/config", ".git/hooks/pre-commit", ".claude/settings.json", ".mcp.json"])
def test_what_steers_claude_code_or_git_isnt_written(serve: ServerFactory, place: Path, path: str) -> None:
    """Although writing is allowed: Claude Code's own check stands behind ours."""
    server = serve(claude_cwd=place, claude_allowed_tools=("Write",))
    trying(server, ToolCall("Write", {"file_path": path, "content": "x"}))
    assert ask(server).status_code == 200
    assert "without asking somebody" in results(server)[0]
    assert not (place / path).exists()


def test_every_decision_is_logged_with_its_request(
    serve: ServerFactory, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What was allowed, what was left to Claude Code's own check, what was denied, and why; without any contents."""
    server = serve(claude_cwd=place, claude_allowed_tools=("Read", "Write"))
    call = {"file_path": "new.txt", "content": "a-text-of-the-clients"}
    reading = [ToolCall("Read", {"file_path": path}) for path in ("harbour.txt", "../secret.txt")]
    sensitive = ToolCall("Write", {"file_path": ".git/config", "content": "x"})
    trying(server, [ToolCall("Write", call), *reading, sensitive])
    with caplog.at_level(logging.INFO, logger="permission_hooks"):
        request_id = ask(server).headers["x-request-id"]
    records = [record for record in caplog.records if record.name == "permission_hooks"]
    lines = [f"{vars(record)['request_id']}: {record.getMessage()}" for record in records]
    assert sorted(lines) == [
        *[f"{request_id}: allow 'Write': the operator allows it, in the working directory"] * 2,
        f"{request_id}: deny 'Read': it is outside the working directory",
        f"{request_id}: deny 'Write': Claude Code's own check doesn't let it pass without asking somebody",
        f"{request_id}: pass 'Read': it reads in the working directory",
    ]
    assert "a-text-of-the-clients" not in caplog.text


@pytest.fixture
def proxy() -> Iterator[tuple[str, list[str]]]:
    """A proxy that lets nobody through, and tells whom they wanted to reach."""
    wanted: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        wanted.append(connection.recv(65536).split(b"\r\n")[0].decode())
                        connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", wanted
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


FETCH = ToolCall("WebFetch", {"url": "https://pages.invalid/harbour", "prompt": "When?"})


@pytest.mark.parametrize("is_allowed", [False, True])
def test_pages_are_fetched_only_where_the_operator_allows_it(
    serve: ServerFactory, api_key_environment: dict[str, str], proxy: tuple[str, list[str]], is_allowed: bool
) -> None:
    """Otherwise nothing leaves the machine."""
    url, wanted = proxy
    environment = {**api_key_environment, "HTTPS_PROXY": url, "HTTP_PROXY": url}
    server = serve(environment, claude_allowed_tools=("Read", *(["WebFetch"] if is_allowed else [])))
    trying(server, FETCH)
    assert ask(server).status_code == 200
    assert [line for line in wanted if "pages.invalid" in line] == ["CONNECT pages.invalid:443 HTTP/1.1"] * is_allowed
    assert ("WebFetch" in offered(server)) == is_allowed


def test_addresses_inside_a_network_arent_fetched(
    serve: ServerFactory, api_key_environment: dict[str, str], proxy: tuple[str, list[str]]
) -> None:
    """Neither of this machine, nor where clouds keep their credentials."""
    url, wanted = proxy
    environment = {**api_key_environment, "HTTPS_PROXY": url, "HTTP_PROXY": url}
    server = serve(environment, claude_allowed_tools=("WebFetch",))
    urls = (
        f"{server.url}/v1/models",
        "http://169.254.169.254/latest",
        "http://[::1]/",
        "https://localhost/",
        "file:///x",
    )
    trying(server, *(ToolCall("WebFetch", {"url": url, "prompt": "What?"}) for url in urls))
    assert ask(server).status_code == 200
    for number in range(1, len(urls) + 1):
        assert "an address inside a network" in results(server, number)[0]
    assert wanted == []


def test_whoever_may_bypass_permissions_reads_everywhere(
    serve: ServerFactory, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the operator allows that and the server isn't root's, a request may leave the directory; others don't."""
    monkeypatch.setattr("grant_setup._is_root", lambda: False)
    server = serve(claude_cwd=place, claude_allow_bypass=True)
    secret = ToolCall("Read", {"file_path": "../secret.txt"})
    trying(server, secret)
    assert ask(server).status_code == 200
    assert SECRET not in results(server)[0]
    trying(server, secret, ToolCall("Write", {"file_path": "new.txt", "content": "new"}))
    answer = ask(server, {"X-Claude-Permission-Mode": "bypassPermissions"})
    if os.geteuid() == 0:  # Claude Code itself refuses root, too.
        assert answer.status_code == 502
    else:
        assert SECRET in results(server, 1)[0]
        assert not (place / "new.txt").exists()


def test_root_never_bypasses_permissions(serve: ServerFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the operator says."""
    monkeypatch.setattr("grant_setup._is_root", lambda: True)
    answer = ask(serve(claude_allow_bypass=True), {"X-Claude-Permission-Mode": "bypassPermissions"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "permission_mode")
