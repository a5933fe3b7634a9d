"""Which conversation a process holds, and how much of it a request shares: one rolling digest a message.

Texts aren't kept: a digest says enough, and a server that holds every conversation twice would grow with them.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from itertools import takewhile
from typing import Any

from turns import Message, TextBlock, ToolResultBlock

Digest = bytes


def digests(messages: Iterable[Message], before: Digest = b"") -> Iterator[Digest]:
    """Yield a digest for each message, of it and of all before it; `before` is that of a conversation to go on with."""
    for message in messages:
        canonical = json.dumps(_canonical(message), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        before = blake2b(before + canonical.encode(), digest_size=16).digest()
        yield before


def _canonical(message: Message) -> list[Any]:
    """What makes a message the same for the model.

    A client gives an answer back as one text, in however many blocks the model wrote it.
    """
    blocks: list[Any] = [asdict(block) for block in message.content]
    if message.role == "assistant":
        text = "".join(block.text for block in message.content if isinstance(block, TextBlock))
        blocks = [text, *(block for block in blocks if block["type"] != "text")]
    return [message.role, blocks]


@dataclass(frozen=True)
class _Entry:
    digest: Digest
    uuid: str
    rewindable: bool


@dataclass
class Conversation:
    """The messages that a process holds, in order, as digests with the ids that the process knows them by."""

    _entries: list[_Entry] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self._entries)

    def append(self, message: Message, uuid: str) -> None:
        """Note a message that the process took in under this id."""
        before = self._entries[-1].digest if self._entries else b""
        (digest,) = digests([message], before)
        # Claude Code refuses to part a tool's result from its call.
        splits_a_call = any(isinstance(block, ToolResultBlock) for block in message.content)
        self._entries.append(_Entry(digest, uuid, message.role == "user" and not splits_a_call))

    def shared_with(self, other: Sequence[Digest]) -> int:
        """Return how many messages from the beginning are the same as in a conversation of these digests."""
        pairs = zip((entry.digest for entry in self._entries), other, strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    def keepable(self, wanted: int) -> int | None:
        """Return how many of the first `wanted` messages can be kept when the rest is rewound; None: no such place."""
        places = range(min(wanted, len(self)), -1, -1)
        return next((place for place in places if place == len(self) or self._entries[place].rewindable), None)

    def forget(self, keep: int) -> None:
        """Forget all but the first `keep` messages, which the process has left already."""
        del self._entries[keep:]

    def rewind(self, keep: int) -> Iterator[str]:
        """Yield the ids to rewind to, until `keep` messages are left; forget what is behind each."""
        while len(self) > keep:
            if self._entries[-1].rewindable:
                yield self._entries[-1].uuid
            self._entries.pop()
