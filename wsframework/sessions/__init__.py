"""Sessions that outlive their connections, which are resumed with a token.

    sessions = Sessions()

    async with sessions.open(ws, token, user=user.id) as session:
        async with session.join(rooms["tea"], after=position) as member:
            ...

`session` has what a handler uses, `tokens` what a client shows, and `record` what is kept. A `SessionStore`
keeps it: `local` in memory. The life of one connection, which has nothing to do with this, is in the module
`wsframework.session`.
"""

from wsframework.sessions.local import LocalSessionStore
from wsframework.sessions.session import Session
from wsframework.sessions.sessions import Sessions
from wsframework.sessions.statistics import SessionStatistics
from wsframework.sessions.store import SessionClaim, SessionStore

__all__ = ["LocalSessionStore", "Session", "SessionClaim", "SessionStatistics", "SessionStore", "Sessions"]
