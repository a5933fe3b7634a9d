"""Who is calling us, and which Claude login we call with.

A caller shows a key of ours. Claude Code gets an environment made from nothing: what any process needs to run, the
variables of the one login in use, and our settings for the CLI. The other logins' variables stay hidden from it.
"""

import hmac
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from callers import Caller, KeyLimits
from config import AuthMethod, Settings
from errors import AuthenticationError, MissingKeyError
from keys_file import KeysFile

# What a process needs to find its files, its language and its way out, through a company's network or gateway.
_BASIC_VARIABLES = frozenset(
    {
        *(
            "ANTHROPIC_BASE_URL",
            "PATH",
            "HOME",
            "USER",
            "LOGNAME",
            "SHELL",
            "LANG",
            "LANGUAGE",
            "TZ",
            "TMPDIR",
            "TEMP",
            "TMP",
        ),
        *("SYSTEMROOT", "COMSPEC", "APPDATA", "LOCALAPPDATA", "USERPROFILE", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"),
        *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS"),
    }
)

_ANYONE = "anyone"


@dataclass(frozen=True)
class _Method:
    """How one login is recognised, what it needs and what it hands to Claude Code."""

    is_there: Callable[[Settings], bool]
    needs: Callable[[Settings], Iterable[str]]
    variables: tuple[str, ...]
    prefixes: tuple[str, ...]
    fix: str
    bare: bool = True
    switch: str | None = None
    """The variable that an operator, and Claude Code, turn this method on with."""
    base_url_variable: str = "ANTHROPIC_BASE_URL"


@dataclass(frozen=True)
class Login:
    """The Claude login in use. `missing` names what it lacks, `fix` says how to mend it."""

    method: AuthMethod | None
    missing: tuple[str, ...]
    fix: str
    bare: bool
    """Whether `--bare` may be used: it reads no OAuth login, so subscriptions run without it."""
    base_url_variable: str = "ANTHROPIC_BASE_URL"
    """The variable that says where the login's requests go."""

    @property
    def complete(self) -> bool:
        """Whether everything that can be seen without calling Claude is there."""
        return self.method is not None and not self.missing


def claude_config_directory(settings: Settings) -> Path:
    """Where the host's Claude Code keeps its login."""
    environment = settings.environment
    return Path(environment.get("CLAUDE_CONFIG_DIR") or Path(environment.get("HOME", "~")).expanduser() / ".claude")


def _has_cli_login(settings: Settings) -> bool:
    directory = claude_config_directory(settings)
    if (directory / ".credentials.json").is_file():
        return True
    # macOS keeps the token in the keychain; what is left to see is the account in Claude Code's own file.
    state_files = (directory / ".claude.json", directory.parent / ".claude.json")
    return any(_names_an_account(path) for path in state_files)


def _names_an_account(path: Path) -> bool:
    try:
        state = path.read_bytes()
    except OSError:
        return False
    return b'"oauthAccount"' in state or b'"primaryApiKey"' in state


def _unset(settings: Settings, *names: str) -> list[str]:
    return [name for name in names if not settings.environment.get(name)]


_CLI_FIX = "Log in with `claude /login` on this machine (in a container: mount ~/.claude)"
_METHODS: Mapping[AuthMethod, _Method] = {
    "claude_cli": _Method(
        is_there=_has_cli_login,
        needs=lambda settings: [] if _has_cli_login(settings) else [str(claude_config_directory(settings))],
        variables=("CLAUDE_CONFIG_DIR",),
        prefixes=(),
        fix=f"{_CLI_FIX}.",
        bare=False,
    ),
    "anthropic": _Method(
        is_there=lambda settings: settings.anthropic_api_key is not None,
        needs=lambda settings: _unset(settings, "ANTHROPIC_API_KEY"),
        variables=("ANTHROPIC_API_KEY",),
        prefixes=(),
        fix="Set ANTHROPIC_API_KEY to a key from the Anthropic console.",
    ),
    "oauth_token": _Method(
        is_there=lambda settings: settings.claude_code_oauth_token is not None,
        needs=lambda settings: _unset(settings, "CLAUDE_CODE_OAUTH_TOKEN"),
        variables=("CLAUDE_CODE_OAUTH_TOKEN",),
        prefixes=(),
        fix="Set CLAUDE_CODE_OAUTH_TOKEN to what `claude setup-token` prints.",
        bare=False,
    ),
    "bedrock": _Method(
        is_there=lambda settings: settings.claude_code_use_bedrock,
        needs=lambda settings: [] if _has_aws_region(settings) else ["AWS_REGION"],
        switch="CLAUDE_CODE_USE_BEDROCK",
        base_url_variable="ANTHROPIC_BEDROCK_BASE_URL",
        variables=("ANTHROPIC_BEDROCK_BASE_URL", "CLAUDE_CODE_SKIP_BEDROCK_AUTH"),
        prefixes=("AWS_",),
        fix="Set CLAUDE_CODE_USE_BEDROCK=true, AWS_REGION and AWS credentials (AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or a role).",
    ),
    "vertex": _Method(
        is_there=lambda settings: settings.claude_code_use_vertex,
        switch="CLAUDE_CODE_USE_VERTEX",
        base_url_variable="ANTHROPIC_VERTEX_BASE_URL",
        needs=lambda settings: _unset(settings, "ANTHROPIC_VERTEX_PROJECT_ID", "CLOUD_ML_REGION"),
        variables=(
            "ANTHROPIC_VERTEX_PROJECT_ID",
            "ANTHROPIC_VERTEX_BASE_URL",
            "CLAUDE_CODE_SKIP_VERTEX_AUTH",
            "CLOUD_ML_REGION",
        ),
        prefixes=("GOOGLE_", "GCLOUD_", "CLOUDSDK_", "VERTEX_REGION_"),
        fix="Set CLAUDE_CODE_USE_VERTEX=true, ANTHROPIC_VERTEX_PROJECT_ID, CLOUD_ML_REGION and Google credentials "
        "(GOOGLE_APPLICATION_CREDENTIALS, or `gcloud auth application-default login`).",
    ),
}

_NO_LOGIN_FIX = f"{_CLI_FIX}, or set ANTHROPIC_API_KEY, CLAUDE_CODE_OAUTH_TOKEN, or the variables of Bedrock or Vertex."


def _has_aws_region(settings: Settings) -> bool:
    profile = settings.environment.get("AWS_PROFILE")
    return bool(profile) or not _unset(settings, "AWS_REGION") or not _unset(settings, "AWS_DEFAULT_REGION")


def _chosen_method(settings: Settings) -> AuthMethod | None:
    if settings.claude_auth_method:
        return settings.claude_auth_method
    if settings.claude_use_subscription:
        return "claude_cli"
    # A switch is an operator's word, too: it wins over a login that merely lies around.
    by_preference = sorted(_METHODS.items(), key=lambda item: item[1].switch is None)
    return next((name for name, method in by_preference if method.is_there(settings)), None)


def find_login(settings: Settings) -> Login:
    """Find the login to use: a forced one, else a cloud that is switched on, else the first in the order above."""
    name = _chosen_method(settings)
    if name is None:
        return Login(method=None, missing=("a Claude login",), fix=_NO_LOGIN_FIX, bare=True)
    method = _METHODS[name]
    missing = tuple(method.needs(settings))
    return Login(name, missing, method.fix, bare=method.bare, base_url_variable=method.base_url_variable)


def login_environment(settings: Settings, login: Login) -> dict[str, str]:
    """The variables of the host that Claude Code gets to see under `login`, and no others."""
    method = _METHODS[login.method] if login.method else None
    names = _BASIC_VARIABLES | set(method.variables if method else ())
    prefixes = ("LC_", *(method.prefixes if method else ()))
    kept = {k: v for k, v in settings.environment.items() if k in names or k.startswith(prefixes)}
    # Whatever the operator wrote for "on".
    switch = {method.switch: "1"} if method and method.switch else {}
    return {**kept, **switch, **_header_variables(settings.anthropic_custom_headers)}


def secret_variables(settings: Settings, login: Login) -> tuple[str, ...]:
    """Return which of these variables nobody but Claude Code itself may see."""
    return tuple(sorted(login_environment(settings, login).keys() - _BASIC_VARIABLES))


def _header_variables(headers: Mapping[str, str]) -> dict[str, str]:
    """Return what makes Claude Code send these; betas have a variable of their own, or they would be dropped."""
    betas = ",".join(value for name, value in headers.items() if _is_beta(name))
    others = "\n".join(f"{name}: {value}" for name, value in headers.items() if not _is_beta(name))
    both = {"ANTHROPIC_BETAS": betas, "ANTHROPIC_CUSTOM_HEADERS": others}
    return {name: value for name, value in both.items() if value}


def _is_beta(header: str) -> bool:
    return header.lower() == "anthropic-beta"


def hash_key(key: str) -> str:
    """The SHA-256 of a key, in hexadecimal: what we know a caller by, and what a file of keys holds."""
    return sha256(key.encode()).hexdigest()


class KeyRing:
    """The keys that open the API: API_KEY, API_KEYS, and those in API_KEYS_FILE as it is at the time."""

    def __init__(self, settings: Settings) -> None:
        """Read the file, where there is one. Raises ConfigurationError where it can't be used."""
        self._asks = settings.asks_for_keys
        self._file = KeysFile(settings.api_keys_file) if settings.api_keys_file else None
        # The settings' own keys are the operator's: nothing is kept from them.
        self._own = tuple(Caller(hash_key(key), limits=KeyLimits(tools=True)) for key in settings.keys)
        self._anyone = Caller(_ANYONE, limits=KeyLimits(tools=settings.is_local))

    def known(self) -> tuple[Caller, ...]:
        """All whose keys open the API now."""
        # The file's come first: a key that has limits there has them, wherever else it stands.
        return (*(self._file.callers() if self._file else ()), *self._own)

    def caller(self, given: str | None) -> Caller:
        """Let a caller pass who shows one of our keys, or anyone where there are none; return who it is.

        Raises AuthenticationError in OpenAI's words. Every key is compared, in constant time.
        """
        if not self._asks:
            return self._anyone
        if not given:
            raise MissingKeyError
        digest = hash_key(given)
        found = [caller for caller in self.known() if hmac.compare_digest(caller.owner, digest)]
        if not found:
            raise AuthenticationError("Incorrect API key provided. Use one of the keys that this server knows.")
        return found[0]
