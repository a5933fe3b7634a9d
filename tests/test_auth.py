"""Which Claude login is found, what of the environment it hands on, and whose key opens the API."""

from collections.abc import Mapping
from contextlib import suppress
from hmac import compare_digest
from pathlib import Path

import pytest

from auth import KeyRing, claude_config_directory, find_login, hash_key, login_environment
from callers import Caller, KeyLimits
from config import AuthMethod, Settings
from conftest import make_settings
from errors import AuthenticationError, MissingKeyError

API_KEY = {"ANTHROPIC_API_KEY": "sk-ant-dummy"}
TOKEN = {"CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat01-dummy"}
BEDROCK = {"CLAUDE_CODE_USE_BEDROCK": "true", "AWS_REGION": "eu-west-1"}
VERTEX = {"CLAUDE_CODE_USE_VERTEX": "1", "ANTHROPIC_VERTEX_PROJECT_ID": "project", "CLOUD_ML_REGION": "europe-west1"}
EVERYTHING = {**API_KEY, **TOKEN, **BEDROCK, **VERTEX, "AWS_PROFILE": "p", "GOOGLE_APPLICATION_CREDENTIALS": "g"}


def settings_of(home: Path, variables: Mapping[str, str]) -> Settings:
    """Settings as `variables` give them, in a home of its own."""
    return make_settings({"HOME": str(home), **variables})


def log_in(home: Path) -> None:
    """Leave what `claude /login` leaves on Linux."""
    (home / ".claude").mkdir()
    (home / ".claude" / ".credentials.json").write_text("{}", encoding="utf-8")


@pytest.mark.parametrize(
    ("variables", "method"),
    [
        ({}, None),
        ({**API_KEY, **TOKEN}, "anthropic"),
        (TOKEN, "oauth_token"),
        ({**API_KEY, **BEDROCK}, "bedrock"),
        ({**API_KEY, **VERTEX}, "vertex"),
        ({**BEDROCK, "CLAUDE_AUTH_METHOD": "anthropic"}, "anthropic"),
        ({**BEDROCK, "CLAUDE_USE_SUBSCRIPTION": "true"}, "claude_cli"),
        ({**TOKEN, "CLAUDE_AUTH_METHOD": "oauth_token", "CLAUDE_USE_SUBSCRIPTION": "true"}, "oauth_token"),
    ],
)
def test_the_first_login_wins(variables: dict[str, str], method: AuthMethod | None, tmp_path: Path) -> None:
    """A forced login wins, then a cloud that is switched on, then an API key before an OAuth token."""
    assert find_login(settings_of(tmp_path, variables)).method == method


def test_a_cli_login_wins_over_a_key_that_lies_around(tmp_path: Path) -> None:
    """A login of `claude /login` in the home comes first, but not before a cloud that is switched on."""
    log_in(tmp_path)
    assert find_login(settings_of(tmp_path, {**API_KEY, **TOKEN})).method == "claude_cli"
    assert find_login(settings_of(tmp_path, VERTEX)).method == "vertex"


@pytest.mark.parametrize(
    ("path", "text", "found"),
    [
        (".claude/.credentials.json", "", True),
        (".claude.json", '{"oauthAccount": {}}', True),
        (".claude/.claude.json", '{"primaryApiKey": "dummy"}', True),
        (".claude.json", '{"numStartups": 3}', False),
        (".claude/settings.json", '{"oauthAccount": {}}', False),
        (".claude.json", '\udcff"oauthAccount"', True),
    ],
)
def test_a_cli_login_is_seen_in_its_files(path: str, text: str, found: bool, tmp_path: Path) -> None:
    """Credentials, or an account in Claude Code's own file, are a login; a mere installation is none."""
    (tmp_path / path).parent.mkdir(exist_ok=True)
    (tmp_path / path).write_bytes(text.encode(errors="surrogateescape"))
    assert find_login(settings_of(tmp_path, {})).complete == found


def test_a_forced_cli_login_that_isnt_there_names_its_directory(tmp_path: Path) -> None:
    """The directory where the login should be is what is missing, CLAUDE_CONFIG_DIR before the home."""
    directory = str(tmp_path / "elsewhere")
    forced = settings_of(tmp_path, {"CLAUDE_USE_SUBSCRIPTION": "true", "CLAUDE_CONFIG_DIR": directory})
    assert find_login(forced).missing == (directory,)
    assert claude_config_directory(settings_of(tmp_path, {})) == tmp_path / ".claude"


@pytest.mark.parametrize("variable", ["AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"])
def test_bedrock_takes_its_region_from_any_of_these(variable: str, tmp_path: Path) -> None:
    """Each of AWS's ways to name a region completes the login."""
    login = find_login(settings_of(tmp_path, {"CLAUDE_CODE_USE_BEDROCK": "true", variable: "x"}))
    assert (login.method, login.missing, login.complete) == ("bedrock", (), True)


@pytest.mark.parametrize(
    ("method", "bare", "expected"),
    [
        ("claude_cli", False, {}),
        ("anthropic", True, API_KEY),
        ("oauth_token", False, TOKEN),
        ("bedrock", True, {"CLAUDE_CODE_USE_BEDROCK": "1", "AWS_REGION": "eu-west-1", "AWS_PROFILE": "p"}),
        ("vertex", True, {**VERTEX, "GOOGLE_APPLICATION_CREDENTIALS": "g"}),
    ],
)
def test_claude_code_sees_one_login(method: AuthMethod, bare: bool, expected: dict[str, str], tmp_path: Path) -> None:
    """Of all logins in the environment only the one in use is handed on, its switch as the CLI wants it."""
    settings = settings_of(tmp_path, {**EVERYTHING, "CLAUDE_AUTH_METHOD": method})
    login = find_login(settings)
    assert login_environment(settings, login) == {"HOME": str(tmp_path), **expected}
    assert login.bare == bare


def test_claude_code_sees_nothing_that_it_doesnt_need(tmp_path: Path) -> None:
    """Paths, language and proxies pass; our own keys and everybody else's variables don't."""
    needed = {
        "PATH": "/bin",
        "LC_ALL": "C.UTF-8",
        "https_proxy": "http://proxy",
        "ANTHROPIC_BASE_URL": "http://gateway",
    }
    other = {"API_KEY": "ours", "NODE_OPTIONS": "--inspect", "DATABASE_URL": "theirs", "ANTHROPIC_MODEL": "claude-x"}
    settings = settings_of(tmp_path, {**needed, **other})
    assert login_environment(settings, find_login(settings)) == {"HOME": str(tmp_path), **needed}


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    """A file with Anna's key, which may ask for one model."""
    path = tmp_path / "keys.toml"
    path.write_text(f'[keys.anna]\nhash = "sha256:{hash_key("of-anna")}"\nmodels = ["sonnet"]\n', encoding="utf-8")
    return path


ANNA = Caller(hash_key("of-anna"), "anna", KeyLimits(models=("sonnet",)))


@pytest.mark.parametrize("given", ["one", "two", "drei/3="])
def test_any_of_our_keys_opens(given: str, keys_file: Path) -> None:
    """One key is as good as another, whichever variable it came from, and is known by its hash."""
    ring = KeyRing(make_settings({}, api_key="one", api_keys="two,drei/3=", api_keys_file=keys_file))
    assert ring.caller(given) == Caller(hash_key(given), None, KeyLimits(tools=True))


def test_a_key_of_the_file_opens_within_its_limits(keys_file: Path) -> None:
    """It has its name and its limits, also where the same key stands among the settings."""
    assert KeyRing(make_settings({}, api_keys_file=keys_file)).caller("of-anna") == ANNA
    assert KeyRing(make_settings({}, api_key="of-anna", api_keys_file=keys_file)).caller("of-anna") == ANNA


def test_the_file_counts_as_it_is_now(keys_file: Path) -> None:
    """A key that leaves the file opens no longer, and one that comes does, with no restart."""
    ring = KeyRing(make_settings({}, api_keys_file=keys_file))
    keys_file.write_text(f'[keys.anna-2]\nhash = "sha256:{hash_key("another")}"\n', encoding="utf-8")
    assert ring.caller("another").name == "anna-2"
    with pytest.raises(AuthenticationError):
        ring.caller("of-anna")


def test_a_hash_is_no_key(keys_file: Path) -> None:
    """What the file shows opens nothing."""
    ring = KeyRing(make_settings({}, api_key="one", api_keys_file=keys_file))
    for given in (hash_key("of-anna"), f"sha256:{hash_key('of-anna')}", hash_key("one")):
        with pytest.raises(AuthenticationError, match="Incorrect API key"):
            ring.caller(given)


@pytest.mark.parametrize("given", ["of-anna", "one", "wrong"])
def test_every_key_is_compared_whichever_is_right(given: str, keys_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of an answer tells nothing of where a key stands: no comparison is left out, and each is constant."""
    compared: list[str | bytes] = []

    def compare(known: str, shown: str) -> bool:
        compared.append(known)
        return compare_digest(known, shown)

    monkeypatch.setattr("auth.hmac.compare_digest", compare)
    ring = KeyRing(make_settings({}, api_key="one", api_keys="two", api_keys_file=keys_file))
    with suppress(AuthenticationError):
        ring.caller(given)
    assert compared == [hash_key(key) for key in ("of-anna", "one", "two")]


@pytest.mark.parametrize("given", [None, ""])
def test_no_key_is_a_401_of_its_own(given: str | None) -> None:
    """Without a key the caller is told how to send one."""
    with pytest.raises(MissingKeyError):
        KeyRing(make_settings({}, api_key="one")).caller(given)


@pytest.mark.parametrize("given", ["sesam", "sesames", "SESAME", "sesame ", "sesame,two", "ü-sesame"])
def test_a_wrong_key_is_refused_and_not_repeated(given: str) -> None:
    """Only a whole key opens, and the answer doesn't show what was sent."""
    with pytest.raises(AuthenticationError, match="Incorrect API key") as caught:
        KeyRing(make_settings({}, api_key="sesame")).caller(given)
    assert "sesam" not in caught.value.message.lower()


@pytest.mark.parametrize("given", [None, "whatever"])
def test_without_keys_everybody_may_ask(given: str | None) -> None:
    """A server without keys takes any caller, also one that shows a key, and takes all for the same one."""
    assert KeyRing(make_settings({})).caller(given).owner == "anyone"


def test_a_file_without_keys_lets_nobody_pass(keys_file: Path) -> None:
    """Where a file is named a key is asked for, be there none yet."""
    keys_file.write_text("", encoding="utf-8")
    ring = KeyRing(make_settings({}, api_keys_file=keys_file))
    with pytest.raises(MissingKeyError):
        ring.caller(None)
    with pytest.raises(AuthenticationError):
        ring.caller("of-anna")


@pytest.mark.parametrize(("host", "tools"), [("127.0.0.1", True), ("0.0.0.0", False), ("::", False)])  # noqa: S104
def test_without_keys_only_a_local_server_lends_its_tools(host: str, tools: bool) -> None:
    """Who reaches an open server from elsewhere may not have Claude Code's own tools."""
    assert KeyRing(make_settings({}, host=host)).caller(None).limits.tools == tools
