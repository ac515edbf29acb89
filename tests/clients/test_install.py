"""The install script: quiet where it can, a skip on a developer's machine, a failure in CI."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A copy in a folder without anything installed."""
    for name in ("install", "package.json"):
        shutil.copy(HERE / name, tmp_path)
    (tmp_path / "bin").mkdir()
    for tool in ("bash", "dirname", "cat"):
        found = shutil.which(tool)
        assert found is not None
        (tmp_path / "bin" / tool).symlink_to(found)
    return tmp_path / "install"


def run(script: Path, *, ci: str) -> tuple[int, str, str]:
    environment = {**os.environ, "CI": ci, "PATH": str(script.parent / "bin")}
    bash = str(script.parent / "bin" / "bash")
    done = subprocess.run([bash, str(script)], env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def fake(script: Path, name: str, body: str) -> None:
    program = script.parent / "bin" / name
    program.write_text(f"#!{script.parent}/bin/bash\n{body}\n")
    program.chmod(0o755)


def test_without_node_a_developer_is_told_and_goes_on(script: Path) -> None:
    code, out, err = run(script, ci="")
    assert (code, out) == (0, "")
    assert err.startswith(
        "tests/clients/install: Node.js and npm are not installed; its tests will be skipped"
    )


def test_without_node_ci_fails(script: Path) -> None:
    code, _, err = run(script, ci="true")
    assert code == 1
    assert err.startswith("tests/clients/install: Node.js and npm are not installed; CI needs it")


@pytest.mark.parametrize(("ci", "code"), [("", 0), ("true", 1)])
def test_a_failing_npm_is_a_failure_in_ci_only(script: Path, ci: str, code: int) -> None:
    # Another version is installed than is wanted.
    fake(script, "node", '[[ "$2" == *package.json*dependencies* ]] && echo 1.2.3 || echo 1.2.2')
    fake(script, "npm", "exit 1")
    assert run(script, ci=ci)[0] == code


def test_npm_is_asked_once_and_the_wanted_version_is_left_alone(script: Path) -> None:
    fake(script, "node", '[[ "$2" == *dependencies* ]] && echo 1.2.3 || cat node_modules/version')
    fake(script, "npm", 'echo "$@" >> asked; echo 1.2.3 > node_modules/version')
    (script.parent / "node_modules").mkdir()
    for installed in ("chromium", "nginx", "caddy", "haproxy", "redis-server"):
        fake(script, installed, "exit 1")
    assert run(script, ci="true") == (0, "", "")
    assert run(script, ci="true") == (0, "", "")
    (asked,) = (script.parent / "asked").read_text().splitlines()
    assert asked.startswith("install ")


@pytest.mark.parametrize("name", ["chromium", "nginx", "caddy", "haproxy", "redis-server"])
def test_another_program_that_is_missing_is_named_and_an_error_in_ci_only(script: Path, name: str) -> None:
    if Path(f"/usr/sbin/{name}").exists():
        pytest.skip(f"{name} is found in /usr/sbin, whatever the PATH says")
    fake(script, "node", "echo 1.2.3")
    fake(script, "npm", "exit 1")
    fake(script, "id", "echo 1000")
    for other in {"chromium", "nginx", "caddy", "haproxy", "redis-server"} - {name}:
        fake(script, other, "exit 1")
    wanted = f"{name} is not installed".replace("chromium", "Chromium")
    code, out, err = run(script, ci="")
    assert (code, out) == (0, "")
    assert err == f"tests/clients/install: {wanted}; its tests will be skipped\n"
    code, out, err = run(script, ci="true")
    assert (code, out) == (1, "")
    assert err == f"tests/clients/install: {wanted}; CI needs it\n"
