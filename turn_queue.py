"""Who may begin a turn now: a number of places, in order among those of one owner, and fairly between owners."""

import time
from collections import Counter, OrderedDict, deque

import anyio

from errors import QueueTimeoutError

_REMEMBERED_WAITS = 1000


class TurnQueue:
    """Places for turns; one that becomes free goes to the owner who has the fewest of those who wait."""

    def __init__(self, places: int, timeout: float) -> None:
        """`places` may be taken at the same time; who waits longer than `timeout` seconds is turned away."""
        self._places = places
        self._timeout = timeout
        self._taken: Counter[str] = Counter()
        self.waits: deque[float] = deque(maxlen=_REMEMBERED_WAITS)
        """How long those waited who got a place lately, in seconds."""
        self.served = 0
        """How many got a place, ever."""
        self.waited = 0.0
        """How long all of them waited, in seconds."""
        self._waiting: OrderedDict[str, deque[anyio.Event]] = OrderedDict()

    def __len__(self) -> int:
        """How many wait."""
        return sum(map(len, self._waiting.values()))

    @property
    def taken(self) -> int:
        """How many places are taken."""
        return self._taken.total()

    async def take(self, owner: str, *, at_once: bool = False, patience: float | None = None) -> None:
        """Take a place, now or when its turn has come. Raises QueueTimeoutError after the timeout.

        `at_once`: now, for one who has just given a place back; there may be one too many for a moment. `patience`:
        seconds to wait in place of the timeout.
        """
        began = time.monotonic()
        if at_once or self.taken < self._places:
            self._taken[owner] += 1
        else:
            await self._wait(owner, self._timeout if patience is None else patience)
        wait = time.monotonic() - began
        self.waits.append(wait)
        self.served += 1
        self.waited += wait

    def give_back(self, owner: str) -> None:
        """Return a place, for the next one."""
        self._taken -= Counter({owner: 1})
        if self._waiting and self.taken < self._places:
            # Of equals the first in the order, to whose end the called one goes.
            self._call(min(self._waiting, key=lambda waiting: self._taken[waiting]))

    async def _wait(self, owner: str, patience: float) -> None:
        called = anyio.Event()
        self._waiting.setdefault(owner, deque()).append(called)
        try:
            with anyio.move_on_after(patience):
                await called.wait()
        except anyio.get_cancelled_exc_class():
            self._leave(owner, called)
            raise
        if not called.is_set():
            self._leave(owner, called)
            raise QueueTimeoutError(patience)

    def _call(self, owner: str) -> None:
        self._taken[owner] += 1
        self._waiting[owner].popleft().set()
        if self._waiting[owner]:
            self._waiting.move_to_end(owner)
        else:
            del self._waiting[owner]

    def _leave(self, owner: str, called: anyio.Event) -> None:
        if called.is_set():  # in the very moment in which the wait ended
            self.give_back(owner)
            return
        self._waiting[owner].remove(called)
        if not self._waiting[owner]:
            del self._waiting[owner]
