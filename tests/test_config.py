"""Settings: what the environment and `.env` mean, what wins, and what is refused without telling a secret."""

import logging
from pathlib import Path

import pytest
from pydantic import ValidationError

from config import ConfigurationError, load_settings


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without a `.env`, and an environment without anything that a test sets."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_anything_set_there_are_defaults() -> None:
    """An empty environment is a valid one: loopback, no keys, no login forced."""
    settings = load_settings()
    assert (settings.host, settings.port, settings.keys) == ("127.0.0.1", 8000, ())
    assert settings.claude_auth_method is None


def test_overrides_win_over_the_environment_and_that_over_the_file(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command line is nearest, then the process's variables, then `.env`."""
    (directory / ".env").write_text("HOST=file\nPORT=1\nLOG_LEVEL=DEBUG\n", encoding="utf-8")
    monkeypatch.setenv("PORT", "2")
    monkeypatch.setenv("HOST", "process")
    settings = load_settings(host="override")
    assert (settings.host, settings.port, settings.log_level) == ("override", 2, "DEBUG")


def test_the_environment_has_the_file_beneath_it(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logins find variables of either source, the process's own win, and empty ones are none."""
    (directory / ".env").write_text("AWS_REGION=file\nAWS_PROFILE=file\nAWS_EMPTY=\n", encoding="utf-8")
    monkeypatch.setenv("AWS_REGION", "process")
    monkeypatch.setenv("AWS_PROFILE", "")
    environment = load_settings().environment
    assert (environment["AWS_REGION"], environment["AWS_PROFILE"]) == ("process", "file")
    assert "AWS_EMPTY" not in environment


@pytest.mark.parametrize(
    ("host", "local"),
    [
        *[(host, True) for host in ("127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1", "localhost", "LOCALHOST")],
        *[(host, False) for host in ("0.0.0.0", "::", "10.0.0.1", "192.168.0.1", "2001:db8::1", "::ffff:10.0.0.1")],  # noqa: S104
        *[(host, False) for host in ("example.org", "localhost.example.org", "", "fe80::1%eth0")],
    ],
)
def test_only_loopback_is_local(host: str, local: bool) -> None:
    """An address of loopback keeps others out; any other address, every address, and an unknown name don't."""
    assert load_settings(host=host).is_local == local


@pytest.mark.parametrize(
    ("variable", "value"), [("API_KEY", "one"), ("API_KEYS", "one,two"), ("API_KEYS_FILE", "keys.toml")]
)
def test_each_way_to_set_a_key_asks_for_one(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key, several, or a file for them: callers must show one, and without any of these nobody must."""
    assert not load_settings().asks_for_keys
    monkeypatch.setenv(variable, value)
    assert load_settings().asks_for_keys


def test_an_empty_variable_is_like_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose files hand on variables that nobody set as empty ones."""
    for name in ("PORT", "API_KEY", "API_KEYS_FILE", "MODEL_ALIASES", "CLAUDE_AUTH_METHOD"):
        monkeypatch.setenv(name, "")
    settings = load_settings()
    assert (settings.port, settings.asks_for_keys, settings.model_aliases) == (8000, False, {})


@pytest.mark.parametrize(
    ("given", "milliseconds", "warned"),
    [("1", 1000, True), ("600", 600_000, True), ("999", 999_000, True), ("1000", 1000, False), ("5000", 5000, False)],
)
def test_a_small_timeout_is_in_seconds(
    given: str, milliseconds: int, warned: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A MAX_TIMEOUT under 1000 means seconds, and the log says how it was taken."""
    monkeypatch.setenv("MAX_TIMEOUT", given)
    with caplog.at_level(logging.WARNING):
        settings = load_settings()
    assert (settings.max_timeout, settings.timeout_seconds) == (milliseconds, milliseconds / 1000)
    assert (f"MAX_TIMEOUT={given}" in caplog.text) == warned


@pytest.mark.parametrize(
    ("single", "several", "keys"),
    [
        (None, "", ()),
        ("one", "", ("one",)),
        (None, "two, three,,", ("two", "three")),
        ("one", " two ", ("one", "two")),
    ],
)
def test_keys_come_from_both_variables(
    single: str | None, several: str, keys: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """API_KEY and the comma-separated API_KEYS are one set of keys, without blanks."""
    if single:
        monkeypatch.setenv("API_KEY", single)
    monkeypatch.setenv("API_KEYS", several)
    assert load_settings().keys == keys


@pytest.mark.parametrize(
    ("given", "origins"),
    [
        ('["https://a.example", "https://b.example"]', ("https://a.example", "https://b.example")),
        ("https://a.example,https://b.example", ("https://a.example", "https://b.example")),
        ('["*"]', ("*",)),
        ("*", ("*",)),
        ("[]", ()),
    ],
)
def test_origins_are_json_or_commas(given: str, origins: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """CORS_ORIGINS takes both ways of writing a list."""
    monkeypatch.setenv("CORS_ORIGINS", given)
    assert load_settings().cors_origins == origins


def test_trusted_proxies_are_addresses_and_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """TRUSTED_PROXIES takes both, of either version, with commas."""
    monkeypatch.setenv("TRUSTED_PROXIES", "127.0.0.1, 10.0.0.0/8,::1")
    assert load_settings().trusted_proxies == ("127.0.0.1", "10.0.0.0/8", "::1")


def test_model_aliases_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """MODEL_ALIASES is a JSON object of names."""
    monkeypatch.setenv("MODEL_ALIASES", '{"gpt-4o": "sonnet"}')
    assert load_settings().model_aliases == {"gpt-4o": "sonnet"}


@pytest.mark.parametrize(
    "given", ['{"anthropic-beta": "a,b", "X-Team": "c: d"}', "anthropic-beta: a,b\nX-Team: c: d\n"]
)
def test_custom_headers_are_json_or_lines(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """ANTHROPIC_CUSTOM_HEADERS takes an object, or a header on each line, as Claude Code itself has it."""
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", given)
    assert load_settings().anthropic_custom_headers == {"anthropic-beta": "a,b", "X-Team": "c: d"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("PORT", "65536"),
        ("MAX_TIMEOUT", "0"),
        ("MAX_PROCESSES", "0"),
        ("SPARE_PROCESSES", "-1"),
        ("MODEL_ALIASES", "gpt-4o=sonnet"),
        ("MODEL_ALIASES", '["gpt-4o"]'),
        ("LOG_LEVEL", "LOUD"),
        ("DEMO", "perhaps"),
        ("CLAUDE_AUTH_METHOD", "guess"),
        ("TRUSTED_PROXIES", "*"),
        ("TRUSTED_PROXIES", "nginx"),
        ("TRUSTED_PROXIES", "10.0.0.1/8"),
        ("ALLOWED_HOSTS", "https://a.example"),
        ("ALLOWED_HOSTS", "a.example:8000"),
        ("ALLOWED_HOSTS", "a.*.example"),
        ("MAX_N", "0"),
        ("MAX_THINKING_TOKENS", "1023"),
        ("ANTHROPIC_CUSTOM_HEADERS", "none"),
        ("ANTHROPIC_CUSTOM_HEADERS", '["X-Team"]'),
        ("ANTHROPIC_CUSTOM_HEADERS", '{"X-Team": 5}'),
        ("ANTHROPIC_CUSTOM_HEADERS", '{"X Team": "ours"}'),
        ("ANTHROPIC_CUSTOM_HEADERS", '{"X-Team": "a\\r\\nX-Other: b"}'),
        ("ANTHROPIC_CUSTOM_HEADERS", '{"Content-Length": "5"}'),
    ],
)
def test_nonsense_is_refused_by_name(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each value that makes no sense is a ConfigurationError with the variable's name and without the value."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=rf"\n  {name}: \w") as caught:
        load_settings()
    assert f"'{value}'" not in str(caught.value)


def test_a_variable_named_environment_is_nothing_to_us(monkeypatch: pytest.MonkeyPatch) -> None:
    """ENVIRONMENT, which many hosts set, neither breaks the settings nor takes the environment's place."""
    monkeypatch.setenv("ENVIRONMENT", '{"HOME": "elsewhere"}')
    assert load_settings().environment["ENVIRONMENT"] == '{"HOME": "elsewhere"}'


def test_blanks_around_a_key_are_no_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key from a file with blanks at the line's end is the one that clients send."""
    monkeypatch.setenv("API_KEY", "sesame ")
    assert load_settings().keys == ("sesame",)


def test_a_file_that_isnt_utf_8_is_named(directory: Path) -> None:
    """A .env in another encoding is an error that says so, and no traceback."""
    (directory / ".env").write_bytes("API_KEY=schlüssel".encode("latin-1"))
    with pytest.raises(ConfigurationError, match="UTF-8"):
        load_settings()


def test_all_nonsense_is_told_at_once() -> None:
    """Two wrong values are two lines."""
    with pytest.raises(ConfigurationError) as caught:
        load_settings(port="x", max_processes="y")
    assert [line.split(":")[0] for line in str(caught.value).splitlines()[1:]] == ["  PORT", "  MAX_PROCESSES"]


def test_settings_show_no_secret_and_stay_as_they_are() -> None:
    """Neither the repr nor a dump has a key or the environment in it, and no field can be changed."""
    headers = {"X-Token": "silence"}
    environment = {"ANTHROPIC_API_KEY": "tacet"}
    settings = load_settings(api_key="hush", api_keys="psst", anthropic_custom_headers=headers, environment=environment)
    for shown in (repr(settings), str(settings.model_dump()), settings.model_dump_json()):
        assert not [secret for secret in ("hush", "psst", "tacet", "silence") if secret in shown]
    with pytest.raises(ValidationError, match="frozen"):
        setattr(settings, "port", 1)  # noqa: B010 - the type checkers know as much
