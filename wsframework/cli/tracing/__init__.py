"""What `wsframework trace` and `wsframework connect` do between a URL and the end of TCP.

Bottom-up: `target` (the URL), `steps` (the values that a trace is made of), `kernel` (what TCP_INFO and
/proc say), `certificates`, `frames` (bytes to frames), `diagnosing` (what is wrong, in one sentence),
`reaching` (name resolution and TCP), `channel` (bytes, perhaps through TLS), `tracer` (the story itself),
`telling` (the story for people).
"""
