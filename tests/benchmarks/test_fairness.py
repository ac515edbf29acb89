"""The fairness measurement runs and says something; how fair it is is not for a busy machine to assert."""

from benchmarks.fairness import run


def test_a_flood_is_measured_beside_the_quiet() -> None:
    found = run(0.3)
    assert list(found) == ["alone", "beside a flood"]
    for numbers in found.values():
        assert 0 < numbers["p50_ms"] <= numbers["p99_ms"]
        assert numbers["messages_per_second"] > 0
        assert numbers["worst_tick_ms"] >= 0
