"""The file of keys: what stands in it, and what it says at present.

    [keys.NAME]
    hash = "sha256:…"

Beside the hash stand the fields of KeyLimits, each of which may be left out.
"""

import logging
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, ValidationError

from callers import Caller, KeyLimits
from config import ConfigurationError
from setting_types import Name
from tool_catalog import check_tool

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports] - 3.11 and later have none

logger = logging.getLogger(__name__)

_Version = tuple[int, int, int, int]


def check_name(name: str) -> str:
    """Return a key's name if it can be one. Raises ValueError, which says what can."""
    # TOML's bare keys, so that no name needs quotes, and every one fits into a log's line.
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        raise ValueError("a key's name is 1 to 64 letters (a to z), digits, - and _")
    return name


def _digest(written: str) -> str:
    found = re.fullmatch(r"sha256:([0-9a-fA-F]{64})", written)
    if not found:
        raise ValueError("it is sha256: and 64 hexadecimal digits, as `python main.py keys new` prints it")
    return found[1].lower()


_Count = Annotated[int, Field(gt=0)]


def _tools(value: object) -> bool | tuple[str, ...]:
    if isinstance(value, bool):
        return value
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return tuple(map(check_tool, value))
    raise ValueError("it is true, false, or a list of tools' names")


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class _Entry(_Strict):
    hash: Annotated[str, AfterValidator(_digest)]
    requests_per_minute: _Count | None = None
    concurrent_requests: _Count | None = None
    usd_per_day: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    models: Annotated[list[Name], Field(min_length=1)] | None = None
    tools: Annotated[bool | tuple[str, ...], PlainValidator(_tools)] = False

    def caller(self, name: str) -> Caller:
        limits: dict[str, Any] = self.model_dump(exclude={"hash"})
        limits["models"] = self.models and tuple(self.models)
        return Caller(self.hash, name, KeyLimits(**limits))


class _File(_Strict):
    keys: dict[Annotated[str, AfterValidator(check_name)], _Entry] = Field(default_factory=dict)


def parse_keys(content: bytes) -> tuple[Caller, ...]:
    """Read the keys in a file's content, in its order. Raises ConfigurationError; no value is in its message."""
    try:
        callers = [entry.caller(name) for name, entry in _File(**tomllib.loads(content.decode())).keys.items()]
    except UnicodeDecodeError as error:
        raise ConfigurationError("it is not UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"it is not TOML: {error}") from error
    except ValidationError as error:
        raise ConfigurationError(_explain(error)) from error
    _refuse_doubles(callers)
    return tuple(callers)


def _refuse_doubles(callers: Iterable[Caller]) -> None:
    """Two entries for one key would leave open whose limits count."""
    names: dict[str, str | None] = {}
    for caller in callers:
        first = names.setdefault(caller.owner, caller.name)
        if first != caller.name:
            raise ConfigurationError(f"keys.{caller.name}.hash: it is keys.{first}'s, too")


def _explain(error: ValidationError) -> str:
    # Never `input`: it may be a secret. `[key]` is how pydantic says that the name itself is wrong.
    rows = error.errors(include_input=False, include_url=False)
    return "; ".join(f"{'.'.join(str(part) for part in row['loc'] if part != '[key]')}: {row['msg']}" for row in rows)


class KeysFile:
    """The keys in a file, which is read again when it changes."""

    def __init__(self, path: Path) -> None:
        """Read the file. Raises ConfigurationError where it is missing or wrong, naming file, key and field."""
        self._path = path
        self._complained: _Version | Literal["nothing"] | None = "nothing"
        self._seen = self._version()
        self._callers = self._read()

    def callers(self) -> tuple[Caller, ...]:
        """The keys of the file as it is, or as it was when it was last right."""
        version = self._version()
        if version != self._seen:
            self._reload(version)
        return self._callers

    def _reload(self, version: _Version | None) -> None:
        try:
            self._callers = self._read()
        except ConfigurationError as error:
            # Tried again each time, for whatever keeps it from being read may go; told of once.
            if version != self._complained:
                logger.error("%s. The keys that it had before stay valid.", error)  # noqa: TRY400 - no stack helps here
            self._complained = version
        else:
            self._seen = version
            logger.info("API_KEYS_FILE was read again: %d keys", len(self._callers))

    def _version(self) -> _Version | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino

    def _read(self) -> tuple[Caller, ...]:
        if self._path.is_fifo():
            raise ConfigurationError(f"API_KEYS_FILE {self._path} is no file")  # Who reads it waits for a writer.
        try:
            return parse_keys(self._path.read_bytes())
        except OSError as error:
            raise ConfigurationError(f"API_KEYS_FILE {self._path} can't be read: {error.strerror}") from error
        except ConfigurationError as error:
            raise ConfigurationError(f"API_KEYS_FILE {self._path} can't be used: {error}") from error
