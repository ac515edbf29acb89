"""What `wsframework connect` is made of: `opening` (a trio-websocket client that says why it could not
connect), `keyboard` (lines from a terminal or a pipe), `screen` (messages to a terminal, a pipe or a program)
and `talk` (both of them on one connection).
"""
