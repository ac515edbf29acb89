from __future__ import annotations

from wsframework.wire import Opcode


def test_opcodes_are_those_of_rfc_6455() -> None:
    assert {opcode.name: opcode.value for opcode in Opcode} == {
        "CONTINUATION": 0,
        "TEXT": 1,
        "BINARY": 2,
        "CLOSE": 8,
        "PING": 9,
        "PONG": 10,
    }
