"""The directories that sessions work in: one for each, which nobody else's tools see, kept as long as the session.

A directory's name is made of a digest, so nothing that a client says is ever a path. Beside the files stands whose they
are, so that any server that shares the directories can tell which ones have outlived their session.
"""

import json
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

import anyio.to_thread

logger = logging.getLogger(__name__)

_LABEL = "session.json"
_FILES = "files"
_PRIVATE = 0o700
_DIGITS = 32
# Others may keep what they like beside them.
_OURS = re.compile(r"[0-9a-f]{32}(-removed-[0-9a-f]{8})?")


class Workspaces:
    """Directories of sessions, in one that is theirs alone. Its methods wait for the disk in threads."""

    def __init__(self, root: Path, keep_seconds: float, clock: Callable[[], float] = time.time) -> None:
        """Keep them in `root`; one without a session stays for `keep_seconds`, as its first turn may be under way."""
        self._root, self._keep_seconds, self._clock = root, keep_seconds, clock

    async def open(self, owner: str, session_id: str, *, is_new: bool) -> Path:
        """Return the directory of a session, whose turn it is; of one that begins it is empty."""
        return await anyio.to_thread.run_sync(self._open, owner, session_id, is_new)

    async def remove(self, owner: str, session_id: str) -> None:
        """Remove the directory of a session, with all that is in it."""
        await anyio.to_thread.run_sync(_remove, self._place(owner, session_id))

    async def sweep(self, lives: Callable[[str, str], Awaitable[bool]]) -> None:
        """Remove the directories of sessions that don't live any more."""
        for place in await anyio.to_thread.run_sync(self._unused):
            whose = await anyio.to_thread.run_sync(_label_of, place)
            if whose is None or not await lives(*whose):
                await anyio.to_thread.run_sync(self._remove_unused, place)

    def _place(self, owner: str, session_id: str) -> Path:
        digest = blake2b(f"{owner}\0{session_id}".encode(errors="surrogatepass"), digest_size=16)
        return self._root / digest.hexdigest()

    def _open(self, owner: str, session_id: str, is_new: bool) -> Path:  # noqa: FBT001 - threads take no names
        place = self._place(owner, session_id)
        if is_new:
            _remove(place)
        files = place / _FILES
        files.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
        (place / _LABEL).write_text(json.dumps([owner, session_id]), encoding="utf-8")
        return files.resolve()

    def _unused(self) -> list[Path]:
        """Return the directories that no turn has begun in for as long as one may take, and what is left of others."""
        places = [*self._root.iterdir()] if self._root.is_dir() else []
        return [place for place in places if _OURS.fullmatch(place.name) and self._is_unused(place)]

    def _is_unused(self, place: Path) -> bool:
        return _last_begun(place) < self._clock() - self._keep_seconds

    def _remove_unused(self, place: Path) -> None:
        if self._is_unused(place):  # A session of this name may have begun meanwhile.
            _remove(place)


def _last_begun(place: Path) -> float:
    for each in (place / _LABEL, place):
        with suppress(OSError):
            return each.stat().st_mtime
    return 0.0


def _label_of(place: Path) -> tuple[str, str] | None:
    """Return whose a directory is; None: nobody's any more."""
    if len(place.name) > _DIGITS:  # What is left of one that was removed.
        return None
    with suppress(OSError, ValueError, TypeError):
        owner, session_id = json.loads((place / _LABEL).read_text(encoding="utf-8"))
        return str(owner), str(session_id)
    return None


def _remove(place: Path) -> None:
    """Remove a directory, under another name: the next session of this name finds nothing, whatever becomes of it."""
    doomed = place.with_name(f"{place.name[:_DIGITS]}-removed-{secrets.token_hex(4)}")
    try:
        place.rename(doomed)
    except FileNotFoundError:
        return
    # A command may have closed a directory, and what can't be opened can't be removed.
    for parent, directories, _ in os.walk(doomed):
        for directory in (Path(parent, each) for each in directories):
            if not directory.is_symlink():
                with suppress(OSError):
                    directory.chmod(_PRIVATE)
    try:
        shutil.rmtree(doomed)
    except OSError as error:
        logger.warning("What is left of a session's directory can't be removed: %s", error.strerror)
