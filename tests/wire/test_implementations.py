from __future__ import annotations

import os
import subprocess
import sys

import pytest

from wsframework import wire
from wsframework.wire import implementations, masking
from wsframework.wire.implementations import PURE, Work, choose, in_use, installed

WORKS: tuple[Work, ...] = ("masking", "decoding", "encoding")
SAY_WHAT_IS_USED = "from wsframework.wire.implementations import in_use; print(sorted(in_use().values()))"


@pytest.fixture(autouse=True)
def _registry_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(implementations, "_installed", dict(implementations._installed))
    monkeypatch.setattr(implementations, "_in_use", dict(implementations._in_use))
    monkeypatch.delenv("WSFRAMEWORK_PURE", raising=False)


def test_every_work_has_a_pure_implementation_and_one_that_is_used() -> None:
    for work in WORKS:
        assert PURE in installed(work)
        assert in_use()[work] in installed(work)
    assert set(in_use()) == set(WORKS)


def test_the_functions_of_wire_are_those_in_use() -> None:
    chosen = {work: installed(work)[in_use()[work]] for work in WORKS}
    assert chosen == {
        "masking": wire.apply_mask,
        "decoding": wire.decoder_class,
        "encoding": wire.encode_message,
    }


def test_the_first_that_is_installed_is_used() -> None:
    assert choose("masking", {"a": None, "b": 2, "pure": 3}) == 2
    assert in_use()["masking"] == "b"
    assert installed("masking") == {"b": 2, "pure": 3}


@pytest.mark.parametrize(("value", "expected"), [("1", 3), ("yes", 3), ("0", 2), ("", 2)])
def test_the_environment_asks_for_pure_python(
    monkeypatch: pytest.MonkeyPatch, value: str, expected: int
) -> None:
    monkeypatch.setenv("WSFRAMEWORK_PURE", value)
    assert choose("masking", {"b": 2, "pure": 3}) == expected
    assert installed("masking") == {"b": 2, "pure": 3}


def test_without_a_pure_implementation_there_is_no_choice() -> None:
    with pytest.raises(ValueError, match="masking has no implementation in pure Python"):
        choose("masking", {"a": 1, "pure": None})


@pytest.mark.parametrize(
    ("environment", "first"),
    [({"WSFRAMEWORK_PURE": "1"}, ""), ({}, "import sys; sys.modules['websockets.speedups'] = None; ")],
)
def test_pure_python_does_everything_when_asked_to_and_where_nothing_else_is_installed(
    environment: dict[str, str], first: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", first + SAY_WHAT_IS_USED],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == str([PURE] * len(WORKS))


def test_the_compiled_function_is_used_where_it_is_installed() -> None:
    speedups = pytest.importorskip("websockets.speedups")
    assert installed("masking")["websockets"] is speedups.apply_mask
    assert installed("masking")["pure"] is masking.pure_apply_mask
