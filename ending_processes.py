"""Processes that end in the background: nobody waits for them, but who would start one too many."""

import logging
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
from anyio.abc import TaskGroup

from claude_process import ClaudeProcess
from server_log import of_no_request

logger = logging.getLogger(__name__)

OnCost = Callable[[str, float], Coroutine[Any, Any, None]]

_SETTLE_SECONDS = 5


async def is_settled(process: ClaudeProcess) -> bool:
    """Bring a process back to where it was before its last turn; say whether it is there."""
    try:
        with anyio.fail_after(_SETTLE_SECONDS):
            await process.settle()
    except Exception as error:  # noqa: BLE001 - the process's edge: whatever it is, it must not end the pool
        logger.info("Process %d can't be settled: %s", process.pid, type(error).__name__)
        return False
    return True


class EndingProcesses:
    """Ends processes, books what they cost that nobody was told, and counts those that aren't gone yet."""

    def __init__(self, on_untold_cost: OnCost) -> None:
        """`on_untold_cost` is told what an owner's turns cost, in dollars, that couldn't tell it themselves."""
        self._on_untold_cost = on_untold_cost
        self._count = 0
        self._gone = anyio.Event()

    def __len__(self) -> int:
        return self._count

    async def one_is_gone(self) -> None:
        """Wait until one of them is gone."""
        await self._gone.wait()

    def end(self, process: ClaudeProcess, owner: str | None, tasks: TaskGroup) -> None:
        """Begin to end a process, in one of these tasks; `owner` is whose turns it had."""
        self._count += 1
        with of_no_request():
            tasks.start_soon(self._see_off, process, owner)

    async def _see_off(self, process: ClaudeProcess, owner: str | None) -> None:
        try:
            if owner is not None:
                await self._book_the_rest(process, owner)
        except Exception:  # the process's edge: nobody else could catch it, and it must not end the pool
            logger.exception("What process %d has cost can't be booked", process.pid)
        finally:
            await _close(process)
            self._count -= 1
            self._gone.set()
            self._gone = anyio.Event()

    async def _book_the_rest(self, process: ClaudeProcess, owner: str) -> None:
        if process.waits_for_results and process.alive:
            await is_settled(process)  # A turn that waits tells its cost at its end.
        if cost := process.costs.take_untold():
            await self._on_untold_cost(owner, cost)


async def _close(process: ClaudeProcess) -> None:
    try:
        await process.close()
    except Exception:  # the process's edge: others have to be ended, too
        logger.exception("Process %d didn't end as it should", process.pid)
