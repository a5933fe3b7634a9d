"""What SECURITY.md names is there: settings, files, and every setting that opens something."""

import re

import pytest

from config import Settings
from conftest import REPOSITORY, Server, ServerFactory
from test_info import OPEN, get

POLICY = (REPOSITORY / "SECURITY.md").read_text(encoding="utf-8")
SETTINGS = {name.upper() for name in Settings.model_fields}
ROWS = re.findall(r"^\| ([^|]*`[A-Z_]+\b[^|]*) \|", POLICY, re.MULTILINE)
OPENING = re.compile(
    "ALLOW|BYPASS|SANDBOX|CWD|WORKSPACES|MCP|CLI_PATH|PROXIES|ORIGINS|REDIS|FAIL_OPEN|DEBUG_MODE|PROMPTS"
)


def named(text: str) -> set[str]:
    """The settings that a text names, with or without a value."""
    return {name for name in re.findall(r"`([A-Z][A-Z_]+)(?:=[^`]*)?`", text) if name != "SECURITY"}


def test_every_setting_that_is_named_is_there() -> None:
    """None is invented, or was renamed."""
    assert named(POLICY) <= SETTINGS


@pytest.mark.parametrize("name", sorted(name for name in SETTINGS if OPENING.search(name)))
def test_every_setting_that_opens_something_has_its_row(name: str) -> None:
    """The table has what it allows, and the risk."""
    assert name in named(" ".join(ROWS))


def test_links_lead_somewhere() -> None:
    """Each names a file or a directory; the README leads here."""
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", POLICY):
        assert (REPOSITORY / target).exists(), target
    assert "(SECURITY.md)" in (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_what_is_open_is_what_it_says(serve: ServerFactory) -> None:
    """The routes that need no key are those that it names, and they tell no more than that."""
    (sentence,) = re.findall(r"\*\*Without a key\*\*.*?\. ", POLICY, re.DOTALL)
    assert set(re.findall("`(/.*?)`", sentence)) == OPEN
    server: Server = serve(api_key="sesame", spare_processes=0)
    assert set(get(server, "/health").json()) == {"status", "service", "version", "backend"}
