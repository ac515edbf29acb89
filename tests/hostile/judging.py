"""What a client saw, held against what its handler did."""

from __future__ import annotations

from collections.abc import Sequence

from tests.hostile.peers import Peer
from tests.hostile.playing import Part

__all__ = ["judge"]


def judge(part: Part, peer: Peer, crashes: Sequence[str]) -> list[str]:
    """Return all that is wrong between a client and its handler.

    Args:
        part: the server's side.
        peer: the client's.
        crashes: crash records that were logged for the part's paths.
    """
    wrongs = [*part.wrongs, *peer.wrongs]
    if peer.late:
        wrongs.append("the client's life did not end in time")
    wrongs += _direct(part, peer)
    wrongs += _rooms(part, peer)
    wrongs += _end(part, peer)
    wrongs += _crashes(part, crashes)
    return wrongs


def _direct(part: Part, peer: Peer) -> list[str]:
    """Sends that returned arrived in order of calls; others did not. All of them, if the end was orderly."""
    seen = [found.number for found in peer.seen if found.sender == ">"]
    returned = [number for number in part.sends if number in part.sent]
    if seen != returned[: len(seen)]:
        return [f"sends that returned: {_short(returned)}; the client received: {_short(seen)}"]
    if peer.life.well_behaved and peer.close is not None and len(seen) < len(returned):
        return [f"{len(returned) - len(seen)} of {len(returned)} sends did not arrive before the Close frame"]
    return []


def _rooms(part: Part, peer: Peer) -> list[str]:
    """Broadcasts arrived in the room's order, once, to members only; without a gap where none may be."""
    wrongs = []
    for room in {name for name, _, _ in part.expected} | {found.sender for found in peer.seen} - {">"}:
        seen = [found.number for found in peer.seen if found.sender == room]
        expected = {number: member for name, member, number in part.expected if name == room}
        if seen != sorted(set(seen)):
            wrongs.append(f"broadcasts of {room} arrived as {_short(seen)}")
        strangers = [number for number in seen if number not in expected]
        if strangers:
            wrongs.append(f"broadcasts of {room} arrived though it was no member: {_short(strangers)}")
        if room != "close":
            continue
        for member in set(expected.values()):
            meant = [number for number in expected if expected[number] == member]
            got = [number for number in seen if expected.get(number) == member]
            if got != meant[: len(got)]:
                wrongs.append(f"a membership of {room} should begin {_short(meant)} and has {_short(got)}")
    return wrongs


def _end(part: Part, peer: Peer) -> list[str]:
    """A client that keeps to the rules gets a Close frame, with the code of what has happened."""
    if not (peer.life.well_behaved and peer.status == 101):
        if peer.life.well_behaved and peer.status is None:
            return [f"a lawful client got no answer to its opening handshake: {peer.ended}"]
        return []
    if peer.stuck:
        return [peer.stuck]
    if peer.close is None:
        return [f"a lawful client got no Close frame: {peer.ended or 'nothing'}"]
    if not peer.ended:
        return [f"TCP did not end behind the Close frame {peer.close.close_code}"]
    if peer.closed_first:
        return []
    code = peer.close.close_code
    # A handler's return closes with 1000 at once, and one of its children may raise in the same moment.
    too_late = part.returned_at is not None and part.raised_at > part.returned_at - 0.01
    if (part.raised and not (part.masked or part.closed or too_late)) and code not in (1011, 1013):
        return [f"its handler raised, and it got {code}"]
    if not (part.raised or part.closed or part.corrupted) and code not in (1000, 1013):
        return [f"its handler returned, and it got {code} {peer.close.close_reason!r}"]
    return []


def _crashes(part: Part, crashes: Sequence[str]) -> list[str]:
    most = part.raised + part.corrupted
    least = 1 if part.raised and not (part.masked or part.corrupted) else 0
    if not least <= len(crashes) <= most:
        return [f"{part.raised} raised, {'something' if part.corrupted else 'nothing'} left: {list(crashes)}"]
    return []


def _short(numbers: Sequence[int]) -> str:
    return str(numbers) if len(numbers) < 30 else f"{numbers[:15]} ... {numbers[-10:]}"
