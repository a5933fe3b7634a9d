"""What docker-compose.yml makes of the image, with bubblewrap in Docker's place: the same mounts, user and rights.

There is a root file system that can't be written to, with the system's programs, the dependencies and the modules in
it; what compose declares as tmpfs, with the options that Docker adds by itself; and the login's volume.
"""

import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from conftest import NO_WAY_OUT, REPOSITORY
from real_services import find_program
from test_packaging import dockerfile, reaches_the_builder, text_of

SERVICE: Mapping[str, Any] = yaml.safe_load(text_of("docker-compose.yml"))["services"]["claude-wrapper"]
TMPFS: Mapping[str, str] = dict(mount.partition(":")[::2] for mount in SERVICE["tmpfs"])
"""Where compose has something that can be written to, and with what options."""
COMMAND: Sequence[str] = json.loads(dockerfile("CMD")[0])
HEALTHCHECK: Sequence[str] = json.loads(dockerfile("HEALTHCHECK")[0].partition(" CMD ")[2])
_DOCKERS_OPTIONS = "rw,noexec,nosuid,nodev"
_USER, _GROUP = dockerfile("USER")[0].split(":")

# In a mount namespace of its own: bubblewrap's tmpfs doesn't know Docker's options.
_MOUNT = 'd=$1 o=$2; mkdir -p "$d" && mount -t tmpfs -o "$o" tmpfs "$d" && shift 2'


@dataclass(frozen=True)
class Container:
    """A container of the image; `directory` has what its mounts are made of."""

    directory: Path
    tmpfs: Mapping[str, str]

    @classmethod
    def prepare(cls, directory: Path, tmpfs: Mapping[str, str] = TMPFS) -> "Container":
        """Copy the modules that the image gets, and make a volume for the login."""
        for module in REPOSITORY.glob("*.py"):
            if reaches_the_builder(module.name):
                (directory / "app").mkdir(exist_ok=True)
                shutil.copy(module, directory / "app")
        (directory / "login").mkdir(exist_ok=True)
        return cls(directory, tmpfs)

    def command(self, words: Sequence[str], **variables: str) -> list[str]:
        """Return what runs `words` in it, with the image's environment and more."""
        mounts = [self._source(place) for place in self.tmpfs]
        options = [",".join(filter(None, (_DOCKERS_OPTIONS, each))) for each in self.tmpfs.values()]
        pairs = [word for pair in zip(mounts, options, strict=True) for word in pair]
        script = "; ".join([*([_MOUNT] * len(mounts)), 'exec "$@"'])
        outside = [find_program("unshare"), "--user", "--map-root-user", "--mount", "sh", "-euc", script, "sh"]
        return [*outside, *pairs, find_program("bwrap"), *self._sandbox(variables), *words]

    def _source(self, place: str) -> str:
        return str(self.directory / "tmpfs") + place

    def _sandbox(self, variables: Mapping[str, str]) -> Iterator[str]:
        yield from ("--unshare-user", "--uid", _USER, "--gid", _GROUP, "--cap-drop", "ALL")
        yield from ("--unshare-pid", "--unshare-ipc", "--die-with-parent", "--new-session", "--clearenv")
        for name, value in {**self._environment(), **variables}.items():
            yield from ("--setenv", name, value)
        yield from ("--tmpfs", "/", "--proc", "/proc", "--dev", "/dev", "--dir", "/tmp", "--dir", "/root/.claude")  # noqa: S108
        for place in self.tmpfs:
            yield from ("--bind", self._source(place), place)
        yield from ("--bind", str(self.directory / "login"), "/root/.claude")
        yield from _system()
        yield from ("--ro-bind", str(self.directory / "app"), "/app", "--chdir", "/app", "--remount-ro", "/")

    def _environment(self) -> dict[str, str]:
        image = dict(word.split("=", 1) for word in dockerfile("ENV")[-1].split())
        # Servers of tests stay on loopback, and leave it by no way.
        return {**image, **NO_WAY_OUT, "PATH": f"{_dependencies()}/bin:/usr/bin:/bin", "HOST": "127.0.0.1"}


def _dependencies() -> Path:
    return Path(sys.prefix).resolve()


def _system() -> Iterator[str]:
    """Yield what the image has beside the modules: the system, an interpreter and the dependencies."""
    for place in map(Path, ("/usr", "/etc", "/bin", "/lib", "/lib64", "/sbin")):
        if place.is_symlink():
            yield from ("--symlink", str(place.readlink()), str(place))
        elif place.exists():
            yield from ("--ro-bind", str(place), str(place))
    for place in {Path(sys.base_prefix).resolve(), _dependencies()}:
        if not place.is_relative_to("/usr"):
            yield from ("--ro-bind", str(place), str(place))


def environment_outside() -> dict[str, str]:
    """What the programs that make the container need."""
    return {"PATH": os.environ["PATH"]}
