"""One raw Claude Code process in front of the demo upstream, for tests of what the CLI itself does.

Nothing of the project stands between a test and the CLI but its launch flags and environment. A process gets an
environment made from nothing: a home of its own, a dummy login, and the demo upstream as its only address.
"""

import asyncio
import json
import os
import tempfile
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import anyio
import anyio.to_thread

from agent_launch import AGENT_FLAGS
from cli_launch import _CLI_ENVIRONMENT, _FLAGS, CHAT_FLAGS, find_cli
from demo_upstream import DemoUpstream, Reply

Frame = dict[str, Any]

MODEL = "claude-sonnet-4-5"
SYSTEM = "You are a test."

API_KEY: Mapping[str, str] = {"ANTHROPIC_API_KEY": "sk-ant-dummy-loopback-only"}
OAUTH_TOKEN: Mapping[str, str] = {"CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat01-dummy-loopback-only"}
NO_LOGIN: Mapping[str, str] = {}

# How long anything may take before the test fails: never how long a test waits when all is well.
PATIENCE_SECONDS = 20.0
_LONGEST_FRAME_BYTES = 64 * 2**20


class ControlRefusedError(Exception):
    """The CLI answered a control request with an error."""


def user(content: str | list[Frame], **fields: Any) -> Frame:
    """Make a user frame; `fields` override or add to it."""
    return {
        "type": "user",
        "message": {"role": "user", "content": content},
        "parent_tool_use_id": None,
        "session_id": "",
        "uuid": str(uuid.uuid4()),
        "client_composed": True,
        **fields,
    }


def assistant(*content: Frame) -> Frame:
    """Make an assistant frame, as history. Its message has an id of its own, or its neighbour would swallow it."""
    message = {
        "id": f"msg_{uuid.uuid4().hex}",
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "content": list(content),
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 0, "output_tokens": 0},
    }
    return {
        "type": "assistant",
        "message": message,
        "parent_tool_use_id": None,
        "session_id": "",
        "uuid": str(uuid.uuid4()),
    }


def text(content: str) -> Frame:
    """Make a text block."""
    return {"type": "text", "text": content}


def contents(message: Frame) -> list[Frame]:
    """Return the blocks of a message that went upstream, less the CLI's cache marks; a bare string is a text block."""
    content = message["content"]
    blocks = [text(content)] if isinstance(content, str) else content
    return [{name: value for name, value in block.items() if name != "cache_control"} for block in blocks]


def conversation(body: Frame) -> list[tuple[str, list[Frame]]]:
    """Return the messages that a request showed to the model, as (role, blocks)."""
    return [(message["role"], contents(message)) for message in body["messages"]]


def is_result(frame: Frame) -> bool:
    """Whether a frame ends a turn."""
    return bool(frame["type"] == "result")


def is_retry(frame: Frame) -> bool:
    """Whether a frame says that a request will be made again."""
    return (frame["type"], frame.get("subtype")) == ("system", "api_retry")


def is_text(frame: Frame) -> bool:
    """Whether a frame is a piece of the answer's text."""
    delta = frame["event"].get("delta", {}) if frame["type"] == "stream_event" else {}
    return bool(delta.get("type") == "text_delta")


@dataclass(frozen=True)
class Turn:
    """All frames of a turn, the last of them its result."""

    frames: tuple[Frame, ...]

    @property
    def result(self) -> Frame:
        """The result frame."""
        return self.frames[-1]

    def of_type(self, frame_type: str) -> list[Frame]:
        """Return the frames of a type."""
        return [frame for frame in self.frames if frame["type"] == frame_type]


async def _say_sunny(_arguments: Frame) -> str:
    return "sunny"


@dataclass(frozen=True)
class ClientTool:
    """A function of the client: the CLI's call waits until `handler` has returned its result, or the text of it."""

    name: str
    handler: Callable[[Frame], Awaitable[str | Frame]] = _say_sunny
    read_only: bool = False

    @property
    def definition(self) -> Frame:
        """The tool in MCP's terms."""
        schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
        hints = {"annotations": {"readOnlyHint": True}} if self.read_only else {}
        return {"name": self.name, "description": f"The client's {self.name}.", "inputSchema": schema, **hints}


@dataclass
class _McpServer:
    """What answers the CLI as the in-process MCP server of one name."""

    name: str
    tools: tuple[ClientTool, ...]

    async def answer(self, message: Frame) -> Frame:
        """Answer one JSON-RPC message."""
        answers = {"initialize": self._initialize, "tools/list": self._list, "tools/call": self._call}
        answer = answers.get(message["method"])
        result = await answer(message.get("params") or {}) if answer else {}
        return {"jsonrpc": "2.0", "id": message.get("id", 0), "result": result}

    async def _initialize(self, params: Frame) -> Frame:
        server = {"name": self.name, "version": "1"}
        return {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": server}

    async def _list(self, _params: Frame) -> Frame:
        return {"tools": [tool.definition for tool in self.tools]}

    async def _call(self, params: Frame) -> Frame:
        tool = next(tool for tool in self.tools if tool.name == params["name"])
        result = await tool.handler(params["arguments"])
        return {"content": [text(result)]} if isinstance(result, str) else result


@dataclass
class ClaudeCli:
    """A running CLI process: frames go in by `send`, `control` and `turn`, and come out by `receive`.

    Control responses go to their requests and MCP requests to the tools; `receive` gives all other frames, in order.
    Whatever waits for a process that ends raises EOFError, with the process's last words.
    """

    process: asyncio.subprocess.Process
    stderr: IO[bytes]
    _frames: asyncio.Queue[Frame | None] = field(default_factory=asyncio.Queue)
    _responses: dict[str, asyncio.Future[Frame]] = field(default_factory=dict)
    mcp_calls: list[Frame] = field(default_factory=list)
    """What the CLI asked of the client's functions, in order."""
    asked: list[Frame] = field(default_factory=list)
    """What the CLI asked about calls of its own tools, in order: the hook before each, and then who could allow it."""
    decide: Callable[[Frame], Frame] = lambda _request: {}
    """What the hook answers; nothing is no opinion."""
    _servers: dict[str, _McpServer] = field(default_factory=dict)
    _answers: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def stdin(self) -> asyncio.StreamWriter:
        """The process's input."""
        assert self.process.stdin is not None
        return self.process.stdin

    async def send(self, frame: Frame) -> None:
        """Write one frame."""
        self.stdin.write(json.dumps(frame).encode() + b"\n")
        await self.stdin.drain()

    async def receive(self) -> Frame:
        """Return the next frame of the conversation."""
        with anyio.fail_after(PATIENCE_SECONDS):
            frame = await self._frames.get()
        if frame is None:
            raise self._ended()
        return frame

    async def receive_until(self, wanted: Callable[[Frame], bool]) -> Turn:
        """Return all frames up to the first that is `wanted`."""
        frames = [await self.receive()]
        while not wanted(frames[-1]):
            frames.append(await self.receive())
        return Turn(tuple(frames))

    async def control(self, subtype: str, **fields: Any) -> Frame:
        """Send a control request and return its response. Raises ControlRefusedError where it is an error."""
        request_id = uuid.uuid4().hex
        answered = self._responses[request_id] = asyncio.get_running_loop().create_future()
        request = {"subtype": subtype, **fields}
        await self.send({"type": "control_request", "request_id": request_id, "request": request})
        with anyio.fail_after(PATIENCE_SECONDS):
            response = await answered
        if response["subtype"] != "success":
            raise ControlRefusedError(response["error"])
        return response.get("response") or {}

    async def initialize(self, *system: str, **fields: Any) -> Frame:
        """Initialise the process, with `system` as its system prompt."""
        return await self.control("initialize", systemPrompt=list(system), systemPromptSnapshot=False, **fields)

    async def set_settings(self, **settings: Any) -> None:
        """Change settings at run time; they merge with the ones that were set before."""
        await self.control("apply_flag_settings", settings=settings)

    async def set_tools(self, server: str, *tools: ClientTool) -> None:
        """Offer `tools`, and nothing else, as the in-process MCP server of that name."""
        self._servers = {server: _McpServer(server, tools)}
        await self.control("mcp_set_servers", servers={server: {"type": "sdk", "name": server}})

    async def turn(self, prompt: str | Frame) -> Turn:
        """Send a prompt and return the turn, once its result is there."""
        await self.send(user(prompt) if isinstance(prompt, str) else prompt)
        return await self.receive_until(is_result)

    async def failed_turn(self, prompt: str | Frame = "Hello") -> Turn:
        """Run a turn that fails; where its request would be made again, interrupt it, as the project does.

        Returns what came up to its result, or to the frame that announces the retry.
        """
        await self.send(user(prompt) if isinstance(prompt, str) else prompt)
        turn = await self.receive_until(lambda frame: is_retry(frame) or is_result(frame))
        if is_retry(turn.result):
            await self.control("interrupt")
            await self.receive_until(is_result)
        return turn

    async def seed(self, *history: Frame) -> list[Frame]:
        """Put frames into the conversation without a turn; return the results that the user frames get."""
        results = []
        for frame in history:
            if frame["type"] == "user":
                # The CLI keeps the order of frames only if each is waited for.
                results.append((await self.turn({**frame, "shouldQuery": False})).result)
            else:
                await self.send(frame)
        return results

    async def exited(self, *, within: float = PATIENCE_SECONDS) -> int:
        """Wait for the process's end and return its exit code. Raises TimeoutError where it lives longer."""
        with anyio.fail_after(within):
            return await self.process.wait()

    async def read(self) -> None:
        """Sort the process's output to whom it is for, until it ends."""
        assert self.process.stdout is not None
        try:
            while line := await self.process.stdout.readline():
                self._sort(json.loads(line))
        finally:
            self._frames.put_nowait(None)
            for answered in self._responses.values():
                answered.set_exception(self._ended())
            await self._end_answers()

    async def _end_answers(self) -> None:
        for task in self._answers:
            task.cancel()
        for outcome in await asyncio.gather(*self._answers, return_exceptions=True):
            if isinstance(outcome, Exception) and not isinstance(outcome, ConnectionError):
                raise outcome

    def _sort(self, frame: Frame) -> None:
        if frame["type"] == "control_response":
            self._responses.pop(frame["response"]["request_id"]).set_result(frame["response"])
        elif frame["type"] == "control_request":
            self._answers.add(asyncio.create_task(self._answer(frame["request_id"], frame["request"])))
        else:
            self._frames.put_nowait(frame)

    async def _answer(self, request_id: str, request: Frame) -> None:
        if request["subtype"] in ("hook_callback", "can_use_tool"):
            self.asked.append(request)
            denied = {"behavior": "deny", "message": "nobody allows it"}
            decision = self.decide(request) if request["subtype"] == "hook_callback" else denied
            response = {"subtype": "success", "request_id": request_id, "response": decision}
            await self.send({"type": "control_response", "response": response})
            return
        assert request["subtype"] == "mcp_message", f"the CLI asks for something new: {request}"
        if request["message"]["method"] == "tools/call":
            self.mcp_calls.append(request["message"]["params"])
        reply = await self._servers[request["server_name"]].answer(request["message"])
        response = {"subtype": "success", "request_id": request_id, "response": {"mcp_response": reply}}
        await self.send({"type": "control_response", "response": response})

    def _ended(self) -> EOFError:
        self.stderr.seek(0)
        return EOFError(f"the CLI ended: {self.stderr.read().decode(errors='replace')[-2000:]}")


@dataclass(frozen=True)
class Lab:
    """A demo upstream, and CLI processes that know no other address."""

    upstream: DemoUpstream
    url: str
    home: Path

    @property
    def bodies(self) -> list[Frame]:
        """The bodies of the Messages requests so far."""
        return [record.body for record in self.upstream.messages_requests()]

    def script(self, *replies: Reply) -> None:
        """Let the upstream give these replies, one a request, and then say "Fine."."""
        self.upstream.reset()
        for reply in replies:
            self.upstream.script(reply)
        self.upstream.script(Reply(text="Fine."), times=None)

    async def upstream_sees(self, wanted: Callable[[DemoUpstream], bool]) -> None:
        """Wait until the upstream, which lives in a thread of its own, has seen what is `wanted`."""
        await anyio.to_thread.run_sync(self.upstream.wait_for, wanted)

    def environment(self, login: Mapping[str, str], variables: Mapping[str, str]) -> dict[str, str]:
        """Make a process's whole environment: our settings for the CLI, `variables`, and last what is safe."""
        return {
            **_CLI_ENVIRONMENT,
            **login,
            **variables,
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "CLAUDE_CONFIG_DIR": str(self.home / ".claude"),
            "ANTHROPIC_BASE_URL": self.url,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
        }

    @asynccontextmanager
    async def start(
        self,
        *flags: str,
        bare: bool = True,
        tools: str | None = None,
        login: Mapping[str, str] = API_KEY,
        **variables: str,
    ) -> AsyncGenerator[ClaudeCli, None]:
        """Start a process as the project does, plus `flags` and environment `variables`; at the end, kill it.

        `tools` are the CLI's own, if it is to have any.
        """
        with tempfile.TemporaryFile() as stderr:
            process = await asyncio.create_subprocess_exec(
                find_cli(None),
                *_FLAGS,
                *(CHAT_FLAGS if tools is None else (*AGENT_FLAGS, "--tools", tools)),
                *(["--bare"] if bare else []),
                *flags,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                cwd=self.home,
                env=self.environment(login, variables),
                limit=_LONGEST_FRAME_BYTES,
            )
            cli = ClaudeCli(process, stderr)
            reading = asyncio.create_task(cli.read())
            try:
                yield cli
            finally:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
                await reading

    @asynccontextmanager
    async def bound(
        self,
        *flags: str,
        model: str = MODEL,
        system: str = SYSTEM,
        bare: bool = True,
        login: Mapping[str, str] = API_KEY,
        **variables: str,
    ) -> AsyncGenerator[ClaudeCli, None]:
        """Start a process, initialise it with a system prompt and bind it to a model, as the project does."""
        async with self.start(*flags, bare=bare, login=login, **variables) as cli:
            await cli.initialize(system)
            await cli.set_settings(model=model)
            yield cli
