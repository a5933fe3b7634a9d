"""Whether commands can be confined on this machine, and to what: Claude Code's own sandbox, as settings for it.

In it a command writes in the working directory alone, reads nothing that is hidden, sees no login and has no network.
Source: https://code.claude.com/docs/en/sandboxing
"""

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent_task import Confinement

_PROBE = ("bwrap", "--ro-bind", "/", "/", "--unshare-all", "--proc", "/proc", "true")


def find_fault(search_path: str) -> str | None:
    """Return why commands can't be confined here, with the programs in `search_path`; None where they can be."""
    if sys.platform == "darwin":
        return None
    if sys.platform != "linux":
        return "Claude Code has no sandbox for this system"
    if missing := [name for name in ("bwrap", "socat") if not shutil.which(name, path=search_path)]:
        return f"not installed: {', '.join(missing)} (on Debian: apt-get install bubblewrap socat)"
    try:
        subprocess.run(  # noqa: S603 - a program of this machine, as the operator's PATH has it
            _PROBE, env={"PATH": search_path}, check=True, capture_output=True, timeout=10
        )
    except subprocess.CalledProcessError as error:
        return f"bwrap can't be used here: {error.stderr.decode(errors='replace').strip()}"
    except (OSError, subprocess.SubprocessError) as error:
        return f"bwrap can't be used here: {error}"
    return None


def sandbox_settings(confinement: Confinement, directory: Path, temporary: Path) -> Mapping[str, Any]:
    """Return the settings that confine commands to `directory`, and to `temporary` for what is temporary."""
    return {
        "enabled": True,
        "failIfUnavailable": True,
        # Whether a command is run is tool_policy.py's to say.
        "autoAllowBashIfSandboxed": False,
        "allowUnsandboxedCommands": False,
        "credentials": {"envVars": [{"name": name, "mode": "deny"} for name in confinement.variables]},
        "filesystem": {
            "denyRead": [str(path) for path in confinement.hidden],
            "allowRead": [str(directory), str(temporary)],
        },
    }
