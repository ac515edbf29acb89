"""Random handlers and clients on every host: a few rounds here, as many as one likes with `make attack`."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import pytest

from tests.contract.differences import Difference
from tests.contract.hosts import HOSTS
from tests.hostile.labels import Label, Torn, label, parse
from tests.hostile.lives import write_life
from tests.hostile.programs import FAMILIES, Author

SEED = os.environ.get("HOSTILE_SEED", "2026")
ROUNDS = int(os.environ.get("HOSTILE_ROUNDS", "1"))
MANY_ROUNDS = int(os.environ.get("HOSTILE_ROUNDS", "40"))

# A plain trio-websocket server holds on to whoever leaves before an App is asked: see docs/moving.md.
NAMES = [
    host.name
    for host in HOSTS
    if not host.differs(Difference.ENDS_WITH_A_BAD_HEAD)
    and not host.in_asyncio  # it has no test of Trio's around it
]


def run(host: str, rounds: int) -> None:
    command = [sys.executable, "-m", "tests.hostile", "--host", host, "--seed", SEED, "--rounds", str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60 + 30 * rounds, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]


@pytest.mark.parametrize("host", NAMES)
def test_random_handlers_and_clients_leave_the_server_as_it_was(host: str) -> None:
    run(host, ROUNDS)


@pytest.mark.attack
@pytest.mark.parametrize("host", NAMES)
def test_many_rounds_of_random_handlers_and_clients_leave_the_server_as_it_was(host: str) -> None:
    run(host, MANY_ROUNDS)


def test_a_seed_writes_the_same_programs_again() -> None:
    def write(seed: int) -> str:
        chance = random.Random(seed)
        author = Author(chance, frozenset(FAMILIES), threads=True)
        return " ".join(map(str, [*author.handler(), *author.guard(), *author.page(), write_life(chance)]))

    assert write(1) == write(1)
    assert len({write(seed) for seed in range(50)}) == 50


def test_a_label_tells_what_is_not_whole() -> None:
    for number in range(4):
        assert parse(label("close", number, 10 * number)) == Label("close", number)
    whole = label(">", 1, 100)
    assert isinstance(whole, str)
    for torn in (whole[:-1], whole + "x", whole.encode(), whole[:50] + whole, "", "> 1", "> one 1 x"):
        with pytest.raises(Torn):
            parse(torn)
