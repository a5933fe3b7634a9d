"""What the SDK's client reads and writes: a channel to a process of ours, and fields of our own in its `initialize`."""

import json
from collections.abc import AsyncGenerator
from typing import Any

from claude_agent_sdk import Transport

from cli_channel import CliChannel


class ChannelTransport(Transport):
    """A channel, as the SDK's client wants it."""

    def __init__(self, channel: CliChannel) -> None:
        """Use a channel to a process that was started."""
        self._channel = channel
        self.initialize_fields: dict[str, Any] = {}

    async def connect(self) -> None:
        """Nothing to do: `ClaudeProcess.launch` started the process."""

    def is_ready(self) -> bool:
        """See Transport."""
        return self._channel.alive

    async def write(self, data: str) -> None:
        """See Transport."""
        frame = json.loads(data) if self.initialize_fields else {}
        if frame.get("request", {}).get("subtype") == "initialize":
            frame["request"] |= self.initialize_fields
            data, self.initialize_fields = json.dumps(frame) + "\n", {}
        await self._channel.write(data)

    def read_messages(self) -> AsyncGenerator[dict[str, Any], None]:
        """See Transport."""
        return self._channel.frames()

    async def end_input(self) -> None:
        """See Transport."""
        await self._channel.end_input()

    async def close(self) -> None:
        """See Transport."""
        await self._channel.close()
