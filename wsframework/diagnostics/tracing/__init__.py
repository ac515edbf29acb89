"""Trace one connection: every step from name resolution to the end of TCP, and what is wrong with it.

Bottom-up: `steps` (the values), `certificates`, `frames` (bytes to frames), `judging` (what is wrong with a
frame), `channel` (bytes, in plain text or through TLS), `conversation` (the frames of one connection),
`parting` (the end of TCP), `tracer` (the whole trace), `telling` (steps as sentences).
"""
