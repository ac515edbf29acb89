"""Install the Autobahn testsuite beside this file, in `env`, when it is not there yet.

The suite is Python 2 and needs a Python 2.7 to run. virtualenv 16.7.12 is the last release that is one file
and still makes environments for it, with a pip of that time inside; everything else is in
requirements-suite.txt.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import attrs

__all__ = ["InstallError", "Suite", "ensure_suite", "find_python27"]

HERE = Path(__file__).parent
ENV = HERE / "env"
REQUIREMENTS = HERE / "requirements-suite.txt"
CLIENT = HERE / "fuzzing_client.py2"

VIRTUALENV = "virtualenv==16.7.12"

# Compiled JSON, UTF-8 validation and masking for the client. Where they do not build (no C compiler) the
# suite falls back to Python and the same cases take longer.
ACCELERATORS = ("ujson==2.0.3", "wsaccel==0.6.6")

USABLE = "import sys, ssl, zlib, ctypes; sys.exit(sys.version_info[:2] != (2, 7))"


class InstallError(Exception):
    """The suite cannot be installed; the message is one line that says what to do."""


@attrs.frozen
class Suite:
    """An installed suite.

    Attributes:
        version: its release.
        groups: the names of its groups of cases.
        cases: the ids of all its cases.
    """

    version: str
    groups: Mapping[str, str]
    cases: tuple[str, ...]

    def client(self, url: str, agent: str, pages: Path) -> list[str]:
        """Return the command of a fuzzing client (see fuzzing_client.py2)."""
        return [str(ENV / "bin" / "python"), str(CLIENT), "run", url, agent, str(pages)]


def find_python27(environ: Mapping[str, str] = os.environ) -> Path:
    """Find a Python 2.7 with ssl, zlib and ctypes.

    Looks at $PYTHON27 (and nowhere else when it is set), then at pyenv's versions, then for python2.7 and
    python2 on the PATH.

    Raises:
        InstallError: there is none.
    """
    if chosen := environ.get("PYTHON27"):
        path = shutil.which(chosen, path=environ.get("PATH"))
        if path is None or not _is_usable(path):
            raise InstallError(f"PYTHON27={chosen} is not a Python 2.7 with ssl, zlib and ctypes")
        return Path(path)
    for path in _candidates(environ):
        if _is_usable(path):
            return Path(path)
    raise InstallError(
        "no Python 2.7 found for the Autobahn testsuite (looked in pyenv's versions and for python2.7 and "
        "python2 on the PATH): install one, for example with `pyenv install 2.7.18`, or set PYTHON27"
    )


def _candidates(environ: Mapping[str, str]) -> Iterator[str]:
    if "HOME" in environ or "PYENV_ROOT" in environ:
        pyenv = Path(environ.get("PYENV_ROOT") or Path(environ["HOME"]) / ".pyenv")
        yield from map(str, sorted(pyenv.glob("versions/2.7*/bin/python2.7")))
    for name in ("python2.7", "python2"):
        if found := shutil.which(name, path=environ.get("PATH")):
            yield found


def _is_usable(python: str) -> bool:
    # A pyenv shim is on the PATH and executable even where no version stands behind it: running it tells.
    try:
        return subprocess.run([python, "-c", USABLE], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def ensure_suite() -> Suite:
    """Install the suite unless the pinned one is there, and return what it holds.

    Two processes may call this at once; the second waits for the first.

    Raises:
        InstallError: no Python 2.7, or a step failed (env/install.log has the output).
    """
    ENV.mkdir(exist_ok=True)
    with (ENV / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = ENV / ".installed"
        pins = hashlib.sha256(REQUIREMENTS.read_bytes() + " ".join(ACCELERATORS).encode()).hexdigest()
        if not done.exists() or done.read_text() != pins:
            _install(find_python27())
            done.write_text(pins)
    listed = subprocess.run(
        [str(ENV / "bin" / "python"), str(CLIENT), "list"], capture_output=True, check=False, text=True
    )
    if listed.returncode != 0:
        raise InstallError(
            f"the suite in {ENV} does not start; remove that folder to install it again: {listed.stderr}"
        )
    held = json.loads(listed.stdout)
    return Suite(held["version"], held["groups"], tuple(held["cases"]))


def _install(python27: Path) -> None:
    print(
        f"installing the Autobahn testsuite with {python27} (once, half a minute)",
        file=sys.stderr,
        flush=True,
    )
    with (ENV / "install.log").open("w") as log, tempfile.TemporaryDirectory() as bootstrap:

        def run(command: Sequence[str], **environ: str) -> bool:
            print("$", *command, file=log, flush=True)
            quiet = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_PYTHON_VERSION_WARNING": "1"}
            env = {**os.environ, **quiet, **environ}
            return subprocess.run(command, stdout=log, stderr=log, env=env, check=False).returncode == 0

        def must(succeeded: bool, step: str) -> None:
            if not succeeded:
                raise InstallError(f"could not {step}; {log.name} has the details")

        # Python 2.7 often comes without a pip, and our own Python without one when uv made its environment.
        download = ["-m", "pip", "install", "--no-deps", "--target", bootstrap, VIRTUALENV]
        virtualenv = ["-m", "virtualenv", "--no-download", str(ENV)]
        install = [str(ENV / "bin" / "python"), "-m", "pip", "install", "--no-deps"]
        must(run([sys.executable, *download]) or run([str(python27), *download]), f"download {VIRTUALENV}")
        must(run([str(python27), *virtualenv], PYTHONPATH=bootstrap), "make the environment")
        must(run([*install, "-r", str(REQUIREMENTS)]), "install the suite")
        if not run([*install, *ACCELERATORS]):
            print("no compiled accelerators: the cases are the same but take longer", file=sys.stderr)
