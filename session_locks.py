"""Locks within this server, in the order in which they were asked for."""

from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio

from errors import SessionBusyError

_Key = tuple[str, str]


class Locks:
    """Locks by name, in the order in which they were asked for. Any task may release what another acquired."""

    def __init__(self) -> None:
        """Begin with none."""
        self._held: dict[_Key, anyio.Semaphore] = {}
        self._wanted: Counter[_Key] = Counter()

    @asynccontextmanager
    async def hold(self, key: _Key, patience: float) -> AsyncGenerator[None, None]:
        """Hold a lock. Raises SessionBusyError after `patience` seconds."""
        self._wanted[key] += 1
        semaphore = self._held.setdefault(key, anyio.Semaphore(1))
        try:
            await _acquire(semaphore, patience)
            try:
                yield
            finally:
                semaphore.release()
        finally:
            self._wanted[key] -= 1
            if not self._wanted[key]:
                del self._wanted[key], self._held[key]


async def _acquire(semaphore: anyio.Semaphore, patience: float) -> None:
    try:
        with anyio.fail_after(patience):
            await semaphore.acquire()
    except TimeoutError as error:
        raise SessionBusyError from error
