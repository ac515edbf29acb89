#!/usr/bin/env python3
"""Change the source in one place at a time, and see whether the tests notice: mutation testing.

    .ci/mutants.py --sample 300 --seed 1

Each change is made in a copy of the repository, in which the tests of the changed module run, the fastest
first, until one fails. A failure counts if it repeats, and so does a run that makes no progress. What was
found is kept: a run that was stopped goes on where it was, and survivors are tried again with other tests.

Left out is what cannot matter: texts, annotations, `__repr__`, `__slots__`, `__all__`, assertions, and what
`record` is called with. `equivalent_mutants.toml` lists the mutants that no test can notice, each with the
reason. A mutant is named by its function and its line's text, so the list survives changes elsewhere.

mutmut 3.8 does not change decorated functions or code outside of functions, and cosmic-ray 8.7 has one test
command for all modules and changes annotations. Neither removes statements.
"""

from __future__ import annotations

import argparse
import ast
import functools
import hashlib
import itertools
import json
import os
import queue
import random
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
MUTATED = (
    "wire/*.py",
    "endpoint.py",
    "connection.py",
    "session.py",
    "rooms/*.py",
    "sessions/*.py",
    "server/*.py",
)

# What runs after the tests in the files of the module's name, in this order. Each is one run of pytest.
NEXT_TESTS = {
    "wire/*": ["tests/wire", "tests/server/test_framing.py tests/server/test_socket.py"],
    "endpoint.py": ["tests/test_connection*.py tests/test_backlog.py tests/test_session*.py", "tests/rooms"],
    "connection.py": ["tests/test_endpoint.py tests/test_session*.py", "tests/rooms"],
    "rooms/*": ["tests/rooms tests/testing/test_engines.py"],
    "sessions/*": ["tests/sessions tests/testing/test_session_stores.py"],
    "server/tls.py": ["tests/contract -k native-tls"],
    "server/[st]*.py": ["tests/test_certificates.py"],
    "server/[bfn]*.py": ["tests/hostile/test_blocked.py tests/hostile/test_forks.py"],
    "server/[dlns]*.py": ["tests/promises/test_7_stopping.py"],
    "server/*": ["tests/server --ignore=tests/server/test_leaving.py"],
    "*": ["tests/contract -k native-memory"],
}
NO_PROGRESS_SECONDS = 60.0
"""How long one test may take."""

# Lt becomes LtE, the edge, and not its opposite, which nearly every test would notice.
_PAIRS = "Is IsNot, Eq NotEq, In NotIn, Lt LtE, Gt GtE, Add Sub, Mult FloorDiv, LShift RShift, BitAnd BitOr"
_SWAPS = {"Div": "Mult", "Mod": "FloorDiv"}
for _one, _other in map(str.split, _PAIRS.split(", ")):
    _SWAPS |= {_one: _other, _other: _one}
_CALLS = {"min": "max", "max": "min", "any": "all", "all": "any"}
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+::[^\[\s]+(?:\[.*?\])?)(?: - |$)", re.MULTILINE)


class Mutant(NamedTuple):
    """One change of one module: its bytes from `start` to `end` are replaced with `new`."""

    path: str
    name: str
    line: int
    start: int
    end: int
    new: str


def changes(node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    """Yield the changes of a node: what is replaced, and with what."""
    match node:
        case ast.Expr(value=ast.Constant()):
            pass  # a docstring
        case ast.Expr() | ast.AugAssign() | ast.Raise() | ast.Delete() | ast.Break() | ast.Continue():
            yield node, ast.Pass()
        case ast.Return(value=None) | ast.Assign(targets=[*_, ast.Attribute() | ast.Subscript()]):
            yield node, ast.Pass()
        case ast.Return(value=value) if not isinstance(value, ast.Constant):
            yield node, ast.Return(ast.Constant(None))
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            if not isinstance(test, (ast.Compare, ast.BoolOp, ast.UnaryOp, ast.Constant)):
                yield test, ast.UnaryOp(ast.Not(), test)
        case ast.BoolOp(values=values):
            for out in values:
                kept = [value for value in values if value is not out]
                yield node, kept[0] if len(kept) == 1 else ast.BoolOp(node.op, kept)
        case ast.UnaryOp(op=ast.Not()):
            yield node, node.operand
        case ast.Compare(ops=ops):
            for at, operator in enumerate(ops):
                swapped = [*ops[:at], _swapped(operator), *ops[at + 1 :]]
                yield node, ast.Compare(node.left, swapped, node.comparators)
        case ast.BinOp(op=operator) if type(operator).__name__ in _SWAPS:
            yield node, ast.BinOp(node.left, _swapped(operator), node.right)
        case ast.Call(func=ast.Name(id=name)) if name in _CALLS:
            yield node.func, ast.Name(_CALLS[name])
        case ast.Constant(value=bool() as value):
            yield node, ast.Constant(not value)
        case ast.Constant(value=int() | float() as value):
            yield node, ast.Constant(value + 1 if isinstance(value, int) else value * 2 or 1.0)
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            for decorator in node.decorator_list:
                if ast.unparse(decorator).endswith("enable_ki_protection"):
                    yield decorator, ast.parse("(lambda function: function)", mode="eval").body


def _swapped(operator: ast.AST) -> Any:
    return getattr(ast, _SWAPS[type(operator).__name__])()


def parts(node: ast.AST) -> Iterable[ast.AST | None]:
    """Return the nodes within a node that may be changed."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            defaults = [*node.args.defaults, *node.args.kw_defaults]
            return [] if node.name == "__repr__" else [*defaults, *node.body]
        case ast.ClassDef():
            return node.body
        case ast.AnnAssign():
            return [] if "TypeAlias" in ast.unparse(node.annotation) else [node.value]
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            alias = isinstance(value, ast.BinOp) and isinstance(value.op, ast.BitOr)
            return [] if name.startswith("__") or alias else [value]
        case ast.Assert() | ast.Raise() | ast.JoinedStr():
            return []
        case ast.If() if re.search(r"TYPE_CHECKING|sys\.platform", ast.unparse(node.test)):
            return []
        case ast.Call() if re.search(r"\b_?record(_failure)?$", ast.unparse(node.func)):
            return []
        case _:
            return ast.iter_child_nodes(node)


def mutants_of(path: str, source: bytes) -> Iterator[Mutant]:
    """Yield the mutants of one module."""
    lines = source.splitlines(keepends=True)
    starts = [0, *itertools.accumulate(map(len, lines))]
    names: Counter[str] = Counter()
    waiting: list[tuple[ast.AST, str]] = [(ast.parse(source), "")]
    while waiting:
        node, scope = waiting.pop()
        for old, new in changes(node):
            assert isinstance(old, (ast.expr, ast.stmt))
            start = starts[old.lineno - 1] + old.col_offset
            end = starts[(old.end_lineno or 0) - 1] + (old.end_col_offset or 0)
            text = ast.unparse(ast.fix_missing_locations(new))
            line = lines[old.lineno - 1].decode().strip()
            name = f"{scope or 'module'}: {line} | {ast.unparse(old)} -> {text}"
            names[name] += 1
            name += f" #{names[name]}" if names[name] > 1 else ""
            yield Mutant(
                path, name, old.lineno, start, end, f"({text})" if isinstance(old, ast.expr) else text
            )
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            scope = f"{scope}.{node.name}".removeprefix(".")
        waiting += reversed([(part, scope) for part in parts(node) if part is not None])


def all_mutants(modules: Iterable[str]) -> list[Mutant]:
    """Return the mutants of the modules that match a pattern, in the order of the source."""
    paths = (path for pattern in MUTATED for path in sorted((ROOT / "wsframework").glob(pattern)))
    names = [str(path.relative_to(ROOT)) for path in paths]
    chosen = [name for name in names if any(fnmatch(name, module) for module in modules)]
    return [mutant for name in chosen for mutant in mutants_of(name, (ROOT / name).read_bytes())]


def sampled(mutants: list[Mutant], size: int, seed: int) -> list[Mutant]:
    """Return so many mutants, each at random from one stretch of the source: evenly over the modules."""
    dice, count = random.Random(seed), len(mutants)
    bounds = [count * number // size for number in range(size + 1)]
    chosen = [dice.choice(mutants[start:end]) for start, end in itertools.pairwise(bounds) if start < end]
    return dice.sample(chosen, len(chosen))


def tests_of(path: str) -> list[str]:
    """Return the runs of pytest for a module, the fastest first."""
    module = Path(path).relative_to("wsframework")
    own = (f"tests/{module.parent}/test_{module.stem}{rest}.py" for rest in ("", "_*"))
    runs = [" ".join(pattern for pattern in own if any(ROOT.glob(pattern)))]
    for pattern, following in NEXT_TESTS.items():
        runs += following if fnmatch(str(module), pattern) else []
    return [run for run in runs if run]


class Tree:
    """A copy of the repository in which one mutant at a time is tried."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sound: set[str] = set()  # tests that pass without a change
        shutil.rmtree(path, ignore_errors=True)
        tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
        for name in filter(None, tracked.decode().split("\0")):
            if (ROOT / name).is_file():
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, path / name)

    def try_mutant(self, mutant: Mutant) -> tuple[str, str]:
        """Return "killed", "timed out" or "survived", and the test that noticed."""
        file = self._path / mutant.path
        source = file.read_bytes()
        changed = source[: mutant.start] + mutant.new.encode() + source[mutant.end :]
        for run in tests_of(mutant.path):
            while True:
                status, test = self._pytest(file, changed, run)
                if status in (0, 5):
                    break  # what runs next may notice
                if status is None or not test:
                    return ("timed out" if status is None else "killed"), run
                if self._pytest(file, changed, shlex.quote(test))[0] != 0:
                    if test not in self._sound and self._pytest(file, source, shlex.quote(test))[0] != 0:
                        raise SystemExit(f"{test} fails without any change, in {self._path}")
                    self._sound.add(test)
                    return "killed", test
                run += f" --deselect {shlex.quote(test)}"  # it failed by chance
        return "survived", ""

    def _pytest(self, file: Path, content: bytes, arguments: str) -> tuple[int | None, str]:
        """Run tests with a module's content; return the status, None without progress, and what failed."""
        # Python would take what it compiled within the same second for that of this mutant.
        for compiled in file.parent.glob(f"__pycache__/{file.stem}.*.pyc"):
            compiled.unlink()
        source = file.read_bytes()
        file.write_bytes(content)
        with subprocess.Popen(
            f"exec {sys.executable} -m pytest -x -q -p no:cacheprovider --tb=no {arguments}",
            shell=True,  # for the patterns
            cwd=self._path,
            env=os.environ | {"PYTHONPATH": str(self._path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process:
            assert process.stdout is not None
            output, status = b"", None
            while select.select([process.stdout], [], [], NO_PROGRESS_SECONDS)[0]:
                data = os.read(process.stdout.fileno(), 65536)
                if not data:
                    status = process.wait()
                    break
                output += data
            else:
                os.killpg(process.pid, signal.SIGKILL)
        file.write_bytes(source)
        if status == 4:
            raise SystemExit(f"pytest does not understand {arguments}")
        failed = _FAILED.search(output.decode(errors="replace"))
        return status, failed[1] if failed else ""


class Results:
    """What was found, kept in a file with one line of JSON for each mutant."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tests = _digest(*sorted((ROOT / "tests").rglob("*.py")))
        lines = path.read_text().splitlines() if path.exists() else ()
        self._known = {(entry["path"], entry["mutant"]): entry for entry in map(json.loads, lines)}

    def get(self, mutant: Mutant) -> dict[str, str] | None:
        """Return what is known of a mutant and still holds."""
        entry = self._known.get(mutant[:2], {})
        same = entry.get("source") == _digest(ROOT / mutant.path)
        return entry if same and (entry["outcome"] != "survived" or entry["tests"] == self._tests) else None

    def add(self, mutant: Mutant, outcome: str, test: str) -> None:
        """Keep what was found."""
        entry = {"path": mutant.path, "line": str(mutant.line), "mutant": mutant.name, "outcome": outcome}
        entry |= {"by": test, "source": _digest(ROOT / mutant.path), "tests": self._tests}
        self._known[mutant[:2]] = entry
        with self._path.open("a") as file:
            file.write(json.dumps(entry) + "\n")


@functools.cache
def _digest(*files: Path) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def try_all(mutants: list[Mutant], results: Results, state: Path, jobs: int) -> None:
    """Try the mutants of which nothing is known."""
    trees: queue.SimpleQueue[Tree] = queue.SimpleQueue()
    unknown = [mutant for mutant in mutants if results.get(mutant) is None]
    print(f"{len(mutants)} mutants, {len(mutants) - len(unknown)} of them known", flush=True)
    for number in range(min(jobs, len(unknown))):
        trees.put(Tree(state / f"tree-{number}"))

    def try_one(mutant: Mutant) -> tuple[Mutant, str, str]:
        tree = trees.get()
        try:
            return mutant, *tree.try_mutant(mutant)
        finally:
            trees.put(tree)

    pool = ThreadPoolExecutor(jobs)
    try:
        done = as_completed([pool.submit(try_one, mutant) for mutant in unknown])
        for number, future in enumerate(done, 1):
            mutant, outcome, test = future.result()
            results.add(mutant, outcome, test)
            place = f"{mutant.path}:{mutant.line}: {mutant.name}"
            print(f"{number}/{len(unknown)} {outcome}: {place}", flush=True)
    finally:
        pool.shutdown(cancel_futures=True)


def report(entries: list[dict[str, str]], equivalent: int, as_json: bool) -> None:
    """Print the survivors and the table."""
    table: dict[str, Counter[str]] = defaultdict(Counter)
    for entry in sorted(entries, key=lambda entry: (entry["path"], int(entry["line"]))):
        for path in (entry["path"].removeprefix("wsframework/"), "all"):
            table[path][entry["outcome"]] += 1
        if entry["outcome"] == "survived":
            print(f"survived: {entry['path']}:{entry['line']}: {entry['mutant']}")
    print(f"\n{'':30}{'killed':>8}{'timed out':>11}{'survived':>10}{'score':>9}")
    for path, counts in sorted(table.items(), key=lambda row: row[0] == "all"):
        columns = f"{counts['killed']:8}{counts['timed out']:11}{counts['survived']:10}"
        print(f"{path:30}{columns}{100 - 100 * counts['survived'] / counts.total():7.1f} %")
    print(f"not counted, because no test can notice them: {equivalent}")
    if as_json:
        print(json.dumps({"modules": table, "mutants": entries}))


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("modules", nargs="*", default=["*"], help="such as 'wsframework/wire/*'")
    parser.add_argument("--sample", type=int, help="how many mutants; all by default")
    parser.add_argument("--seed", type=int, default=1, help="of the sample")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print the result as JSON, on the last line")
    parser.add_argument("--list", action="store_true", help="only list the mutants")
    parser.add_argument(
        "--state", type=Path, default=Path(sys.prefix, "mutants"), help="for copies and results"
    )
    options = parser.parse_args()
    mutants = all_mutants(options.modules)
    listed = tomllib.loads((ROOT / ".ci" / "equivalent_mutants.toml").read_text())
    equivalent = {(path, entry["mutant"]) for path, entries in listed.items() for entry in entries}
    for gone in sorted(equivalent - {mutant[:2] for mutant in all_mutants(["*"])}):
        print("no longer there, so take it out of equivalent_mutants.toml:", *gone, file=sys.stderr)
    chosen = mutants if options.sample is None else sampled(mutants, options.sample, options.seed)
    tried = [mutant for mutant in chosen if mutant[:2] not in equivalent]
    if options.list:
        print(*(f"{mutant.path}:{mutant.line}: {mutant.name}" for mutant in tried), sep="\n")
        return
    options.state.mkdir(parents=True, exist_ok=True)
    results = Results(options.state / "results.jsonl")
    try:
        try_all(tried, results, options.state, options.jobs)
    except KeyboardInterrupt:
        print("stopped: this is what is known")
    entries = [entry for mutant in tried if (entry := results.get(mutant)) is not None]
    report(entries, len(chosen) - len(tried), options.json)


if __name__ == "__main__":
    main()
