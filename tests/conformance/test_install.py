from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.install import InstallError, find_python27


def program(path: Path, exit_status: int) -> Path:
    """Make a program that answers like a Python that is usable (0) or not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\nexit {exit_status}\n")
    path.chmod(0o755)
    return path


def test_the_environment_variable_comes_first(tmp_path: Path) -> None:
    chosen = program(tmp_path / "mine", 0)
    program(tmp_path / "bin" / "python2.7", 0)
    assert find_python27({"PYTHON27": str(chosen), "PATH": str(tmp_path / "bin")}) == chosen


def test_a_wrong_environment_variable_is_an_error_and_not_passed_over(tmp_path: Path) -> None:
    program(tmp_path / "bin" / "python2.7", 0)
    with pytest.raises(InstallError, match="PYTHON27=/no/such/python is not"):
        find_python27({"PYTHON27": "/no/such/python", "PATH": str(tmp_path / "bin")})


def test_pyenvs_versions_come_before_the_path(tmp_path: Path) -> None:
    ours = program(tmp_path / "pyenv" / "versions" / "2.7.18" / "bin" / "python2.7", 0)
    program(tmp_path / "bin" / "python2.7", 0)
    environ = {"PYENV_ROOT": str(tmp_path / "pyenv"), "PATH": str(tmp_path / "bin")}
    assert find_python27(environ) == ours


def test_a_shim_without_a_python_behind_it_is_passed_over(tmp_path: Path) -> None:
    program(tmp_path / "shims" / "python2.7", 127)
    real = program(tmp_path / "bin" / "python2", 0)
    assert find_python27({"PATH": f"{tmp_path / 'shims'}:{tmp_path / 'bin'}"}) == real


def test_without_a_python_27_one_line_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InstallError, match="no Python") as caught:
        find_python27({"HOME": str(tmp_path), "PATH": str(tmp_path)})
    assert "set PYTHON27" in str(caught.value)
    assert "\n" not in str(caught.value)
