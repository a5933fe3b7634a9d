"""The frames of one Claude Code process: its pipes, control requests of our own, and its end.

What the frames mean is claude_process.py's business.
"""

import json
import logging
import uuid
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import suppress
from typing import Any

import anyio
import anyio.to_thread
import psutil
from anyio.streams.buffered import BufferedByteReceiveStream

from cli_frames import Control, Frame
from cli_launch import Started
from content_log import log_content
from errors import ApiError, ClaudeCodeError
from tool_bridge import ToolBridge

logger = logging.getLogger(__name__)

_UNEXPECTED = "The Claude Code process ended unexpectedly. Try again."
_CONTROL_TIMEOUT_SECONDS = 10.0
_EXIT_GRACE_SECONDS = 2.0
_LONGEST_FRAME_BYTES = 64 * 2**20
_LAST_WORDS_BYTES = 2000

# They come as long as a call waits, which may be long. Nobody reads meanwhile, and where the buffer of the SDK's
# client, a hundred frames, is full, nothing comes through any more: no answer to a control request, either.
_TELL_NOTHING = frozenset({"tool_progress", "keep_alive"})


class CliChannel:
    """Reads and writes the frames of one process, and ends it. Any task may write; one reads."""

    def __init__(self, started: Started, *, has_children: bool = False) -> None:
        """Take over a process that was started with pipes; `has_children`: it starts others, which end with it."""
        process = started.process
        assert process.stdin is not None  # noqa: S101 - for the type checker: started with pipes
        assert process.stdout is not None  # noqa: S101
        self._process, self._stderr, self._leftovers = process, started.stderr, started.leftovers
        self._has_children, self._was_written_to, self._end_is_explained = has_children, False, False
        self._fault: ApiError = ClaudeCodeError(_UNEXPECTED)
        self._stdin, self._stdout = process.stdin, BufferedByteReceiveStream(process.stdout)
        self._write_lock = anyio.Lock()
        self._waiting: dict[str, Answer] = {}
        self.bridge = ToolBridge()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.returncode is None

    async def write(self, lines: str) -> None:
        """Write frames, a line each. Raises ClaudeCodeError where the process is gone."""
        try:
            async with self._write_lock:
                self._was_written_to = True
                await self._stdin.send(lines.encode())
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise self.died() from error

    async def frames(self) -> AsyncGenerator[Frame, None]:
        """Yield each frame that isn't for the channel itself. Raises ClaudeCodeError where the process ends."""
        try:
            while True:
                frame = json.loads(await self._stdout.receive_until(b"\n", _LONGEST_FRAME_BYTES))
                if not await self._took(frame):
                    yield frame
        except (anyio.IncompleteRead, anyio.ClosedResourceError, anyio.BrokenResourceError) as error:
            if not self._end_is_explained:  # Its status is there a moment later, and `died` tells it.
                with anyio.move_on_after(_EXIT_GRACE_SECONDS):
                    await self._process.wait()
            raise self._fault from error  # Whose request it serves the reader doesn't know.
        finally:
            for answer in self._waiting.values():
                answer.set({"subtype": "error", "error": "the process ended"})

    async def _took(self, frame: Frame) -> bool:
        """Take answers to `control`, what is between Claude Code and the client's functions, and what says nothing."""
        due = self.bridge.receive(frame)
        if due is not None:
            await self.write_frames(due)
            return True
        response = frame.get("response", {}) if frame.get("type") == "control_response" else {}
        if answer := self._waiting.pop(response.get("request_id", ""), None):
            answer.set(response)
        return bool(answer) or frame.get("type") in _TELL_NOTHING

    async def write_frames(self, frames: Iterable[Frame]) -> None:
        """Write frames, if there are any. Raises ClaudeCodeError where the process is gone."""
        if lines := "".join(json.dumps(frame) + "\n" for frame in frames):
            await self.write(lines)

    async def send(self, subtype: str, **fields: Any) -> "Answer":
        """Send a control request, without waiting for its answer."""
        request_id, answer = _new_id(), Answer()
        self._waiting[request_id] = answer
        await self.write(_control_frame(request_id, subtype, fields))
        return answer

    async def control(self, subtype: str, **fields: Any) -> Frame:
        """Send a control request and return its response; see `controls`."""
        (response,) = await self.controls((subtype, fields))
        return response

    async def controls(self, *requests: Control) -> list[Frame]:
        """Send control requests, all at once, and return their responses, which somebody has to read in `frames`.

        They are carried out in their order. Raises ClaudeCodeError where one fails or takes too long.
        """
        waiting = {_new_id(): (Answer(), request) for request in requests}
        self._waiting |= {request_id: answer for request_id, (answer, _) in waiting.items()}
        try:
            await self.write("".join(_control_frame(each, *request) for each, (_, request) in waiting.items()))
            with anyio.fail_after(_CONTROL_TIMEOUT_SECONDS):
                return [_successful(await answer.wait(), subtype) for answer, (subtype, _) in waiting.values()]
        except TimeoutError as error:
            raise ClaudeCodeError("Claude Code didn't answer a control request in time.") from error
        finally:
            for request_id in waiting:
                self._waiting.pop(request_id, None)

    async def end_input(self) -> None:
        """Close the process's input."""
        await self._stdin.aclose()

    async def close(self) -> None:
        """End the process, by force if need be, and reap it. May be called twice."""
        self._end_is_explained = True
        with anyio.CancelScope(shield=True):
            children = self._children()
            self._end_by(self._process.terminate)
            with anyio.move_on_after(_EXIT_GRACE_SECONDS):
                await self._process.wait()
            self.kill()
            _kill(children)
            with anyio.move_on_after(_EXIT_GRACE_SECONDS):
                await self._process.aclose()
            # A working directory may be large.
            await anyio.to_thread.run_sync(self._leftovers.close)

    def kill(self, fault: ApiError | None = None) -> None:
        """End the process at once, where nobody can wait for it; `fault` is for whoever waits for its turn."""
        if not self.alive:
            self.died()
        self._fault, self._end_is_explained = fault or self._fault, True
        children = self._children()
        self._end_by(self._process.kill)
        _kill(children)

    def _children(self) -> list[psutil.Process]:
        if not self._has_children or not self.alive:
            return []
        with suppress(psutil.Error):
            return psutil.Process(self.pid).children(recursive=True)
        return []

    def died(self) -> ApiError:
        """Log, once, that a process is gone which we haven't ended, and return the error for it."""
        if not self._end_is_explained:
            self._end_is_explained = True
            logger.warning("Claude Code process %d ended: %s", self.pid, self.last_words())
        return self._fault

    def last_words(self) -> str:
        """How the process ended, for our log, and what it wrote to its error output; but not what it was told."""
        status, words = f"exit status {self._process.returncode}", self._error_output()
        if self._was_written_to:
            log_content("error_output", process_id=self.pid, text=words)
            return f"{status}, {len(words)} characters of error output"
        return f"{status}, {words!r}"

    def _error_output(self) -> str:
        if self._stderr.closed:
            return ""
        size = self._stderr.seek(0, 2)
        self._stderr.seek(max(0, size - _LAST_WORDS_BYTES))
        return self._stderr.read().decode(errors="replace").strip()

    def _end_by(self, means: Callable[[], None]) -> None:
        if self.alive:
            with suppress(ProcessLookupError):
                means()


def _kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.Error):  # gone already
            process.kill()


def _new_id() -> str:
    return f"wrapper_{uuid.uuid4().hex}"


def _control_frame(request_id: str, subtype: str, fields: Frame) -> str:
    request = {"subtype": subtype, **fields}
    return json.dumps({"type": "control_request", "request_id": request_id, "request": request}) + "\n"


def _successful(response: Frame, subtype: str) -> Frame:
    if response["subtype"] != "success":
        log_content("refusal", control=subtype, reason=response.get("error"))
        raise ClaudeCodeError(f"Claude Code refused `{subtype}`.")
    result: Frame = response.get("response") or {}
    return result


class Answer:
    """The answer to a control request, once it is there."""

    def __init__(self) -> None:
        """Wait for it."""
        self._event = anyio.Event()
        self._value: Frame = {}

    @property
    def is_there(self) -> bool:
        """Whether it has come."""
        return self._event.is_set()

    def set(self, value: Frame) -> None:
        """Take it; the first one counts."""
        if not self._event.is_set():
            self._value = value
            self._event.set()

    async def wait(self) -> Frame:
        """Wait until it is there, and return it."""
        await self._event.wait()
        return self._value
