"""A suite of made-up cases whose client needs no Python 2.7: what happens to a case is in its name."""

from __future__ import annotations

import sys
from pathlib import Path

import attrs

from tests.conformance.install import Suite

# Answers as fuzzing_client.py2 does, a case each 20 ms so that several clients get their share.
CLIENT = """
import json, sys, time
for case in iter(sys.stdin.readline, ""):
    case = case.strip()
    if case == "6.6.6":
        sys.exit("the server is gone")
    if case == "7.7.7":
        time.sleep(60)
    behavior = "FAILED" if case.startswith("3.") else "OK"
    answer = {"id": case, "behavior": behavior, "behaviorClose": "OK", "remoteCloseCode": 1000,
        "duration": 1, "result": "why", "resultClose": "", "received": [], "expected": {}}
    print(json.dumps(answer), flush=True)
    time.sleep(0.02)
"""


@attrs.frozen
class FakeSuite(Suite):
    """A suite whose client ends at case 6.6.6, hangs at 7.7.7, and finds all of group 3 FAILED."""

    def client(self, url: str, agent: str, pages: Path) -> list[str]:
        return [sys.executable, "-c", CLIENT]
