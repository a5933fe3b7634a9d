"""Who calls: whom a key belongs to, and what its owner may do."""

from dataclasses import dataclass


@dataclass(frozen=True)
class KeyLimits:
    """What one key may use; None: no limit. In `models` a `*` is a wildcard.

    `tools` are Claude Code's own: the ones that the operator allows to all, or those that are named here, or none.
    """

    requests_per_minute: int | None = None
    concurrent_requests: int | None = None
    usd_per_day: float | None = None
    models: tuple[str, ...] | None = None
    tools: bool | tuple[str, ...] = False


@dataclass(frozen=True)
class Caller:
    """One who calls. `owner` tells keys apart without giving them away, `name` is the operator's."""

    owner: str
    name: str | None = None
    limits: KeyLimits = KeyLimits()
