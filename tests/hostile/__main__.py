"""`python -m tests.hostile`: the seeded stress, as long as one likes.

    python -m tests.hostile --rounds 50                        # every host
    python -m tests.hostile --host native-tcp --seed 7 --round 3 --clients 4,11
    python -m tests.hostile --host native-memory --without base,corrupt --shrink

Each host runs in a process of its own, which is ended when it hangs; what it was doing is printed then. The
exit code is 0 when every round of every host passed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence

import trio

from tests.contract.hosts import HOSTS
from tests.hostile.programs import FAMILIES
from tests.hostile.stress import CLIENTS, Failure, Plan, run_rounds

HANG_SECONDS = 25.0
"""A round that is not over by then hangs."""


def main(arguments: Sequence[str]) -> int:
    options = _parse(arguments)
    if options.host is not None and not options.shrink:
        return _run_here(options)
    hosts = [options.host] if options.host else [host.name for host in HOSTS]
    failed = []
    for host in hosts:
        command = _command(options, host, options.clients)
        if subprocess.run(command, check=False).returncode:
            failed.append(host)
            if options.shrink:
                _shrink(options, host)
    print(
        f"{len(hosts) - len(failed)} of {len(hosts)} hosts passed"
        + (f"; failed: {', '.join(failed)}" if failed else "")
    )
    return 1 if failed else 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--host", choices=[host.name for host in HOSTS], help="one host; without it, all of them"
    )
    parser.add_argument("--seed", default=os.environ.get("HOSTILE_SEED") or str(int(time.time())))
    parser.add_argument("--rounds", type=int, default=int(os.environ.get("HOSTILE_ROUNDS") or 20))
    parser.add_argument("--round", type=int, help="only this round")
    parser.add_argument("--clients", default="", help="only these clients of each round: 4,11")
    parser.add_argument(
        "--without", default="", help=f"families of steps to leave out: {', '.join(FAMILIES)}"
    )
    parser.add_argument("--shrink", action="store_true", help="look for the fewest clients that still fail")
    parser.add_argument("--quiet", action="store_true", help="say only what fails")
    return parser.parse_args(arguments)


def _command(options: argparse.Namespace, host: str, clients: str, *more: str) -> list[str]:
    command = [sys.executable, "-m", "tests.hostile", "--host", host, "--seed", options.seed]
    command += ["--rounds", str(options.rounds), "--clients", clients, "--without", options.without, *more]
    if options.round is not None:
        command += ["--round", str(options.round)]
    return command + (["--quiet"] if options.quiet else [])


def _run_here(options: argparse.Namespace) -> int:
    host = next(host for host in HOSTS if host.name == options.host)
    clients = tuple(map(int, options.clients.split(","))) if options.clients else tuple(range(CLIENTS))
    rounds = range(options.rounds) if options.round is None else range(options.round, options.round + 1)
    families = frozenset(FAMILIES) - set(filter(None, options.without.split(",")))
    plan = Plan(host, options.seed, rounds, families, clients)
    where = {"round": rounds.start}
    watchdog = Watchdog(options, where)

    def report(line: str) -> None:
        where["round"] += 1
        watchdog.feed()
        if not options.quiet:
            print(f"{host.name}: {line}", flush=True)

    watchdog.start()
    try:
        run_rounds(plan, report, watchdog.roots)
    except BaseException as error:
        _tell(options, where["round"], error)
        return 1
    return 0


def _tell(options: argparse.Namespace, current: int, error: BaseException) -> None:
    failures = [leaf for leaf in _leaves(error) if isinstance(leaf, Failure)]
    if failures and failures[0].round_number >= 0:
        current = failures[0].round_number
    print(f"FAILED on {options.host}; again with: {_again(options, current)}")
    for failure in failures:
        for wrong in failure.wrongs:
            print(f"- {wrong}")
    others = [leaf for leaf in _leaves(error) if not isinstance(leaf, Failure | trio.Cancelled)]
    for other in others[:3]:
        text = "".join(traceback.format_exception(other, chain=False))
        print(
            f"- came out of the server: {text if len(text) < 4000 else text[:1000] + ' ... ' + text[-3000:]}"
        )
    sys.stdout.flush()


def _again(options: argparse.Namespace, current: int) -> str:
    words = [
        "python -m tests.hostile",
        f"--host {options.host}",
        f"--seed {options.seed}",
        f"--round {current}",
    ]
    words += [f"--clients {options.clients}"] if options.clients else []
    words += [f"--without {options.without}"] if options.without else []
    return " ".join(words)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """All exceptions in a group, and those that groups and failures were raised from."""
    stack, seen = [error], set()
    while stack:
        found = stack.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        if isinstance(found, BaseExceptionGroup | Failure) and found.__cause__ is not None:
            stack.append(found.__cause__)
        if isinstance(found, BaseExceptionGroup):
            stack += found.exceptions
        else:
            yield found


def _print_tasks(task: trio.lowlevel.Task, depth: int) -> None:
    frames = [f"{frame.f_code.co_name}:{line}" for frame, line in task.iter_await_frames()]
    print(f"{'  ' * depth}{task.name}: {' > '.join(frames[-6:])}")
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            _print_tasks(child, depth + 1)


class Watchdog:
    """Ends the process when a round hangs, and says which tasks there are."""

    def __init__(self, options: argparse.Namespace, where: dict[str, int]) -> None:
        self._options = options
        self._where = where
        self._fed = time.monotonic()
        self.roots: list[trio.lowlevel.Task] = []

    def feed(self) -> None:
        self._fed = time.monotonic()

    def start(self) -> None:
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while time.monotonic() - self._fed < HANG_SECONDS:
            time.sleep(0.5)
        print(f"FAILED on {self._options.host}; again with: {_again(self._options, self._where['round'])}")
        print(f"- the round hangs: nothing for {HANG_SECONDS:g} s")
        for root in self.roots:
            _print_tasks(root, 0)
        sys.stdout.flush()
        os._exit(3)


def _shrink(options: argparse.Namespace, host: str) -> None:
    """Leave out clients as long as the round still fails."""
    kept = [int(number) for number in options.clients.split(",")] if options.clients else list(range(CLIENTS))
    size = len(kept) // 2
    while size:
        for start in range(0, len(kept), size):
            fewer = kept[:start] + kept[start + size :]
            if fewer and _fails(options, host, fewer):
                kept = fewer
                print(f"fails with the clients {','.join(map(str, kept))}", flush=True)
                break
        else:
            size //= 2
    subprocess.run(_command(options, host, ",".join(map(str, kept))), check=False)


def _fails(options: argparse.Namespace, host: str, clients: list[int]) -> bool:
    command = _command(options, host, ",".join(map(str, clients)), "--quiet")
    try:
        return bool(
            subprocess.run(command, capture_output=True, timeout=HANG_SECONDS, check=False).returncode
        )
    except subprocess.TimeoutExpired:
        return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
