"""A chat that people can use, as a plugin: rooms, names, typing, history, and a page.

    app = App()
    app.install(Chat(history="chat.db"))
    app.run(port=3000)

It is made with nothing but wsframework's public names. Bottom-up: `skeletons`, `names`, `rate`, `protocol`;
what conversations need to know of each other, `attendance` and `transcript`; what keeps that in one process,
`house`, `presence`, `database`, `history`, `journal`; then the two conversations, `plain` and `superchat`;
beside them `page`; at the top `plugin`. The protocol is in docs/chat.md.
"""

from wsframework.chat.messages import HistoryError, Message, Retention
from wsframework.chat.plugin import Chat
from wsframework.chat.rate import Rate

__all__ = ["Chat", "HistoryError", "Message", "Rate", "Retention"]
