#!/usr/bin/env python3
"""Run tests on every supported Python that is installed, and once with the lowest versions that are declared.

    .ci/matrix.py tests/wire                  # `make matrix` names the tests of `make unit`
    .ci/matrix.py --others tests/wire         # not on the Python that runs this: CI runs all tests on it

The Pythons are those of the classifiers in pyproject.toml and the one after them. They are looked for on PATH
and among the versions of pyenv. Each gets a new virtual environment (`.venv-3.12`) with the newest
dependencies. The lowest versions (`.venv-lowest`) are tested on the oldest of the Pythons.
Exit code: 0 if everything passed, 1 if something failed, 2 if there was nothing to run on.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("cli", "speed", "redis", "dev", "test")
"""What the tests need; the extras `lint`, `dist` and `docs` are tools and no part of what users install."""


def supported(project: dict) -> list[str]:
    """Return the versions that the classifiers name, and the one after them, which is not declared yet."""
    named = [
        int(found[1])
        for classifier in project["classifiers"]
        if (found := re.fullmatch(r"Programming Language :: Python :: 3\.(\d+)", classifier))
    ]
    return [f"3.{minor}" for minor in [*sorted(named), max(named) + 1]]


def lowest(project: dict, extras: tuple[str, ...] = EXTRAS) -> list[str]:
    """Return the requirements of the project and these extras, each as its lowest version.

    Raises:
        SystemExit: a requirement has no lower bound, so that no version of it can be tested.
    """
    declared = [*project["dependencies"]]
    for extra in extras:
        declared += project["optional-dependencies"][extra]
    pinned = []
    for requirement in declared:
        found = re.match(r"([\w.-]+(?:\[[\w,.-]+\])?)\s*>=\s*([\w.]+)", requirement)
        if found is None:
            raise SystemExit(f"pyproject.toml: {requirement!r} has no lower bound; write 'NAME >= VERSION'")
        pinned.append(f"{found[1]}=={found[2]}")
    return pinned


def find(version: str) -> str | None:
    """Return a Python of this version, such as "3.12", that runs and can make virtual environments."""
    for python in candidates(version):
        # pyenv puts a python3.12 on PATH that fails when another version is selected; a Debian without
        # python3-venv has no ensurepip.
        check = f"import ensurepip, sys; sys.exit('%d.%d' % sys.version_info[:2] != '{version}')"
        if subprocess.run([python, "-c", check], capture_output=True).returncode == 0:
            return python
    return None


def candidates(version: str) -> Iterator[str]:
    """Yield the programs that may be this Python: pyenv's, the newest first, then those on PATH."""
    if pyenv := shutil.which("pyenv"):
        root = subprocess.run([pyenv, "root"], capture_output=True, text=True).stdout.strip()
        found = Path(root, "versions").glob(f"{version}.*/bin/python")
        yield from map(str, sorted(found, key=patch_level, reverse=True))
    for folder in os.get_exec_path():
        if python := shutil.which(f"python{version}", path=folder):
            yield python


def patch_level(python: Path) -> tuple[int, ...]:
    """Return (3, 12, 10) for …/versions/3.12.10/bin/python, so that it comes after 3.12.9."""
    return tuple(map(int, re.findall(r"\d+", python.parents[1].name)))


def passes(name: str, python: str, requirements: list[str], tests: list[str]) -> bool:
    """Make the environment .venv-NAME anew, install, and run the tests there."""
    folder = ROOT / f".venv-{name}"
    inside = str(folder / "bin" / "python")
    pip = [inside, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    steps = [
        [python, "-m", "venv", "--clear", str(folder)],
        [*pip, *requirements, "--editable", f".[{','.join(EXTRAS)}]"],
        [inside, "-m", "pytest", "--quiet", "-p", "no:cacheprovider", *tests],
    ]
    return all(subprocess.run(step, cwd=ROOT).returncode == 0 for step in steps)


def cpu_seconds() -> float:
    """Return what the programs that have ended took of the processor, user and system."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> int:
    """Run everything, say what came out of it, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--others", action="store_true", help="leave out the version of Python that runs this"
    )
    parser.add_argument("tests", nargs="+", help="files and folders for pytest")
    options = parser.parse_args()

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pythons = {version: find(version) for version in supported(project)}
    installed = {version: python for version, python in pythons.items() if python}
    mine = f"3.{sys.version_info.minor}"
    left_out = mine if options.others else None
    runs = [(name, name, python, []) for name, python in installed.items() if name != left_out]
    if installed:
        oldest = next(iter(installed))
        runs.append(("lowest", f"lowest versions, on {oldest}", installed[oldest], lowest(project)))

    lines = [f"{version}: not installed" for version, python in pythons.items() if not python]
    failed = False
    for name, title, python, requirements in runs:
        print(f"{title}: installing and testing with {python}", flush=True)
        started, used = time.monotonic(), cpu_seconds()
        passed = passes(name, python, requirements, options.tests)
        failed = failed or not passed
        took = f"{time.monotonic() - started:.0f} s, {cpu_seconds() - used:.0f} s of CPU"
        lines.append(f"{title}: {'passed' if passed else 'FAILED'} in {took}")
        print(lines[-1], flush=True)
    print("", *lines, sep="\n", flush=True)
    return 2 if not installed else int(failed)


if __name__ == "__main__":
    sys.exit(main())
