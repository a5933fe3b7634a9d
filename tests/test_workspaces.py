"""Directories of sessions: one's own, kept as long as the session, limited, and seen by no other."""

import errno
import os
import time
from pathlib import Path

import anyio
import httpx
import pytest

from agent_requests import ask, results, trying
from commands import Start
from config import ConfigurationError, load_settings
from conftest import Server, ServerFactory
from demo_upstream import ToolCall
from grant_setup import check_grants
from workspaces import Workspaces

LOOK = ToolCall("Glob", {"pattern": "**/*"})
ALLOWED = ("Glob", "Read", "Write")


def writing(content: str, path: str = "note.txt") -> ToolCall:
    """A call that writes a file."""
    return ToolCall("Write", {"file_path": path, "content": content})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the operator wants the directories."""
    return tmp_path / "workspaces"


@pytest.fixture
def server(serve: ServerFactory, root: Path) -> Server:
    """A server that lets sessions write."""
    return serve(workspaces_dir=root, claude_allowed_tools=ALLOWED)


def list_of(directory: Path) -> list[Path]:
    """What is in a directory."""
    return [*directory.iterdir()]


def notes(root: Path) -> dict[str, str]:
    """What stands in all sessions' notes, by their directories."""
    return {path.parent.parent.name: path.read_text() for path in root.glob("*/files/note.txt")}


def test_a_session_finds_its_files_again_and_no_other_does(server: Server, root: Path) -> None:
    """In the next turn they are there; another session's directory is empty, and can't be reached."""
    trying(server, writing("mine"))
    assert ask(server, session_id="one").status_code == 200
    (first,) = notes(root)
    trying(server, LOOK)
    assert ask(server, session_id="one").status_code == 200
    assert "note.txt" in results(server)[0]
    mine = root / first / "files" / "note.txt"
    beside = mine.parent / "beside.txt"
    trying(server, LOOK, ToolCall("Read", {"file_path": str(mine)}), writing("theirs"), writing("broken", str(beside)))
    assert ask(server, session_id="two").status_code == 200
    assert "No files found" in results(server, 1)[0]
    assert "outside the working directory" in results(server, 2)[0]
    assert "outside the working directory" in results(server, 4)[0]
    assert sorted(notes(root).values()) == ["mine", "theirs"]


def test_files_go_with_their_session(server: Server, root: Path) -> None:
    """Who deletes it deletes them; one of the same name that is begun later starts empty."""
    for session in ("one", "two"):
        trying(server, writing(session))
        assert ask(server, session_id=session).status_code == 200
    assert httpx.delete(f"{server.url}/v1/sessions/one").status_code == 200
    assert [*notes(root).values()] == ["two"]
    trying(server, LOOK)
    assert ask(server, session_id="one").status_code == 200
    assert "No files found" in results(server)[0]


def test_a_session_that_has_expired_leaves_no_files_to_the_next(serve: ServerFactory, root: Path) -> None:
    """Even where nobody has swept them away yet."""
    server = serve(workspaces_dir=root, claude_allowed_tools=ALLOWED, session_ttl_seconds=0.001)
    trying(server, writing("old"))
    assert ask(server, session_id="one").status_code == 200
    trying(server, LOOK)
    assert ask(server, session_id="one").status_code == 200
    assert "No files found" in results(server)[0]


def test_a_full_directory_takes_no_more(serve: ServerFactory, root: Path) -> None:
    """The call that would make it larger is denied; what is there can be read."""
    server = serve(workspaces_dir=root, claude_allowed_tools=ALLOWED, workspace_max_mb=1)
    trying(server, writing("first"))
    assert ask(server, session_id="one").status_code == 200
    (note,) = root.glob("*/files/note.txt")
    note.write_bytes(bytes(2**20 - 1000))
    trying(server, writing("a", "small.txt"), writing("x" * 2000, "more.txt"), ToolCall("Glob", {"pattern": "*.txt"}))
    assert ask(server, session_id="one").status_code == 200
    assert (note.parent / "small.txt").read_text() == "a"
    assert "larger than it may be (1 MB)" in results(server, 2)[0]
    assert "note.txt" in results(server, 3)[0]
    assert not (note.parent / "more.txt").exists()


def test_names_of_sessions_are_no_paths(server: Server, root: Path) -> None:
    """However a session is called, its directory is in the operator's, and only there."""
    before = {*root.parent.iterdir()}
    for session in ("../../escape", "/etc/passwd", "..", "a" * 128, "é"):
        trying(server, writing("here"))
        assert ask(server, session_id=session).status_code == 200
    assert {*root.parent.iterdir()} - before <= {root}
    assert len(notes(root)) == 5


def test_directories_that_cant_be_made_are_no_start(start: Start, tmp_path: Path) -> None:
    """The server says which, and ends."""
    (tmp_path / "file").write_text("")
    server = start("main.py", "0", "--demo", WORKSPACES_DIR=str(tmp_path / "file"))
    server.read_until("WORKSPACES_DIR .*: File exists")
    assert server.process.wait(30) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"claude_cwd": "", "workspaces_dir": "in"}, "WORKSPACES_DIR lies in CLAUDE_CWD"),
        ({"claude_cwd": "in", "workspaces_dir": ""}, "CLAUDE_CWD lies in WORKSPACES_DIR"),
        ({"claude_cwd": "", "api_keys_file": "in/keys.toml"}, "API_KEYS_FILE lies in CLAUDE_CWD"),
        ({"claude_cwd": "", "mcp_config": "in/mcp.json"}, "MCP_CONFIG lies in CLAUDE_CWD"),
    ],
    ids=str,
)
def test_what_is_others_doesnt_lie_where_all_may_read(tmp_path: Path, settings: dict[str, str], message: str) -> None:
    """That is no start; side by side is."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "keys.toml").touch()
    (tmp_path / "in" / "mcp.json").write_text('{"mcpServers": {}}')
    paths = {name: tmp_path / path for name, path in settings.items()}
    with pytest.raises(ConfigurationError, match=message):
        check_grants(load_settings(_env_file=None, claude_sandbox="off", **paths))
    beside = {**paths, "claude_cwd": tmp_path / "beside"}
    beside["claude_cwd"].mkdir()
    check_grants(load_settings(_env_file=None, claude_sandbox="off", **{**beside, "workspaces_dir": tmp_path / "in"}))


def test_without_a_directory_for_them_sessions_work_where_all_do(serve: ServerFactory, tmp_path: Path) -> None:
    """With CLAUDE_CWD alone; with neither they have directories of their own, which go with the server."""
    shared = serve(claude_cwd=tmp_path, claude_allowed_tools=ALLOWED)
    trying(shared, writing("shared"))
    assert ask(shared, session_id="one").status_code == 200
    assert (tmp_path / "note.txt").read_text() == "shared"
    own = serve(claude_allowed_tools=ALLOWED)
    trying(own, writing("own"))
    assert ask(own, session_id="one").status_code == 200
    trying(own, LOOK)
    assert ask(own, session_id="one").status_code == 200
    assert "note.txt" in results(own)[0]


@pytest.mark.asyncio
async def test_what_no_session_needs_is_swept_away(root: Path) -> None:
    """Not before a first turn has had its time; and nothing that was never a session's."""
    now = time.time()
    workspaces = Workspaces(root, keep_seconds=60, clock=lambda: now)
    for session in ("alive", "dead"):
        (await workspaces.open("anna", session, is_new=True) / "note.txt").write_text(session)
    (root / "the-operators").mkdir()
    nameless = root / ("0" * 32)
    nameless.mkdir()

    async def lives(_owner: str, session_id: str) -> bool:
        return session_id == "alive"

    await workspaces.sweep(lives)
    assert sorted(notes(root).values()) == ["alive", "dead"]
    now += 61
    await workspaces.sweep(lives)
    assert sorted(notes(root).values()) == ["alive"]
    assert (root / "the-operators").is_dir()
    assert not nameless.exists()


@pytest.mark.asyncio
async def test_a_session_that_begins_while_others_are_swept_keeps_its_directory(root: Path) -> None:
    """Also where it was thought to be over a moment before."""
    now = time.time()
    workspaces = Workspaces(root, keep_seconds=60, clock=lambda: now)
    await workspaces.open("anna", "one", is_new=True)
    now += 61

    async def begins_anew(owner: str, session_id: str) -> bool:
        directory = await workspaces.open(owner, session_id, is_new=True)
        os.utime(directory.parent / "session.json", (now, now))
        return False

    await workspaces.sweep(begins_anew)
    (kept,) = list_of(root)
    assert sorted(path.name for path in list_of(kept)) == ["files", "session.json"]


@pytest.mark.asyncio
@pytest.mark.parametrize("label", ["5", "[]", '["anna"]', "{"])
async def test_a_label_that_says_nothing_is_nobodys(root: Path, label: str) -> None:
    """What it stands in is swept away."""
    now = time.time()
    workspaces = Workspaces(root, keep_seconds=60, clock=lambda: now)
    label_file = (await workspaces.open("anna", "one", is_new=True)).parent / "session.json"
    await anyio.Path(label_file).write_text(label)
    now += 61

    async def lives(_owner: str, _session_id: str) -> bool:
        raise AssertionError

    await workspaces.sweep(lives)
    assert list_of(root) == []


@pytest.mark.asyncio
async def test_what_cant_be_removed_is_no_sessions(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The next session of the name begins empty all the same, and a later sweep tries again."""
    now = time.time()
    workspaces = Workspaces(root, keep_seconds=60, clock=lambda: now)
    (await workspaces.open("anna", "one", is_new=True) / "note.txt").write_text("old")

    def fail(_place: Path) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", fail)
        directory = await workspaces.open("anna", "one", is_new=True)
    assert list_of(directory) == []
    assert "Device or resource busy" in caplog.text
    assert len(list_of(root)) == 2
    now += 61

    async def lives(_owner: str, _session_id: str) -> bool:
        return True

    await workspaces.sweep(lives)
    assert list_of(root) == [directory.parent]


def test_closed_directories_and_links_are_removed_as_well(root: Path, tmp_path: Path) -> None:
    """A link is, and not what it leads to."""
    (tmp_path / "outside.txt").write_text("stays")
    workspaces = Workspaces(root, keep_seconds=60)

    async def begin() -> Path:
        return await workspaces.open("anna", "one", is_new=True)

    directory = anyio.run(begin)
    (directory / "closed" / "deep").mkdir(parents=True)
    (directory / "closed" / "deep" / "file").write_text("x")
    (directory / "link").symlink_to(tmp_path)
    for closed in ("closed/deep", "closed"):
        (directory / closed).chmod(0)
    anyio.run(workspaces.remove, "anna", "one")
    assert [*root.iterdir()] == []
    assert (tmp_path / "outside.txt").read_text() == "stays"
    anyio.run(workspaces.remove, "anna", "one")
