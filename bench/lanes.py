"""Ways to get an answer from Claude Code, each timed the same way: seconds to the first text, and to the end."""

import json
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx
from claude_agent_sdk import ClaudeAgentOptions, StreamEvent, query

import cli_launch
from cli_channel import CliChannel
from cli_frames import Control, frame_of, rebinding, rewind_to
from turns import Binding, LaunchProfile, Message, TextBlock

MODEL = "claude-sonnet-4-5"

Json = dict[str, Any]

_DONE = "data: [DONE]"


@dataclass(frozen=True)
class Sample:
    """One answer.

    `first` is None where it wasn't streamed, `status` 0 for a stream without its end; `origin` and `waited` are what
    our server says of its process and of the time until it had one.
    """

    first: float | None
    total: float
    status: int = 200
    origin: str = ""
    waited: float = 0
    key: str = ""


@dataclass
class Watch:
    """Times one answer."""

    began: float = field(default_factory=time.perf_counter)
    first: float | None = None

    def text(self) -> None:
        """Note the first text."""
        self.first = self.first or time.perf_counter() - self.began

    def stop(self, **more: Any) -> Sample:
        """Return the times."""
        return Sample(self.first, time.perf_counter() - self.began, **more)


class Lane(Protocol):
    """One client's way to answers, one after the other."""

    async def ask(self, system: str, prompt: str) -> Sample:
        """Have a new conversation answered."""
        ...


class SpawningLane:
    """The field's practice: the SDK's `query`, which starts Claude Code for every request."""

    def __init__(self, environment: dict[str, str]) -> None:
        """Use an environment made from nothing."""
        self._environment = environment

    async def ask(self, system: str, prompt: str) -> Sample:
        """Have a new conversation answered."""
        watch = Watch()
        options = ClaudeAgentOptions(
            model=MODEL,
            system_prompt=system,
            include_partial_messages=True,
            tools=[],  # The stand-in for the model would call them.
            env={**self._environment, "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_AUTOUPDATER": "1"},
        )
        async for message in query(prompt=prompt, options=options):
            if isinstance(message, StreamEvent) and message.event.get("delta", {}).get("type") == "text_delta":
                watch.text()
        return watch.stop()


class RawLane:
    """The floor: one live process without a server, rewound and bound anew for each conversation."""

    def __init__(self, channel: CliChannel) -> None:
        """Use `raw_lane`."""
        self._channel = channel
        self._frames = channel.frames()
        self._last = ""
        self._binding: Binding | None = None

    async def ask(self, system: str, prompt: str) -> Sample:
        """Have a new conversation answered."""
        watch = Watch()
        binding = Binding(MODEL, system)
        await self._controls(*self._preparation(binding))
        frame = frame_of(Message("user", (TextBlock(prompt),)), client_composed=True)
        self._binding, self._last = binding, frame["uuid"]
        await self._channel.write(json.dumps(frame) + "\n")
        async for received in self._frames:
            if received["type"] == "stream_event" and received["event"].get("delta", {}).get("type") == "text_delta":
                watch.text()
            if received["type"] == "result":
                break
        return watch.stop()

    def _preparation(self, binding: Binding) -> list[Control]:
        if not self._last:
            first = {"systemPrompt": [binding.system], "systemPromptSnapshot": False}
            return [("initialize", first), *rebinding(None, binding)]
        return [rewind_to(self._last), *rebinding(self._binding, binding)]

    async def _controls(self, *requests: Control) -> None:
        frames = [
            {"type": "control_request", "request_id": f"{number}", "request": {"subtype": subtype, **fields}}
            for number, (subtype, fields) in enumerate(requests)
        ]
        await self._channel.write("".join(json.dumps(frame) + "\n" for frame in frames))
        for _ in requests:
            answer = await anext(frame async for frame in self._frames if frame["type"] == "control_response")
            assert answer["response"]["subtype"] == "success", answer
            assert answer["response"].get("response", {}).get("rewound", True), answer


@asynccontextmanager
async def raw_lane(profile: LaunchProfile) -> AsyncGenerator[RawLane, None]:
    """Start a process for a lane; end it."""
    channel = CliChannel(await cli_launch.start(profile))
    try:
        yield RawLane(channel)
    finally:
        await channel.close()


class ServerLane:
    """A client of an OpenAI-compatible server."""

    def __init__(self, client: httpx.AsyncClient, key: str, *, stream: bool = True, model: str = MODEL) -> None:
        """Use a client whose base URL ends in /v1."""
        self._client, self._key, self._stream, self._model = client, key, stream, model

    async def ask(self, system: str, prompt: str) -> Sample:
        """Have a new conversation answered."""
        messages = [{"role": "system", "content": system}, {"role": "user", "content": prompt}]
        return (await self.converse(messages))[0]

    async def call(self, messages: Sequence[Json], tools: Sequence[Json]) -> Json:
        """Have a conversation answered by calls of functions; return the message that has them."""
        body = {"model": self._model, "messages": messages, "tools": tools}
        response = await self._client.post("chat/completions", json=body, headers=self._headers)
        message: Json = response.json()["choices"][0]["message"]
        return message

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key}"}

    async def converse(self, messages: Sequence[Json], **more: Any) -> tuple[Sample, str]:
        """Have a conversation answered; return the answer's text as well."""
        watch = Watch()
        body = {"model": self._model, "messages": messages, "stream": self._stream, **more}
        text = line = ""
        async with self._client.stream("POST", "chat/completions", json=body, headers=self._headers) as response:
            async for line in (line async for line in response.aiter_lines() if line):
                if piece := _content(line):
                    watch.text()
                    text += piece
        origin = response.headers.get("x-claude-process", "")
        status = response.status_code if not self._stream or line == _DONE else 0
        waited = float(response.headers.get("x-claude-overhead-ms", 0)) / 1000
        return watch.stop(status=status, origin=origin, waited=waited, key=self._key), text


def _content(line: str) -> str:
    """Return the text in a line of a stream."""
    if not line.startswith("data: {"):
        return ""
    choices = json.loads(line.removeprefix("data: ")).get("choices") or [{}]
    return str(choices[0].get("delta", {}).get("content") or "")
