"""The tables: ratios round by round, marks, and only what stands between the markers is replaced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.contenders import CONTENDERS, HERE
from benchmarks.report import table
from benchmarks.rows import ROWS, select_rows
from benchmarks.runner import Plan, summary
from benchmarks.tables import BEGIN, CHART_ROW, END, bars, full_tables, headline, replace_between


def sample(rate: float, client_cpu: float = 0.5) -> dict[str, float]:
    return {
        "rate": rate,
        "p50": 1e-4,
        "p99": 2e-4,
        "client_cpu": client_cpu,
        "server_cpu": 1.0,
        "others_cpu": 0.0,
        "server_us": 1e6 / rate,
    }


def row() -> dict[str, Any]:
    return {
        "workload": "echo",
        "key": "echo:64x1:64B",
        "label": "64 connections, 64 B",
        "metric": "rate",
        "unit": "msg/s",
        "better": "higher",
        "parameters": {},
        "seconds": 1.0,
        "samples": {
            "wsframework": [sample(100.0), sample(300.0), sample(200.0)],
            "aiohttp": [sample(50.0), sample(100.0), sample(200.0)],
            "picows": [sample(400.0, 0.95), None, sample(400.0, 0.97)],
        },
        "errors": {"granian": "cannot do this"},
    }


def result() -> dict[str, Any]:
    return {
        "date": "2026-01-01 00:00 UTC",
        "command": "python -m benchmarks",
        "machine": {
            "processor": "a processor",
            "cores": 2,
            "server_core": 0,
            "client_core": 1,
            "system": "Linux",
            "python": "3.11",
        },
        "client": "C",
        "versions": {"wsframework": "wsframework 0.1.0"},
        "left_out": {},
        "rows": [row()],
    }


def test_ratios_are_medians_of_the_rounds_ratios() -> None:
    aiohttp = next(line for line in summary(row()) if line["name"] == "aiohttp")
    assert (aiohttp["ratio_min"], aiohttp["ratio"], aiohttp["ratio_max"]) == (1.0, 2.0, 3.0)


def test_a_round_that_failed_is_left_out_of_the_ratio() -> None:
    picows = next(line for line in summary(row()) if line["name"] == "picows")
    assert picows["rounds"] == 2
    assert (picows["ratio_min"], picows["ratio_max"]) == (0.25, 0.5)


def test_less_memory_is_a_ratio_above_one() -> None:
    memory = row() | {"better": "lower"}
    assert next(line for line in summary(memory) if line["name"] == "aiohttp")["ratio"] == 0.5


def test_a_line_that_the_client_limited_is_marked_everywhere() -> None:
    assert "client-bound" in table(row())
    assert "client-bound" in full_tables(result())
    assert "400 ᶜ" in headline(result())


def test_a_lost_row_says_why() -> None:
    lost = full_tables(result()).partition("Why these are ahead:")[2]
    assert "picows" in lost
    assert "aiohttp" not in lost


def test_the_chart_has_a_bar_for_each_rate_and_the_longest_first() -> None:
    lines = bars(result() | {"rows": [row() | {"key": CHART_ROW}]}).splitlines()
    assert (lines[0], lines[-1]) == ("```text", "```")
    shown = [(line.split()[0], line.count("█"), line.split()[-1]) for line in lines if "█" in line]
    assert shown == [("picows", 40, "400"), ("wsframework", 20, "200"), ("aiohttp", 10, "100")]


def test_only_what_stands_between_the_markers_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    assert replace_between(page, "new")
    assert page.read_text() == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"


def test_a_file_without_markers_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text("nothing here\n")
    assert not replace_between(page, "new")
    assert not replace_between(tmp_path / "missing.md", "new")
    assert page.read_text() == "nothing here\n"


def test_every_contender_has_its_file_and_every_row_a_key_of_its_own() -> None:
    for contender in CONTENDERS:
        suffix = "" if Path(contender.server).suffix else ".py"
        assert (HERE / "servers" / (contender.server + suffix)).exists()
    assert len({r.key for r in ROWS}) == len(ROWS)
    assert all(select_rows([r.key]) == [r] for r in ROWS)


def test_a_disturbed_line_is_marked() -> None:
    busy = result()
    for taken in busy["rows"][0]["samples"]["aiohttp"]:
        taken["others_cpu"] = 0.5
    assert "ᵈ" in headline(busy)
    assert "disturbed" in table(busy["rows"][0])
    assert "ᵈ" not in headline(result())


def test_a_run_that_would_last_too_long_takes_fewer_rounds_but_never_none() -> None:
    rows = select_rows(["echo"])
    plan = Plan(rows, list(CONTENDERS), minutes=1)
    needed = sum(plan.estimate(r) for r in rows)
    assert needed > 120
    shortened = plan.shortened(rows[0], rows[1:], spent=0.0, estimated=0.0)
    assert 1 <= shortened.rounds < rows[0].rounds
    assert plan.shortened(rows[0], rows[1:], spent=59.0, estimated=30.0).rounds == 1
    assert Plan(rows, list(CONTENDERS)).shortened(rows[0], rows[1:], spent=1e6, estimated=1.0) == rows[0]
