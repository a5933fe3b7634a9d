"""What the file of keys may say, what is said of a wrong one, and that a running server follows it."""

import logging
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from callers import Caller, KeyLimits
from config import ConfigurationError
from keys_file import KeysFile, check_name, parse_keys

SECRET = "a-secret-that-nobody-may-see"


def digest(key: str) -> str:
    """The hexadecimal SHA-256 of a key."""
    return sha256(key.encode()).hexdigest()


def entry(name: str, key: str, *fields: str) -> str:
    """An entry for a key, with more lines."""
    return "\n".join([f"[keys.{name}]", f'hash = "sha256:{digest(key)}"', *fields, ""])


def replace(path: Path, text: str) -> None:
    """Put new content in the place of the old at once, as a careful editor does."""
    new = path.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


def test_a_key_has_the_limits_of_its_entry() -> None:
    """Every field arrives as it is written, and each may be left out."""
    limits = [
        *("requests_per_minute = 60", "concurrent_requests = 4", "usd_per_day = 2.5", "tools = true"),
        'models = ["sonnet", "claude-haiku-*"]',
    ]
    anna, berta = parse_keys((entry("anna", "one", *limits) + entry("berta-2_b", "two")).encode())
    assert anna == Caller(digest("one"), "anna", KeyLimits(60, 4, 2.5, ("sonnet", "claude-haiku-*"), tools=True))
    assert berta == Caller(digest("two"), "berta-2_b", KeyLimits())


@pytest.mark.parametrize("content", [b"", b"# Nothing yet\n", b"[keys]\n"])
def test_a_file_may_have_no_keys_yet(content: bytes) -> None:
    """An empty file is a right one."""
    assert parse_keys(content) == ()


def test_a_hash_may_be_in_capitals_and_a_budget_whole() -> None:
    """What means the same is the same."""
    (caller,) = parse_keys(f'[keys.a]\nhash = "sha256:{digest("k").upper()}"\nusd_per_day = 5\n'.encode())
    assert (caller.owner, caller.limits.usd_per_day) == (digest("k"), 5.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f'[keys.a]\nhash = "{SECRET}"', "keys.a.hash: "),
        (f'[keys.a]\nhash = "sha256:{SECRET}"', "keys.a.hash: "),
        (f'[keys.a]\nhash = "{digest("a")}"', "keys.a.hash: "),
        (f'[keys.a]\nhash = "sha256:{digest("a")}\\n"', "keys.a.hash: "),
        ("[keys.a]\ntools = true", "keys.a.hash: Field required"),
        (f'[keys]\na = "{SECRET}"', "keys.a: "),
        (entry("a", "k", "requests_per_minute = 0"), "keys.a.requests_per_minute: "),
        (entry("a", "k", 'requests_per_minute = "60"'), "keys.a.requests_per_minute: "),
        (entry("a", "k", "requests_per_minute = true"), "keys.a.requests_per_minute: "),
        (entry("a", "k", "concurrent_requests = 1.5"), "keys.a.concurrent_requests: "),
        (entry("a", "k", "usd_per_day = -1"), "keys.a.usd_per_day: "),
        (entry("a", "k", "usd_per_day = inf"), "keys.a.usd_per_day: "),
        (entry("a", "k", "usd_per_day = nan"), "keys.a.usd_per_day: "),
        (entry("a", "k", 'usd_per_day = "5"'), "keys.a.usd_per_day: "),
        (entry("a", "k", 'models = "sonnet"'), "keys.a.models: "),
        (entry("a", "k", "models = []"), "keys.a.models: "),
        (entry("a", "k", 'models = [""]'), "keys.a.models.0: "),
        (entry("a", "k", "tools = 1"), "keys.a.tools: "),
        (entry("a", "k", "tools = [1]"), "keys.a.tools: "),
        (entry("a", "k", 'tools = ["Raed"]'), "keys.a.tools: Value error, 'Raed' is no tool of this server: Read, "),
        (entry("a", "k", f'key = "{SECRET}"'), "keys.a.key: "),
        (entry("a.b", "k"), "keys.a.b: "),
        (entry('"Anna B"', "k"), "keys.Anna B: "),
        (entry("a", "k") + entry("b", "k"), "keys.b.hash: it is keys.a's, too"),
        (entry("a", "k") + entry("a", "l"), "not TOML"),
        (f"[keys.a]\nhash = {SECRET}", "not TOML"),
        (f'[key.a]\nhash = "{SECRET}"', "key: Extra inputs"),
        ("\udcff", "not UTF-8"),
    ],
)
def test_a_wrong_file_is_refused_by_key_and_field(text: str, said: str) -> None:
    """The message names what is wrong, in one line, and shows no value."""
    with pytest.raises(ConfigurationError) as caught:
        parse_keys(text.encode(errors="surrogateescape"))
    message = str(caught.value)
    assert said in message
    assert "\n" not in message
    assert SECRET not in message
    assert digest("k") not in message


@pytest.mark.parametrize("name", ["", "a b", "a.b", "ä", "a\n", "a" * 65, '"'])
def test_a_name_is_one_plain_word(name: str) -> None:
    """Nothing that TOML would want quoted, and nothing that breaks a line of the log."""
    with pytest.raises(ValueError, match="name is 1 to 64"):
        check_name(name)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda _: None, "can't be read: No such file or directory"),
        (lambda path: path.mkdir(), "can't be read: Is a directory"),
        (lambda path: path.write_text("["), "can't be used: it is not TOML"),
    ],
)
def test_a_file_that_cant_be_read_at_start_is_an_error(
    make: Callable[[Path], object], said: str, tmp_path: Path
) -> None:
    """Missing, no file at all, or wrong: the setting and the file are named."""
    path = tmp_path / "keys.toml"
    make(path)
    with pytest.raises(ConfigurationError, match=f"API_KEYS_FILE {path} {said}"):
        KeysFile(path)


def owners(file: KeysFile) -> list[str]:
    """Whose keys are valid now."""
    return [caller.owner for caller in file.callers()]


def test_a_changed_file_is_read_again_and_an_unchanged_one_isnt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replaced or written over, the new keys count at the next question; otherwise nothing is read."""
    path = tmp_path / "keys.toml"
    path.write_text(entry("a", "one"), encoding="utf-8")
    file = KeysFile(path)
    replace(path, entry("a", "two"))
    assert owners(file) == [digest("two")]
    path.write_text(entry("a", "two") + entry("b", "three"), encoding="utf-8")
    assert owners(file) == [digest("two"), digest("three")]
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("nothing has changed"))
    assert owners(file) == [digest("two"), digest("three")]


def test_a_rewrite_of_the_same_length_is_seen_by_its_time(tmp_path: Path) -> None:
    """Another hash in the same file has the same size; the time of the writing tells."""
    path = tmp_path / "keys.toml"
    path.write_text(entry("a", "one"), encoding="utf-8")
    file, before = KeysFile(path), path.stat()
    path.write_text(entry("a", "two"), encoding="utf-8")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert owners(file) == [digest("two")]


@pytest.mark.parametrize("wrong", [f'[keys.a]\nhash = "{SECRET}"', "[", None])
def test_a_file_that_becomes_wrong_leaves_the_keys_as_they_were(
    wrong: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The last good keys stay, one line of the log says what is wrong, and the mended file counts again."""
    caplog.set_level(logging.INFO)
    path = tmp_path / "keys.toml"
    path.write_text(entry("a", "one"), encoding="utf-8")
    file = KeysFile(path)
    path.unlink() if wrong is None else replace(path, wrong)
    for _ in range(3):
        assert owners(file) == [digest("one")]
    (record,) = caplog.records
    assert (record.levelname, str(path) in record.message) == ("ERROR", True)
    assert SECRET not in caplog.text
    replace(path, entry("a", "one") + entry("b", "two"))
    assert owners(file) == [digest("one"), digest("two")]
    assert caplog.records[-1].message == "API_KEYS_FILE was read again: 2 keys"


def test_a_pipe_is_no_file_of_keys(tmp_path: Path) -> None:
    """Who reads one waits for ever, and all requests with it."""
    path = tmp_path / "keys.toml"
    os.mkfifo(path)
    with pytest.raises(ConfigurationError, match="is no file"):
        KeysFile(path)


def test_a_file_that_couldnt_be_read_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where nothing but its permissions changes, which a file's size and time don't show."""
    path = tmp_path / "keys.toml"
    path.write_text(f'[keys.anna]\nhash = "sha256:{"a" * 64}"\n', encoding="utf-8")
    file = KeysFile(path)
    path.write_text(f'[keys.berta]\nhash = "sha256:{"b" * 64}"\n', encoding="utf-8")

    def refuse(_path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refuse)
        assert [caller.name for caller in file.callers()] == ["anna"]
    assert [caller.name for caller in file.callers()] == ["berta"]
