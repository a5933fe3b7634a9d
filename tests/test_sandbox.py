"""Commands of clients, confined: what Bash reaches in Claude Code's sandbox, and when there is none."""

import logging
import os
from pathlib import Path

import httpx
import psutil
import pytest

import sandbox
from agent_requests import ask, results, trying
from commands import Start, shell_script, wait_until
from conftest import HOME, Server, ServerFactory
from demo_upstream import ToolCall

pytestmark = pytest.mark.real_services


@pytest.fixture
def server(serve: ServerFactory, place: Path, tmp_path: Path) -> Server:
    """A server that lets Claude run commands, and starts only where they are confined."""
    (tmp_path / "outside.txt").write_text("outside")
    return serve(claude_cwd=place, claude_allowed_tools=("Bash",), claude_sandbox="on")


def run(server: Server, *commands: str) -> list[str]:
    """Let the model run commands; return what it was told of each."""
    trying(server, *(ToolCall("Bash", {"command": command, "description": "Try"}) for command in commands))
    assert ask(server).status_code == 200
    return [results(server, number)[0] for number in range(1, len(commands) + 1)]


def test_commands_write_in_their_directory_alone(server: Server, tmp_path: Path) -> None:
    """Everything else is read-only, and the switch that the model has for that changes nothing."""
    run(server, "echo in > in.txt", f"echo out > {tmp_path}/out.txt; echo over > {tmp_path}/outside.txt")
    assert (tmp_path / "place" / "in.txt").read_text() == "in\n"
    call = {"command": f"touch {tmp_path}/out.txt", "description": "Try", "dangerouslyDisableSandbox": True}
    trying(server, ToolCall("Bash", call))
    assert ask(server).status_code == 200
    assert not (tmp_path / "out.txt").exists()
    assert (tmp_path / "outside.txt").read_text() == "outside"


def test_commands_see_no_login_and_no_home(server: Server) -> None:
    """Neither in the environment, of whatever process, nor in files; nor what else is the server's own."""
    private = Path(HOME) / "private.txt"
    private.write_text("private")
    told = run(
        server, "env; echo ran", "cat /proc/*/environ | tr '\\0' '\\n'; echo ran", f"cat {private}; ls -a ~; echo ran"
    )
    private.unlink()
    assert all("ran" in each for each in told)
    assert not any("sk-ant-dummy" in each for each in told)
    assert "private" not in told[2].replace("private.txt", "")


def test_commands_read_nothing_of_others(server: Server, tmp_path: Path) -> None:
    """Not beside their directory, not where machines keep data; programs run."""
    told = run(
        server,
        f"cat {tmp_path}/outside.txt",
        "ls /tmp /var /srv /home 2>&1 | grep -v :",
        "python3 -V || sh -c 'echo Python'",
    )
    assert "outside" not in told[0].replace("outside.txt", "")
    assert "log" not in told[1].split()
    assert "Python" in told[2]


def test_commands_share_no_directory(server: Server) -> None:
    """What is temporary is a request's own; the place that Claude Code has for all of a user's isn't there."""
    shared = f"/tmp/claude-{os.getuid()}"  # noqa: S108 - it mustn't be used
    keeping = "echo kept > $TMPDIR/kept.txt; cat $TMPDIR/kept.txt"
    planting = f"mkdir -p {shared}; echo planted > {shared}/planted.txt; {keeping}"
    told = run(server, planting, f"ls {shared}", "ls $TMPDIR")
    assert told[0].startswith("kept")
    assert "planted" not in told[1]
    assert not Path(shared, "planted.txt").exists()
    (told_later,) = run(server, "ls $TMPDIR")
    assert ("kept.txt" in told[2], "kept.txt" in told_later) == (True, False)


def test_commands_have_no_network(server: Server) -> None:
    """Not even to this machine: the server itself is out of reach."""
    port = server.url.rpartition(":")[2]
    (told,) = run(server, f"(exec 3<>/dev/tcp/127.0.0.1/{port} && echo reached); echo ran")
    assert "ran" in told
    assert "reached" not in told


def test_nothing_that_a_command_starts_stays(server: Server, tmp_path: Path) -> None:
    """Not behind its answer, not behind the request: what detaches itself ends with the sandbox."""
    detached = "setsid sh -c 'echo begun > begun; exec sleep 4243' >/dev/null 2>&1 &"
    run(server, f"{detached} while ! test -s begun; do :; done")
    assert (tmp_path / "place" / "begun").read_text() == "begun\n"
    wait_until(
        lambda: not any(process.info["cmdline"] == ["sleep", "4243"] for process in psutil.process_iter(["cmdline"]))
    )


def test_what_a_command_leaves_behind_isnt_run_outside(serve: ServerFactory, tmp_path: Path) -> None:
    """Git could be told to start programs, and Claude Code asks it in the session's next turn: none is started."""
    server = serve(workspaces_dir=tmp_path / "workspaces", claude_allowed_tools=("Bash",), claude_sandbox="on")
    started = tmp_path / "started"
    hook = f"sh -c 'touch {started}'"
    settings = " && ".join(f'git config {name} "{hook}"' for name in ("core.fsmonitor", "diff.external", "core.pager"))
    call = ToolCall("Bash", {"command": f"git init -q . && {settings} && echo told", "description": "Plant"})
    for _ in range(2):
        trying(server, call)
        assert ask(server, session_id="one").status_code == 200
    assert [*tmp_path.glob("workspaces/*/files/.git/config")]
    assert not started.exists()


def test_a_server_without_a_sandbox_warns(
    serve: ServerFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where commands are allowed, to all or to a key, and none can be had: its log says so, and why."""
    monkeypatch.setattr("grant_setup.find_fault", lambda _path: "nothing is installed")
    with caplog.at_level(logging.WARNING):
        running = serve(claude_allowed_tools=("Bash",))
        assert httpx.get(f"{running.url}/health").status_code == 200
        assert "Commands of clients (Bash) aren't confined (nothing is installed)" in caplog.text
        caplog.clear()
        keys = tmp_path / "keys.toml"
        keys.write_text(f'[keys.anna]\nhash = "sha256:{"0" * 64}"\ntools = ["Bash"]\n')
        assert httpx.get(f"{serve(api_keys_file=keys).url}/health").status_code == 200
        assert "Commands of clients (Bash) aren't confined" in caplog.text
        caplog.clear()
        assert httpx.get(f"{serve().url}/health").status_code == 200
        assert "Bash" not in caplog.text


def test_what_has_to_be_confined_and_cant_be_is_no_start(start: Start, tmp_path: Path) -> None:
    """A server that was told so says why, and ends."""
    server = start("main.py", "0", "--demo", CLAUDE_SANDBOX="on", PATH=str(tmp_path))
    server.read_until("CLAUDE_SANDBOX=on, but commands can't be confined: not installed: bwrap, socat")
    assert server.process.wait(30) == 2


def test_a_fault_says_what_is_missing(tmp_path: Path) -> None:
    """Programs that aren't installed, and one that doesn't work here."""
    assert "apt-get install bubblewrap socat" in (sandbox.find_fault(str(tmp_path)) or "")
    shell_script(tmp_path / "bwrap", "echo no namespaces >&2\nexit 1")
    shell_script(tmp_path / "socat", "")
    assert sandbox.find_fault(f"{tmp_path}:/bin") == "bwrap can't be used here: no namespaces"
