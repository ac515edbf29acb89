"""What `wsframework trace` and `wsframework connect` do between a URL and the end of TCP; prints nothing.

Beneath both: `target` (what the user asks for), `steps` (what happened, as values), `problems` (what is
wrong, in sentences), `response` (the answer to the opening handshake), `kernel` (TCP_INFO and /proc),
`reaching` (name resolution and TCP), `close_codes` (meanings). `tracing` and `connecting` stand on these
and do not import each other. Options, colours and terminals belong to `wsframework.cli`.
"""
