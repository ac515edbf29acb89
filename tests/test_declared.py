"""What pyproject.toml declares is what `make matrix` tests."""

from __future__ import annotations

import runpy
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MATRIX = runpy.run_path(str(ROOT / ".ci" / "matrix.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_oldest_python_of_the_classifiers_is_the_one_required() -> None:
    assert PROJECT["requires-python"] == f">={MATRIX['supported'](PROJECT)[0]}"


def test_the_pythons_are_those_of_the_classifiers_and_the_next() -> None:
    classifiers = ["Programming Language :: Python :: 3 :: Only"]
    classifiers += [f"Programming Language :: Python :: 3.{minor}" for minor in (10, 9)]
    assert MATRIX["supported"]({"classifiers": classifiers}) == ["3.9", "3.10", "3.11"]


def test_the_lowest_versions_are_the_lower_bounds() -> None:
    project = {
        "dependencies": ["a >= 1", "b-c >= 2.0.1, < 3"],
        "optional-dependencies": {"x": ["d[toml,y] >= 4"], "z": ["e >= 5"]},
    }
    assert MATRIX["lowest"](project, ("x",)) == ["a==1", "b-c==2.0.1", "d[toml,y]==4"]


@pytest.mark.parametrize("requirement", ["a", "a < 3", "a == 1", "a[b]"])
def test_a_requirement_without_a_lower_bound_is_an_error(requirement: str) -> None:
    with pytest.raises(SystemExit, match="has no lower bound; write 'NAME >= VERSION'"):
        MATRIX["lowest"]({"dependencies": [requirement]}, ())


def test_every_dependency_has_a_lower_bound() -> None:
    extras = tuple(PROJECT["optional-dependencies"])
    declared = len(PROJECT["dependencies"]) + sum(map(len, PROJECT["optional-dependencies"].values()))
    assert len(MATRIX["lowest"](PROJECT, extras)) == declared


def test_a_later_patch_level_is_newer() -> None:
    pythons = [Path(f"/versions/3.12.{level}/bin/python") for level in (9, 10)]
    assert max(pythons, key=MATRIX["patch_level"]) == pythons[1]
