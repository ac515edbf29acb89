"""Talk to a server: `opening` connects with trio-websocket, or says why it cannot; `talk` sends and shows."""
