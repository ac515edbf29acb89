from __future__ import annotations

from wsframework.closes import is_valid_close_code
from wsframework.wire import CloseCode, Opcode


def test_opcodes_are_those_of_rfc_6455() -> None:
    assert {opcode.name: opcode.value for opcode in Opcode} == {
        "CONTINUATION": 0,
        "TEXT": 1,
        "BINARY": 2,
        "CLOSE": 8,
        "PING": 9,
        "PONG": 10,
    }


def test_close_codes_are_those_of_the_iana_registry() -> None:
    assert sorted(CloseCode) == [1000, 1001, 1002, 1003, *range(1005, 1016)]


def test_only_three_close_codes_never_stand_on_the_wire() -> None:
    assert [code for code in CloseCode if not is_valid_close_code(code)] == [1005, 1006, 1015]
