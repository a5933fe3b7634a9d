"""Which Claude Code process serves which turn.

In this order: one whose conversation the request goes on with (adopted), one whose conversation is over (recycled), one
that waits started (spare), a new one (spawned). A process serves one turn at a time, and one owner for its life.
"""

import logging
import math
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar, get_args

import anyio
import anyio.to_thread
import psutil
from anyio.abc import TaskGroup

from claude_process import ClaudeProcess
from conversation import Digest, digests
from ending_processes import EndingProcesses, OnCost, is_settled
from errors import ClaudeCodeError, ShuttingDownError
from spare_processes import SpareProcesses
from turn_queue import TurnQueue
from turns import Binding, LaunchProfile, Origin, TurnRequest

logger = logging.getLogger(__name__)

_T = TypeVar("_T")
ORIGINS: tuple[Origin, ...] = get_args(Origin)

_OUTGROWN = "A command has written more than this server allows, or closed it, and was stopped."
_SWEEP_SECONDS = 5

# Question and answer. To seed so little anew costs a few milliseconds, so of one owner few such conversations are kept:
# traffic of single questions then runs on few processes, which stay warm, and takes little memory.
_EXCHANGE = 2
_SHORT_ONES_TO_KEEP = 2


@dataclass(frozen=True)
class PoolLimits:
    """How many processes there may be, and for how long. Seconds, bytes."""

    processes: int
    spares: int
    queue_timeout: float
    park_seconds: float
    turns: int
    memory: int


@dataclass(frozen=True)
class Lease:
    """A process that is lent for one turn, and where it came from."""

    process: ClaudeProcess
    origin: Origin
    owner: str
    profile: LaunchProfile


@dataclass(frozen=True)
class _Parked:
    """A process that waits for the next message of its conversation; `since` is by the pool's clock."""

    lease: Lease
    since: float

    def usable_of(self, binding: Binding, wanted: Sequence[Digest]) -> int:
        """Return how many messages of a request it holds; none where another request's results are waited for."""
        process = self.lease.process
        shared = process.shared_with(binding, wanted)
        return shared if shared == len(process.conversation) or not process.waits_for_results else 0

    @property
    def is_dispensable(self) -> bool:
        """Whether little is lost with it: what waits for results lives on here and nowhere else."""
        process = self.lease.process
        return len(process.conversation) <= _EXCHANGE and not process.waits_for_results


@dataclass(frozen=True)
class PoolState:
    """What the pool is doing. Waits are in seconds."""

    limit: int
    reuse: bool
    working: int
    parked: int
    spare: int
    leases: dict[Origin, int]
    queue_length: int
    waits: tuple[float, ...]
    """The latest ones."""
    served: int
    """How many turns got a place, ever."""
    waited: float
    """How long they waited for it, all together."""


class ProcessPool:
    """Owns every Claude Code process of this server. Use `open`."""

    def __init__(
        self, limits: PoolLimits, tasks: TaskGroup, clock: Callable[[], float], on_untold_cost: OnCost
    ) -> None:
        """`tasks` runs what nobody waits for: starting spares, settling turns, ending processes."""
        self._limits, self._tasks, self._clock, self._on_untold_cost = limits, tasks, clock, on_untold_cost
        self._open = True
        self._reuse = False
        self._processes: dict[ClaudeProcess, str | None] = {}  # With their owners; None: nobody's yet.
        self._starting = 0
        self._ending = EndingProcesses(on_untold_cost)
        self._parked: list[_Parked] = []  # Least recently used first.
        self._leases: Counter[Origin] = Counter()
        self._queue = TurnQueue(limits.processes, limits.queue_timeout)
        self.spares = SpareProcesses(limits.spares, tasks, self._launch, self._retire)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        limits: PoolLimits,
        expected: LaunchProfile,
        reuse: Callable[[], Awaitable[bool]],
        on_untold_cost: OnCost,
        clock: Callable[[], float] = time.monotonic,
    ) -> AsyncGenerator["ProcessPool", None]:
        """Open a pool whose first spares are of the `expected` profile; at the exit none of its processes is left.

        Until `reuse` has answered that processes can be used again, each serves one turn. `on_untold_cost` is told what
        an owner's turns cost, in dollars, that ended before they could tell it themselves.
        """
        async with anyio.create_task_group() as tasks:
            pool = cls(limits, tasks, clock, on_untold_cost)
            pool.spares.expect(expected)
            tasks.start_soon(pool._decide_on_reuse, reuse)
            tasks.start_soon(pool._sweep_again_and_again)
            try:
                yield pool
            finally:
                await pool._close()
                tasks.cancel_scope.cancel()

    async def _decide_on_reuse(self, reuse: Callable[[], Awaitable[bool]]) -> None:
        self._reuse = await reuse()

    @property
    def state(self) -> PoolState:
        """What the pool is doing now, and has done."""
        return PoolState(
            limit=self._limits.processes,
            reuse=self._reuse,
            working=self._queue.taken,
            parked=sum(parked.lease.process.alive for parked in self._parked),
            spare=sum(spare.alive for spare in self.spares),
            leases={origin: self._leases[origin] for origin in ORIGINS},
            queue_length=len(self._queue),
            waits=tuple(self._queue.waits),
            served=self._queue.served,
            waited=self._queue.waited,
        )

    @asynccontextmanager
    async def lease(
        self,
        request: TurnRequest,
        owner: str,
        profile: LaunchProfile,
        *,
        fresh: bool = False,
        patience: float | None = None,
    ) -> AsyncGenerator[Lease, None]:
        """Lend a process that is bound as the request wants it and holds the conversation before its prompt.

        `fresh`: a new one, whatever waits. `patience`: seconds to wait for it, if not the usual ones. Raises
        ClaudeCodeError where none can be had. No cancel scope stays open inside, so a stream that is begun in one task
        may end in another.
        """
        # Who needs a fresh process has waited already, and gave a useless one back.
        await self._queue.take(owner, at_once=fresh, patience=patience)
        with ExitStack() as undo:
            undo.callback(self._queue.give_back, owner)
            lease = await self._obtain(request, owner, profile, fresh=fresh)
            undo.pop_all()
        self._leases[lease.origin] += 1
        try:
            yield lease
        finally:
            if lease.process.has_tools:
                await _stopped(lease.process)
            self._take_back(lease)

    async def ask(self, profile: LaunchProfile, question: Callable[[ClaudeProcess], Awaitable[_T]]) -> _T:
        """Let a process tell of itself, without a turn."""
        process = self.spares.take(profile) or await self._launch(profile)
        try:
            return await question(process)
        finally:
            self._retire(process)

    # Taking

    async def _obtain(self, request: TurnRequest, owner: str, profile: LaunchProfile, *, fresh: bool) -> Lease:
        self._retire_dead()
        if not fresh:
            for take in (self._take_adoptable, self._take_recyclable, self._take_spare):
                lease = take(request, owner, profile)
                if lease and await self._prepared(lease, request):
                    return lease
        self._make_room()
        lease = Lease(await self._launch(profile), "spawned", owner, profile)
        await self._prepare(lease, request)
        return lease

    async def _prepared(self, lease: Lease, request: TurnRequest) -> bool:
        """Prepare a process that has waited; where that fails, nothing has been sent to Claude, and another can."""
        try:
            await self._prepare(lease, request)
        except ClaudeCodeError as error:
            logger.warning("%s process %d is of no use: %s", lease.origin.capitalize(), lease.process.pid, error)
            return False
        return True

    async def _prepare(self, lease: Lease, request: TurnRequest) -> None:
        if lease.process in self._processes:  # The pool may have been closed in the meantime.
            self._processes[lease.process] = lease.owner
        with ExitStack() as undo:
            undo.callback(self._retire, lease.process)
            await lease.process.prepare(request)
            undo.pop_all()

    def _take_adoptable(self, request: TurnRequest, owner: str, profile: LaunchProfile) -> Lease | None:
        """Take the process that holds the most of the request's conversation, its prompt included."""
        wanted = [*digests([*request.history, request.prompt])]
        shared = {parked: parked.usable_of(request.binding, wanted) for parked in self._parked_of(owner, profile)}
        best = max(shared, key=lambda parked: (shared[parked], parked.since), default=None)
        return self._unparked(best, "adopted") if best and shared[best] else None

    def _take_recyclable(self, request: TurnRequest, owner: str, profile: LaunchProfile) -> Lease | None:
        """Take a process whose conversation is over or empty, or hardly worth keeping, or the oldest to make room.

        Of the former the latest: a process that was used a moment ago is faster by a quarter, and the others may end.
        """
        fitting = [each for each in self._parked_of(owner, profile) if each.lease.process.can_become(request.binding)]
        over = [each for each in fitting if self._is_over(each) or not each.lease.process.conversation]
        dispensable = [each for each in fitting if each.is_dispensable]
        surplus = dispensable[: max(0, len(dispensable) + 1 - _SHORT_ONES_TO_KEEP)]
        candidates = over[-1:] or surplus[-1:] or (_dispensable_first(fitting) if self._is_full else [])
        return self._unparked(candidates[0], "recycled") if candidates else None

    def _take_spare(self, _request: TurnRequest, owner: str, profile: LaunchProfile) -> Lease | None:
        self._make_room()
        process = self.spares.take(profile)
        return Lease(process, "spare", owner, profile) if process else None

    def _parked_of(self, owner: str, profile: LaunchProfile) -> list[_Parked]:
        return [each for each in self._parked if (each.lease.owner, each.lease.profile) == (owner, profile)]

    def _unparked(self, parked: _Parked, origin: Origin) -> Lease:
        self._parked.remove(parked)
        return Lease(parked.lease.process, origin, parked.lease.owner, parked.lease.profile)

    def _retire_dead(self) -> None:
        for dead in [parked for parked in self._parked if not parked.lease.process.alive]:
            self._end_parked(dead)

    # Giving back

    def _take_back(self, lease: Lease) -> None:
        if lease.process.settled or lease.process.waits_for_results:
            self._return(lease)
        else:
            self._tasks.start_soon(self._settle, lease)

    async def _settle(self, lease: Lease) -> None:
        """Bring a process back to where it was before a turn that failed or was left."""
        if not await is_settled(lease.process):
            self._retire(lease.process)
        self._return(lease)

    def _return(self, lease: Lease) -> None:
        """Park a process, or end it where it is of no more use, and give its place back."""
        try:
            if cost := lease.process.costs.take_untold():
                self._tasks.start_soon(self._on_untold_cost, lease.owner, cost)
            if self._is_reusable(lease):
                self._parked.append(_Parked(lease, self._clock()))
            else:
                self._retire(lease.process)
        finally:
            self._queue.give_back(lease.owner)

    def _is_reusable(self, lease: Lease) -> bool:
        process = lease.process
        if process.has_tools and not process.waits_for_results:
            return False  # What its tools have read, and left running, is of its one conversation.
        if not (self._open and self._reuse and process.alive and process in self._processes):
            return False
        return process.turns < self._limits.turns and _resident_memory(process.pid) < self._limits.memory

    # Room

    def _is_over(self, parked: _Parked) -> bool:
        return self._clock() - parked.since > self._limits.park_seconds

    @property
    def _is_full(self) -> bool:
        """Whether one more process, for a turn that has its place already, would be one too many."""
        return self._queue.taken + len(self._parked) > self._limits.processes

    def _make_room(self) -> None:
        while self._is_full and self._parked:
            self._end_parked(_dispensable_first(self._parked)[0])

    def _end_parked(self, parked: _Parked) -> None:
        self._parked.remove(parked)
        self._retire(parked.lease.process)

    def sweep(self) -> None:
        """Replace the dead, and end processes whose conversation is over, but for as many as there are spares.

        Of those whose client never came back with the results none is kept.
        """
        self._retire_dead()
        self.spares.replace_dead()
        over = [parked for parked in self._parked if self._is_over(parked)]
        waiting = [parked for parked in over if parked.lease.process.waits_for_results]
        idle = [parked for parked in over if parked not in waiting]
        for parked in [*waiting, *idle[: -self._limits.spares or None]]:
            self._end_parked(parked)

    async def _sweep_again_and_again(self) -> None:
        while True:
            await anyio.sleep(_SWEEP_SECONDS)
            try:
                self.sweep()
                await self._stop_outgrown()
            except OSError as error:  # As without file descriptors: it must not end the pool, and there is a next time.
                logger.warning("The processes can't be looked after: %s", error.strerror)

    async def _stop_outgrown(self) -> None:
        for process in [*self._processes]:
            if process.has_tools and await anyio.to_thread.run_sync(process.disk.has_outgrown):
                logger.warning("The tools of process %d have filled their directory", process.pid)
                process.kill(ClaudeCodeError(_OUTGROWN))

    # Starting and ending

    async def _launch(self, profile: LaunchProfile) -> ClaudeProcess:
        await self._until_there_is_room()
        self._starting += 1
        try:
            with anyio.CancelScope(shield=True):  # A request that is given up meanwhile would leave one to nobody.
                return await self._launched(profile)
        finally:
            self._starting -= 1
        raise AssertionError  # for the type checkers: nobody cancels this scope

    async def _launched(self, profile: LaunchProfile) -> ClaudeProcess:
        if not self._open:
            raise ShuttingDownError
        process = await ClaudeProcess.launch(profile)
        if not self._open:  # closed in the meantime
            await process.close()
            raise ShuttingDownError
        self._processes[process] = None
        return process

    async def _until_there_is_room(self) -> None:
        """Wait until enough of those that are being ended are gone: more than the limit shall never live."""
        most = self._limits.processes + self._limits.spares
        while self._ending and len(self._processes) + self._starting + len(self._ending) >= most:
            await self._ending.one_is_gone()

    def _retire(self, process: ClaudeProcess) -> None:
        if process in self._processes:
            if not process.alive:
                process.note_death()
            self._ending.end(process, self._processes.pop(process), self._tasks)

    def stop(self) -> None:
        """End all turns, with an error: the server's time is over."""
        self._open = False
        for process in self._processes:
            process.kill(ShuttingDownError())

    async def _close(self) -> None:
        self._open = False
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as closing:
                while self._processes:
                    self._ending.end(*self._processes.popitem(), closing)


async def _stopped(process: ClaudeProcess) -> None:
    """Stop what the tools of a turn that failed or was left still do: whoever has its directory next is alone there."""
    if process.settled or process.waits_for_results:
        return
    with anyio.CancelScope(shield=True):
        await is_settled(process)  # To know what it cost.
        process.kill()


def _dispensable_first(parked: Sequence[_Parked]) -> list[_Parked]:
    """Put those whose conversation can go on elsewhere as well as here in front, each kind in its order."""
    return sorted(parked, key=lambda each: each.lease.process.waits_for_results)


def _resident_memory(pid: int) -> float:
    """Return the bytes of memory that a process holds; no end of them where it is gone, or can't be looked at."""
    try:
        return float(psutil.Process(pid).memory_info().rss)
    except (psutil.Error, OSError):  # The latter, without file descriptors.
        return math.inf
