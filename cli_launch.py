"""How Claude Code is found and started: which executable, which flags, which environment.

The process gets nothing of ours but what stands here: see `auth.login_environment` for the login's part.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from subprocess import PIPE
from tempfile import TemporaryDirectory
from typing import IO

import anyio
from anyio.abc import Process

from agent_launch import for_agent
from config import ConfigurationError
from turns import LaunchProfile

# The first version that honours `client_composed`, without which `@path` in a prompt is read from our disk.
OLDEST_CLI = (2, 1, 248)

_FLAGS = (
    *("--output-format", "stream-json", "--input-format", "stream-json", "--verbose", "--include-partial-messages"),
    *("--max-thinking-tokens", "0"),
    # Nothing of the host: no settings, hooks, CLAUDE.md or MCP servers; and nothing left behind: no transcript.
    *("--setting-sources=", "--strict-mcp-config", "--no-session-persistence"),
)

CHAT_FLAGS: Sequence[str] = ("--system-prompt", "", "--tools", "", "--permission-mode", "dontAsk")

# What the CLI would otherwise do on its own between the client and the model.
_CLI_ENVIRONMENT: Mapping[str, str] = {
    "CLAUDE_CODE_ENTRYPOINT": "sdk-py",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
    # Its retries take minutes. At the first it says what went wrong, and when it would ask again, and is interrupted;
    # with none it wouldn't tell when.
    "CLAUDE_CODE_MAX_RETRIES": "1",
    # How long it waits for the API is the operator's to say, and may be longer than its own few minutes: a day.
    **dict.fromkeys(
        ("API_TIMEOUT_MS", "CLAUDE_STREAM_FIRST_BYTE_TIMEOUT_MS", "CLAUDE_STREAM_IDLE_TIMEOUT_MS"), "86400000"
    ),
    # A stream that breaks would be asked for again, whole, and billed twice.
    "CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK": "1",
    # A refusal would be argued with in the client's name.
    "CLAUDE_CODE_DISABLE_REFUSAL_RETRY": "1",
    "CLAUDE_CODE_DISABLE_REFUSAL_FALLBACK": "1",
    # Old model ids would be replaced silently by newer ones.
    "CLAUDE_CODE_DISABLE_LEGACY_MODEL_REMAP": "1",
    # A long conversation would be rewritten behind the client's back.
    "DISABLE_AUTO_COMPACT": "1",
    "ENABLE_TOOL_SEARCH": "false",
    # It keeps a log of calls, with their names, in the user's cache for a month; what is no directory it leaves alone.
    "XDG_CACHE_HOME": os.devnull,
    # The model sees a client's functions under their own names.
    "CLAUDE_AGENT_SDK_MCP_NO_PREFIX": "1",
    "CLAUDE_CODE_MCP_AUTO_BACKGROUND_MS": "0",
}


def find_cli(configured: str | None) -> Path:
    """Find the Claude Code to run: the configured one, else the one that the SDK brings along.

    Raises ConfigurationError where there is none, with the way to mend it.
    """
    if configured:
        found = shutil.which(Path(configured).expanduser())
        if not found:
            raise ConfigurationError(
                f"CLAUDE_CLI_PATH: no executable at {configured!r}. Correct it, or remove it to use the bundled CLI."
            )
        return Path(found)
    name = "claude.exe" if sys.platform == "win32" else "claude"
    sdk = find_spec("claude_agent_sdk")
    bundled = Path(sdk.origin if sdk and sdk.origin else "").parent / "_bundled" / name
    if not bundled.is_file():
        raise ConfigurationError(
            "claude-agent-sdk brings no Claude Code for this platform: install it (npm install -g "
            "@anthropic-ai/claude-code) and set CLAUDE_CLI_PATH=claude."
        )
    return bundled


def check_cli(path: Path, search_path: str) -> str:
    """Return the version of the CLI at `path`, which finds its helpers in `search_path`.

    Raises ConfigurationError where it is too old, or no CLI at all.
    """
    command, environment = [str(path), "--version"], {"PATH": search_path}
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True, env=environment)  # noqa: S603 - the operator's path
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise ConfigurationError(f"{path} can't be run, so it is no Claude Code that we can use ({error}).") from error
    found = re.match(r"\d+\.\d+\.\d+", answer.stdout)
    if not found:
        raise ConfigurationError(f"{path} doesn't tell its version, so it is no Claude Code that we can use.")
    version = found[0]
    if tuple(map(int, version.split("."))) < OLDEST_CLI:
        oldest = ".".join(map(str, OLDEST_CLI))
        raise ConfigurationError(f"Claude Code {version} at {path} is too old: {oldest} or later is needed. Update it.")
    return version


@dataclass(frozen=True)
class Started:
    """A process that was started. `stderr` is the file that its error output goes to, `directory` is where it works.

    `written` are the directories that its tools may write to.

    A file and not a pipe: nobody has to read along, and a talkative process never blocks.
    """

    process: Process
    stderr: IO[bytes]
    directory: Path
    written: tuple[Path, ...]
    leftovers: ExitStack
    """What is to be closed when the process is gone."""


def _command(profile: LaunchProfile, own_flags: Sequence[str]) -> list[str]:
    command = [str(profile.cli_path), *_FLAGS, *own_flags, *(["--bare"] if profile.bare else [])]
    # A server that is killed can't tell its processes, and one that waits for its upstream doesn't see its input end.
    guard = shutil.which("setpriv") if sys.platform == "linux" else None
    return [guard, "--pdeathsig", "KILL", "--", *command] if guard else command


async def start(profile: LaunchProfile) -> Started:
    """Start a process of `profile`."""
    with ExitStack() as undo:
        stderr = undo.enter_context(tempfile.TemporaryFile())
        directory, flags = profile.working_directory, CHAT_FLAGS
        variables: Mapping[str, str] = {}
        written: tuple[Path, ...] = ()
        if profile.agent:
            if profile.agent.has_own_workspace:
                directory = _directory_in(directory, undo)
            scratch = _directory_in(profile.agent.scratch, undo)
            flags, variables = for_agent(profile.agent, directory, scratch)
            written = directory, scratch
        process = await anyio.open_process(
            _command(profile, flags),
            stdin=PIPE,
            stdout=PIPE,
            stderr=stderr,
            cwd=directory,
            env={**dict(profile.environment), **_CLI_ENVIRONMENT, **variables},
        )
        return Started(process, stderr, directory, written, undo.pop_all())
    raise AssertionError  # for the type checkers: nothing here is suppressed


def _directory_in(parent: Path, undo: ExitStack) -> Path:
    return Path(undo.enter_context(TemporaryDirectory(dir=parent, ignore_cleanup_errors=True)))
