"""Which Claude Code process serves which turn.

A process takes half a second of CPU to start, so a few wait as spares: started, bound to nothing yet. Each serves one
turn of one caller, and ends.
"""

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup

from claude_process import ClaudeProcess
from errors import ClaudeCodeError, ClaudeCodeUnavailableError
from turns import Inspection, LaunchProfile, TurnRequest

logger = logging.getLogger(__name__)

_CLOSING = "This server is shutting down."


class ProcessPool:
    """Owns every Claude Code process of this server. Use `open`."""

    def __init__(self, profile: LaunchProfile, tasks: TaskGroup, *, spares: int, limit: int) -> None:
        """`tasks` runs what nobody waits for: starting spares, ending processes."""
        self.spares: list[ClaudeProcess] = []
        self._profile = profile
        self._tasks = tasks
        self._open = True
        self._wanted_spares = spares
        self._working = anyio.Semaphore(limit)
        self._processes: set[ClaudeProcess] = set()
        self._refilling = anyio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(cls, profile: LaunchProfile, *, spares: int, limit: int) -> AsyncGenerator["ProcessPool", None]:
        """Open a pool; at the exit none of its processes is left.

        `spares` processes wait, at most `limit` work at the same time; further turns wait for theirs.
        """
        async with anyio.create_task_group() as tasks:
            pool = cls(profile, tasks, spares=spares, limit=limit)
            pool.refill()
            try:
                yield pool
            finally:
                await pool.close()
                tasks.cancel_scope.cancel()

    def refill(self) -> None:
        """Begin to start the spares that are missing, without waiting for them."""
        if self._open:
            self._tasks.start_soon(self._refill)

    async def close(self) -> None:
        """End every process."""
        self._open = False
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as closing:
                while self._processes:
                    closing.start_soon(self._processes.pop().close)

    @asynccontextmanager
    async def lease(self, request: TurnRequest) -> AsyncGenerator[ClaudeProcess, None]:
        """Lend a process that is bound as the request wants it and holds the conversation before its prompt.

        Raises ClaudeCodeError where none can be had. No cancel scope stays open inside, so a stream that is begun in
        one task may end in another.
        """
        async with self._working:
            process = await self._prepared(request)
            try:
                yield process
            finally:
                self._retire(process)

    async def inspect(self) -> Inspection:
        """Let a process tell of itself, without a turn."""
        process = await self._take()
        try:
            return await process.inspect()
        finally:
            self._retire(process)

    async def _prepared(self, request: TurnRequest) -> ClaudeProcess:
        process = await self._take()
        try:
            return await self._prepare(process, request)
        except ClaudeCodeError:
            # A spare may have died while it waited. Nothing has been sent to Claude yet: a new process tries again.
            logger.warning("Process %d couldn't be prepared; another takes its place", process.pid)
        return await self._prepare(await self._launch(), request)

    async def _prepare(self, process: ClaudeProcess, request: TurnRequest) -> ClaudeProcess:
        try:
            await process.bind(request.binding)
            await process.seed(request.history)
        except BaseException:
            self._retire(process)
            raise
        return process

    async def _take(self) -> ClaudeProcess:
        while self.spares:
            process = self.spares.pop(0)
            self.refill()
            if process.alive:
                return process
            self._retire(process)
        return await self._launch()

    async def _launch(self) -> ClaudeProcess:
        if not self._open:
            raise ClaudeCodeUnavailableError(_CLOSING)
        process = await ClaudeProcess.launch(self._profile)
        self._processes.add(process)
        if not self._open:  # closed in the meantime
            self._processes.remove(process)
            await process.close()
            raise ClaudeCodeUnavailableError(_CLOSING)
        return process

    async def _refill(self) -> None:
        try:
            async with self._refilling:
                while len(self.spares) < self._wanted_spares:
                    self.spares.append(await self._launch())
        except ClaudeCodeError as error:
            logger.warning("No spare process: %s", error)

    def _retire(self, process: ClaudeProcess) -> None:
        """End a process in the background: nobody waits for it."""
        if process in self._processes:
            self._processes.remove(process)
            self._tasks.start_soon(process.close)
