"""Run Poetry for a folder's `.venv`, on the network as pip knows it: `poetry.py FOLDER COMMAND…`.

The Makefile calls it, with Poetry's own Python.

Poetry's client wants more of an index than the simple pages that pip reads, and not every network serves more. Its
mirror plugin makes it read those pages and keeps addresses out of the lock. Which index, and whose certificates: pip
knows, from its variables, its configuration files or its built-in default.
"""

import importlib
import os
import sys
from pathlib import Path


def network_of_pip() -> dict[str, str]:
    """Return the variables that make Poetry use what pip uses."""
    # By name, because pip is in Poetry's environment and not in the one that is type-checked.
    commands = importlib.import_module("pip._internal.commands")
    options = commands.create_command("install").parse_args([])[0]
    certificates = {"REQUESTS_CA_BUNDLE": options.cert} if options.cert else {}
    return {"POETRY_PYPI_MIRROR_URL": options.index_url} | certificates


def main() -> None:
    """Become Poetry."""
    checkout = Path(__file__).resolve().parent.parent
    folder, *command = checkout / sys.argv[1], *sys.argv[2:]
    os.environ.setdefault("POETRY_CACHE_DIR", str(checkout / ".poetry" / "cache"))
    os.environ.update(
        network_of_pip(),
        VIRTUAL_ENV=str(folder / ".venv"),
        POETRY_NO_INTERACTION="1",
        POETRY_KEYRING_ENABLED="false",  # A locked keyring would wait for a password that nothing here needs.
    )
    os.execv(sys.executable, [sys.executable, "-m", "poetry", "--directory", str(folder), *command])  # noqa: S606  # Our own arguments.


if __name__ == "__main__":
    main()
