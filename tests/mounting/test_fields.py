from __future__ import annotations

import pytest

from wsframework.mounting.fields import check_fields, check_status, read_fields


def test_what_is_about_the_connection_is_left_out() -> None:
    fields = read_fields(
        [
            (b"Content-Type", b"text/plain"),
            (b"Connection", b"x-hop, Close"),
            (b"X-Hop", b"1"),
            (b"Keep-Alive", b"timeout=5"),
            (b"Transfer-Encoding", b"chunked"),
            (b"Upgrade", b"h2c"),
            (b"TE", b"trailers"),
            (b"Trailer", b"x"),
            (b"Content-Length", b" 7 "),
            (b"Set-Cookie", b"a=1"),
            (b"Set-Cookie", b"b=2"),
        ]
    )
    assert fields.others == [
        (b"Content-Type", b"text/plain"),
        (b"Set-Cookie", b"a=1"),
        (b"Set-Cookie", b"b=2"),
    ]
    assert (fields.size, fields.persist) == (7, False)
    assert read_fields([]).persist


@pytest.mark.parametrize(
    "field",
    [
        (b"a", b"1\r\n2"),
        (b"a", b"1\n2"),
        (b"a", b"\0"),
        (b"a b", b"1"),
        (b"", b"1"),
        (b"a:", b"1"),
        (b"\xe9", b"1"),
        ("a", "b"),
        (b"a",),
        (b"a", b"b", b"c"),
    ],
)
def test_fields_that_cannot_be_sent_are_refused(field: tuple[bytes, ...]) -> None:
    with pytest.raises((ValueError, TypeError)):
        check_fields([field])


@pytest.mark.parametrize("values", [[b"-1"], [b"1", b"1"], [b"x"], [b""], [b"1, 1"], [b"1" * 19]])
def test_a_length_is_one_number(values: list[bytes]) -> None:
    with pytest.raises(ValueError, match="Content-Length"):
        read_fields([(b"content-length", value) for value in values])


@pytest.mark.parametrize("status", [100, 101, 199, 600, "200", 200.0, None])
def test_a_status_is_a_final_one(status: object) -> None:
    with pytest.raises(ValueError, match="status"):
        check_status(status)
