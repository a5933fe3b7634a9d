"""The table of clients in COMPATIBILITY.md is that of these clients, in these versions."""

import json
from pathlib import Path

import pytest

from clients_table import CLIENTS, NODE, Client
from conftest import REPOSITORY

# What isn't about one client.
OTHERS = {"test_client_examples", "test_clients_table", "test_published_clients"}


def is_locked(client: Client, package: str, version: str) -> bool:
    """Whether the lock has it, be it for another Python than this."""
    if client.folder == NODE:
        packages = json.loads((NODE.parent / "package-lock.json").read_text(encoding="utf-8"))["packages"]
        return bool(packages[f"node_modules/{package}"]["version"] == version)
    lock = (client.folder / "poetry.lock").read_text(encoding="utf-8")
    return f'name = "{package}"\nversion = "{version}"\n' in lock


def test_every_client_has_a_row_that_is_true_and_without_failures(request: pytest.FixtureRequest) -> None:
    """`make clients` writes it, whenever a client or its version changes."""
    if request.config.pluginmanager.has_plugin("clients_table"):
        pytest.skip("this run writes the table")
    lines = (REPOSITORY / "COMPATIBILITY.md").read_text(encoding="utf-8").splitlines()
    for client in CLIENTS:
        (row,) = [line for line in lines if line.startswith(f"| {client.title[0]} |")]
        _, versions, what, passed, failed, _ = row.strip("| ").split(" | ")
        assert what == client.title[1]
        assert [each.split()[0] for each in versions.split(", ")] == [*client.packages]
        assert all(is_locked(client, *each.split()) for each in versions.split(", ")), versions
        assert int(passed) > 0
        assert int(failed) == 0


def test_every_file_of_tests_belongs_to_a_client() -> None:
    """So that no client is run and not told of."""
    files = {path.stem for path in Path(__file__).parent.glob("test_*.py")} - OTHERS
    assert {file for file in files if not any(file.startswith(client.tests) for client in CLIENTS)} == set()
