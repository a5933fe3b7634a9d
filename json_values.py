"""What JSON can say and others can't: NUL characters, and numbers beyond what computers have."""

import re
import sys
from collections.abc import Iterator
from typing import Any

# What may be one: a NUL, or a text that looks like one; a number with a long exponent, or of many digits.
_MAY_BE_UNWRITABLE = re.compile(rb"\\u0000|\d[eE]\+?\d{3}|\d{200}")


def find_unwritable(raw: bytes, value: Any) -> tuple[str, str] | None:
    """Return where in what was parsed the first such value is, and what is wrong with it; None: there is none."""
    # To look into everything takes longer than to parse it.
    return next(_unwritable(value), None) if _MAY_BE_UNWRITABLE.search(raw) else None


def _unwritable(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str) and "\0" in value:
        yield place, "it has a NUL character in it"
    elif isinstance(value, (int, float)) and not abs(value) <= sys.float_info.max:
        # Claude Code, which is JavaScript, would read an infinity, and write a null.
        yield place, "the number is too large"
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unwritable(item, f"{place}.[{index}]")
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _unwritable(name, place)
            yield from _unwritable(item, f"{place}.{name}" if place else name)
